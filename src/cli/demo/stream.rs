//! What the tour publishes: realistic events through the real producer's checks, and one value that is no event.

use std::{sync::Arc, time::Instant};

use anyhow::{Context, anyhow};
use bytes::Bytes;
use chrono::{SecondsFormat, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

use super::app::Moods;
use crate::{
    engine::ports::{Acked, Message, Publisher},
    event::{Catalog, record::TopicPartition},
    publish::Publishing,
};

/// Topic of what happens to tasks, and of what existing programs write when they give up on one.
const TASKS: &str = "task-events";

/// An acknowledged record.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    /// Empty for what is no event.
    pub(super) id: String,
    pub(super) event_type: String,
    pub(super) user: String,
    pub(super) message: Message,
    /// When it was handed to the producer.
    pub(super) at: Instant,
    pub(super) acked: Acked,
}

impl Sent {
    pub(super) fn partition(&self) -> TopicPartition {
        TopicPartition::new(Arc::clone(&self.message.topic), self.acked.partition)
    }
}

/// The producer of the tour.
pub(super) struct Stream {
    catalog: Arc<Catalog>,
    publishing: Publishing,
    publisher: Arc<dyn Publisher>,
    moods: Moods,
    /// Everything acknowledged, in order.
    pub(super) sent: Vec<Sent>,
}

impl Stream {
    pub(super) fn new(catalog: Arc<Catalog>, publishing: Publishing, publisher: Arc<dyn Publisher>, moods: Moods) -> Self {
        Self { catalog, publishing, publisher, moods, sent: Vec::new() }
    }

    /// The catalogue's types: those of tasks first, what others write to their DLQ last.
    pub(super) fn types(&self) -> Vec<Arc<str>> {
        let mut types: Vec<_> = self.catalog.types().map(|kind| Arc::clone(&kind.name)).collect();
        types.sort_by_key(|name| (!name.starts_with("task."), name.starts_with("dlq.")));
        types
    }

    /// Publishes an event of that type; its first `failing_runs` runs fail.
    pub(super) async fn publish(&mut self, event_type: &str, user: &str, failing_runs: u32) -> anyhow::Result<Sent> {
        let id = Uuid::now_v7().to_string();
        self.moods.fail(&id, failing_runs);
        let event = self.event(event_type, user, &id)?;
        self.publish_event(event_type, user, &event).await
    }

    /// Publishes an event of that type, in whose data these fields are other than the example's.
    pub(super) async fn publish_with(&mut self, event_type: &str, user: &str, fields: Value) -> anyhow::Result<Sent> {
        let mut event = self.event(event_type, user, &Uuid::now_v7().to_string())?;
        for (name, value) in fields.as_object().into_iter().flatten() {
            event["data"][name] = value.clone();
        }
        self.publish_event(event_type, user, &event).await
    }

    async fn publish_event(&mut self, event_type: &str, user: &str, event: &Value) -> anyhow::Result<Sent> {
        // What other programs write about their dead letters does not go to our DLQ.
        let topic = (event_type == "dlq.failed").then_some(TASKS);
        let ready = self
            .publishing
            .prepare(event.to_string().as_bytes(), topic, None)
            .map_err(|rejected| anyhow!("{event_type}: {}", rejected.error))?;
        self.send(ready.event_id, event_type, user, ready.message).await
    }

    /// Whether the tour has published that event.
    pub(super) fn has_sent(&self, id: &str) -> bool {
        self.sent.iter().any(|sent| sent.id == id)
    }

    /// The same event once more, as a producer sends it that never got its answer.
    pub(super) async fn repeat(&mut self, sent: &Sent) -> anyhow::Result<Sent> {
        self.send(sent.id.clone(), &sent.event_type, &sent.user, sent.message.clone()).await
    }

    /// A value that no decoder takes: an event cut off in the middle.
    pub(super) async fn malformed(&mut self, user: &str) -> anyhow::Result<Sent> {
        let cut = format!("{{\"event_type\":\"task.created\",\"user_id\":\"{user}\",\"data\":{{\"title\":\"Buy gro");
        let message = Message {
            topic: TASKS.into(),
            key: Some(Bytes::copy_from_slice(user.as_bytes())),
            value: Some(Bytes::from(cut)),
            headers: Vec::new(),
            partition: None,
        };
        let at = Instant::now();
        let acked = self.publisher.publish(message.clone()).await.context("publishing")?;
        Ok(self.keep(Sent { id: String::new(), event_type: String::new(), user: user.to_owned(), message, at, acked }))
    }

    async fn send(&mut self, id: String, event_type: &str, user: &str, message: Message) -> anyhow::Result<Sent> {
        let at = Instant::now();
        let acked = self.publishing.send(message.clone()).await.context("publishing")?;
        Ok(self.keep(Sent { id, event_type: event_type.to_owned(), user: user.to_owned(), message, at, acked }))
    }

    fn keep(&mut self, sent: Sent) -> Sent {
        self.sent.push(sent.clone());
        sent
    }

    /// The canonical shape, with the catalogue's own example of that type as its data.
    fn event(&self, event_type: &str, user: &str, id: &str) -> anyhow::Result<Value> {
        let kind = self.catalog.get(event_type).with_context(|| format!("no type {event_type} in the catalogue"))?;
        let mut data = kind.example.clone();
        if let Some(own) = data.get_mut("user_id") {
            *own = json!(user);
        }
        Ok(json!({
            "event_id": id,
            "event_type": event_type,
            "event_version": kind.version.to_string(),
            "timestamp": Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true),
            "source": "todo-backend",
            "user_id": user,
            "data": data,
        }))
    }
}
