//! The store: what the scripts in Redis do (src/store/redis/scripts.rs), behind a network that delays, loses and repeats nothing by itself.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use futures_util::future::{BoxFuture, FutureExt};
use worker::{
    engine::ports::{Acquired, Check, DedupeStore, EventRecord, Lease, Member, Remembered, Renewed, StoreError},
    event::record::TopicPartition,
};

use crate::world::{Process, sleep_ms};

pub const LEASE_MS: u64 = 10_000;
const SHARDS: u64 = 4;
/// How long a client waits for an answer.
const PATIENCE_MS: u64 = 500;
/// A set of finished events is written to for this long.
const GENERATION_MS: u64 = 15_000;
/// How far a replica is behind, where one is asked.
const REPLICA_LAG_MS: u64 = 1_000;
/// Redis' clock at the start.
const EPOCH_MS: u64 = 1_767_225_600_000;

/// What the store holds.
#[derive(Debug, Clone, Default)]
pub struct Data {
    /// By shard: what is finished, and since when.
    pub done: BTreeMap<u64, BTreeMap<[u8; 16], u64>>,
    pub parts: BTreeMap<i32, Part>,
    /// Its clock less the world's.
    pub skew_ms: i64,
    /// How often something was lost.
    pub losses: u64,
    /// Switched off to see what it is good for.
    pub rules: StoreRules,
    /// Older states, for a replica that lags.
    pub snapshots: Vec<(u64, Box<Data>)>,
}

/// What the scripts insist on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreRules {
    /// Writes are conditional on the lease's owner and epoch.
    pub fence: bool,
    /// A lease that was not released is had only after its end.
    pub wait_for_end: bool,
    /// A lease that has ended and is nobody else's is taken again.
    pub take_again: bool,
    /// All live generations of the ledger are read.
    pub read_generations: bool,
    /// The ledger is read from the primary, at the event's turn.
    pub read_primary: bool,
    /// What is remembered of a partition is read once its lease is held.
    pub load_under_lease: bool,
}

impl Default for StoreRules {
    fn default() -> Self {
        Self { fence: true, wait_for_end: true, take_again: true, read_generations: true, read_primary: true, load_under_lease: true }
    }
}

/// One partition's keys.
#[derive(Debug, Clone, Default)]
pub struct Part {
    pub lease: Option<Row>,
    pub marks: BTreeMap<u64, i64>,
    pub records: BTreeMap<i64, (EventRecord, u64)>,
    /// What an owner saw that did not wait for the lease: for a test without `StoreRules::load_under_lease`.
    seen_early: BTreeMap<String, Remembered>,
}

/// A lease.
#[derive(Debug, Clone)]
pub struct Row {
    /// Empty: nobody's.
    pub owner: String,
    pub epoch: u64,
    pub end: u64,
    pub released: bool,
    pub waiter: bool,
    pub seq: u64,
    /// How it was had.
    pub clean: bool,
    /// Its owner before had let it expire.
    pub expired: bool,
    /// The mark when it was had.
    pub found_mark: Option<i64>,
    pub loaded: bool,
    /// Losses when it was had.
    pub losses: u64,
}

impl Part {
    fn remembered(&self) -> Remembered {
        let records = self.records.iter().map(|(offset, (record, _))| (*offset, record.clone())).collect();
        Remembered { records, mark: self.marks.values().max().copied() }
    }
}

enum Held {
    Ours,
    Lost,
    Fenced,
}

impl Data {
    pub fn now(&self, world_ms: u64) -> u64 {
        (EPOCH_MS + world_ms).saturating_add_signed(self.skew_ms)
    }

    pub fn is_done(&self, member: &Member) -> bool {
        self.done.get(&(member.user % SHARDS)).is_some_and(|set| set.contains_key(&member.id))
    }

