//! What a caller wants to publish, in any shape, to the record that is written: shape A, valid, keyed by its user.

use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use uuid::{NoContext, Timestamp, Uuid};

use super::{
    catalog::Catalog,
    complete::Facts,
    decode::{check, read, shown},
    render::{Canonical, canonical},
    view::{self, View},
};
use crate::outcome::DeadReason;

/// How a value is prepared.
#[derive(Debug, Clone)]
pub struct Options<'a> {
    /// Where to, instead of the catalogue's first topic for the type.
    pub topic: Option<&'a str>,
    /// Whether type and schema are checked. A user_id is needed all the same.
    pub validate: bool,
    /// Whether an event without user_id may pass: the caller keys it by something else.
    pub user_optional: bool,
    /// The time of events that do not say when they happened.
    pub now: DateTime<Utc>,
    /// The source of events that do not name one.
    pub source: &'a str,
}

/// An event ready to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// As sent, derived where it can be, else new (UUIDv7).
    pub event_id: String,
    /// The catalogue's name, else as sent.
    pub event_type: Arc<str>,
    /// The key; `None` only with [`Options::user_optional`].
    pub user_id: Option<Box<str>>,
    /// Where to.
    pub topic: Arc<str>,
    /// Shape A, as JSON.
    pub value: Bytes,
    /// The W3C trace context that came with it, where a valid one did.
    pub traceparent: Option<String>,
}

/// Why a value cannot be published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct InputError {
    /// A closed set: `undecodable`, `missing_user_id`, `unknown_type`, `schema`, `no_topic`.
    pub code: &'static str,
    /// Path, rule and schema version, never the payload.
    pub message: String,
}

impl InputError {
    /// The metric label.
    pub fn code(&self) -> &'static str {
        self.code
    }

    fn of(reason: DeadReason, message: impl Into<String>) -> Self {
        Self { code: reason.code(), message: message.into() }
    }
}

/// Takes one event (JSON text in shape A, B, C, D or F) from a caller.
///
/// # Errors
/// The first that applies of undecodable, missing user, unknown type, schema, no topic.
pub fn prepare(catalog: &Catalog, text: &[u8], options: &Options<'_>) -> Result<Prepared, InputError> {
    let text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text);
    let text = std::str::from_utf8(text)
        .map_err(|error| InputError::of(DeadReason::Undecodable, format!("not UTF-8 at byte {}", error.valid_up_to())))?;
    view::open_text(text, None, |view| match view {
        Ok(view) => ready(catalog, &view, options),
        Err(error) => Err(InputError::of(DeadReason::Undecodable, error)),
    })
}

fn ready(catalog: &Catalog, view: &View<'_>, options: &Options<'_>) -> Result<Prepared, InputError> {
    let Some(read) = read(catalog, view) else {
        return Err(InputError::of(DeadReason::Undecodable, "event_type: missing"));
    };
    if read.user_id.is_none() && !options.user_optional {
        return Err(InputError::of(DeadReason::MissingUserId, "user_id: missing at the top, in data and in metadata"));
    }
    let time = read.sent_time.unwrap_or(options.now);
    if options.validate {
        let Some(kind) = &read.kind else {
            let message = format!("event_type: {} is not in the catalogue", shown(&read.event_type));
            return Err(InputError::of(DeadReason::UnknownType, message));
        };
        // Keyed by something else, an event may be nobody's: any user will do to check the rest of its data.
        let user_id = read.user_id.as_deref().or(Some("-"));
        check(view, &read, kind, time, user_id).map_err(|error| InputError::of(DeadReason::Schema, error))?;
    }
    let topic = match options.topic {
        Some(topic) => topic.into(),
        None => catalog.topics_for(&read.event_type).into_iter().next().ok_or_else(|| InputError {
            code: "no_topic",
            message: format!("event_type: the catalogue has no topic for {}, so name one", shown(&read.event_type)),
        })?,
    };
    let event_id = read.id.as_deref().map_or_else(|| new_id(options.now), str::to_owned);
    let facts = Facts { kind: read.kind.as_deref(), version: read.version, time, user_id: read.user_id.as_deref() };
    let source = view.source().unwrap_or(options.source);
    let value = canonical(view, &Canonical { id: &event_id, event_type: &read.event_type, source, facts });
    let traceparent = super::render::traceparent(view);
    Ok(Prepared { event_id, event_type: read.event_type, user_id: read.user_id, topic, value, traceparent })
}

/// A new event's id: UUIDv7, so that ids sort by time.
pub fn new_id(now: DateTime<Utc>) -> String {
    let seconds = u64::try_from(now.timestamp()).unwrap_or_default();
    Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, now.timestamp_subsec_nanos())).to_string()
}
