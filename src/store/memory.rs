//! The store in this process: nothing to install, bounded, gone with the process.

mod done;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::future::{BoxFuture, FutureExt, ready};
use hashbrown::HashMap;
use tokio::time::Instant;

use self::done::Done;
use crate::{
    engine::ports::{Acquired, Check, DedupeStore, EventRecord, Lease, Member, Remembered, Renewed, StoreError},
    event::record::TopicPartition,
};

/// What a waiter is told at most to wait before it asks again, so that a release is noticed soon.
pub(super) const ASK_AGAIN: Duration = Duration::from_millis(500);

/// How much a [`MemoryStore`] keeps. What is beyond is forgotten, oldest first: a forgotten event can run once more, none is lost.
#[derive(Debug, Clone, Copy)]
pub struct MemoryLimits {
    /// Finished events; up to half as many again are kept, with about 35 bytes each. Default 1 000 000.
    pub members: usize,
    /// Records of failed events. Default 100 000.
    pub records: usize,
    /// How long a finished event is remembered, and up to half as long again. Default 8 days.
    pub retention: Duration,
    /// How long a lease lasts after its last renewal. Default 10 s.
    pub lease_time: Duration,
}

impl Default for MemoryLimits {
    fn default() -> Self {
        Self { members: 1_000_000, records: 100_000, retention: Duration::from_secs(8 * 24 * 3600), lease_time: Duration::from_secs(10) }
    }
}

/// A [`DedupeStore`] in this process's memory. Time is tokio's, so a paused runtime controls it.
#[derive(Debug)]
pub struct MemoryStore {
    limits: MemoryLimits,
    started: Instant,
    started_ms: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    done: Done,
    partitions: HashMap<TopicPartition, Partition>,
    /// Records by the order of their last writing.
    record_order: BTreeMap<u64, (TopicPartition, i64)>,
    writes: u64,
    /// Whether keys may be missing because they were lost: then others wait one lease time.
    flushed: bool,
    /// When the owners of lost leases last knew them to end.
    lost: HashMap<TopicPartition, (u64, Instant)>,
}

#[derive(Debug, Default)]
struct Partition {
    lease: Option<Held>,
    mark: Option<i64>,
    records: BTreeMap<i64, Kept>,
}

#[derive(Debug)]
struct Held {
    /// `None`: nobody's, kept free for an owner that the store forgot.
    owner: Option<Arc<str>>,
    epoch: u64,
    end: Instant,
    released: bool,
    /// What its owner was told about the one before.
    clean: bool,
    waiter: bool,
}

#[derive(Debug)]
struct Kept {
    record: EventRecord,
    /// The epoch that last counted a start: an owner has at most one unanswered start per event.
    started_by: u64,
    order: u64,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new(MemoryLimits::default())
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new(limits: MemoryLimits) -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            limits,
            started: Instant::now(),
            started_ms: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX),
            state: Mutex::default(),
        }
    }

    /// Forgets everything, as a flushed Redis does: for tests and simulations.
    pub fn flush(&self) {
        let mut state = self.state();
        let held = state.partitions.drain().filter_map(|(partition, kept)| kept.lease.map(|held| (partition, (held.epoch, held.end))));
        let lost = held.collect();
        *state = State { flushed: true, lost, ..State::default() };
    }

    fn now_ms(&self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.started).as_millis();
        self.started_ms.saturating_add(u64::try_from(elapsed).unwrap_or(u64::MAX))
    }

    /// The state is whole between statements, so a panic elsewhere does not spoil it.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The partition, if `lease` is the one that holds it.
    fn held_by(&mut self, lease: &Lease) -> Result<&mut Partition, StoreError> {
        let partition = self.partitions.get_mut(&lease.partition);
        let missing =
            || StoreError::Unavailable(String::from("the store lost this partition's lease; it is written again at the next renewal"));
        let partition = partition.ok_or_else(missing)?;
        match &partition.lease {
            Some(held) if held.is(lease) && !held.released => Ok(partition),
            None | Some(Held { owner: None, .. }) => Err(missing()),
            Some(_) => Err(StoreError::Fenced),
        }
    }

    /// Whether a flush lost this lease, and its owner may still count on it.
    fn lost_in_time(&self, lease: &Lease, now: Instant) -> bool {
        self.lost.get(&lease.partition).is_some_and(|(epoch, end)| *epoch == lease.epoch && now < *end)
    }

    /// Puts a record in, or takes it out, keeping the order of writing.
    fn put(&mut self, partition: &TopicPartition, offset: i64, record: Option<(EventRecord, u64)>) {
        let Some(kept) = self.partitions.get_mut(partition) else { return };
        if let Some(old) = kept.records.remove(&offset) {
            self.record_order.remove(&old.order);
        }
        if let Some((record, started_by)) = record {
            self.writes += 1;
            kept.records.insert(offset, Kept { record, started_by, order: self.writes });
            self.record_order.insert(self.writes, (partition.clone(), offset));
        }
    }

    fn forget_records(&mut self, limits: &MemoryLimits) {
        while self.record_order.len() > limits.records {
            let Some((_, (partition, offset))) = self.record_order.pop_first() else { break };
            if let Some(kept) = self.partitions.get_mut(&partition) {
                kept.records.remove(&offset);
            }
        }
    }
}

