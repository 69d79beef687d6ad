//! Dead reminders: their user is told, by `reminder.failed`, before the dead letter is written.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde_json::json;

use crate::{
    engine::{
        HANDLER,
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
        Arc::new(Self { letters, outlet, decoder, told: Mutex::default() })
    }

    /// The dead reminder in a letter, as it stood at its source; `None`: another event, or none that says whose reminder of which task it was.
    fn reminder(&self, letter: &Message) -> Option<Event> {
        let number = |name: &str| header(letter, name)?.parse::<i64>().ok();
        let bytes = |bytes: &Option<Bytes>| bytes.as_deref().map(<[u8]>::to_vec);
        let parts = RecordParts {
            offset: number("x-dlq-source-offset")?,
            timestamp: number("x-dlq-source-timestamp").filter(|at| *at >= 0),
            key: bytes(&letter.key),
            value: bytes(&letter.value),
            headers: letter.headers.iter().map(|(name, value)| (name.clone(), bytes(value))).collect(),
        };
        let partition = i32::try_from(number("x-dlq-source-partition")?).ok()?;
        let source = TopicPartition::new(header(letter, "x-dlq-source-topic")?, partition);
        let event = self.decoder.decode(Record::copy_of(&source, &parts)).ok()?;
        let name = event.event_type();
        (name.starts_with("reminder.") && !SILENT.contains(&&**name)).then_some(event)
    }

    async fn tell(&self, letter: &Message, event: &Event) -> Result<(), PublishError> {
        let reason = header(letter, "x-dlq-reason").unwrap_or("unknown");
        let data = json!({
            "task_id": event.data().get("task_id"),
            "channel": header(letter, HANDLER).unwrap_or("worker"),
            "error": header(letter, "x-dlq-error").map_or_else(|| reason.to_owned(), |error| format!("{reason}: {error}")),
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
    fn publish(&self, letter: Message) -> BoxFuture<'_, Result<Acked, PublishError>> {
        Box::pin(async move {
            let Some(event) = self.reminder(&letter) else { return self.letters.publish(letter).await };
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
            let acked = self.letters.publish(letter).await?;
            self.told(|told| told.remove(&name));
            Ok(acked)
        })
    }
}

/// A header's text; `None` also where it is empty.
fn header<'a>(letter: &'a Message, name: &str) -> Option<&'a str> {
    let value = letter.headers.iter().find(|(known, _)| known == name)?.1.as_deref()?;
    std::str::from_utf8(value).ok().filter(|text| !text.is_empty())
}
