//! What the engine needs from outside, as traits: a source of partitions, a sink for offsets, a publisher for dead letters, a store
//! for what has happened. Kafka and Redis implement them in their own folders, a simulation can in a test.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

use crate::{
    event::record::{RawRecord, Record, RecordBatch, TopicPartition},
    outcome::DeadReason,
};

// === Source ===

/// What the Source tells the engine, in order.
pub enum SourceEvent {
    /// Partitions are ours from now on; their records arrive in their inboxes.
    Assigned(Vec<Assignment>),
    /// Partitions go to somebody else: drain them, then answer. The Source keeps polling meanwhile and gives them up on the answer.
    Revoked {
        /// Which.
        partitions: Vec<TopicPartition>,
        /// Answered (or dropped) when they are drained and committed.
        drained: oneshot::Sender<()>,
    },
    /// Partitions were lost (session timed out): drop them, commit nothing.
    Lost(Vec<TopicPartition>),
    /// The client is beyond repair; the process must end.
    Fatal(String),
}

/// One partition handed to the engine.
pub struct Assignment {
    /// Which.
    pub partition: TopicPartition,
    /// The first offset that the inbox can deliver: the committed one, else where `start_at` points.
    pub start: i64,
    /// The first offset that the log still has at or above `start`: what lies between was lost to retention.
    pub log_start: i64,
    /// The group's commit for it; `None`: there was none yet.
    pub committed: Option<Committed>,
    /// Records in offset order. Closed by the Source after a revoke was answered, or at loss.
    pub inbox: mpsc::Receiver<Box<dyn RecordBatch>>,
    /// Shared with the Source: it reads this partition only while the gate lets it.
    pub gate: Arc<Gate>,
}

/// A commit as read back from the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Lowest unsettled offset.
    pub offset: i64,
    /// The commit's metadata where it is text; another program's bytes that are none read as `None`.
    pub metadata: Option<String>,
}

/// Back-pressure between one partition and the Source, in bytes, without `pause()`: a partition over its budget is not read.
///
/// The Source adds what it hands over, the engine subtracts what it gives back. Reading stops at `hold_at` and goes on below
/// `resume_at`; a partition that holds nothing is always read.
#[derive(Debug)]
pub struct Gate {
    held: AtomicUsize,
    hold_at: AtomicUsize,
    resume_at: AtomicUsize,
    paused: AtomicBool,
    log_end: AtomicI64,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            held: AtomicUsize::new(0),
            hold_at: AtomicUsize::new(usize::MAX),
            resume_at: AtomicUsize::new(usize::MAX),
            paused: AtomicBool::new(false),
            log_end: AtomicI64::new(-1),
        }
    }
}

impl Gate {
    /// Counts bytes handed to the partition.
    pub fn add(&self, bytes: usize) {
        self.held.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts bytes given back.
    pub fn subtract(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Bytes handed over and not given back.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Sets this partition's budget: held from 80 % of it, read again below 50 %.
    pub fn set_budget(&self, bytes: usize) {
        self.hold_at.store(bytes / 5 * 4, Ordering::Relaxed);
        self.resume_at.store(bytes / 2, Ordering::Relaxed);
    }

    /// Whether the Source may read, given whether it was reading until now.
    pub fn open(&self, was_open: bool) -> bool {
        let limit = if was_open { &self.hold_at } else { &self.resume_at };
        !self.paused.load(Ordering::Relaxed) && self.held() < limit.load(Ordering::Relaxed)
    }

    /// Holds the partition whatever its budget, or lets it go again.
    pub fn set_paused(&self, paused: bool) {
        self.paused.store(paused, Ordering::Relaxed);
    }

    /// The log's end (next offset to be written) as last seen by the Source, for the lag.
    pub fn set_log_end(&self, offset: i64) {
        self.log_end.fetch_max(offset, Ordering::Relaxed);
    }

    /// As last seen; `None` before the first answer.
    pub fn log_end(&self) -> Option<i64> {
        Some(self.log_end.load(Ordering::Relaxed)).filter(|end| *end >= 0)
    }
}

/// What one record between Source and partition weighs at the [`Gate`]: its bytes, and what it costs to hold one.
pub fn weight(record: &dyn RawRecord) -> usize {
    let mut headers = 0;
    record.headers(&mut |name, value| headers += name.len() + value.map_or(0, <[u8]>::len));
    size_of::<Record>() + record.key().map_or(0, <[u8]>::len) + record.value().map_or(0, <[u8]>::len) + headers
}

/// Reads single old records again: the backlog of a user that was kept as stubs.
pub trait LogReader: Send + Sync + 'static {
    /// The records of `offsets` (ascending) that still exist, in order; those the log no longer has are missing from the answer.
    fn read<'a>(&'a self, partition: &'a TopicPartition, offsets: &'a [i64]) -> BoxFuture<'a, Result<Vec<Record>, ReadError>>;
}

