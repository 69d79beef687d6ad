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
//! | `schedule:<name>` | hash | the schedule's latest tick, and who fires which |
//! | `reminder:..` | | see `reminders.rs` |
//! | `outbox:<handler>:..` | | what is to go out later, see `outbox` |
//! | `book:<handler>:..` | | what a handler keeps: `accounts`, `tally` |
//!
//! A call that is not answered in time is [`StoreError::Unavailable`], and Redis may still do it later: each is safe to repeat and safe to
//! come late (a mark never goes back, a start counts once per owner, a save carries a number, a finished event stays finished).

mod accounts;
mod events;
mod exchange;
mod forget;
mod gather;
mod lease;
mod ledger;
mod link;
mod outbox;
mod probe;
mod reminders;
mod scripts;
mod setup;
mod tally;
mod ticks;
pub mod state;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, atomic::AtomicU64},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::future::{BoxFuture, FutureExt};
use redis::{Cmd, FromRedisValue, Pipeline};

use self::{
    exchange::Exchange,
    gather::Gather,
    ledger::{Geometry, Ledger},
    link::Link,
    probe::ServerInfo,
    scripts::Scripts,
    setup::{Keys, Setup},
};
pub use self::{link::Timing, probe::Probe};
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
    link: Arc<Link>,
    exchange: Arc<Exchange>,
    checks: Gather<(Lease, Check), Vec<bool>>,
    verdicts: Gather<(Lease, Vec<Member>), usize>,
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
        let link = Arc::new(Link::new(&options.url, options.timing, setup)?);
        let keep_ms = millis(options.retention).saturating_mul(2).max(24 * 3600 * 1000);
        Ok(Self {
            exchange: Arc::new(Exchange { link: Arc::clone(&link), keep_ms }),
            link,
            checks: Gather::default(),
            verdicts: Gather::default(),
            lease_time: options.lease_time,
            keep_ms,
            ends: Mutex::default(),
            saves: AtomicU64::new(0),
        })
    }

    /// Asks the server about itself, whether or not it would be accepted.
    ///
    /// # Errors
    /// As any call.
    pub async fn probe(&self) -> Result<Probe, StoreError> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("TIME").cmd("INFO");
        let (((seconds, micros), info), round_trip): (((i64, i64), String), _) = self.link.look(&pipeline).await?;
        let local = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(round_trip / 2);
        let info = ServerInfo::parse(&info);
        Ok(Probe {
            address: self.link.address().to_owned(),
            version: info.version.clone(),
            policy: info.policy.clone(),
            maxmemory: info.maxmemory,
            used_memory: info.used_memory,
            append_only: info.append_only,
            clock_difference_ms: seconds * 1000 + micros / 1000 - i64::try_from(local.as_millis()).unwrap_or(i64::MAX),
            round_trip,
            info,
        })
    }

    fn setup(&self) -> &Setup {
        self.link.setup()
    }

    async fn run<T: FromRedisValue>(&self, pipeline: &Pipeline) -> Result<T, StoreError> {
        self.link.ask(pipeline).await
    }

    async fn run_one<T: FromRedisValue>(&self, cmd: Cmd) -> Result<T, StoreError> {
        let mut pipeline = redis::pipe();
        pipeline.add_command(cmd);
        let (answer,) = self.run(&pipeline).await?;
        Ok(answer)
    }

    fn odd(&self, what: &str) -> StoreError {
        self.link.odd(what)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl DedupeStore for RedisStore {
    fn check<'a>(&'a self, lease: &'a Lease, check: Check) -> BoxFuture<'a, Result<Vec<bool>, StoreError>> {
        let (exchange, events) = (Arc::clone(&self.exchange), check.members.len());
        self.checks.call((lease.clone(), check), events, move |calls| Arc::clone(&exchange).check(calls)).boxed()
    }

    fn finish<'a>(&'a self, lease: &'a Lease, members: Vec<Member>) -> BoxFuture<'a, Result<usize, StoreError>> {
        let (exchange, events) = (Arc::clone(&self.exchange), members.len());
        self.verdicts.call((lease.clone(), members), events, move |calls| Arc::clone(&exchange).finish(calls)).boxed()
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
