//! A store and a log that can be made to misbehave, and what tests of the engine say often.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::{BoxFuture, FutureExt};
use worker::{
    config::retry::{RetryConfig, RetryRule},
    engine::ports::{Acquired, Check, DedupeStore, EventRecord, Lease, LogReader, Member, ReadError, Remembered, Renewed, StoreError},
    event::record::{Record, RecordParts, TopicPartition},
    retry::Schedules,
    store::memory::{MemoryLimits, MemoryStore},
};

use crate::rig::event;

/// A store in memory whose calls can be made to fail or to take their time.
pub struct Faulty {
    pub inner: Arc<MemoryStore>,
    /// Nothing is answered.
    pub down: AtomicBool,
    /// Renewals alone are not answered.
    pub renewals_fail: AtomicBool,
    /// Ledger checks alone are not answered.
    pub checks_fail: AtomicBool,
    /// Removals of records alone are not answered.
    pub removals_fail: AtomicBool,
    pub load_takes: Mutex<Duration>,
    pub save_takes: Mutex<Duration>,
    /// Renewals are neither answered nor refused.
    pub renewals_hang: AtomicBool,
    /// Verdicts alone are not answered.
    pub verdicts_fail: AtomicBool,
    pub verdicts_take: Mutex<Duration>,
    /// How many verdicts were written, exchange by exchange.
    pub verdicts: Mutex<Vec<usize>>,
    pub removed: Mutex<Vec<i64>>,
    /// Answer to each save: the offsets that were written.
    pub saved: Mutex<Vec<Vec<i64>>>,
    pub check_takes: Mutex<Duration>,
    /// What was asked is done, and answered so much later.
    pub checks_answer_after: Mutex<Duration>,
    pub saves_answer_after: Mutex<Duration>,
    /// Starts that were counted: epoch and offset.
    pub counted: Mutex<Vec<(u64, i64)>>,
}

impl Faulty {
    pub fn new(inner: Arc<MemoryStore>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            down: AtomicBool::new(false),
            renewals_fail: AtomicBool::new(false),
            checks_fail: AtomicBool::new(false),
            removals_fail: AtomicBool::new(false),
            load_takes: Mutex::new(Duration::ZERO),
            save_takes: Mutex::new(Duration::ZERO),
            renewals_hang: AtomicBool::new(false),
            verdicts_fail: AtomicBool::new(false),
            verdicts_take: Mutex::default(),
            verdicts: Mutex::default(),
            removed: Mutex::default(),
            saved: Mutex::default(),
            check_takes: Mutex::default(),
            checks_answer_after: Mutex::default(),
            saves_answer_after: Mutex::default(),
            counted: Mutex::default(),
        })
    }

    pub fn fresh() -> Arc<Self> {
        Self::new(Arc::new(MemoryStore::new(MemoryLimits::default())))
    }

    fn up(&self) -> Result<(), StoreError> {
        if self.down.load(Ordering::SeqCst) { Err(StoreError::Unavailable("away".into())) } else { Ok(()) }
    }
}

impl DedupeStore for Faulty {
    fn check<'a>(&'a self, lease: &'a Lease, check: Check) -> BoxFuture<'a, Result<Vec<bool>, StoreError>> {
        async move {
            self.up()?;
            if self.checks_fail.load(Ordering::SeqCst) {
                return Err(StoreError::Unavailable("slow".into()));
            }
            let takes = *self.check_takes.lock().unwrap();
            tokio::time::sleep(takes).await;
            let starts: Vec<_> = check.starts.iter().map(|(offset, _)| (lease.epoch, *offset)).collect();
            let known = self.inner.check(lease, check).await?;
            let late = *self.checks_answer_after.lock().unwrap();
            tokio::time::sleep(late).await;
            self.counted.lock().unwrap().extend(starts);
            Ok(known)
        }
        .boxed()
    }

    fn finish<'a>(&'a self, lease: &'a Lease, members: Vec<Member>) -> BoxFuture<'a, Result<usize, StoreError>> {
        async move {
            self.up()?;
            if self.verdicts_fail.load(Ordering::SeqCst) {
                return Err(StoreError::Unavailable("slow".into()));
            }
            let takes = *self.verdicts_take.lock().unwrap();
            tokio::time::sleep(takes).await;
            let count = members.len();
            let added = self.inner.finish(lease, members).await?;
            self.verdicts.lock().unwrap().push(count);
            Ok(added)
        }
        .boxed()
    }