/// The log could not be read now; ask again.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ReadError(pub String);

// === Offsets ===

/// One partition's progress, to be committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Which.
    pub partition: TopicPartition,
    /// Lowest unsettled offset.
    pub offset: i64,
    /// The commit map as text.
    pub metadata: String,
}

/// Commits offsets for the group.
pub trait OffsetSink: Send + Sync + 'static {
    /// Commits all of them in one request; resolves with the broker's answer. On an error none of them may be taken for committed.
    fn commit(&self, commits: Vec<Commit>) -> BoxFuture<'_, Result<(), CommitError>>;
}

/// Why a commit did not take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// A metadata is longer than this broker takes: halve and send again.
    #[error("the broker refused the commit's metadata as too large")]
    MetadataTooLarge,
    /// The group says that these partitions are not ours (any more).
    #[error("the group does not count this member as owner: {0}")]
    NotOwner(String),
    /// Passing trouble (coordinator moving, rebalance under way, broker away): send again later.
    #[error("commit failed: {0}")]
    Retriable(String),
    /// The client is beyond repair.
    #[error("commit failed for good: {0}")]
    Fatal(String),
}

impl CommitError {
    /// The metric label.
    pub fn code(&self) -> &'static str {
        match self {
            Self::MetadataTooLarge => "metadata_too_large",
            Self::NotOwner(_) => "not_owner",
            Self::Retriable(_) => "retriable",
            Self::Fatal(_) => "fatal",
        }
    }
}

// === Publisher ===

/// A record to be written.
#[derive(Debug, Clone)]
pub struct Message {
    /// The topic.
    pub topic: Arc<str>,
    /// Key bytes.
    pub key: Option<Bytes>,
    /// Value bytes; `None`: a tombstone.
    pub value: Option<Bytes>,
    /// Headers in order.
    pub headers: Vec<(String, Option<Bytes>)>,
    /// An explicit partition; `None`: the partitioner decides by key.
    pub partition: Option<i32>,
}

/// Where an acknowledged record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acked {
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
}

/// Writes records and answers only after all in-sync replicas have them.
pub trait Publisher: Send + Sync + 'static {
    /// Resolves with the brokers' acknowledgement. Dropping the future does not take the record back.
    fn publish(&self, message: Message) -> BoxFuture<'_, Result<Acked, PublishError>>;
}

/// Why a record was not written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The local queue is full: slow down.
    #[error("the local queue to the brokers is full")]
    QueueFull,
    /// Larger than the topic or the client takes.
    #[error("the record is larger than the topic takes")]
    TooLarge,
    /// No such topic.
    #[error("topic {0} does not exist; create it with `worker topics apply`")]
    TopicMissing(String),
    /// The brokers' access rules forbid it.
    #[error("not allowed to write to topic {0}")]
    Forbidden(String),
    /// The brokers are away, or did not acknowledge in time. It may have been written all the same.
    #[error("the brokers did not acknowledge: {0}")]
    Unreachable(String),
    /// Refused for good: invalid record, unknown partition, policy.
    #[error("the brokers refused the record: {0}")]
    Refused(String),
    /// The client is beyond repair.
    #[error("the producer failed for good: {0}")]
    Fatal(String),
}

impl PublishError {
    /// The metric label `result`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::TooLarge => "too_large",
            Self::TopicMissing(_) => "topic_missing",
            Self::Forbidden(_) => "forbidden",
            Self::Unreachable(_) => "unreachable",
            Self::Refused(_) => "refused",
            Self::Fatal(_) => "fatal",
        }
    }
}

// === Store ===

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
