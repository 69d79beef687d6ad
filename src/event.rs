//! What an event is: bytes in six shapes to one [`Event`], and back.

pub mod pattern;
pub mod record;

use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::{event::record::Record, outcome::DeadReason};

/// One decoded event, whatever shape it came in.
#[derive(Debug, Clone)]
pub struct Event {
    /// As it was sent, or derived: see [`Event::id_from_offset`].
    pub(crate) id: Box<str>,
    pub(crate) id_from_offset: bool,
    pub(crate) event_type: Arc<str>,
    pub(crate) user_id: Box<str>,
    pub(crate) time: DateTime<Utc>,
    pub(crate) expires: Option<DateTime<Utc>>,
    pub(crate) record: Record,
}

impl Event {
    /// The event's id: as sent, or derived from the event, or from its position.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether the id was made from topic, partition and offset, for want of anything better.
    pub fn id_from_offset(&self) -> bool {
        self.id_from_offset
    }

    /// The catalogue's name of the type, without a version suffix, aliases resolved; or the type as sent where the catalogue lacks it.
    pub fn event_type(&self) -> &Arc<str> {
        &self.event_type
    }

    /// Whose event it is.
    pub fn user_id(&self) -> &str {
        &self.user_id
    }

    /// When it happened.
    pub fn time(&self) -> DateTime<Utc> {
        self.time
    }

    /// When it is no longer worth handling; `None`: always is.
    pub fn expires(&self) -> Option<DateTime<Utc>> {
        self.expires
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
    /// The type where one could be read.
    pub event_type: Option<Arc<str>>,
    /// The user where one could be read.
    pub user_id: Option<Box<str>>,
}
