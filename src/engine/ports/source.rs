//! Partitions and their records, and how fast they are read.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering},
};

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

use crate::event::record::{RawRecord, Record, RecordBatch, TopicPartition};

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

    /// What must not be held for a partition to be read again once it was held.
    pub fn resume_at(&self) -> usize {
        self.resume_at.load(Ordering::Relaxed)
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
    fn read<'a>(&'a self, partition: &'a TopicPartition, offsets: &'a [i64]) -> BoxFuture<'a, Result<Vec<Record>, ReadError>> {
        self.read_up_to(usize::MAX, partition, offsets)
    }

    /// The same, ended by the record with which they weigh `bytes` ([`Record::footprint`]): of what stands behind it nothing is said.
    fn read_up_to<'a>(
        &'a self,
        bytes: usize,
        partition: &'a TopicPartition,
        offsets: &'a [i64],
    ) -> BoxFuture<'a, Result<Vec<Record>, ReadError>>;
}

/// The log could not be read now; ask again.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ReadError(pub String);