impl Held {
    fn by(lease: &Lease, end: Instant) -> Self {
        Self { owner: Some(lease.owner.clone()), epoch: lease.epoch, end, released: false, clean: false, waiter: false }
    }

    fn is(&self, lease: &Lease) -> bool {
        self.owner.as_ref() == Some(&lease.owner) && self.epoch == lease.epoch
    }
}

impl MemoryStore {
    fn check_now(&self, lease: &Lease, check: Check) -> Result<Vec<bool>, StoreError> {
        let now = Instant::now();
        let mut state = self.state();
        let partition = state.held_by(lease)?;
        partition.mark = partition.mark.max(check.mark);
        for (offset, id) in check.starts {
            let (mut record, started_by) = match partition_record(&state, &lease.partition, offset) {
                Some(kept) if kept.record.id == id => (kept.record.clone(), kept.started_by),
                _ => (EventRecord { id, ..EventRecord::default() }, 0),
            };
            if record.starts == 0 || started_by != lease.epoch {
                record.starts += 1;
            }
            state.put(&lease.partition, offset, Some((record, lease.epoch)));
        }
        state.forget_records(&self.limits);
        state.done.forget(&self.limits, now);
        Ok(check.members.iter().map(|member| state.done.contains(&member.id)).collect())
    }

    fn finish_now(&self, lease: &Lease, members: &[Member]) -> Result<usize, StoreError> {
        let now = Instant::now();
        let mut state = self.state();
        state.held_by(lease)?;
        let added = state.done.extend(members.iter().map(|member| member.id), &self.limits, now);
        state.done.forget(&self.limits, now);
        Ok(added)
    }

    fn save_now(&self, lease: &Lease, changes: Vec<(i64, Option<EventRecord>)>) -> Result<(), StoreError> {
        let mut state = self.state();
        state.held_by(lease)?;
        for (offset, record) in changes {
            let started_by = partition_record(&state, &lease.partition, offset).map_or(0, |kept| kept.started_by);
            state.put(&lease.partition, offset, record.map(|record| (record, started_by)));
        }
        state.forget_records(&self.limits);
        Ok(())
    }

    fn load_now(&self, lease: &Lease) -> Result<Remembered, StoreError> {
        let mut state = self.state();
        let partition = state.held_by(lease)?;
        let records = partition.records.iter().map(|(offset, kept)| (*offset, kept.record.clone())).collect();
        Ok(Remembered { records, mark: partition.mark })
    }

    fn acquire_now(&self, partition: &TopicPartition, owner: &Arc<str>, map_epoch: u64) -> Acquired {
        let now = Instant::now();
        let now_ms = self.now_ms(now);
        let end = now + self.limits.lease_time;
        let mut state = self.state();
        let flushed = state.flushed;
        let kept = state.partitions.entry(partition.clone()).or_default();
        let (stored, clean) = match &mut kept.lease {
            None if flushed && map_epoch > 0 => {
                kept.lease = Some(Held { owner: None, epoch: map_epoch, end, released: false, clean: false, waiter: false });
                return Acquired::Held(self.limits.lease_time.min(ASK_AGAIN));
            }
            // A new process: whoever wrote the map is no owner here, and what it left half done is unknown.
            None => (0, map_epoch == 0),
            Some(held) if held.released => (held.epoch, true),
            // Asked again: another epoch would fence what it has written since.
            Some(held) if held.owner.as_ref() == Some(owner) => {
                held.end = end;
                let lease = Lease { partition: partition.clone(), owner: owner.clone(), epoch: held.epoch };
                return Acquired::Granted { lease, clean: held.clean, now_ms };
            }
            Some(held) if held.end <= now => (held.epoch, false),
            Some(held) => {
                held.waiter = true;
                return Acquired::Held((held.end - now).min(ASK_AGAIN));
            }
        };
        let epoch = (stored + 1).max(map_epoch + 1).max(now_ms);
        let lease = Lease { partition: partition.clone(), owner: owner.clone(), epoch };
        kept.lease = Some(Held { clean, ..Held::by(&lease, end) });
        Acquired::Granted { lease, clean, now_ms }
    }

