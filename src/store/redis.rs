//! The store in Redis: one variadic command per set and tick, one script per lease, everything of a call in one exchange.
//!
//! Redis is a cache of what happened: losing it costs runs that were made already, never events. Keys, all under `prefix:group:`
//!
//! | key | type | holds |
//! |---|---|---|
//! | `geometry` | string | shards and generation length: binds every worker of the group |
//! | `done:<generation>:<shard>` | set | finished events, 16 bytes each |
//! | `ev:{<topic>:<partition>}` | hash | offset to the record of an event that failed or is suspect |
//! | `mark:{<topic>:<partition>}` | hash | epoch to the highest offset handed to a handler |
//! | `lease:{<topic>:<partition>}` | hash | who may run the partition's events |
//!
//! A call that is not answered in time is [`StoreError::Unavailable`], and Redis may still do it later: each is safe to repeat and safe to
//! come late (a mark never goes back, a start counts once per owner, a save carries a number, a finished event stays finished).

mod forget;
mod ledger;
mod link;
mod probe;
mod scripts;
mod setup;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use futures_util::future::{BoxFuture, FutureExt};
use redis::{Cmd, FromRedisValue, Pipeline, Value};

use self::{
    ledger::{Geometry, Ledger},
    link::Link,
    probe::ServerInfo,
    scripts::{FENCED, LOST, STALE, Scripts},
    setup::{Keys, Setup},
};
pub use self::{link::Timing, probe::Probe};
use super::{memory::ASK_AGAIN, record};
use crate::{
    config::{redis::StoreConfig, secret::SecretUrl},
    engine::ports::{Acquired, Check, DedupeStore, EventRecord, Lease, Member, Remembered, Renewed, StoreError},
    event::record::TopicPartition,
};

/// How a [`RedisStore`] behaves.
#[derive(Debug, Clone)]
pub struct RedisOptions {
    /// `redis://..`, `rediss://..`, `unix://..`; may carry a password.
    pub url: SecretUrl,
    /// First part of every key.
    pub prefix: String,
    /// The consumer group, second part of every key.
    pub group: String,
    /// How long a finished event is remembered.
    pub retention: Duration,
    /// Length of a generation where no worker of the group has set one yet; `None`: half the retention.
    pub generation: Option<Duration>,
    /// How long a lease lasts after its last renewal. Must be the same for every worker of a group. 10 s.
    pub lease_time: Duration,
    /// Whether a server that evicts keys is accepted.
    pub allow_eviction: bool,
    /// How long anything may take.
    pub timing: Timing,
}

impl RedisOptions {
    /// As configured.
    pub fn new(config: &StoreConfig, group: &str) -> Self {
        Self {
            url: config.url.clone(),
            prefix: config.prefix.clone(),
            group: group.to_owned(),
            retention: config.retention,
            generation: None,
            lease_time: Duration::from_secs(10),
            allow_eviction: config.allow_eviction,
            timing: Timing::default(),
        }
    }
}

/// A [`DedupeStore`] in Redis 6.2 or newer, Valkey, or what speaks like them; one primary, no cluster.
pub struct RedisStore {
    link: Link,
    lease_time: Duration,
    /// How long keys of a partition outlive their last writing, milliseconds.
    keep_ms: u64,
    /// When this process' leases end, on Redis' clock.
    ends: Mutex<HashMap<TopicPartition, (u64, u64)>>,
    /// Number of the last save.
    saves: AtomicU64,
}

impl RedisStore {
    /// Reads the options; connects when first used.
    ///
    /// # Errors
    /// [`StoreError::Refused`] where the address is none, or needs what this build lacks.
    pub fn new(options: RedisOptions) -> Result<Self, StoreError> {
        let mut geometry = Geometry::for_retention(options.retention);
        if let Some(generation) = options.generation {
            geometry.generation_ms = millis(generation).max(1);
        }
        let setup = Setup {
            keys: Keys::new(&options.prefix, &options.group),
            scripts: Scripts::new(),
            ledger: Ledger::new(options.retention, geometry),
            allow_eviction: options.allow_eviction,
        };
        Ok(Self {
            link: Link::new(&options.url, options.timing, setup)?,
            lease_time: options.lease_time,
            keep_ms: millis(options.retention).saturating_mul(2).max(24 * 3600 * 1000),
            ends: Mutex::default(),
            saves: AtomicU64::new(0),
        })
    }

