//! Operations are told of dead letters: the engine hands an alert over and never waits for whoever sends it.

use tokio::sync::mpsc;

use super::dead::Cause;
use crate::event::record::TopicPartition;

/// A dead letter worth telling somebody of.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Alert {
    /// Catalogue type, or `unknown`.
    pub event_type: String,
    /// The `x-dlq-reason`.
    pub reason: &'static str,
    /// The handlers' last words.
    pub error: String,
    /// The handlers that gave it up.
    pub handlers: String,
    /// Where the original stands: topic, partition, offset.
    pub source: (String, i32, i64),
}

/// Where alerts go; full or absent, they are dropped: the metric and the log line stand.
#[derive(Debug, Clone, Default)]
pub struct Alerts(Option<mpsc::Sender<Alert>>);

impl Alerts {
    /// Alerts go to `receiver`.
    pub fn to(receiver: mpsc::Sender<Alert>) -> Self {
        Self(Some(receiver))
    }

    pub(super) fn dead_letter(&self, event_type: &str, cause: &Cause, partition: &TopicPartition, offset: i64) {
        if self.0.is_none() {
            return;
        }
        self.send(Alert {
            event_type: event_type.to_owned(),
            reason: cause.reason.code(),
            error: cause.error.clone(),
            handlers: cause.handlers.clone(),
            source: (partition.topic.to_string(), partition.partition, offset),
        });
    }

    /// Hands an alert over, or drops it where nobody takes it now.
    pub fn send(&self, alert: Alert) {
        let Some(sender) = &self.0 else { return };
        // Full: the sender is rate limited and already has plenty to tell.
        let _full = sender.try_send(alert);
    }
}
