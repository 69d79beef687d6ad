//! `[engine]`, `[commit_map]`, `[dlq]`, `[catalog]`: limits of the engine, where the dead go, what an event may look like.

use std::{path::PathBuf, time::Duration};

use serde::Deserialize;

use super::secret::Secret;

/// `[engine]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineConfig {
    /// Handler runs at once.
    pub concurrency: usize,
    /// Held events, in bytes.
    #[serde(with = "super::units::size")]
    pub memory: u64,
    /// Events of one user kept whole in memory; later ones wait as stubs.
    pub lane_events: usize,
    /// Time for runs in flight at shutdown and revoke.
    #[serde(with = "super::units::duration")]
    pub drain_timeout: Duration,
    /// Settled to committed, at most.
    #[serde(with = "super::units::duration")]
    pub commit_interval: Duration,
    /// For a group with no commit.
    pub start_at: StartAt,
    /// Of one user behind a failing event; beyond it the backlog goes to the DLQ. Sooner where failing users fill half of their partition's
    /// part of `memory`: 24 bytes an event.
    pub max_held_events: u64,
    /// As `max_held_events`, by age of the hold.
    #[serde(with = "super::units::duration")]
    pub max_hold_age: Duration,
    /// What happens beyond either.
    pub on_overflow: OnOverflow,
}

/// `[commit_map]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommitMapConfig {
    /// Longest commit metadata, in UTF-16 code units, as brokers count it.
    pub max_chars: usize,
}

/// For a group with no commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StartAt {
    /// From the oldest record kept.
    Earliest,
    /// From the records to come.
    Latest,
}

/// What happens to a user's backlog beyond `max_held_events` or `max_hold_age`, or that would keep its partition from being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnOverflow {
    /// To the DLQ in order, `user_overflow`.
    Dlq,
    /// The partition is held until the failing event settles.
    PausePartition,
}

/// `[dlq]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DlqConfig {
    /// The topic.
    pub topic: String,
    /// Part of recent settlements that may be dead before dead-lettering stops.
    pub breaker_ratio: f64,
    /// URL told of dead letters, rate limited; empty: none. A secret.
    pub alert_webhook: Secret,
    /// Whether `reminder.failed` is published for each dead `reminder.*` event.
    pub tell_users: bool,
}

/// `[catalog]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CatalogConfig {
    /// Folder of `topics.yaml` and `events/*.yaml`; where the default folder is missing, the embedded catalogue is used.
    pub dir: PathBuf,
    /// What happens to a type that the catalogue does not know.
    pub unknown_type: UnknownType,
    /// Whether `data` is checked against its schema when consumed.
    pub validate: bool,
}

/// What happens to a type that the catalogue does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnknownType {
    /// To the DLQ, `unknown_type`.
    Dlq,
    /// Settled as dropped, counted.
    Skip,
    /// To the handlers whose patterns match it, as it came: there is no schema to check it against.
    Deliver,
}
