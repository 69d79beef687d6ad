//! The `recurrence` handler with a publisher that does what the test says.

use std::sync::Arc;

use serde_json::{Value, json};
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

use crate::support::{config, publisher::FakePublisher};

async fn recurring(publisher: &Arc<FakePublisher>) -> Handlers {
    let config = config(&[r#"handlers=[{name = "next", kind = "recurrence", timezone = "Europe/Berlin"}]"#]);
    let catalog = Arc::new(Catalog::embedded().unwrap());
    let handlers = handlers::build(&config, &catalog, &Health::new(), &Metrics::new("consumer")).await.unwrap();
    handlers.outlet().open(Arc::new(Publishing::new(&config, catalog, Arc::clone(publisher) as _, Metrics::new("consumer"))));
    handlers
}

async fn complete(handlers: &Handlers, id: &str, data: Value) -> HandlerResult {
    let value = json!({
        "event_id": id, "event_type": "task.completed", "user_id": "user-1", "task_id": 7, "timestamp": "2026-03-28T12:00:00Z", "payload": data,
        "metadata": { "correlation_id": "req" }
    });
    let parts =
        RecordParts { offset: 42, key: Some(b"user-1".to_vec()), value: Some(value.to_string().into_bytes()), ..RecordParts::default() };
    let record = Record::copy_of(&TopicPartition::new("task-events", 3), &parts);
    let event = Decoder::new(Arc::new(Catalog::embedded().unwrap()), true).decode(record).expect("a valid event");
    let run = Run { event: Arc::new(event), attempt: 1, epoch: 1, cancelled: Arc::default() };
    let registry = handlers.registry();
    assert!(registry.bindings()[0].wants("task.completed", "task-events") && !registry.bindings()[0].wants("task.created", "task-events"));
    Arc::clone(&registry.bindings()[0].handler).handle_boxed(run).await
}

fn published(publisher: &FakePublisher) -> Vec<Value> {
    publisher.queued().iter().map(|message| serde_json::from_slice(message.value.as_deref().unwrap()).unwrap()).collect()
}

#[tokio::test]
async fn a_completed_task_that_recurs_makes_its_next_occurrence_known() {
    let publisher = FakePublisher::new();
    let handlers = recurring(&publisher).await;
    let data = json!({ "recurring_pattern": "DAILY", "due_date": "2026-03-28T08:00:00Z", "title": "Water the plants" });
    assert_eq!(complete(&handlers, "done-1", data).await, Ok(Handled::Done));
    let metadata = json!({ "correlation_id": "req", "causation_id": "done-1" });
    let id = |step: &str| ids::of_effect("done-1", step).to_string();
    assert_eq!(
        published(&publisher),
        [
            json!({
                "event_id": id("recurring.triggered"), "event_type": "recurring.triggered", "event_version": "1.0",
                "timestamp": "2026-03-28T12:00:00Z", "source": "todo-worker", "metadata": metadata,
                "data": { "task_id": 7, "recurring_id": 7, "pattern": "DAILY", "user_id": "user-1" },
            }),
            json!({
                "event_id": id("recurring.spawned"), "event_type": "recurring.spawned", "event_version": "1.0",
                "timestamp": "2026-03-28T12:00:00Z", "source": "todo-worker", "metadata": metadata,
                "data": {
                    "task_id": id("next task"), "recurring_id": 7, "due_date": "2026-03-29T07:00:00Z", "recurring_anchor": "2026-03-28T08:00:00Z",
                    "recurring_pattern": "DAILY", "title": "Water the plants", "user_id": "user-1",
                },
            }),
        ],
        "nine o'clock in Berlin, also on the day that the clock changes"
    );
    assert!(publisher.queued().iter().all(|message| message.key.as_deref() == Some(b"user-1") && &*message.topic == "task-events"));
}

#[tokio::test]
async fn a_run_that_is_repeated_makes_the_same_events_with_the_same_ids() {
    let publisher = FakePublisher::new();
    let handlers = recurring(&publisher).await;
    // The second event of the first run is not acknowledged.
    publisher.answer([None, Some(PublishError::Unreachable("away".to_owned()))]);
    let data = json!({ "recurring_pattern": "FREQ=MONTHLY;BYDAY=-1FR", "recurring_id": "series-1" });
    let failed = complete(&handlers, "done-1", data.clone()).await.unwrap_err();
    assert!(matches!(failed, Failure::Transient { .. }), "{failed:?}");
    assert_eq!(complete(&handlers, "done-1", data.clone()).await, Ok(Handled::Done));
    let first = published(&publisher);
    assert_eq!((first.len(), &first[..2]), (4, &first[2..]));
    complete(&handlers, "done-2", data).await.unwrap();
    assert_ne!(published(&publisher)[4]["event_id"], first[0]["event_id"], "another completion is another occurrence");
}

#[tokio::test]
async fn what_does_not_recur_is_dropped_and_a_pattern_that_makes_no_sense_is_dead() {
    let publisher = FakePublisher::new();
    let handlers = recurring(&publisher).await;
    for data in [json!({}), json!({ "recurring_pattern": null }), json!({ "recurring_pattern": "FREQ=DAILY;UNTIL=20200101" })] {
        assert!(matches!(complete(&handlers, "done-1", data).await, Ok(Handled::Dropped(_))));
    }
    let failure = complete(&handlers, "done-1", json!({ "recurring_pattern": "NOW AND THEN" })).await.unwrap_err();
    assert!(matches!(&failure, Failure::Permanent { error } if error.contains("NOW AND THEN")), "{failure:?}");
    assert!(publisher.queued().is_empty());
}