    /// What a check answers: of all generations, from the primary.
    fn knows(&self, member: &Member, now: u64) -> bool {
        let since = self.done.get(&(member.user % SHARDS)).and_then(|set| set.get(&member.id));
        since.is_some_and(|&since| {
            let read = self.rules.read_generations || since / GENERATION_MS == now / GENERATION_MS;
            let there = self.rules.read_primary || since + REPLICA_LAG_MS <= now;
            read && there
        })
    }

    /// Keeps a state to fall back to.
    pub fn snapshot(&mut self, at: u64) {
        let mut snapshots = std::mem::take(&mut self.snapshots);
        snapshots.push((at, Box::new(self.clone())));
        self.snapshots = snapshots;
        if self.snapshots.len() > 24 {
            self.snapshots.remove(0);
        }
    }

    /// A replica that lacks what is younger than `until`.
    pub fn fail_over(&mut self, until: u64) {
        let losses = self.losses + 1;
        let old = self.snapshots.iter().rev().find(|(at, _)| *at <= until).map(|(_, data)| (**data).clone());
        *self = Self { losses, skew_ms: self.skew_ms, rules: self.rules, ..old.unwrap_or_default() };
    }

    pub fn flush(&mut self) {
        *self = Self { losses: self.losses + 1, skew_ms: self.skew_ms, rules: self.rules, ..Self::default() };
    }

    pub fn lose_shard(&mut self, shard: usize) {
        self.losses += 1;
        self.done.remove(&(shard as u64));
    }

    fn held(&self, lease: &Lease) -> Held {
        match self.parts.get(&lease.partition.partition).and_then(|part| part.lease.as_ref()) {
            Some(row) if row.owner.is_empty() || row.epoch < lease.epoch => Held::Lost,
            None => Held::Lost,
            Some(row) if row.owner == *lease.owner && row.epoch == lease.epoch && !row.released => Held::Ours,
            Some(_) => Held::Fenced,
        }
    }

    fn under(&mut self, lease: &Lease) -> Result<&mut Part, StoreError> {
        match self.held(lease) {
            Held::Fenced if !self.rules.fence => Ok(self.parts.entry(lease.partition.partition).or_default()),
            Held::Ours => Ok(self.parts.entry(lease.partition.partition).or_default()),
            Held::Lost => Err(StoreError::Unavailable("lease lost".into())),
            Held::Fenced => Err(StoreError::Fenced),
        }
    }

    fn check(&mut self, now: u64, lease: &Lease, check: &Check) -> Result<Vec<bool>, StoreError> {
        let part = self.under(lease)?;
        if let Some(mark) = check.mark {
            let old = part.marks.entry(lease.epoch).or_insert(mark);
            *old = mark.max(*old);
        }
        for (offset, id) in &check.starts {
            let entry = part.records.entry(*offset).or_insert_with(|| (EventRecord { id: *id, ..EventRecord::default() }, 0));
            if entry.0.id != *id {
                *entry = (EventRecord { id: *id, ..EventRecord::default() }, 0);
            }
            if entry.0.starts == 0 || entry.1 != lease.epoch {
                entry.0.starts += 1;
                entry.1 = lease.epoch;
            }
        }
        Ok(check.members.iter().map(|member| self.knows(member, now)).collect())
    }

    fn finish(&mut self, now: u64, lease: &Lease, members: &[Member]) -> Result<usize, StoreError> {
        self.under(lease)?;
        let fresh = |member: &&Member| match self.done.entry(member.user % SHARDS).or_default().entry(member.id) {
            Entry::Occupied(_) => false,
            Entry::Vacant(vacant) => {
                vacant.insert(now);
                true
            }
        };
        Ok(members.iter().filter(fresh).count())
    }

