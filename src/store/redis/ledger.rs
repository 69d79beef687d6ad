//! The done ledger's shape: generations of sharded sets, so that old verdicts go in one piece and reads stay few.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crate::engine::ports::{Member, StoreError};

/// Shards of a first start. Each is a command of its own in every exchange, and an exchange of a busy partition has some 170 events.
const SHARDS: u64 = 4;
/// More generations than this per read are refused: the geometry was made for something much shorter.
const MOST_GENERATIONS: u64 = 64;
/// How often a worker makes sure that a set that it adds to expires: a flushed Redis may have begun it anew.
const EXPIRY_AGAIN: Duration = Duration::from_secs(60);

/// What binds every worker of a group: kept in Redis by whoever starts first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Geometry {
    pub(super) shards: u64,
    pub(super) generation_ms: u64,
}

impl Geometry {
    /// Half the retention per generation: at most 1.5 times the retention is kept and four sets per shard are read (three live and one
    /// newer). A quarter would keep 1.25 times and read six; the whole would keep twice and read three.
    pub(super) fn for_retention(retention: Duration) -> Self {
        let retention_ms = u64::try_from(retention.as_millis()).unwrap_or(u64::MAX);
        Self { shards: SHARDS, generation_ms: (retention_ms / 2).max(1000) }
    }

    /// `1 <shards> <generation in milliseconds>`; the first number is the version.
    pub(super) fn text(self) -> String {
        format!("1 {} {}", self.shards, self.generation_ms)
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let mut number = || words.next()?.parse::<u64>().ok();
        let (version, shards, generation_ms) = (number()?, number()?, number()?);
        let sane = version == 1 && (1..=4096).contains(&shards) && generation_ms > 0 && words.next().is_none();
        sane.then_some(Self { shards, generation_ms })
    }
}

/// One set of the ledger.
pub(super) type SetOf = (u64, u64);

/// Which sets to read, to write and to drop now. The time is Redis', learned with each lease, never this machine's: no clock difference
/// between workers can hide a verdict. Redis' clock going back by less than one generation (a failover) hides none either, because one
/// newer generation is read as well; by more, events finished in the meantime can run again.
pub(super) struct Ledger {
    shards: AtomicU64,
    generation_ms: AtomicU64,
    retention_ms: u64,
    now_ms: AtomicU64,
    /// The generation whose beginning this worker has cleaned up after.
    cleaned: AtomicU64,
    expiring: Mutex<HashMap<SetOf, Instant>>,
    /// Sets that were there when somebody looked. Of the others it is asked whether they are, which costs a set and not an event.
    present: Mutex<HashSet<SetOf>>,
}

impl Ledger {
    pub(super) fn new(retention: Duration, geometry: Geometry) -> Self {
        Self {
            shards: AtomicU64::new(geometry.shards),
            generation_ms: AtomicU64::new(geometry.generation_ms),
            retention_ms: u64::try_from(retention.as_millis()).unwrap_or(u64::MAX),
            now_ms: AtomicU64::new(0),
            cleaned: AtomicU64::new(0),
            expiring: Mutex::default(),
            present: Mutex::default(),
        }
    }

    pub(super) fn geometry(&self) -> Geometry {
        Geometry { shards: self.shards.load(Relaxed), generation_ms: self.generation_ms.load(Relaxed) }
    }

    /// Takes what Redis holds; answers whether that was new.
    pub(super) fn adopt(&self, text: &str, key: &str) -> Result<bool, StoreError> {
        let refused = |why: String| StoreError::Refused(format!("{key} in redis {why}; with every worker of the group stopped, delete it"));
        let geometry = Geometry::parse(text).ok_or_else(|| refused(format!("is `{text}`, written by a newer worker or by hand")))?;
        if self.retention_ms / geometry.generation_ms > MOST_GENERATIONS {
            let generation = humantime::format_duration(Duration::from_millis(geometry.generation_ms));
            return Err(refused(format!("was made for a much shorter store.retention (a set for each {generation})")));
        }
        let changed = geometry != self.geometry();
        if changed {
            self.shards.store(geometry.shards, Relaxed);
            self.generation_ms.store(geometry.generation_ms, Relaxed);
            self.cleaned.store(0, Relaxed);
            self.forget();
        }
        Ok(changed)
    }

    /// Learns Redis' time.
    pub(super) fn learn(&self, now_ms: u64) {
        self.now_ms.store(now_ms, Relaxed);
    }

    pub(super) fn current(&self) -> u64 {
        self.now_ms.load(Relaxed) / self.geometry().generation_ms
    }

    /// The generations that may hold a verdict younger than the retention, and the next one, which another worker may already write to.
    pub(super) fn readable(&self) -> std::ops::RangeInclusive<u64> {
        self.oldest()..=self.current() + 1
    }

    fn oldest(&self) -> u64 {
        self.now_ms.load(Relaxed).saturating_sub(self.retention_ms) / self.geometry().generation_ms
    }

    /// Positions of `members` by shard; empty shards are left out.
    pub(super) fn by_shard(&self, members: &[Member]) -> Vec<(u64, Vec<usize>)> {
        let shards = self.geometry().shards;
        let mut groups: Vec<(u64, Vec<usize>)> = (0..shards).map(|shard| (shard, Vec::new())).collect();
        for (index, member) in members.iter().enumerate() {
            // Below `shards`, which is at most 4096.
            if let Some((_, group)) = usize::try_from(member.user % shards).ok().and_then(|shard| groups.get_mut(shard)) {
                group.push(index);
            }
        }
        groups.retain(|(_, group)| !group.is_empty());
        groups
    }