    fn save<'a>(&'a self, lease: &'a Lease, changes: Vec<(i64, Option<EventRecord>)>) -> BoxFuture<'a, Result<(), StoreError>> {
        async move {
            self.up()?;
            let removed: Vec<i64> = changes.iter().filter(|(_, record)| record.is_none()).map(|(offset, _)| *offset).collect();
            if !removed.is_empty() && self.removals_fail.load(Ordering::SeqCst) {
                return Err(StoreError::Unavailable("away".into()));
            }
            let takes = *self.save_takes.lock().unwrap();
            tokio::time::sleep(takes).await;
            let written: Vec<i64> = changes.iter().filter(|(_, record)| record.is_some()).map(|(offset, _)| *offset).collect();
            self.inner.save(lease, changes).await?;
            let late = *self.saves_answer_after.lock().unwrap();
            tokio::time::sleep(late).await;
            self.removed.lock().unwrap().extend(removed);
            self.saved.lock().unwrap().extend(Some(written).filter(|written| !written.is_empty()));
            Ok(())
        }
        .boxed()
    }

    fn load<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<Remembered, StoreError>> {
        async move {
            self.up()?;
            let takes = *self.load_takes.lock().unwrap();
            tokio::time::sleep(takes).await;
            self.inner.load(lease).await
        }
        .boxed()
    }

    fn acquire<'a>(
        &'a self,
        partition: &'a TopicPartition,
        owner: &'a Arc<str>,
        map_epoch: u64,
    ) -> BoxFuture<'a, Result<Acquired, StoreError>> {
        async move {
            self.up()?;
            self.inner.acquire(partition, owner, map_epoch).await
        }
        .boxed()
    }

    fn renew<'a>(&'a self, leases: &'a [Lease]) -> BoxFuture<'a, Result<(Vec<Renewed>, u64), StoreError>> {
        async move {
            self.up()?;
            while self.renewals_hang.load(Ordering::SeqCst) {
                pass(1).await;
            }
            if self.renewals_fail.load(Ordering::SeqCst) {
                return Err(StoreError::Unavailable("away".into()));
            }
            self.inner.renew(leases).await
        }
        .boxed()
    }

    fn release<'a>(&'a self, leases: &'a [Lease]) -> BoxFuture<'a, Result<(), StoreError>> {
        async move {
            self.up()?;
            self.inner.release(leases).await
        }
        .boxed()
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        async move { self.up() }.boxed()
    }

    fn lease_time(&self) -> Duration {
        self.inner.lease_time()
    }
}

/// The log, to be read again.
pub struct Log {
    records: Vec<RecordParts>,
    /// Offsets that were read.
    pub read: Mutex<Vec<i64>>,
    /// Bytes of each reading.
    pub bytes: Mutex<Vec<usize>>,
}

impl Log {
    pub fn new(records: &[RecordParts]) -> Arc<Self> {
        Arc::new(Self { records: records.to_vec(), read: Mutex::default(), bytes: Mutex::default() })
    }
}

impl LogReader for Log {
    fn read_up_to<'a>(
        &'a self,
        bytes: usize,
        partition: &'a TopicPartition,
        offsets: &'a [i64],
    ) -> BoxFuture<'a, Result<Vec<Record>, ReadError>> {
        self.read.lock().unwrap().extend(offsets);
        let found = self.records.iter().filter(|record| offsets.contains(&record.offset));
        let mut held = 0;
        let records = found.map(|record| Record::copy_of(partition, record)).take_while(|record| {
            let more = held < bytes;
            held += if more { record.footprint() } else { 0 };
            more
        });
        let records = records.collect();
        self.bytes.lock().unwrap().push(held);
        async move { Ok(records) }.boxed()
    }
}

pub fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub async fn pass(span: u64) {
    tokio::time::sleep(seconds(span)).await;
}

pub fn events_of(user: &str, offsets: std::ops::Range<i64>) -> Vec<RecordParts> {
    offsets.map(|n| event(n, "task.created", user, &format!("id-{n}"))).collect()
}

pub fn steady(delays: &[u64]) -> Schedules {
    let rule = RetryRule { delays: Some(delays.iter().copied().map(Duration::from_secs).collect()), jitter: Some(0.0) };
    Schedules::new(&RetryConfig([("default".to_owned(), rule)].into()))
}

/// Another worker asks until it has the lease, or for a minute; then it goes away again.
pub async fn another_takes_the_lease(store: &MemoryStore, partition: &TopicPartition) {
    let other: Arc<str> = "another worker".into();
    for _ in 0..600 {
        if let Acquired::Granted { lease, .. } = store.acquire(partition, &other, 0).await.unwrap() {
            return store.release(&[lease]).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("a minute later the lease is still not to be had");
}