    fn save(&mut self, lease: &Lease, seq: u64, changes: &[(i64, Option<EventRecord>)]) -> Result<(), StoreError> {
        let part = self.under(lease)?;
        let row = part.lease.as_mut().unwrap();
        if row.seq >= seq {
            return Err(StoreError::Unavailable("overtaken".into()));
        }
        row.seq = seq;
        for (offset, change) in changes {
            match change {
                None => drop(part.records.remove(offset)),
                Some(record) => {
                    let by = part.records.get(offset).filter(|(old, _)| old.id == record.id).map_or(0, |(_, by)| *by);
                    part.records.insert(*offset, (record.clone(), by));
                }
            }
        }
        Ok(())
    }

    fn load(&mut self, lease: &Lease) -> Result<Remembered, StoreError> {
        let (epoch, early) = (lease.epoch, !self.rules.load_under_lease);
        let part = self.under(lease)?;
        let mark = part.marks.values().max().copied();
        if let Some(mark) = mark {
            part.marks = BTreeMap::from([(epoch, mark)]);
        }
        // What a late request finds is this owner's own.
        if let Some(row) = part.lease.as_mut().filter(|row| !row.loaded) {
            row.loaded = true;
            row.found_mark = mark;
        }
        if let Some(seen) = part.seen_early.remove(&*lease.owner).filter(|_| early) {
            return Ok(seen);
        }
        Ok(part.remembered())
    }

    fn acquire(&mut self, now: u64, partition: &TopicPartition, owner: &Arc<str>, map_epoch: u64) -> Acquired {
        let losses = self.losses;
        let part = self.parts.entry(partition.partition).or_default();
        if !self.rules.load_under_lease && !part.seen_early.contains_key(&**owner) {
            let seen = part.remembered();
            part.seen_early.insert(owner.to_string(), seen);
        }
        let fresh = |owner: &str, epoch, clean| Row {
            owner: owner.to_owned(),
            epoch,
            end: now + LEASE_MS,
            released: false,
            waiter: false,
            seq: 0,
            clean,
            expired: false,
            found_mark: None,
            loaded: false,
            losses,
        };
        let mut expired = false;
        let (stored, clean) = match &mut part.lease {
            None if map_epoch > 0 => {
                part.lease = Some(fresh("", map_epoch, false));
                return Acquired::Held(Duration::from_millis(500));
            }
            None => (0, true),
            Some(row) if row.released => (row.epoch, true),
            Some(row) if row.owner == **owner => {
                row.end = now + LEASE_MS;
                let lease = Lease { partition: partition.clone(), owner: Arc::clone(owner), epoch: row.epoch };
                return Acquired::Granted { lease, clean: row.clean, now_ms: now };
            }
            Some(row) => {
                let mut left = row.end.saturating_sub(now);
                if left > 0 && self.rules.wait_for_end {
                    if left > LEASE_MS {
                        left = LEASE_MS;
                        row.end = now + LEASE_MS;
                    }
                    row.waiter |= !row.owner.is_empty();
                    return Acquired::Held(Duration::from_millis(left.min(500)));
                }
                expired = left == 0;
                (row.epoch, false)
            }
        };
        let epoch = (stored + 1).max(map_epoch + 1).max(now);
        part.lease = Some(Row { expired, ..fresh(owner, epoch, clean) });
        let lease = Lease { partition: partition.clone(), owner: Arc::clone(owner), epoch };
        Acquired::Granted { lease, clean, now_ms: now }
    }

    fn renew(&mut self, now: u64, lease: &Lease, known_end: u64) -> Renewed {
        let losses = self.losses;
        let held = self.held(lease);
        let part = self.parts.entry(lease.partition.partition).or_default();
        let ended = part.lease.as_ref().is_some_and(|row| row.end <= now);
        match held {
            Held::Ours if ended && !self.rules.take_again => Renewed::Gone,
            Held::Ours => {
                let Some(row) = &mut part.lease else { return Renewed::Gone };
                row.end = now + LEASE_MS;
                Renewed::Ours { waiter: std::mem::take(&mut row.waiter) }
            }
            Held::Fenced => Renewed::Gone,
            Held::Lost if now >= known_end => Renewed::Gone,
            Held::Lost => {
                let waiter = part.lease.is_some();
                let (owner, epoch, end) = (lease.owner.to_string(), lease.epoch, now + LEASE_MS);
                part.lease = Some(Row {
                    owner,
                    epoch,
                    end,
                    released: false,
                    waiter: false,
                    seq: 0,
                    clean: true,
                    expired: false,
                    found_mark: None,
                    loaded: false,
                    losses,
                });
                Renewed::Ours { waiter }
            }
        }
    }

