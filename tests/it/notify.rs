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

use crate::support::{app::App, config, publisher::FakePublisher};

async fn notifying(publisher: &Arc<FakePublisher>, keys: &str) -> Handlers {
    let config = config(&[&format!(r#"handlers=[{{name = "tell", kind = "notify", notify = {{{keys}}}}}]"#)]);
    let catalog = Arc::new(Catalog::embedded().unwrap());
    let handlers = handlers::build(&config, &catalog, &Health::new(), &Metrics::new("consumer")).await.unwrap();
    handlers.outlet().open(Arc::new(Publishing::new(&config, catalog, Arc::clone(publisher) as _, Metrics::new("consumer"))));
    handlers
}

async fn run(handlers: &Handlers, user: &str, attempt: u32) -> HandlerResult {
    let value = json!({ "event_id": "due-1", "event_type": "reminder.due", "user_id": user, "task_id": 7, "data": { "title": "Milk" } });
    let parts = RecordParts { value: Some(value.to_string().into_bytes()), ..RecordParts::default() };
    let record = Record::copy_of(&TopicPartition::new("reminders", 0), &parts);
    let event = Decoder::new(Arc::new(Catalog::embedded().unwrap()), true).decode(record).expect("a valid event");
    let run = Run { event: Arc::new(event), attempt, epoch: 1, cancelled: CancellationToken::new() };
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
