//! What an event is: bytes in six shapes to one [`Event`], and back.
//!
//! A [`Catalog`] says which types exist, a [`Decoder`] makes events of records,
//! [`prepare`](prepare::prepare) makes records of what a caller wants to publish.

pub mod record;
pub mod pattern;
pub mod time;
pub mod ids;
mod fields;
mod plain;
mod quick;
pub mod upcast;
pub mod schema;
pub mod catalog;
pub mod compat;
mod envelope;
mod excerpt;
mod view;
mod complete;
pub mod decode;
mod render;
pub mod prepare;
pub mod cloudevent;
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests;
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod properties;

use std::sync::Arc;

use chrono::{DateTime, Utc};

pub(crate) use self::plain::quote;
pub use self::{
    catalog::{Catalog, CatalogError, EventType, Version},
    decode::{Decoder, cheap_user},
    render::is_traceparent,
};
use self::{excerpt::Excerpt, render::Seen};
use crate::{event::record::Record, outcome::DeadReason};

/// One decoded event, whatever shape it came in.
///
/// It holds what the engine needs to order and route it. The rest is read from the record again when a handler asks for it, so that an
/// event that waits costs its bytes and little more.
#[derive(Debug, Clone)]
pub struct Event {
    pub(crate) id: Excerpt,
    pub(crate) id_from_offset: bool,
    pub(crate) kind: Arc<EventType>,
    pub(crate) user_id: Excerpt,
    pub(crate) time: DateTime<Utc>,
    pub(crate) expires: Option<DateTime<Utc>>,
    pub(crate) version: Version,
    pub(crate) seen: Seen,
    pub(crate) record: Record,
}

impl Event {
    /// The event's id: as sent, or derived from the event, or from its position.
    pub fn id(&self) -> &str {
        self.id.read(&self.record)
    }

    /// Whether the id was made from topic, partition and offset, for want of anything better.
    pub fn id_from_offset(&self) -> bool {
        self.id_from_offset
    }

    /// The catalogue's name of the type: without a version suffix, aliases resolved.
    pub fn event_type(&self) -> &Arc<str> {
        &self.kind.name
    }

    /// The catalogue's entry of the type.
    pub fn kind(&self) -> &Arc<EventType> {
        &self.kind
    }

    /// Whose event it is.
    pub fn user_id(&self) -> &str {
        self.user_id.read(&self.record)
    }

    /// When it happened; the record's own time where the event does not say.
    pub fn time(&self) -> DateTime<Utc> {
        self.time
    }

    /// When it is no longer worth handling; `None`: always is.
    pub fn expires(&self) -> Option<DateTime<Utc>> {
        self.expires
    }

    /// The version it was sent in; 1.0 where it does not say. What a handler reads is at the catalogue's version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The record that it came in, untouched.
    pub fn record(&self) -> &Record {
        &self.record
    }
}

/// A record that cannot become an event: it goes to the DLQ at its turn, bytes untouched.
#[derive(Debug, Clone)]
pub struct Rejected {
    /// The first reason that applies: undecodable, missing_user_id, unknown_type, schema.
    pub reason: DeadReason,
    /// What exactly: path, rule, schema version; never the payload.
    pub error: String,
    /// The event's id as far as it can be told, else derived from the position.
    pub id: Box<str>,
    /// Whether the id was made from topic, partition and offset.
    pub id_from_offset: bool,
    /// The type where one could be read: the catalogue's name, else as sent.
    pub event_type: Option<Arc<str>>,
    /// The user where one could be read.
    pub user_id: Option<Box<str>>,
    /// The record, untouched.
    pub record: Record,
}
