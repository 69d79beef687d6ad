//! Many events in one request: each is wrapped, judged and answered on its own.

use std::{borrow::Cow, collections::HashSet};

use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::Utc;
use serde_json::value::RawValue;

use super::{
    error::ApiError,
    metadata::Metadata,
    pubsub::{PubSub, Single, Target, failure},
};
use crate::event::cloudevent::{self, Trace};

/// One event of a bulk request.
#[derive(Debug, Clone)]
pub struct Entry<'a> {
    /// The caller's name for it, unique in the request.
    pub id: String,
    /// Of the event.
    pub content_type: String,
    /// The event.
    pub data: Cow<'a, [u8]>,
    /// Its own metadata; `None`: it has none, and the request's shapes no CloudEvent.
    pub metadata: Option<Metadata>,
}

/// A bulk request.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// The pubsub's name.
    pub pubsub: &'a str,
    /// The topic.
    pub topic: &'a str,
    /// The events, in order.
    pub entries: Vec<Entry<'a>>,
    /// The request's own.
    pub metadata: &'a Metadata,
    /// The caller's trace context, as it was sent.
    pub trace: Trace<'a>,
}

/// Why a bulk request was not done, as a whole or in part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The worst of what went wrong.
    pub error: ApiError,
    /// The entries that are not stored, each with its reason; empty: none is.
    pub entries: Vec<(String, String)>,
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self { error, entries: Vec::new() }
    }
}

impl PubSub {
    /// Publishes the entries in order; `Ok` only where the brokers acknowledged all of them. What is valid is published although something
    /// else is not.
    ///
    /// # Errors
    /// The entries that are not stored. Where the request makes no sense as a whole, nothing is written.
    pub async fn publish_bulk(&self, request: Request<'_>) -> Result<(), Failure> {
        let Request { pubsub, topic, entries, metadata, trace } = request;
        let target = self.target(pubsub, topic, metadata, trace)?;
        let mut ids = HashSet::new();
        if !entries.iter().all(|entry| !entry.id.is_empty() && ids.insert(entry.id.as_str())) {
            return Err(ApiError::bulk_entries(pubsub, topic, "entryId is duplicated or not present for entry").into());
        }
        let (mut valid, mut messages, mut failed) = (Vec::new(), Vec::new(), Vec::new());
        for (index, entry) in entries.iter().enumerate() {
            match self.entry(target, entry, metadata) {
                Ok(message) => {
                    valid.push(index);
                    messages.push(message);
                }
                // What is no CloudEvent fails the request, as in Dapr; what only the catalogue refuses fails alone.
                Err(error) if error.code == "ERR_PUBSUB_CLOUD_EVENTS_SER" => return Err(error.into()),
                Err(error) => failed.push((index, error)),
            }
        }
        if !messages.is_empty() {
            self.reachable(pubsub, topic)?;
        }
        for (index, answer) in valid.into_iter().zip(self.publishing.send_all(messages).await) {
            if let Some(error) = failure(answer) {
                failed.push((index, ApiError::publish(pubsub, topic, &error)));
            }
        }
        failed.sort_by_key(|(index, _)| *index);
        let Some((_, worst)) = failed.iter().max_by_key(|(_, error)| weight(error.status)) else { return Ok(()) };
        let message = format!("{} of {} entries not stored: {}", failed.len(), entries.len(), worst.message);
        let error = ApiError { message, code: "ERR_PUBSUB_PUBLISH_MESSAGE", reason: "DAPR_PUBSUB_PUBLISH_MESSAGE", ..worst.clone() };
        let entries = failed.into_iter().map(|(index, error)| (entries[index].id.clone(), error.message)).collect();
        Err(Failure { error, entries })
    }

    fn entry(&self, target: Target<'_>, entry: &Entry<'_>, request: &Metadata) -> Result<crate::engine::ports::Message, ApiError> {
        let nothing = Metadata::default();
        let own = entry.metadata.as_ref();
        let envelope = own.map(|own| own.or(request));
        // For headers and key, the request's values win: what Dapr does.
        let record = request.or(own.unwrap_or(&nothing));
        let single = Single {
            content_type: &entry.content_type,
            data: &entry.data,
            envelope: envelope.as_ref().unwrap_or(&nothing),
            record: &record,
        };
        self.message(target, single, Utc::now())
    }
}

/// A broker that is away outweighs a full queue, which outweighs what it refused, which outweighs one event's own fault.
fn weight(status: u16) -> u8 {
    match status {
        503 => 3,
        429 => 2,
        500..=599 => 1,
        _ => 0,
    }
}

/// The bytes of an event that came as JSON, by its content type.
///
/// # Errors
/// Where the two do not go together.
pub fn event_bytes<'a>(event: &'a RawValue, content_type: &str) -> Result<Cow<'a, [u8]>, String> {
    let mismatch = || "error: mismatch between contentType and event".to_owned();
    let text = || serde_json::from_str::<String>(event.get()).map_err(|_| mismatch());
    if cloudevent::is_binary(content_type) {
        let bytes = BASE64_STANDARD.decode(text()?);
        return bytes.map(Cow::Owned).map_err(|error| format!("error: unable to decode base64 application/octet-stream data: {error}"));
    }
    if cloudevent::is_text(content_type) {
        return Ok(Cow::Owned(text()?.into_bytes()));
    }
    if cloudevent::is_json(content_type) || cloudevent::is_cloudevent(content_type) {
        return Ok(Cow::Borrowed(event.get().as_bytes()));
    }
    Err(mismatch())
}
