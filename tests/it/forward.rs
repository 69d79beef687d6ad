//! The `forward` handler with a publisher that does what the test says.

use std::sync::Arc;

use serde_json::json;
use worker::{
    engine::ports::PublishError,
    event::{
        Catalog, Decoder,
        record::{Record, RecordParts, TopicPartition},
    },
    handler::Run,
    handlers::{self, Handlers},
    health::Health,
    outcome::{Failure, Handled, HandlerResult},
    publish::Publishing,
    telemetry::Metrics,
};

use crate::support::{config, publisher::FakePublisher};

/// A `forward` handler to `task-updates` that publishes through `publisher`, where there is one.
async fn forwarding(publisher: Option<&Arc<FakePublisher>>) -> Handlers {
    let config = config(&[r#"handlers=[{name = "sync", kind = "forward", to = "task-updates"}]"#]);
    let catalog = Arc::new(Catalog::embedded().unwrap());
    let handlers = handlers::build(&config, &catalog, &Health::new(), &Metrics::new("consumer")).await.unwrap();
    if let Some(publisher) = publisher {
        let publishing = Publishing::new(&config, catalog, Arc::clone(publisher) as _, Metrics::new("consumer"));
        handlers.outlet().open(Arc::new(publishing));
    }
    handlers
}

fn record(topic: &str, key: Option<&str>, headers: &[(&str, Option<&str>)]) -> Record {
    let value = json!({"event_id": "e-1", "event_type": "task.updated", "user_id": "user-1", "task_id": 7, "x": [1.50]});
    let parts = RecordParts {
        offset: 42,
        timestamp: Some(1_767_088_800_000),
        key: key.map(|key| key.as_bytes().to_vec()),
        value: Some(value.to_string().into_bytes()),
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), value.map(|value| value.as_bytes().to_vec()))).collect(),
    };
    Record::copy_of(&TopicPartition::new(topic, 3), &parts)
}

async fn run(handlers: &Handlers, record: Record) -> HandlerResult {
    let event = Decoder::new(Arc::new(Catalog::embedded().unwrap()), true).decode(record).expect("a valid event");
    let run = Run { event: Arc::new(event), attempt: 1, epoch: 1, cancelled: Arc::default() };
    handlers.registry().bindings()[0].handler.clone().handle_boxed(run).await
}

#[tokio::test]
async fn a_copy_has_the_events_key_value_and_headers_but_not_those_of_a_dead_letter() {
    let publisher = FakePublisher::new();
    let handlers = forwarding(Some(&publisher)).await;
    let headers = [("traceparent", Some("00-a")), ("x-dlq-redrives", Some("1")), ("empty", None)];
    let original = record("task-events", Some("key of its own"), &headers);
    assert_eq!(run(&handlers, original.clone()).await, Ok(Handled::Done));
    let copy = publisher.queued().remove(0);
    assert_eq!((&*copy.topic, copy.key.as_deref(), copy.value.as_deref()), ("task-updates", original.key(), original.value()));
    let headers: Vec<_> = copy.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
    assert_eq!(headers, [("traceparent", Some(&b"00-a"[..])), ("empty", None)]);
    assert_eq!(copy.partition, None);
}

#[tokio::test]
async fn a_record_without_a_key_gets_its_users() {
    let publisher = FakePublisher::new();
    run(&forwarding(Some(&publisher)).await, record("task-events", None, &[])).await.unwrap();
    assert_eq!(publisher.queued()[0].key.as_deref(), Some(&b"user-1"[..]));
}

#[tokio::test]
async fn what_stands_on_the_topic_already_is_dropped_so_that_nothing_goes_round_in_circles() {
    let publisher = FakePublisher::new();
    let verdict = run(&forwarding(Some(&publisher)).await, record("task-updates", Some("u"), &[])).await;
    assert!(matches!(verdict, Ok(Handled::Dropped(_))) && publisher.queued().is_empty(), "{verdict:?}");
}

#[tokio::test]
async fn it_is_done_only_when_the_brokers_have_acknowledged() {
    let publisher = FakePublisher::holding();
    let handlers = forwarding(Some(&publisher)).await;
    let running = run(&handlers, record("task-events", Some("u"), &[]));
    tokio::pin!(running);
    assert!(futures_util::poll!(&mut running).is_pending());
    assert_eq!(publisher.queued().len(), 1);
    publisher.acknowledge(1);
    assert_eq!(running.await, Ok(Handled::Done));
}

#[tokio::test]
async fn what_can_pass_later_is_transient_and_what_cannot_is_permanent() {
    for (error, permanent) in [
        (PublishError::Unreachable("away".to_owned()), false),
        (PublishError::QueueFull, false),
        (PublishError::TopicMissing("task-updates".to_owned()), false),
        (PublishError::Forbidden("task-updates".to_owned()), false),
        (PublishError::TooLarge, true),
        (PublishError::Refused("policy".to_owned()), true),
    ] {
        let publisher = FakePublisher::new();
        publisher.answer([Some(error.clone())]);
        let failure = run(&forwarding(Some(&publisher)).await, record("task-events", Some("u"), &[])).await.unwrap_err();
        assert_eq!(matches!(failure, Failure::Permanent { .. }), permanent, "{error}");
        assert_eq!(failure.error(), error.to_string());
    }
    let early = run(&forwarding(None).await, record("task-events", Some("u"), &[])).await.unwrap_err();
    assert_eq!(early, Failure::transient("not connected to the brokers yet"));
}