    fn release(&mut self, now: u64, lease: &Lease, known_end: u64) {
        let held = self.held(lease);
        let losses = self.losses;
        let part = self.parts.entry(lease.partition.partition).or_default();
        let ours = part.lease.as_ref().is_some_and(|row| row.owner == *lease.owner && row.epoch == lease.epoch);
        if ours || matches!(held, Held::Lost) && now < known_end {
            let (owner, epoch) = (lease.owner.to_string(), lease.epoch);
            part.lease = Some(Row {
                owner,
                epoch,
                end: now,
                released: true,
                waiter: false,
                seq: 0,
                clean: true,
                expired: false,
                found_mark: None,
                loaded: false,
                losses,
            });
        }
    }
}

/// One process' client of the store.
pub struct Client {
    process: Arc<Process>,
    /// When its leases end on the store's clock, as it was told.
    ends: Arc<Mutex<BTreeMap<i32, (u64, u64)>>>,
    /// Since when each owner waits for its lease.
    waiting: Mutex<BTreeMap<Arc<str>, u64>>,
}

/// What becomes of one call.
enum Fate {
    Refused(u64),
    Late(u64),
    Done { there: u64, back: u64, mute: bool },
}

impl Client {
    pub fn new(process: &Arc<Process>) -> Self {
        Self { process: Arc::clone(process), ends: Arc::default(), waiting: Mutex::default() }
    }

    fn fate(&self) -> Fate {
        let world = &self.process.world;
        let (now, weather) = (world.now(), world.weather().clone());
        let mut rng = world.rng();
        if now < weather.store_down {
            return Fate::Refused(if rng.bool() { 5 } else { PATIENCE_MS });
        }
        if now < weather.store_late && rng.u8(0..3) == 0 {
            return Fate::Late(PATIENCE_MS + rng.u64(1..4_000));
        }
        if now < weather.store_slow {
            return Fate::Done { there: rng.u64(0..300), back: rng.u64(0..190), mute: false };
        }
        let mute = now < weather.store_mute && rng.u8(0..3) == 0;
        Fate::Done { there: rng.u64(0..3), back: if rng.u8(0..4) == 0 { 1 } else { 0 }, mute }
    }

