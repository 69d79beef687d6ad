//! The `notify` handler with a webhook and a publisher that do what the test says.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use worker::{
    engine::ports::PublishError,
    event::{
        Catalog, Decoder, ids,
        record::{Record, RecordParts, TopicPartition},
    },
    handler::Run,
    handlers::{self, Handlers},
    health::Health,
    outcome::{Failure, Handled, HandlerResult},
    publish::Publishing,
    telemetry::Metrics,
};

use crate::support::{
    app::{App, Got},
    config,
    publisher::FakePublisher,
};

async fn notifying(publisher: &Arc<FakePublisher>, keys: &str) -> Handlers {
    let config = config(&["store.url=memory", &format!(r#"handlers=[{{name = "tell", kind = "notify", notify = {{{keys}}}}}]"#)]);
    let catalog = Arc::new(Catalog::embedded().unwrap());
    let handlers = handlers::build(&config, &catalog, &Health::new(), &Metrics::new("consumer")).await.unwrap();
    handlers.outlet().open(Arc::new(Publishing::new(&config, catalog, Arc::clone(publisher) as _, Metrics::new("consumer"))));
    handlers
}

async fn run(handlers: &Handlers, user: &str, attempt: u32) -> HandlerResult {
    let value = json!({ "event_id": "due-1", "event_type": "reminder.due", "user_id": user, "task_id": 7, "data": { "title": "Milk" } });
    run_event(handlers, &value, attempt).await
}

async fn run_event(handlers: &Handlers, value: &Value, attempt: u32) -> HandlerResult {
    let parts = RecordParts { value: Some(value.to_string().into_bytes()), ..RecordParts::default() };
    let record = Record::copy_of(&TopicPartition::new("reminders", 0), &parts);
    let event = Decoder::new(Arc::new(Catalog::embedded().unwrap()), true).decode(record).expect("a valid event");
    let run = Run { event: Arc::new(event), attempt, epoch: 1, cancelled: Arc::default() };
    Arc::clone(&handlers.registry().bindings()[0].handler).handle_boxed(run).await
}

fn published(publisher: &FakePublisher) -> Vec<(String, Value)> {
    let event = |message: &worker::engine::ports::Message| serde_json::from_slice::<Value>(message.value.as_deref().unwrap()).unwrap();
    publisher.queued().iter().map(event).map(|event| (event["event_id"].as_str().unwrap().to_owned(), event)).collect()
}

#[tokio::test]
async fn it_reacts_to_what_users_are_told_of_and_never_to_what_it_publishes() {
    let handlers = notifying(&FakePublisher::new(), r#"webhook = "http://h""#).await;
    let registry = handlers.registry();
    let binding = &registry.bindings()[0];
    for (event_type, wanted) in [
        ("reminder.due", true),
        ("task.created", true),
        ("task.updated", false),
        ("notification.failed", false),
        ("reminder.failed", false),
    ] {
        assert_eq!(binding.wants(event_type, "any"), wanted, "{event_type}");
    }
    assert_eq!(binding.concurrency, 10);
}

#[tokio::test]
async fn a_message_that_was_handed_over_is_not_sent_again_because_its_result_cannot_be_published() {
    let (hook, publisher) = (App::start().await, FakePublisher::new());
    let handlers = notifying(&publisher, &format!("webhook = {:?}", hook.served.url("/"))).await;
    publisher.answer([Some(PublishError::Unreachable("away".to_owned()))]);
    assert!(matches!(run(&handlers, "ada", 1).await, Err(Failure::Transient { .. })));
    assert_eq!(run(&handlers, "ada", 2).await, Ok(Handled::Done));
    assert_eq!(hook.got().len(), 1);
    let of = |step: &str| ids::of_effect("due-1", &format!("{step} tell")).to_string();
    let delivered = of("notification.delivered");
    let told = published(&publisher);
    assert_eq!(told.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), [delivered.as_str(), &delivered, &of("reminder.sent")]);
    assert_eq!(told[2].1["data"], json!({ "channel": "webhook", "task_id": 7, "user_id": "ada" }));
    assert_eq!(told[2].1["metadata"]["causation_id"], "due-1");
}

#[tokio::test]
async fn what_may_pass_is_told_as_failed_with_the_last_retry_only() {
    let (hook, publisher) = (App::start().await, FakePublisher::new());
    let handlers = notifying(&publisher, &format!("webhook = {:?}", hook.served.url("/"))).await;
    hook.reply((0..3).map(|_| (503, vec![("retry-after", "7".to_owned())], String::new())));
    let after = Some(std::time::Duration::from_secs(7));
    let later = Err(Failure::Transient { error: "the webhook answered 503".to_owned(), after });
    // A reminder has ten retries.
    for attempt in [1, 10] {
        assert_eq!(run(&handlers, "ada", attempt).await, later);
        assert!(published(&publisher).is_empty(), "{attempt}");
    }
    assert_eq!(run(&handlers, "ada", 11).await, later);
    assert_eq!(published(&publisher)[0].1["event_type"], "notification.failed");
    assert_eq!(published(&publisher).len(), 1, "that the reminder is dead the engine tells");
}

#[tokio::test]
async fn a_user_without_an_address_is_left_out_and_one_whom_nobody_knows_is_a_failure() {
    let (users, publisher) = (App::start().await, FakePublisher::new());
    let keys = format!(r#"smtp = "smtp://127.0.0.1:1?tls=none", from = "a@b.c", directory = {:?}"#, users.served.url("/{user_id}"));
    let handlers = notifying(&publisher, &keys).await;
    users.reply([
        (500, Vec::new(), String::new()),
        (200, Vec::new(), r#"{"email": " "}"#.to_owned()),
        (404, Vec::new(), String::new()),
        (200, Vec::new(), "[]".to_owned()),
        (200, Vec::new(), r#"{"email": "a@b.c", "timezone": "Mars/Olympus"}"#.to_owned()),
    ]);
    assert_eq!(run(&handlers, "ada", 1).await, Err(Failure::transient("the directory answered 500")));
    assert_eq!(run(&handlers, "ada", 1).await, Ok(Handled::Dropped("the user has no address".to_owned())));
    assert_eq!(run(&handlers, "ada", 1).await, Ok(Handled::Dropped("the user has no address".to_owned())));
    assert_eq!(users.got().len(), 2, "remembered for a minute");
    assert!(published(&publisher).is_empty());
    for (user, why) in [
        ("bob/../ada", "does not know the user"),
        ("cyd", "no JSON with email"),
        ("dan", "timezone is none"),
        ("..", "no part of the directory's URL"),
    ] {
        let failure = run(&handlers, user, 1).await.unwrap_err();
        assert!(matches!(&failure, Failure::Permanent { error } if error.contains(why)), "{user}: {failure:?}");
    }
    assert_eq!(users.got()[2].path, "/bob%2F..%2Fada");
    assert!(published(&publisher).iter().all(|(_, event)| event["event_type"] == "notification.failed"));
}

/// What a time paused at its start has brought about, once there is so much of it.
async fn published_in_time(publisher: &FakePublisher, count: usize) -> Vec<(String, Value)> {
    loop {
        let told = published(publisher);
        if told.len() >= count {
            return told;
        }
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_waited_is_published_again_with_the_same_id_where_the_brokers_did_not_take_it_and_sent_as_one() {
    let (hook, publisher) = (App::start().await, FakePublisher::new());
    let handlers = Arc::new(notifying(&publisher, &format!("webhook = {:?}, digest = \"10m\"", hook.served.url("/"))).await);
    let created = |n: usize| {
        json!({ "event_id": format!("created-{n}"), "event_type": "task.created", "user_id": "ada", "task_id": n,
        "timestamp": format!("2026-03-28T08:00:0{n}Z"), "data": { "title": format!("Task {n}") } })
    };
    for n in [2, 0, 1, 1] {
        assert_eq!(run_event(&handlers, &created(n), 1).await, Ok(Handled::Done));
    }
    assert!(published(&publisher).is_empty() && hook.got().is_empty(), "nothing is said of what waits");
    publisher.answer([Some(PublishError::Unreachable("away".to_owned()))]);
    let stop = CancellationToken::new();
    let delivering = tokio::spawn({
        let (handlers, stop) = (Arc::clone(&handlers), stop.clone());
        async move { handlers.deliver(stop).await }
    });
    let told = published_in_time(&publisher, 2).await;
    assert_eq!((&told[0].0, &told[0].1["event_type"]), (&told[1].0, &json!("notification.due")));
    let items = |event: &Value| event["data"]["items"].as_array().unwrap().iter().map(|item| item["event_id"].clone()).collect::<Vec<_>>();
    assert_eq!((items(&told[1].1).len(), items(&told[0].1)), (3, items(&told[1].1)), "an event that came twice waits once");
    stop.cancel();
    delivering.await.unwrap();

    tokio::time::resume();
    assert_eq!(run_event(&handlers, &told[1].1, 1).await, Ok(Handled::Done));
    let sent: Vec<_> = hook.got().iter().map(Got::json).collect();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0]["subject"], "3 notifications");
    let delivered: Vec<_> =
        published(&publisher).split_off(2).into_iter().map(|(_, event)| event["metadata"]["causation_id"].clone()).collect();
    assert_eq!(delivered.len(), 3);
    assert!((0..3).all(|n| delivered.contains(&json!(format!("created-{n}")))), "{delivered:?}");
    let mut others = told[1].1.clone();
    others["data"]["handler"] = "another".into();
    assert_eq!(run_event(&handlers, &others, 1).await, Ok(Handled::Dropped("another handler's messages".to_owned())));
}

/// Hours around this moment, so that it is night.
fn night() -> String {
    let clock = |hours| (chrono::Utc::now() + chrono::TimeDelta::hours(hours)).format("%H:%M");
    format!("{}-{}", clock(-2), clock(2))
}

#[tokio::test(start_paused = true)]
async fn a_late_reminder_and_what_comes_back_late_wait_for_the_morning_with_all_that_they_say() {
    let (hook, publisher) = (App::start().await, FakePublisher::new());
    let handlers = Arc::new(notifying(&publisher, &format!("webhook = {:?}, quiet = {:?}", hook.served.url("/"), night())).await);
    let late = json!({ "event_id": "due-1", "event_type": "reminder.due", "user_id": "ada", "task_id": 7, "timestamp": "2026-03-28T08:00:00Z",
                       "data": { "title": "Milk", "remind_at": "2026-03-28T08:00:00Z", "timezone": "UTC" } });
    assert_eq!(run_event(&handlers, &late, 1).await, Ok(Handled::Done));
    let stop = CancellationToken::new();
    let delivering = tokio::spawn({
        let (handlers, stop) = (Arc::clone(&handlers), stop.clone());
        async move { handlers.deliver(stop).await }
    });
    let mut first = published_in_time(&publisher, 1).await.remove(0);
    assert_eq!(first.1["event_type"], "notification.due");

    // The worker was away until the next night.
    first.1["data"]["more"] = 5.into();
    assert_eq!(run_event(&handlers, &first.1, 1).await, Ok(Handled::Done));
    assert!(hook.got().is_empty(), "nobody is woken");
    let second = published_in_time(&publisher, 2).await.remove(1);
    stop.cancel();
    delivering.await.unwrap();
    assert_ne!(second.0, first.0, "the same id would pass for a duplicate");
    assert_eq!((&second.1["data"]["items"][0]["event_id"], &second.1["data"]["more"]), (&json!("due-1"), &json!(5)), "{second:?}");

    tokio::time::resume();
    let mut elsewhere = second.1;
    elsewhere["data"]["items"][0]["zone"] = "Asia/Tokyo".into();
    assert_eq!(run_event(&handlers, &elsewhere, 1).await, Ok(Handled::Done));
    assert_eq!(hook.got().len(), 1, "it is day where the user is");
}

#[tokio::test(start_paused = true)]
async fn what_is_too_much_for_one_event_waits_with_less_of_its_words() {
    let templates = tempfile::tempdir().unwrap();
    std::fs::write(templates.path().join("task.created.txt"), "Subject: {{ data.title }}\n\n{{ data.description }}").unwrap();
    std::fs::write(templates.path().join("task.created.html"), "{{ data.title }}{% for n in range(3900) %}.{% endfor %}").unwrap();
    let publisher = FakePublisher::new();
    let handlers = notifying(&publisher, &format!("webhook = \"http://h\", digest = \"1m\", templates = {:?}", templates.path())).await;
    for n in 0..120 {
        let data = json!({ "title": format!("Task {n}"), "description": "𝄞".repeat(3000) });
        let event =
            json!({ "event_id": format!("created-{n}"), "event_type": "task.created", "user_id": "ada", "task_id": n, "data": data });
        assert_eq!(run_event(&handlers, &event, 1).await, Ok(Handled::Done));
    }
    let stop = CancellationToken::new();
    let told = tokio::select! {
        () = handlers.deliver(stop) => Vec::new(),
        told = published_in_time(&publisher, 1) => told,
    };
    let data = &told[0].1["data"];
    assert_eq!((data["items"].as_array().unwrap().len(), &data["more"]), (100, &json!(20)));
    let item = &data["items"][0];
    assert!(item["text"].as_str().unwrap().chars().count() < 210 && item.get("html").is_none(), "{item}");
}
