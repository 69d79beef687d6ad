//! Dead reminders: their user is told, by `reminder.failed`, before the dead letter is written.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde_json::json;

use crate::{
    dlq::{Letter, Letters},
    engine::{
        PREFIX,
        ports::{Acked, Message, PublishError, Publisher},
    },
    event::{
        Catalog, Decoder, Event,
        record::{Record, RecordParts, TopicPartition},
    },
    handlers::outlet::{Derived, Outlet},
    outcome::Failure,
};

/// What the user is told by.
const TELLS: &str = "reminder.failed";

/// Of these reminders nothing is told: the one would go round in circles, with the other the user was reminded.
const SILENT: [&str; 2] = [TELLS, "reminder.sent"];

/// Letters that wait to be written with their users told; where there are more, some users are told again, by the same id.
const MOST: usize = 10_000;

/// Writes dead letters, and of a dead `reminder.*` event first what tells its user.
///
/// Both are acknowledged before the event settles. A crash in between repeats both: `reminder.failed` with the same id, as it is derived from the
/// dead event's. While the user cannot be told the letter is not written, so the event waits as it does for the dead-letter topic.
pub struct TellsUsers {
    letters: Arc<dyn Publisher>,
    outlet: Outlet,
    reader: Letters,
    decoder: Decoder,
    /// Dead events whose users were told and whose letters were not acknowledged yet.
    told: Mutex<HashSet<String>>,
}

impl TellsUsers {
    /// Writes letters through `letters` and tells users through `outlet`. A catalogue without `reminder.failed` has nobody told.
    pub fn around(letters: Arc<dyn Publisher>, outlet: Outlet, catalog: &Arc<Catalog>) -> Arc<dyn Publisher> {
        if !catalog.knows(TELLS) {
            return letters;
        }
        let decoder = Decoder::new(Arc::clone(catalog), true);
        Arc::new(Self { letters, outlet, reader: Letters::new(Arc::clone(catalog)), decoder, told: Mutex::default() })
    }

    /// The dead reminder in a letter, as it stood at its source; `None`: another event, or none that says whose reminder of which task it was.
    fn reminder(&self, message: &Message) -> Option<(Letter, Event)> {
        // Nothing else is read, let alone decoded.
        let type_header = message.headers.iter().find(|(name, _)| name.strip_prefix(PREFIX) == Some("event-type"))?.1.as_deref()?;
        if !type_header.starts_with(b"reminder.") || SILENT.iter().any(|silent| silent.as_bytes() == type_header) {
            return None;
        }
        let bytes = |bytes: &Option<Bytes>| bytes.as_deref().map(<[u8]>::to_vec);
        let parts = RecordParts {
            key: bytes(&message.key),
            value: bytes(&message.value),
            headers: message.headers.iter().map(|(name, value)| (name.clone(), bytes(value))).collect(),
            ..RecordParts::default()
        };
        let letter = self.reader.read(Record::copy_of(&TopicPartition::new(Arc::clone(&message.topic), 0), &parts));
        let source = letter.source.clone()?;
        let parts = RecordParts { offset: source.offset, timestamp: source.timestamp, ..parts };
        let event = self.decoder.decode(Record::copy_of(&TopicPartition::new(source.topic, source.partition), &parts)).ok()?;
        Some((letter, event))
    }

    async fn tell(&self, letter: &Letter, event: &Event) -> Result<(), PublishError> {
        let Letter { reason, error, .. } = letter;
        let data = json!({
            "task_id": event.data().get("task_id"),
            "channel": if letter.handlers.is_empty() { "worker".to_owned() } else { letter.handlers.join(",") },
            "error": if error.is_empty() { reason.clone() } else { format!("{reason}: {error}") },
        });
        match self.outlet.derive(event, Derived { step: TELLS, event_type: TELLS, data }).await {
            Ok(()) => Ok(()),
            Err(Failure::Transient { error, .. }) => Err(PublishError::Unreachable(format!("{TELLS}: {error}"))),
            Err(Failure::Permanent { error }) => {
                tracing::error!(
                    event.id = event.id(),
                    event.r#type = &**event.event_type(),
                    error,
                    "the user of a dead reminder cannot be told"
                );
                Ok(())
            }
        }
    }

    fn told<T>(&self, then: impl FnOnce(&mut HashSet<String>) -> T) -> T {
        then(&mut self.told.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Publisher for TellsUsers {
    fn publish(&self, message: Message) -> BoxFuture<'_, Result<Acked, PublishError>> {
        Box::pin(async move {
            let Some((letter, event)) = self.reminder(&message) else { return self.letters.publish(message).await };
            let name = format!("{}\n{}", event.user_id(), event.id());
            if !self.told(|told| told.contains(&name)) {
                self.tell(&letter, &event).await?;
                self.told(|told| {
                    if told.len() >= MOST {
                        told.clear();
                    }
                    told.insert(name.clone())
                });
            }
            let acked = self.letters.publish(message).await?;
            self.told(|told| told.remove(&name));
            Ok(acked)
        })
    }
}