    /// Asks the server about itself, whether or not it would be accepted.
    ///
    /// # Errors
    /// As any call.
    pub async fn probe(&self) -> Result<Probe, StoreError> {
        let started = Instant::now();
        let mut pipeline = redis::pipe();
        pipeline.cmd("INFO").cmd("TIME");
        let (info, (seconds, micros)): (String, (i64, i64)) = self.link.look(&pipeline).await?;
        let round_trip = started.elapsed();
        let local = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(round_trip / 2);
        let info = ServerInfo::parse(&info);
        Ok(Probe {
            address: self.link.address().to_owned(),
            version: info.version,
            policy: info.policy,
            maxmemory: info.maxmemory,
            used_memory: info.used_memory,
            append_only: info.append_only,
            clock_difference_ms: seconds * 1000 + micros / 1000 - i64::try_from(local.as_millis()).unwrap_or(i64::MAX),
            round_trip,
        })
    }

    fn setup(&self) -> &Setup {
        self.link.setup()
    }

    async fn run<T: FromRedisValue>(&self, pipeline: &Pipeline) -> Result<T, StoreError> {
        self.link.run(pipeline, self.link.timing().answer).await
    }

    async fn run_one<T: FromRedisValue>(&self, cmd: Cmd) -> Result<T, StoreError> {
        let mut pipeline = redis::pipe();
        pipeline.add_command(cmd);
        let (answer,) = self.run(&pipeline).await?;
        Ok(answer)
    }

    fn ends(&self) -> MutexGuard<'_, HashMap<TopicPartition, (u64, u64)>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When `lease` ends on Redis' clock, as far as this process was told; 0: it never was.
    fn end_of(&self, lease: &Lease) -> u64 {
        self.ends().get(&lease.partition).filter(|(epoch, _)| *epoch == lease.epoch).map_or(0, |(_, end)| *end)
    }

    fn held_until(&self, lease: &Lease, now_ms: u64) {
        self.ends().insert(lease.partition.clone(), (lease.epoch, now_ms + millis(self.lease_time)));
        self.setup().ledger.learn(now_ms);
    }

    async fn check_now(&self, lease: &Lease, check: Check) -> Result<Vec<bool>, StoreError> {
        let Setup { keys, scripts, ledger, .. } = self.setup();
        let mut begin = scripts.begin.call(3);
        begin.arg(keys.lease(&lease.partition)).arg(keys.mark(&lease.partition)).arg(keys.records(&lease.partition));
        begin.arg(&*lease.owner).arg(lease.epoch).arg(self.keep_ms);
        begin.arg(check.mark.map(|mark| mark.to_string()).unwrap_or_default()).arg(&lease.epoch.to_be_bytes());
        for (offset, id) in &check.starts {
            begin.arg(*offset).arg(id);
        }
        let groups = ledger.by_shard(&check.members);
        let generations = ledger.readable();
        let mut pipeline = redis::pipe();
        pipeline.add_command(begin);
        for (shard, positions) in &groups {
            for generation in generations.clone() {
                let cmd = pipeline.cmd("SMISMEMBER").arg(keys.done((generation, *shard)));
                for position in positions {
                    cmd.arg(&check.members[*position].id);
                }
            }
        }
        let answers: Vec<Value> = self.run(&pipeline).await?;
        let mut answers = answers.into_iter();
        verdict(answers.next())?;
        let mut done = vec![false; check.members.len()];
        for (_, positions) in &groups {
            for _ in generations.clone() {
                let Some(Value::Array(found)) = answers.next().filter(|found| is_list_of(found, positions.len())) else {
                    return Err(self.odd("SMISMEMBER"));
                };
                for (position, found) in positions.iter().zip(found) {
                    done[*position] |= found == Value::Int(1);
                }
            }
        }
        Ok(done)
    }

    async fn finish_now(&self, lease: &Lease, members: &[Member]) -> Result<usize, StoreError> {
        let Setup { keys, scripts, ledger, .. } = self.setup();
        let groups = ledger.by_shard(members);
        let generation = ledger.current();
        let sets: Vec<_> = groups.iter().map(|(shard, _)| (generation, *shard)).collect();
        let mut cmd = scripts.finish.call(1 + sets.len());
        cmd.arg(keys.lease(&lease.partition));
        for set in &sets {
            cmd.arg(keys.done(*set));
        }
        cmd.arg(&*lease.owner).arg(lease.epoch);
        let expire_at = ledger.must_tell_expiry(&sets).then(|| ledger.expire_at(generation).to_string());
        cmd.arg(expire_at.unwrap_or_default());
        for (_, positions) in &groups {
            cmd.arg(positions.len());
        }
        for position in groups.iter().flat_map(|(_, positions)| positions) {
            cmd.arg(&members[*position].id);
        }
        let written = match self.run_one(cmd).await {
            Ok(answer) => verdict(Some(answer)),
            Err(error) => Err(error),
        };
        if written.is_err() {
            ledger.forget_expiry();
        }
        written.map(|added| usize::try_from(added).unwrap_or(0))
    }

