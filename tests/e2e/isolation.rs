//! One user's trouble is nobody else's: shown by what happened before what, on a real broker.

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
        app::{Answer, App, Delivery},
        eventually,
        stack::Stack,
        unique,
        worker::Launch,
    },
};

const LONG: Duration = Duration::from_secs(60);

fn event(user: &str, n: usize) -> (String, String) {
    let id = format!("{user}-{n}");
    let text = format!(
        "{{\"event_id\":\"{id}\",\"event_type\":\"task.completed\",\"user_id\":\"{user}\",\"task_id\":{n},\"timestamp\":\"2026-01-01T10:00:00Z\"}}"
    );
    (user.to_owned(), text)
}

fn config(app: &App, topic: &str, more: &str) -> String {
    format!("[kafka]\ntopics = [\"{topic}\"]\n{more}\n[[handlers]]\nname = \"app\"\nkind = \"http\"\nurl = \"{}\"\n", app.url("/events"))
}

fn ids(deliveries: &[Delivery]) -> Vec<String> {
    deliveries.iter().map(|delivery| delivery.headers["idempotency-key"].clone()).collect()
}

/// The first event of user-7 fails until it is told otherwise. All share one partition, so that Kafka itself would keep them in line.
#[tokio::test(flavor = "multi_thread")]
async fn a_failing_event_delays_its_own_user_and_nobody_else() {
    let stack = stack_or_skip!(Stack::shared());
    let (kafka, topic, group) = (stack.kafka(), unique("isolation"), unique("group"));
    kafka.create_topic(&topic, 1, &[]).await;
    let healed = Arc::new(AtomicBool::new(false));
    let heal = Arc::clone(&healed);
    let app = App::start(move |delivery| {
        let fails = delivery.headers["idempotency-key"] == "user-7-0" && !healed.load(Ordering::SeqCst);
        Answer::status(if fails { 503 } else { 200 })
    })
    .await;
    let forever = vec!["\"400ms\""; 250].join(", ");
    let toml = config(&app, &topic, &format!("[retry.default]\ndelays = [{forever}]\n[retry.\"task.completed\"]\ndelays = [{forever}]\n"));
    let mut worker = Launch::role("consumer", &stack, &group, &toml).start_ready().await;

    let others: Vec<_> = (0..200).map(|n| event(&format!("user-{}", 100 + n % 50), n)).collect();
    kafka.produce_all(&topic, [event("user-7", 0), event("user-7", 1)].into_iter().chain(others)).await;
    // All of the others are through while the one goes on failing.
    let handled = |deliveries: &[Delivery]| ids(deliveries).iter().filter(|id| !id.starts_with("user-7-")).count();
    eventually("the others' events", LONG, async || (handled(&app.deliveries()) == 200).then_some(())).await;
    let failures = ids(&app.deliveries()).iter().filter(|id| *id == "user-7-0").count();
    eventually("one more failure", LONG, async || {
        (ids(&app.deliveries()).iter().filter(|id| *id == "user-7-0").count() > failures).then_some(())
    })
    .await;
    assert!(!ids(&app.deliveries()).contains(&"user-7-1".to_owned()), "its user's next event waits");
    worker.wait_for_metric("worker_events_settled_total", &[], LONG, |sum| sum == 200.0).await;
    worker.wait_for_metric("worker_users_blocked", &[], LONG, |sum| sum == 1.0).await;

    // The commit stays below the failing event and says what is settled above it: a successor runs nothing again.
    assert_eq!(worker.terminate(LONG).await, Some(0));
    let committed = &kafka.committed(&group, &topic)[&0];
    assert_eq!(committed.offset, 0, "{committed:?}");
    assert!(!committed.metadata.is_empty());
    let mut worker = Launch::role("consumer", &stack, &group, &toml).start_ready().await;
    let failures = ids(&app.deliveries()).iter().filter(|id| *id == "user-7-0").count();
    eventually("a failure of the successor", LONG, async || {
        (ids(&app.deliveries()).iter().filter(|id| *id == "user-7-0").count() > failures).then_some(())
    })
    .await;

    heal.store(true, Ordering::SeqCst);
    kafka.wait_until_committed(&group, &topic, LONG).await;
    let all = ids(&app.deliveries());
    assert_eq!(all.last().map(String::as_str), Some("user-7-1"), "in order, at last");
    assert_eq!(all.iter().filter(|id| *id != "user-7-0").count(), 201, "everything else once");
    assert_eq!(worker.terminate(LONG).await, Some(0));
}

/// A run that hangs keeps its user's lane and one permit, nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_hangs_delays_its_own_user_and_nobody_else() {
    let stack = stack_or_skip!(Stack::shared());
    let (kafka, topic, group) = (stack.kafka(), unique("isolation"), unique("group"));
    kafka.create_topic(&topic, 1, &[]).await;
    let app = App::start(|delivery| {
        let hangs = delivery.headers["idempotency-key"].starts_with("user-8-");
        Answer::status(200).after(if hangs { Duration::from_secs(3600) } else { Duration::ZERO })
    })
    .await;
    let worker = Launch::role("consumer", &stack, &group, &config(&app, &topic, "")).start_ready().await;
    kafka
        .produce_all(&topic, [event("user-8", 0), event("user-8", 1)].into_iter().chain((0..100).map(|n| event(&format!("user-{n}x"), n))))
        .await;
    worker.wait_for_metric("worker_events_settled_total", &[("outcome", "done")], LONG, |sum| sum == 100.0).await;
    let seen = ids(&app.deliveries());
    assert!(seen.contains(&"user-8-0".to_owned()) && !seen.contains(&"user-8-1".to_owned()));
}
