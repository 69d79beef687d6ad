//! Dead letters that meet an outage: none lost, none twice.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::{
    stack_or_skip,
    support::{
        app::{Answer, App},
        stack::Stack,
        unique,
        worker::Launch,
    },
};

const LONG: Duration = Duration::from_secs(60);

/// F57, F71: the brokers are away for longer than the group's session. The letter waits in the client, the partition is lost and comes back.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_under_way_when_kafka_dies_is_written_once() {
    let stack = stack_or_skip!(Stack::private(&["kafka", "redis"]));
    let kafka = stack.kafka();
    let (topic, group) = (unique("dead"), unique("group"));
    kafka.create_topic(&topic, 1, &[]).await;
    kafka.create_topic("dlq", 1, &[]).await;
    let killed = Arc::new(AtomicBool::new(false));
    let kill = Arc::clone(&killed);
    // Refused for good once Kafka is dead; before, only not yet.
    let app = App::start(move |_| Answer::status(if killed.load(Ordering::SeqCst) { 422 } else { 503 })).await;
    let forever = vec!["\"500ms\""; 100].join(", ");
    let toml = format!(
        "[kafka]\ntopics = [\"{topic}\"]\n[retry.default]\ndelays = [{forever}]\n[retry.\"task.completed\"]\ndelays = [{forever}]\n[[handlers]]\nname = \"app\"\nkind = \"http\"\nurl = \"{}\"\n",
        app.url("/")
    );
    let mut worker = Launch::role("consumer", &stack, &group, &toml).start_ready().await;
    for n in 0..5 {
        let event = format!("{{\"event_id\":\"{n}\",\"event_type\":\"task.completed\",\"user_id\":\"user-{n}\",\"task_id\":{n}}}");
        kafka.produce(&topic, &format!("user-{n}"), event.as_bytes(), &[]).await;
    }
    app.wait_for(5, LONG).await;

    stack.kill("kafka");
    kill.store(true, Ordering::SeqCst);
    worker.wait_for_metric("worker_handler_runs_total", &[("result", "permanent")], LONG, |runs| runs == 5.0).await;
    // The client gives the assignment up by itself once the coordinator was silent for the session's 10 s.
    worker.wait_for_metric("worker_assigned_partitions", &[], LONG, |partitions| partitions == 0.0).await;
    stack.start("kafka");
    worker.ready(LONG).await;
    kafka.wait_until_committed(&group, &topic, LONG).await;
    worker.wait_for_metric("worker_held_events", &[], LONG, |held| held == 0.0).await;
    assert_eq!(worker.terminate(LONG).await, Some(0));

    let letters = kafka.read_all("dlq").await;
    let mut ids: Vec<_> = letters.iter().map(|letter| letter.header("x-dlq-event-id").unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["0", "1", "2", "3", "4"]);
    assert!(letters.iter().all(|letter| letter.header("x-dlq-reason") == Some("permanent")));
}

/// The worker is killed when the user has been told and the letter cannot be written yet: a repeated telling has the same id.
#[tokio::test(flavor = "multi_thread")]
async fn the_user_of_a_dead_reminder_is_told_although_the_worker_is_killed_before_its_letter_is_written() {
    let stack = stack_or_skip!(Stack::shared());
    let (kafka, name) = (stack.kafka(), unique("mourn"));
    let [reminders, dlq] = ["mourn-reminders", "mourn-dlq"].map(unique);
    kafka.create_topic(&reminders, 1, &[]).await;
    let catalog = super::schedules::catalog(&reminders, &["reminder.due", "reminder.failed"]);
    let [email, app] = [Answer::status(422), Answer::status(200)].map(|answer| App::start(move |_| answer.clone()));
    let (email, app) = (email.await, app.await);
    let toml = format!(
        "catalog.dir = {:?}\nkafka.topics = [{reminders:?}]\ndlq.topic = {dlq:?}\n\
         [[handlers]]\nname = \"email\"\nkind = \"http\"\nevents = [\"reminder.due\"]\nurl = {:?}\n\
         [[handlers]]\nname = \"app\"\nkind = \"http\"\nevents = [\"reminder.failed\"]\nbody = \"event\"\nurl = {:?}\n",
        catalog.path(),
        email.url("/"),
        app.url("/"),
    );
    let launch = || Launch::role("consumer", &stack, &name, &toml);
    let mut first = launch().start_ready().await;
    kafka.produce(&reminders, "ada", br#"{"event_id":"due-1","event_type":"reminder.due","user_id":"ada","task_id":7}"#, &[]).await;
    first.wait_for_metric("worker_dead_letter_failures_total", &[], LONG, |failures| failures >= 1.0).await;
    first.kill();
    let tellings = kafka.read_all(&reminders).await.len() - 1;
    assert!(tellings >= 1, "told before the letter");

    kafka.create_topic(&dlq, 1, &[]).await;
    let mut second = launch().start_ready().await;
    second.wait_for_metric("worker_dead_letters_total", &[("event_type", "reminder.due")], LONG, |dead| dead == 1.0).await;
    kafka.wait_until_committed(&name, &reminders, LONG).await;
    assert_eq!(second.terminate(LONG).await, Some(0));

    let told: Vec<_> = kafka.read_all(&reminders).await.split_off(1);
    let id = worker::event::ids::of_effect("due-1", "reminder.failed").to_string();
    assert!(told.len() > tellings && told.iter().all(|record| record.json()["event_id"] == id.as_str()), "{told:?}");
    assert_eq!(kafka.read_all(&dlq).await.len(), 1);
    let seen: Vec<_> = app.deliveries().iter().map(|delivery| delivery.json()["data"].clone()).collect();
    assert!(seen.iter().all(|data| data["channel"] == "email" && data["task_id"] == 7 && data["user_id"] == "ada"), "{seen:?}");
    assert_eq!(seen.len(), 1, "however often it is told, whoever reacts to it does so once");
    for topic in [&reminders, &dlq] {
        kafka.delete_topic(topic).await;
    }
}