    async fn save_now(&self, lease: &Lease, changes: &[(i64, Option<EventRecord>)]) -> Result<(), StoreError> {
        let Setup { keys, scripts, .. } = self.setup();
        let mut cmd = scripts.save.call(2);
        cmd.arg(keys.lease(&lease.partition)).arg(keys.records(&lease.partition));
        cmd.arg(&*lease.owner).arg(lease.epoch).arg(self.keep_ms).arg(self.saves.fetch_add(1, Ordering::Relaxed) + 1);
        for (offset, record) in changes {
            cmd.arg(*offset).arg(record.as_ref().map(record::encode).unwrap_or_default());
        }
        verdict(Some(self.run_one(cmd).await?)).map(|_| ())
    }

    async fn load_now(&self, lease: &Lease) -> Result<Remembered, StoreError> {
        let Setup { keys, scripts, .. } = self.setup();
        let mut load = scripts.load.call(2);
        load.arg(keys.lease(&lease.partition)).arg(keys.mark(&lease.partition));
        load.arg(&*lease.owner).arg(lease.epoch).arg(self.keep_ms);
        let mut pipeline = redis::pipe();
        pipeline.add_command(load);
        pipeline.cmd("HGETALL").arg(keys.records(&lease.partition));
        let (held, records): (Value, Vec<(i64, Vec<u8>)>) = self.link.run(&pipeline, self.link.timing().load).await?;
        let mark = match held {
            Value::Array(answer) => match answer.get(1) {
                Some(Value::Int(mark)) => Some(*mark),
                _ => None,
            },
            refused => verdict(Some(refused)).map(|_| None)?,
        };
        let mut unread = 0;
        let read = records.iter().filter_map(|(offset, bytes)| {
            let record = record::decode(bytes);
            unread += usize::from(record.is_none());
            Some((*offset, record?))
        });
        let mut records: Vec<_> = read.collect();
        if unread > 0 {
            tracing::warn!(kafka.partition = %lease.partition, store.records = unread, "records of a newer worker are not read; their attempts come from the commit map");
        }
        records.sort_unstable_by_key(|(offset, _)| *offset);
        Ok(Remembered { records, mark })
    }

    async fn acquire_now(&self, partition: &TopicPartition, owner: &Arc<str>, map_epoch: u64) -> Result<Acquired, StoreError> {
        let Setup { keys, scripts, .. } = self.setup();
        let mut cmd = scripts.acquire.call(1);
        cmd.arg(keys.lease(partition)).arg(&**owner).arg(map_epoch).arg(millis(self.lease_time)).arg(self.keep_ms);
        match self.run_one::<Vec<u64>>(cmd).await?[..] {
            [0, wait] => Ok(Acquired::Held(Duration::from_millis(wait).min(ASK_AGAIN))),
            [1, epoch, clean, now_ms] => {
                let lease = Lease { partition: partition.clone(), owner: owner.clone(), epoch };
                self.held_until(&lease, now_ms);
                Ok(Acquired::Granted { lease, clean: clean == 1, now_ms })
            }
            _ => Err(self.odd("acquire")),
        }
    }

    async fn renew_now(&self, leases: &[Lease]) -> Result<(Vec<Renewed>, u64), StoreError> {
        let setup = self.setup();
        let mut pipeline = redis::pipe();
        setup.ask_geometry(&mut pipeline);
        pipeline.cmd("TIME");
        for lease in leases {
            pipeline.add_command(self.about(&setup.scripts.renew, lease));
        }
        let mut answers = self.run::<Vec<Value>>(&pipeline).await?.into_iter();
        let (Some(geometry), Some(time)) = (answers.next(), answers.next()) else { return Err(self.odd("renew")) };
        let (Ok(geometry), Ok((seconds, micros))) = (String::from_redis_value(geometry), <(u64, u64)>::from_redis_value(time)) else {
            return Err(self.odd("renew"));
        };
        setup.adopt(&geometry)?;
        let now_ms = seconds * 1000 + micros / 1000;
        setup.ledger.learn(now_ms);
        let mut renewed = Vec::with_capacity(leases.len());
        for (lease, answer) in leases.iter().zip(answers) {
            renewed.push(match <[u64; 3]>::from_redis_value(answer) {
                Ok([1, waiter, now_ms]) => {
                    self.held_until(lease, now_ms);
                    Renewed::Ours { waiter: waiter == 1 }
                }
                Ok(_) => Renewed::Gone,
                Err(_) => return Err(self.odd("renew")),
            });
        }
        if renewed.len() != leases.len() {
            return Err(self.odd("renew"));
        }
        self.drop_old_generations().await;
        Ok((renewed, now_ms))
    }

