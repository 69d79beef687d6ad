//! What the tour came to, in figures: each one observed.

use std::collections::BTreeMap;

use serde::Serialize;

use super::mailbox::Mail;
use crate::audit::verify::Break;

/// One dead letter, read back from the DLQ topic.
#[derive(Debug, Clone, Serialize)]
pub(super) struct DeadLetter {
    /// `x-dlq-reason`.
    pub(super) reason: String,
    /// `x-dlq-event-type`.
    pub(super) event_type: String,
    /// The record's key.
    pub(super) user: String,
    /// `x-dlq-attempts`.
    pub(super) attempts: Option<u32>,
    /// `x-dlq-retry-count`.
    pub(super) retries: Option<u32>,
    /// `x-dlq-error`.
    pub(super) error: String,
    /// `topic/partition@offset` of the original, from the headers.
    pub(super) source: String,
    /// Whether key and value are those of the published record at that place, byte for byte.
    pub(super) untouched: bool,
}

/// The user whose event fails twice.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Failing {
    pub(super) user: String,
    pub(super) event_type: String,
    /// Runs until it was handled.
    pub(super) runs: usize,
    /// From the first failure to the effect.
    pub(super) retrying_ms: u64,
    /// Whether no retry came earlier than its delay allows.
    pub(super) on_schedule: bool,
    /// The same user's later events, which ran after it.
    pub(super) waited_behind: usize,
    /// The same user's later events.
    pub(super) later: usize,
}

/// Everybody else, while that event was retrying.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Others {
    pub(super) users: usize,
    pub(super) events: usize,
    /// Events on the failing user's own partition.
    pub(super) on_its_partition: usize,
    /// From being handed to the producer to the handler's run, at most: all of its way, so no less than any delay.
    pub(super) delayed_at_most_ms: u64,
}

/// What the worker published by itself about one user's events.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Caused {
    pub(super) user: String,
    /// Types, each of which must come once.
    pub(super) wanted: Vec<String>,
    /// Those that were handled, by type.
    pub(super) seen: BTreeMap<String, usize>,
    /// Mails that the user got.
    pub(super) mails: Vec<Mail>,
}

/// The audit records, read back.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Audited {
    /// Events that had to be put on record.
    pub(super) deleted: usize,
    /// Those that are.
    pub(super) records: u64,
    pub(super) chains: Vec<String>,
    /// The first break of a chain.
    pub(super) broken: Option<Break>,
}

/// Everything that is judged.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Figures {
    /// Records acknowledged by the broker.
    pub(super) published: usize,
    /// Types in the catalogue, and those of which an event was handled.
    pub(super) types: usize,
    pub(super) types_handled: usize,
    /// Different events that had to be handled, those that were, and effects beyond one per event.
    pub(super) to_handle: usize,
    pub(super) handled: usize,
    pub(super) handled_again: usize,
    /// Effects that overtook an earlier one of the same user.
    pub(super) out_of_order: usize,
    /// Events published twice, and those that the engine recognised.
    pub(super) duplicates: u64,
    pub(super) duplicates_recognised: u64,
    /// Retries that the failures had to lead to, and those that the engine scheduled.
    pub(super) retries_due: u64,
    pub(super) retries: u64,
    /// Retries that the exhausted event's schedule has.
    pub(super) exhausted_after: u32,
    pub(super) dead_letters: Vec<DeadLetter>,
    pub(super) failing: Failing,
    pub(super) others: Others,
    pub(super) caused: Caused,
    pub(super) audited: Audited,
    /// Records neither settled nor held.
    pub(super) unaccounted: i64,
    /// Records beyond the group's commits at the end.
    pub(super) uncommitted: i64,
    /// How much shorter the delays of the schedules were.
    pub(super) schedules_divided_by: u32,
    pub(super) seconds: f64,
}