    async fn call<R: Send + 'static>(&self, f: impl FnOnce(&mut Data, u64) -> R + Send + 'static) -> Result<R, StoreError> {
        self.process.pass().await;
        let away = || StoreError::Unavailable("no answer".to_owned());
        let world = Arc::clone(&self.process.world);
        match self.fate() {
            Fate::Refused(after) => {
                sleep_ms(after).await;
                Err(away())
            }
            Fate::Late(after) => {
                tokio::spawn(async move {
                    sleep_ms(after).await;
                    let now = world.now();
                    let mut data = world.store();
                    let now = data.now(now);
                    f(&mut data, now);
                });
                sleep_ms(PATIENCE_MS).await;
                self.process.pass().await;
                Err(away())
            }
            Fate::Done { there, back, mute } => {
                sleep_ms(there).await;
                self.process.pass().await;
                let answer = {
                    let now = world.now();
                    let mut data = world.store();
                    let now = data.now(now);
                    f(&mut data, now)
                };
                sleep_ms(if mute { PATIENCE_MS } else { back }).await;
                self.process.pass().await;
                if mute {
                    return Err(away());
                }
                Ok(answer)
            }
        }
    }

    /// An event is called finished under a lease that has not ended, and when every handler that the store remembers is through with it.
    fn judge_finish(&self, lease: &Lease, members: &[Member]) {
        let world = &self.process.world;
        if self.has_ended(lease) {
            world.violated(format!("p{}: verdicts are sent after the end of their lease", lease.partition.partition));
        }
        let broken: Vec<String> = {
            let (store, facts) = (world.store(), world.facts());
            let part = store.parts.get(&lease.partition.partition);
            let forgotten = |member: &Member| part.and_then(|part| facts.forgets(lease.partition.partition, member, &part.records));
            members.iter().filter_map(forgotten).collect()
        };
        broken.into_iter().for_each(|broken| world.violated(broken));
    }

    /// Whether the lease is over, and its owner can know. A process that is stopped says nothing now; what it sends when it wakes the store
    /// refuses.
    fn has_ended(&self, lease: &Lease) -> bool {
        let store = self.process.world.store();
        let trusted = store.losses == 0 && store.skew_ms == 0 && self.process.world.plan.bypass_after_ms.is_none();
        let row = store.parts.get(&lease.partition.partition).and_then(|part| part.lease.as_ref());
        let now = store.now(self.process.world.now());
        trusted && !self.process.frozen() && row.is_some_and(|row| row.epoch != lease.epoch || row.end <= now)
    }

    /// Nobody waits for a lease much longer than a lease and a run last, unless the store itself is in trouble.
    fn judge_wait(&self, partition: i32, owner: &Arc<str>, answer: &Result<Acquired, StoreError>) {
        let world = &self.process.world;
        let now = world.now();
        let mut waiting = self.waiting.lock().unwrap();
        if !matches!(answer, Ok(Acquired::Held(_))) {
            waiting.remove(owner);
            return;
        }
        let since = *waiting.entry(Arc::clone(owner)).or_insert(now);
        let calm =
            world.facts().calm(&["freeze", "store down", "store slow", "store mute", "store late", "store clock", "flush", "failover"]);
        if now - since > 40_000 && calm {
            world.violated(format!("p{partition} is waited for since {since}"));
        }
    }

    fn known_end(&self, lease: &Lease) -> u64 {
        self.ends.lock().unwrap().get(&lease.partition.partition).filter(|(epoch, _)| *epoch == lease.epoch).map_or(0, |(_, end)| *end)
    }

    fn hold(&self, lease: &Lease, now: u64) {
        self.ends.lock().unwrap().insert(lease.partition.partition, (lease.epoch, now + LEASE_MS));
        let now = self.process.world.now();
        let before = self.process.renewed.swap(now, Ordering::Relaxed);
        if before > 0 && now - before > LEASE_MS - 3_000 {
            self.process.out_of_touch.store(true, Ordering::Relaxed);
        }
    }

    fn note(&self, what: impl FnOnce() -> String) {
        self.process.world.note(&self.process.name, what);
    }
}

impl DedupeStore for Client {
    fn check<'a>(&'a self, lease: &'a Lease, check: Check) -> BoxFuture<'a, Result<Vec<bool>, StoreError>> {
        async move {
            let own = lease.clone();
            let line = format!(
                "check {} mark {:?} starts {:?}",
                check.members.len(),
                check.mark,
                check.starts.iter().map(|s| s.0).collect::<Vec<_>>()
            );
            let answer = self.call(move |data, now| data.check(now, &own, &check)).await.and_then(|answer| answer);
            self.note(|| format!("p{} {line} -> {answer:?}", lease.partition.partition));
            answer
        }
        .boxed()
    }

    fn finish<'a>(&'a self, lease: &'a Lease, members: Vec<Member>) -> BoxFuture<'a, Result<usize, StoreError>> {
        async move {
            let own = lease.clone();
            let count = members.len();
            self.judge_finish(lease, &members);
            let answer = self.call(move |data, now| data.finish(now, &own, &members)).await.and_then(|answer| answer);
            self.note(|| format!("p{} finish {count} -> {answer:?}", lease.partition.partition));
            answer
        }
        .boxed()
    }

