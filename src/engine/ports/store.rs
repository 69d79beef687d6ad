//! What happened, remembered: finished events, failed events, who owns which partition.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;

use crate::{event::record::TopicPartition, outcome::DeadReason};

/// An event in the done ledger: 128 bits of (topic, user, event id, redrives), and the user's hash, which picks the shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Member {
    /// Identity.
    pub id: [u8; 16],
    /// Hash of the user: one lane's verdicts stand in one set, in order.
    pub user: u64,
}

/// One assignment's right to run a partition's events, as the store knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Which partition.
    pub partition: TopicPartition,
    /// One per assignment, not per process.
    pub owner: Arc<str>,
    /// Grows with every owner; never turns back, not even when the store was flushed.
    pub epoch: u64,
}

/// Answer to [`DedupeStore::acquire`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acquired {
    /// Ours for the lease time, counted from when the request was sent.
    Granted {
        /// The lease.
        lease: Lease,
        /// The owner before released it (or there was none): nothing of it can still run.
        clean: bool,
        /// The store's clock, milliseconds since 1970.
        now_ms: u64,
    },
    /// Somebody else's; ask again after at most this long. The owner is told that somebody waits.
    Held(Duration),
}

/// Answer to [`DedupeStore::renew`] for one lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewed {
    /// Ours for another lease time, counted from when the request was sent.
    Ours {
        /// Somebody waits for it: prove membership by a commit, else give it up.
        waiter: bool,
    },
    /// Another owner has it: cancel the runs, drop the state.
    Gone,
}

/// What one exchange asks of the ledger before events run.
#[derive(Debug, Clone, Default)]
pub struct Check {
    /// The events whose turn has come.
    pub members: Vec<Member>,
    /// Highest offset about to be handed to a handler; written before the answer.
    pub mark: Option<i64>,
    /// Events whose start is counted before they run (they may be what killed the owner before): offset, identity.
    pub starts: Vec<(i64, [u8; 16])>,
}

/// One handler's part in an exceptional record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandlerRecord {
    /// The handler's name.
    pub handler: String,
    /// Failures so far.
    pub attempts: u32,
    /// Next run, on the store's clock, milliseconds since 1970; 0: none waits.
    pub due_ms: u64,
    /// Where it stands.
    pub state: HandlerState,
}

/// Where one handler stands with one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HandlerState {
    /// Finished.
    Done,
    /// Finished without an effect.
    Dropped,
    /// Runs again when due.
    Retry,
    /// Will not run again; the event goes to the DLQ.
    Dead {
        /// Why.
        reason: DeadReason,
        /// The handler's last words.
        error: String,
    },
}

/// What the store remembers of an event that failed or is suspect.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventRecord {
    /// Identity of the event, against a recreated topic's equal offsets.
    pub id: [u8; 16],
    /// Runs begun and not answered.
    pub starts: u32,
    /// First failure, on the store's clock; 0: none yet.
    pub first_failed_ms: u64,
    /// Per handler; a handler that is not listed has not failed and not finished.
    pub handlers: Vec<HandlerRecord>,
}

/// What the store remembers of a partition, read once the lease is held.
#[derive(Debug, Clone, Default)]
pub struct Remembered {
    /// Exceptional records by offset.
    pub records: Vec<(i64, EventRecord)>,
    /// Highest offset that any owner handed to a handler; `None`: nobody did, or the store lost it.
    pub mark: Option<i64>,
}

/// Remembers what happened: done events, failed events, who owns which partition.
///
/// Every write of a partition carries its [`Lease`]; what belongs to an older one answers [`StoreError::Fenced`].
pub trait DedupeStore: Send + Sync + 'static {
    /// For each member, in order, whether it is finished. One read per shard and generation; mark and starts are written in the same exchange.
    fn check<'a>(&'a self, lease: &'a Lease, check: Check) -> BoxFuture<'a, Result<Vec<bool>, StoreError>>;
    /// Writes finished events; answers how many were not there before. Only to be called under a valid lease.
    fn finish<'a>(&'a self, lease: &'a Lease, members: Vec<Member>) -> BoxFuture<'a, Result<usize, StoreError>>;
    /// Writes (`Some`) and removes (`None`) exceptional records; all or nothing, and only while the lease is the current one.
    fn save<'a>(&'a self, lease: &'a Lease, changes: Vec<(i64, Option<EventRecord>)>) -> BoxFuture<'a, Result<(), StoreError>>;
    /// All that is remembered of the partition.
    fn load<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<Remembered, StoreError>>;
    /// Asks for a partition. `map_epoch`: the epoch in the commit map, 0 for none; a store that lost the key makes others wait one lease time then.
    fn acquire<'a>(
        &'a self,
        partition: &'a TopicPartition,
        owner: &'a Arc<str>,
        map_epoch: u64,
    ) -> BoxFuture<'a, Result<Acquired, StoreError>>;
    /// Renews many leases in one exchange; answers in order, with the store's clock in milliseconds since 1970.
    fn renew<'a>(&'a self, leases: &'a [Lease]) -> BoxFuture<'a, Result<(Vec<Renewed>, u64), StoreError>>;
    /// Gives leases up: their runs have ended. The next owner has them at once.
    fn release<'a>(&'a self, leases: &'a [Lease]) -> BoxFuture<'a, Result<(), StoreError>>;
    /// Whether it answers.
    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>>;
    /// How long a lease lasts after its last renewal was sent.
    fn lease_time(&self) -> Duration;
}

/// Why the store did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The lease is another's now.
    #[error("the partition's lease belongs to another worker now")]
    Fenced,
    /// Away, slow, restarting, or out of memory: ask again.
    #[error("{0}")]
    Unavailable(String),
    /// Refused for a reason that asking again does not change (no permission, wrong type, evicting policy).
    #[error("{0}")]
    Refused(String),
}

impl StoreError {
    /// The metric label.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Fenced => "fenced",
            Self::Unavailable(_) => "unavailable",
            Self::Refused(_) => "refused",
        }
    }
}