    /// When the sets of a generation are of no more use to anybody with this retention, one generation later: whoever rotates drops them
    /// before, since an expiry would free millions of members on Redis' only thread.
    pub(super) fn expire_at(&self, generation: u64) -> u64 {
        let length = self.geometry().generation_ms;
        (generation + 2).saturating_mul(length).saturating_add(self.retention_ms)
    }

    /// Whether one of these sets has not been told when to expire lately.
    pub(super) fn must_tell_expiry(&self, sets: &[SetOf]) -> bool {
        let mut expiring = lock(&self.expiring);
        let now = Instant::now();
        expiring.retain(|_, told| now.duration_since(*told) < EXPIRY_AGAIN);
        let new = sets.iter().any(|set| !expiring.contains_key(set));
        if new {
            expiring.extend(sets.iter().map(|set| (*set, now)));
        }
        new
    }

    /// Of these sets, which have been there, and which have not when last looked for.
    pub(super) fn by_presence(&self, shards: impl Iterator<Item = u64> + Clone) -> (Vec<SetOf>, Vec<SetOf>) {
        let present = lock(&self.present);
        let sets = self.readable().flat_map(|generation| shards.clone().map(move |shard| (generation, shard)));
        sets.partition(|set| present.contains(set))
    }

    /// Learns that these sets are there.
    pub(super) fn seen(&self, sets: &[SetOf]) {
        let mut present = lock(&self.present);
        if sets.iter().any(|set| !present.contains(set)) {
            let oldest = self.oldest();
            present.retain(|(generation, _)| *generation >= oldest);
            present.extend(sets);
        }
    }

    /// After a failed write, or on a new connection: nothing is known to expire, or to be there.
    pub(super) fn forget(&self) {
        lock(&self.expiring).clear();
        lock(&self.present).clear();
    }

    /// Where a generation began that this worker has not cleaned up after: its number, and the sets that may be droppable.
    pub(super) fn to_clean(&self) -> Option<(u64, Vec<SetOf>)> {
        let current = self.current();
        if current == 0 || self.cleaned.load(Relaxed) == current {
            return None;
        }
        let oldest = self.oldest();
        let shards = self.geometry().shards;
        let generations = oldest.saturating_sub(4)..oldest;
        Some((current, generations.flat_map(|generation| (0..shards).map(move |shard| (generation, shard))).collect()))
    }

    pub(super) fn cleaned(&self, current: u64) {
        self.cleaned.store(current, Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3600 * 1000;

    fn ledger(retention_days: u64) -> Ledger {
        let retention = Duration::from_millis(retention_days * DAY);
        Ledger::new(retention, Geometry::for_retention(retention))
    }

    #[test]
    fn every_verdict_younger_than_the_retention_is_read_and_few_sets_are() {
        let ledger = ledger(8);
        for hours in 0..24 * 40 {
            let now = 1000 * DAY + hours * DAY / 24;
            ledger.learn(now);
            let readable = ledger.readable();
            let written = now / ledger.geometry().generation_ms;
            let oldest_wanted = (now - 8 * DAY) / ledger.geometry().generation_ms;
            assert!(readable.contains(&written) && readable.contains(&oldest_wanted) && readable.contains(&(written + 1)));
            assert!(readable.count() <= 4);
        }
    }

    #[test]
    fn a_set_is_dropped_only_when_nothing_in_it_can_be_wanted() {
        let ledger = ledger(8);
        for hours in 0..24 * 40 {
            let now = 1000 * DAY + hours * DAY / 24;
            ledger.learn(now);
            for (generation, _) in ledger.to_clean().unwrap().1 {
                let last_written = (generation + 1) * ledger.geometry().generation_ms;
                assert!(last_written + 8 * DAY <= now);
                assert!(ledger.expire_at(generation) > last_written + 8 * DAY);
            }
        }
    }

    #[test]
    fn a_clock_that_goes_back_by_less_than_a_generation_hides_no_verdict() {
        let ledger = ledger(8);
        ledger.learn(1000 * DAY);
        let written = ledger.current();
        ledger.learn(997 * DAY);
        assert!(ledger.readable().contains(&written));
    }

    #[test]
    fn the_geometry_in_redis_binds_whatever_this_workers_retention() {
        let ledger = ledger(8);
        assert!(ledger.adopt("1 4 86400000", "p:geometry").unwrap());
        assert_eq!(ledger.geometry(), Geometry { shards: 4, generation_ms: DAY });
        ledger.learn(100 * DAY);
        assert_eq!(ledger.readable(), 92..=101);
        assert!(!ledger.adopt("1 4 86400000", "p:geometry").unwrap());
        for bad in ["", "2 16 1000", "1 0 1000", "1 16 0", "1 16 1000 x", "1 16 1000"] {
            assert!(matches!(ledger.adopt(bad, "p:geometry"), Err(StoreError::Refused(_))), "{bad}");
        }
    }

    #[test]
    fn a_sets_expiry_is_told_once_and_again_after_trouble() {
        let ledger = ledger(8);
        assert!(ledger.must_tell_expiry(&[(1, 1), (1, 2)]));
        assert!(!ledger.must_tell_expiry(&[(1, 2)]));
        assert!(ledger.must_tell_expiry(&[(1, 2), (2, 2)]));
        ledger.forget();
        assert!(ledger.must_tell_expiry(&[(1, 2)]));
    }
}
