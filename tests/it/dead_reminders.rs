//! What becomes of the user of a dead reminder, with publishers that do what the test says.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};
use worker::{
    engine::ports::{Message, PublishError, Publisher},
    event::{Catalog, ids, record::TopicPartition},
    handlers::outlet::Outlet,
    publish::Publishing,
    roles::dead_reminders::TellsUsers,
    telemetry::Metrics,
};

use crate::support::{config, publisher::FakePublisher};

/// Letters go one way, what users are told another.
struct Post {
    letters: Arc<FakePublisher>,
    users: Arc<FakePublisher>,
    telling: Arc<dyn Publisher>,
}

fn post() -> Post {
    let (config, catalog) = (config(&[]), Arc::new(Catalog::embedded().unwrap()));
    let (letters, users, outlet) = (FakePublisher::new(), FakePublisher::new(), Outlet::default());
    outlet.open(Arc::new(Publishing::new(&config, Arc::clone(&catalog), users.clone(), Metrics::new("consumer"))));
    Post { telling: TellsUsers::around(letters.clone(), outlet, &catalog), letters, users }
}

/// A dead letter as the engine writes it.
fn letter(event_type: &str, event: &Value, offset: i64) -> Message {
    let header = |name: &str, value: &str| (name.to_owned(), Some(Bytes::from(value.to_owned())));
    let headers = vec![
        header("x-dlq-reason", "exhausted"),
        header("x-dlq-error", "mailbox unavailable"),
        header("x-dlq-event-type", event_type),
        header("x-dlq-handler", "email"),
        header("x-dlq-source-topic", "reminders"),
        header("x-dlq-source-partition", "2"),
        header("x-dlq-source-offset", &offset.to_string()),
        header("x-dlq-source-timestamp", "1767088800000"),
    ];
    let mut value = json!({ "event_type": event_type, "user_id": "user-1", "data": { "task_id": 7 } });
    value.as_object_mut().unwrap().extend(event.as_object().unwrap().clone());
    let value = Bytes::from(value.to_string());
    Message { topic: "dlq".into(), key: Some(Bytes::from_static(b"user-1")), value: Some(value), headers, partition: None }
}

fn events(publisher: &FakePublisher) -> Vec<Value> {
    publisher.queued().iter().map(|message| serde_json::from_slice(message.value.as_deref().unwrap()).unwrap()).collect()
}

#[tokio::test]
async fn a_letter_that_says_it_is_no_reminder_is_written_unread() {
    let post = post();
    let mut other = letter("reminder.due", &json!({ "event_id": "due-1" }), 5);
    let header = other.headers.iter_mut().find(|(name, _)| name == "x-dlq-event-type").unwrap();
    header.1 = Some(Bytes::from_static(b"task.created"));
    post.telling.publish(other).await.unwrap();
    assert_eq!((events(&post.users).len(), events(&post.letters).len()), (0, 1));
}

#[tokio::test]
async fn the_user_of_a_dead_reminder_is_told_before_its_letter_is_written() {
    let post = post();
    post.users.answer([Some(PublishError::Unreachable("away".to_owned()))]);
    let due = letter("reminder.due", &json!({ "event_id": "due-1", "timestamp": "2026-01-01T09:00:00Z" }), 5);
    assert!(matches!(post.telling.publish(due.clone()).await, Err(PublishError::Unreachable(_))));
    assert!(post.letters.queued().is_empty(), "the event waits with its letter");
    post.telling.publish(due).await.unwrap();
    let told = events(&post.users);
    assert_eq!(
        told[1],
        json!({
            "event_id": ids::of_effect("due-1", "reminder.failed").to_string(), "event_type": "reminder.failed", "event_version": "1.0",
            "timestamp": "2026-01-01T09:00:00Z", "source": "todo-worker", "metadata": { "correlation_id": "due-1", "causation_id": "due-1" },
            "data": { "task_id": 7, "user_id": "user-1", "channel": "email", "error": "exhausted: mailbox unavailable" },
        })
    );
    assert_eq!((told.len(), &told[0], post.letters.queued().len()), (2, &told[1], 1));
    let message = &post.users.queued()[0];
    assert_eq!((&*message.topic, message.key.as_deref()), ("reminders", Some(&b"user-1"[..])));
}

#[tokio::test]
async fn a_letter_that_is_tried_again_does_not_tell_the_user_again() {
    let post = post();
    post.letters.answer([Some(PublishError::TooLarge), Some(PublishError::Unreachable("away".to_owned()))]);
    let due = letter("reminder.due", &json!({ "event_id": "due-1" }), 5);
    for _ in 0..2 {
        post.telling.publish(due.clone()).await.unwrap_err();
    }
    post.telling.publish(due.clone()).await.unwrap();
    assert_eq!(events(&post.users).len(), 1);
    post.telling.publish(due).await.unwrap();
    let told = events(&post.users);
    assert_eq!((told.len(), &told[0]), (2, &told[1]), "after a crash it is told again, by the same id");
}

#[tokio::test]
async fn nothing_is_told_of_other_events_of_sent_reminders_and_of_its_own() {
    let post = post();
    for (event_type, event) in [
        ("task.completed", json!({ "event_id": "a" })),
        ("reminder.failed", json!({ "event_id": "b", "data": { "task_id": 7, "channel": "email" } })),
        ("reminder.sent", json!({ "event_id": "c", "data": { "task_id": 7, "channel": "email" } })),
        ("reminder.due", json!({ "event_id": "d", "data": { "task_id": "no task" } })),
        ("reminder.due", json!({ "event_id": "e", "user_id": "" })),
    ] {
        post.telling.publish(letter(event_type, &event, 5)).await.unwrap();
    }
    assert_eq!((events(&post.users), post.letters.queued().len()), (vec![], 5));
    post.telling.publish(letter("reminder.triggered", &json!({ "event_id": "f" }), 5)).await.unwrap();
    post.telling.publish(letter("reminder.cancelled", &json!({ "event_id": "g" }), 6)).await.unwrap();
    assert_eq!(events(&post.users).len(), 2);
}

#[tokio::test]
async fn reminders_without_an_id_are_told_apart_by_their_place() {
    let post = post();
    for offset in [5, 6] {
        post.telling.publish(letter("reminder.due", &json!({}), offset)).await.unwrap();
    }
    let told: Vec<_> = events(&post.users).iter().map(|event| event["metadata"]["causation_id"].clone()).collect();
    let id = |offset| json!(ids::of_position(&TopicPartition::new("reminders", 2), offset).to_string());
    assert_eq!(told, [id(5), id(6)]);
}

#[tokio::test]
async fn a_user_who_can_never_be_told_holds_no_letter_back() {
    let post = post();
    post.users.answer([Some(PublishError::Refused("policy".to_owned()))]);
    post.telling.publish(letter("reminder.due", &json!({ "event_id": "due-1" }), 5)).await.unwrap();
    assert_eq!(post.letters.queued().len(), 1);
}