    async fn release_now(&self, leases: &[Lease]) -> Result<(), StoreError> {
        if leases.is_empty() {
            return Ok(());
        }
        let mut pipeline = redis::pipe();
        for lease in leases {
            pipeline.add_command(self.about(&self.setup().scripts.release, lease)).ignore();
        }
        self.run::<()>(&pipeline).await?;
        let mut ends = self.ends();
        for lease in leases {
            if ends.get(&lease.partition).is_some_and(|(epoch, _)| *epoch == lease.epoch) {
                ends.remove(&lease.partition);
            }
        }
        Ok(())
    }

    /// A call of `renew` or `release` for one lease.
    fn about(&self, script: &scripts::Script, lease: &Lease) -> Cmd {
        let mut cmd = script.call(1);
        cmd.arg(self.setup().keys.lease(&lease.partition)).arg(&*lease.owner).arg(lease.epoch);
        cmd.arg(millis(self.lease_time)).arg(self.keep_ms).arg(self.end_of(lease));
        cmd
    }

    /// Unlinks sets that nobody reads any more, once per worker and generation. Those that expire later than this worker's retention says
    /// are wanted by a worker with a longer one. A failure is no harm: they expire.
    async fn drop_old_generations(&self) {
        let Setup { keys, ledger, .. } = self.setup();
        let Some((current, sets)) = ledger.to_clean() else { return };
        let mut ask = redis::pipe();
        for set in &sets {
            ask.cmd("PTTL").arg(keys.done(*set));
        }
        let Ok(left) = self.run::<Vec<i64>>(&ask).await else { return };
        let slack = i64::try_from(ledger.geometry().generation_ms).unwrap_or(i64::MAX);
        let old: Vec<_> = sets.iter().zip(left).filter(|(_, left)| (0..=slack).contains(left)).map(|(set, _)| keys.done(*set)).collect();
        if !old.is_empty() && self.run_one::<i64>(redis::cmd("UNLINK").arg(&old).to_owned()).await.is_err() {
            return;
        }
        ledger.cleaned(current);
    }

    fn odd(&self, what: &str) -> StoreError {
        StoreError::Refused(format!("redis {}: an answer to {what} that makes no sense", self.link.address()))
    }
}

/// A script's answer: a count, or why it wrote nothing.
fn verdict(answer: Option<Value>) -> Result<i64, StoreError> {
    match answer {
        Some(Value::Int(LOST)) => {
            Err(StoreError::Unavailable(String::from("redis lost this partition's lease; it is written again at the next renewal")))
        }
        Some(Value::Int(FENCED)) => Err(StoreError::Fenced),
        Some(Value::Int(STALE)) => Err(StoreError::Unavailable(String::from("overtaken by a later save; ask again"))),
        Some(Value::Int(count)) => Ok(count),
        _ => Err(StoreError::Refused(String::from("redis: a script's answer that makes no sense"))),
    }
}

fn is_list_of(value: &Value, length: usize) -> bool {
    matches!(value, Value::Array(items) if items.len() == length)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl DedupeStore for RedisStore {
    fn check<'a>(&'a self, lease: &'a Lease, check: Check) -> BoxFuture<'a, Result<Vec<bool>, StoreError>> {
        self.check_now(lease, check).boxed()
    }

    fn finish<'a>(&'a self, lease: &'a Lease, members: Vec<Member>) -> BoxFuture<'a, Result<usize, StoreError>> {
        async move { self.finish_now(lease, &members).await }.boxed()
    }

    fn save<'a>(&'a self, lease: &'a Lease, changes: Vec<(i64, Option<EventRecord>)>) -> BoxFuture<'a, Result<(), StoreError>> {
        async move { self.save_now(lease, &changes).await }.boxed()
    }

    fn load<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<Remembered, StoreError>> {
        self.load_now(lease).boxed()
    }

    fn acquire<'a>(
        &'a self,
        partition: &'a TopicPartition,
        owner: &'a Arc<str>,
        map_epoch: u64,
    ) -> BoxFuture<'a, Result<Acquired, StoreError>> {
        self.acquire_now(partition, owner, map_epoch).boxed()
    }

    fn renew<'a>(&'a self, leases: &'a [Lease]) -> BoxFuture<'a, Result<(Vec<Renewed>, u64), StoreError>> {
        self.renew_now(leases).boxed()
    }

    fn release<'a>(&'a self, leases: &'a [Lease]) -> BoxFuture<'a, Result<(), StoreError>> {
        self.release_now(leases).boxed()
    }

    /// Writes a key: a server that is full, read-only or cannot save answers PING all the same.
    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        let mut cmd = redis::cmd("SET");
        cmd.arg(self.setup().keys.ping()).arg("").arg("PX").arg(60_000);
        async move { self.run_one::<()>(cmd).await }.boxed()
    }

    fn lease_time(&self) -> Duration {
        self.lease_time
    }
}