    fn save<'a>(&'a self, lease: &'a Lease, changes: Vec<(i64, Option<EventRecord>)>) -> BoxFuture<'a, Result<(), StoreError>> {
        async move {
            let own = lease.clone();
            let seq = self.process.saves.fetch_add(1, Ordering::Relaxed) + 1;
            let line: Vec<String> = changes
                .iter()
                .map(|(offset, record)| match record {
                    None => format!("{offset} gone"),
                    Some(record) => format!(
                        "{offset} starts {} {:?}",
                        record.starts,
                        record.handlers.iter().map(|h| (h.attempts, &h.state)).collect::<Vec<_>>()
                    ),
                })
                .collect();
            let answer = self.call(move |data, _| data.save(&own, seq, &changes)).await.and_then(|answer| answer);
            self.note(|| format!("p{} save {line:?} -> {answer:?}", lease.partition.partition));
            answer
        }
        .boxed()
    }

    fn load<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<Remembered, StoreError>> {
        async move {
            let own = lease.clone();
            let answer = self.call(move |data, _| data.load(&own)).await.and_then(|answer| answer);
            self.note(|| {
                format!(
                    "p{} load -> {:?}",
                    lease.partition.partition,
                    answer.as_ref().map(|r| (r.mark, r.records.iter().map(|(o, r)| (*o, r.starts, r.handlers.len())).collect::<Vec<_>>()))
                )
            });
            answer
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
            let (partition, asking) = (partition.clone(), Arc::clone(owner));
            let number = partition.partition;
            let answer = self.call(move |data, now| data.acquire(now, &partition, &asking, map_epoch)).await;
            self.judge_wait(number, owner, &answer);
            if let Ok(Acquired::Granted { lease, clean, now_ms }) = &answer {
                self.hold(lease, *now_ms);
                self.note(|| format!("p{number} leased, epoch {}, clean {clean}", lease.epoch));
            }
            answer
        }
        .boxed()
    }

    fn renew<'a>(&'a self, leases: &'a [Lease]) -> BoxFuture<'a, Result<(Vec<Renewed>, u64), StoreError>> {
        async move {
            let known: Vec<(Lease, u64)> = leases.iter().map(|lease| (lease.clone(), self.known_end(lease))).collect();
            let renewed = move |data: &mut Data, now| {
                let answers: Vec<Renewed> = known.iter().map(|(lease, end)| data.renew(now, lease, *end)).collect();
                (answers, now)
            };
            let answer = self.call(renewed).await;
            if let Ok((answers, now)) = &answer {
                for (lease, answer) in leases.iter().zip(answers) {
                    match answer {
                        Renewed::Ours { waiter } => {
                            self.hold(lease, *now);
                            if *waiter {
                                self.note(|| format!("p{} somebody waits", lease.partition.partition));
                            }
                        }
                        Renewed::Gone => self.note(|| format!("p{} lease gone", lease.partition.partition)),
                    }
                }
            } else {
                self.note(|| "renewal unanswered".to_owned());
            }
            answer
        }
        .boxed()
    }

    fn release<'a>(&'a self, leases: &'a [Lease]) -> BoxFuture<'a, Result<(), StoreError>> {
        async move {
            let known: Vec<(Lease, u64)> = leases.iter().map(|lease| (lease.clone(), self.known_end(lease))).collect();
            let answer = self.call(move |data, now| known.iter().for_each(|(lease, end)| data.release(now, lease, *end))).await;
            self.note(|| format!("release {:?} -> {answer:?}", leases.iter().map(|l| l.partition.partition).collect::<Vec<_>>()));
            answer
        }
        .boxed()
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        async move { self.call(|_, _| ()).await }.boxed()
    }

    fn lease_time(&self) -> Duration {
        Duration::from_millis(LEASE_MS)
    }
}
