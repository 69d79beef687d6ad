//! One of the product's own handlers, made from its configuration, with a publisher that does what the test says and a store in memory.

use std::sync::Arc;

use serde_json::Value;
use worker::{
    event::{
        Catalog, Decoder, Event,
        record::{Record, RecordParts, TopicPartition},
        time,
    },
    handler::Run,
    handlers::{self, Handlers, stats::Stats},
    health::Health,
    outcome::HandlerResult,
    publish::Publishing,
    telemetry::Metrics,
};

use super::{config, publisher::FakePublisher};

pub struct Job {
    handlers: Handlers,
    pub stats: Stats,
    pub publisher: Arc<FakePublisher>,
    pub metrics: Metrics,
}

impl Job {
    /// `entry`: an entry of `handlers`, as an inline table.
    pub async fn new(entry: &str) -> Self {
        Self::with(entry, FakePublisher::new()).await
    }

    pub async fn with(entry: &str, publisher: Arc<FakePublisher>) -> Self {
        let entry = entry.replace('\n', " ");
        let config = config(&["store.url=memory", &format!("handlers=[{entry}]")]);
        let (catalog, metrics, stats) = (Arc::new(Catalog::embedded().unwrap()), Metrics::new("consumer"), Stats::default());
        let handlers = handlers::build(&config, &catalog, &Health::new(), &metrics).await.unwrap();
        handlers.outlet().open(Arc::new(Publishing::new(&config, catalog, Arc::clone(&publisher) as _, metrics.clone())));
        stats.open(handlers.pages());
        Self { handlers, stats, publisher, metrics }
    }

    /// Handles an event that was written at its own `timestamp`; the handler must want it.
    pub async fn handle(&self, event: &Value) -> HandlerResult {
        let event = decode(event);
        let run = Run { event: Arc::new(event), attempt: 1, epoch: 1, cancelled: Arc::default() };
        let registry = self.handlers.registry();
        let binding = &registry.bindings()[0];
        assert!(binding.wants(run.event.event_type(), "task-events"), "{} is not wanted", run.event.event_type());
        Arc::clone(&binding.handler).handle_boxed(run).await
    }

    /// Values of what was published, in order.
    pub fn published(&self) -> Vec<Value> {
        self.publisher.queued().iter().map(|message| serde_json::from_slice(message.value.as_deref().unwrap()).unwrap()).collect()
    }

    /// `GET /stats`.
    pub async fn stats(&self) -> Value {
        self.stats.read().await.unwrap()
    }
}

fn decode(event: &Value) -> Event {
    let at = event["timestamp"].as_str().and_then(time::parse).expect("a timestamp");
    let key = event["user_id"].as_str().unwrap().as_bytes().to_vec();
    let parts = RecordParts {
        offset: 42,
        timestamp: Some(at.timestamp_millis()),
        key: Some(key),
        value: Some(event.to_string().into_bytes()),
        ..RecordParts::default()
    };
    let record = Record::copy_of(&TopicPartition::new("task-events", 3), &parts);
    Decoder::new(Arc::new(Catalog::embedded().unwrap()), true).decode(record).expect("a valid event")
}
