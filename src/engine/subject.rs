//! What a record turned out to be at its turn.

use std::sync::Arc;

use crate::event::{Event, Rejected, record::Record};

/// What a head holds: an event, or what cannot become one.
#[derive(Debug)]
pub(super) enum Subject {
    /// Goes to its handlers.
    Event(Arc<Event>),
    /// Goes to the DLQ.
    Rejected(Box<Rejected>),
}

impl Subject {
    /// The record, untouched.
    pub(super) fn record(&self) -> &Record {
        match self {
            Self::Event(event) => event.record(),
            Self::Rejected(rejected) => &rejected.record,
        }
    }

    /// The event's id, as sent or derived.
    pub(super) fn id(&self) -> &str {
        match self {
            Self::Event(event) => event.id(),
            Self::Rejected(rejected) => &rejected.id,
        }
    }

    /// The type, where one could be read.
    pub(super) fn event_type(&self) -> Option<&str> {
        match self {
            Self::Event(event) => Some(event.event_type()),
            Self::Rejected(rejected) => rejected.event_type.as_deref(),
        }
    }

    /// The user, where one could be read.
    pub(super) fn user_id(&self) -> Option<&str> {
        match self {
            Self::Event(event) => Some(event.user_id()),
            Self::Rejected(rejected) => rejected.user_id.as_deref(),
        }
    }
}