    fn renew_now(&self, leases: &[Lease]) -> (Vec<Renewed>, u64) {
        let now = Instant::now();
        let end = now + self.limits.lease_time;
        let mut state = self.state();
        let renewed = leases.iter().map(|lease| {
            let in_time = state.lost_in_time(lease, now);
            let kept = state.partitions.entry(lease.partition.clone()).or_default();
            match &mut kept.lease {
                Some(held) if held.is(lease) && !held.released => {
                    held.end = end;
                    Renewed::Ours { waiter: std::mem::take(&mut held.waiter) }
                }
                // Lost: its owner writes it again, as long as nobody else can have been granted it.
                None | Some(Held { owner: None, .. }) if in_time => {
                    kept.lease = Some(Held {
                        owner: Some(lease.owner.clone()),
                        epoch: lease.epoch,
                        end,
                        released: false,
                        clean: false,
                        waiter: false,
                    });
                    Renewed::Ours { waiter: false }
                }
                _ => Renewed::Gone,
            }
        });
        (renewed.collect(), self.now_ms(now))
    }

    fn release_now(&self, leases: &[Lease]) {
        let now = Instant::now();
        let mut state = self.state();
        for lease in leases {
            let in_time = state.lost_in_time(lease, now);
            let kept = state.partitions.entry(lease.partition.clone()).or_default();
            match &mut kept.lease {
                Some(held) if held.is(lease) => held.released = true,
                None | Some(Held { owner: None, .. }) if in_time => {
                    kept.lease = Some(Held { released: true, ..Held::by(lease, now) });
                }
                _ => {}
            }
        }
    }
}

fn partition_record<'a>(state: &'a State, partition: &TopicPartition, offset: i64) -> Option<&'a Kept> {
    state.partitions.get(partition)?.records.get(&offset)
}

impl DedupeStore for MemoryStore {
    fn check<'a>(&'a self, lease: &'a Lease, check: Check) -> BoxFuture<'a, Result<Vec<bool>, StoreError>> {
        async move { self.check_now(lease, check) }.boxed()
    }

    fn finish<'a>(&'a self, lease: &'a Lease, members: Vec<Member>) -> BoxFuture<'a, Result<usize, StoreError>> {
        async move { self.finish_now(lease, &members) }.boxed()
    }

    fn save<'a>(&'a self, lease: &'a Lease, changes: Vec<(i64, Option<EventRecord>)>) -> BoxFuture<'a, Result<(), StoreError>> {
        async move { self.save_now(lease, changes) }.boxed()
    }

    fn load<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<Remembered, StoreError>> {
        async move { self.load_now(lease) }.boxed()
    }

    fn acquire<'a>(
        &'a self,
        partition: &'a TopicPartition,
        owner: &'a Arc<str>,
        map_epoch: u64,
    ) -> BoxFuture<'a, Result<Acquired, StoreError>> {
        async move { Ok(self.acquire_now(partition, owner, map_epoch)) }.boxed()
    }

    fn renew<'a>(&'a self, leases: &'a [Lease]) -> BoxFuture<'a, Result<(Vec<Renewed>, u64), StoreError>> {
        async move { Ok(self.renew_now(leases)) }.boxed()
    }

    fn release<'a>(&'a self, leases: &'a [Lease]) -> BoxFuture<'a, Result<(), StoreError>> {
        async move {
            self.release_now(leases);
            Ok(())
        }
        .boxed()
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        ready(Ok(())).boxed()
    }

    fn lease_time(&self) -> Duration {
        self.limits.lease_time
    }
}
