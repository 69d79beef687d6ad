//! The store in a real Redis: the contract, and what can happen to a server.

use std::{sync::Arc, time::Duration};

use futures_util::future::{BoxFuture, FutureExt, join_all};
use redis::aio::MultiplexedConnection;
use worker::{
    config::{
        redis::{StoreConfig, WhenDown},
        secret::SecretUrl,
    },
    engine::ports::{Acquired, Check, DedupeStore, EventRecord, Lease, Renewed, StoreError},
    event::record::TopicPartition,
    store::redis::{RedisOptions, RedisStore, Timing},
    telemetry::Metrics,
};

use crate::{
    contract::{Bench, event, known, partition, remembered, take},
    stack_or_skip,
    support::{eventually, stack::Stack, unique},
};

const LONG: Duration = Duration::from_secs(20);

/// Two workers' view of one group in Redis, and a client of the test's own.
struct Redis {
    one: RedisStore,
    two: RedisStore,
    base: String,
    client: MultiplexedConnection,
}

fn options(url: &str, prefix: &str) -> RedisOptions {
    let config = StoreConfig {
        url: SecretUrl::new(url),
        prefix: prefix.to_owned(),
        retention: Duration::from_secs(8 * 24 * 3600),
        when_down: WhenDown::Hold,
        bypass_after: Duration::ZERO,
        allow_eviction: false,
    };
    RedisOptions::new(&config, "group")
}

async fn client(url: &str) -> MultiplexedConnection {
    redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap()
}

impl Redis {
    async fn new(url: &str, change: impl Fn(&mut RedisOptions)) -> Self {
        let prefix = unique("store");
        let mut options = options(url, &prefix);
        change(&mut options);
        let (one, two) = (RedisStore::new(options.clone()).unwrap(), RedisStore::new(options).unwrap());
        Self { one, two, base: format!("{prefix}:group"), client: client(url).await }
    }

    async fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let mut cmd = redis::cmd(words[0]);
        for word in &words[1..] {
            cmd.arg(word);
        }
        cmd.query_async(&mut self.client.clone()).await.unwrap()
    }

    async fn keys(&self, kind: &str) -> Vec<String> {
        let mut keys: Vec<String> = self.ask(&["KEYS", &format!("{}:{kind}*", self.base)]).await;
        keys.sort();
        keys
    }

    async fn now_ms(&self) -> u64 {
        let (seconds, micros): (u64, u64) = self.ask(&["TIME"]).await;
        seconds * 1000 + micros / 1000
    }
}

impl Bench for Redis {
    fn store(&self) -> &dyn DedupeStore {
        &self.one
    }

    fn other(&self) -> &dyn DedupeStore {
        &self.two
    }

    fn expire<'a>(&'a self, partition: &'a TopicPartition) -> BoxFuture<'a, ()> {
        async move {
            let lease = format!("{}:lease:{{{partition}}}", self.base);
            let _: i64 = self.ask(&["HSET", &lease, "end", "1"]).await;
        }
        .boxed()
    }

    /// Only this test's keys: the server is shared.
    fn flush(&self) -> BoxFuture<'_, ()> {
        async {
            let keys = self.keys("").await;
            let mut words = vec!["DEL", "nothing"];
            words.extend(keys.iter().map(String::as_str));
            let _: i64 = self.ask(&words).await;
        }
        .boxed()
    }
}

async fn shared() -> Option<Redis> {
    Some(Redis::new(Stack::shared()?.redis(), |_| {}).await)
}

crate::store_contract!(tokio::test(flavor = "multi_thread"), shared);

async fn renew(store: &RedisStore, lease: &Lease) -> Result<Renewed, StoreError> {
    store.renew(std::slice::from_ref(lease)).await.map(|(renewed, _)| renewed[0])
}

fn is_away<T>(answer: &Result<T, StoreError>) -> bool {
    matches!(answer, Err(StoreError::Unavailable(_)))
}

/// Waits until the store answers again.
async fn back(store: &RedisStore) {
    eventually("the store answers", LONG, async || store.ping().await.ok()).await;
}

/// F84: a verdict is found as long as the retention says, over several generations, and its set goes in one piece afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn a_finished_event_is_known_for_the_retention_and_its_set_is_dropped_afterwards() {
    let stack = stack_or_skip!(Stack::shared());
    let redis = Redis::new(stack.redis(), |options| options.retention = Duration::from_secs(4)).await;
    let (lease, _) = take(&redis.one, &partition(0), "a", 0).await;
    let written = redis.now_ms().await;
    redis.one.finish(&lease, vec![event(1)]).await.unwrap();
    assert_eq!(redis.ask::<String>(&["GET", &format!("{}:geometry", redis.base)]).await, "1 4 2000");
    let first = redis.keys("done").await;
    assert_eq!(first.len(), 1);
    loop {
        renew(&redis.one, &lease).await.unwrap();
        let found = known(&redis.one, &lease, vec![event(1)]).await[0];
        if redis.now_ms().await < written + 4000 {
            assert!(found, "forgotten before the retention");
        } else if !found {
            break;
        }
        assert!(redis.now_ms().await < written + 10_000, "known for ever");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    eventually("the old set is gone", LONG, async || {
        renew(&redis.one, &lease).await.unwrap();
        (!redis.keys("done").await.contains(&first[0])).then_some(())
    })
    .await;
    // Dropped by the one who rotated, before it expired.
    let generation: u64 = first[0].split(':').rev().nth(1).unwrap().parse().unwrap();
    assert!(redis.now_ms().await < (generation + 2) * 2000 + 4000);
}

/// A worker of the same group with a longer retention still reads what a worker with a shorter one no longer does.
#[tokio::test(flavor = "multi_thread")]
async fn the_longest_retention_of_a_group_decides_when_a_set_goes() {
    let stack = stack_or_skip!(Stack::shared());
    let short = Redis::new(stack.redis(), |options| options.retention = Duration::from_secs(2)).await;
    let prefix = short.base.trim_end_matches(":group").to_owned();
    let long = RedisStore::new(RedisOptions { retention: Duration::from_secs(60), ..options(stack.redis(), &prefix) }).unwrap();
    let (lease, _) = take(&short.one, &partition(0), "a", 0).await;
    let (other, _) = take(&long, &partition(1), "b", 0).await;
    short.one.finish(&lease, vec![event(1)]).await.unwrap();
    long.finish(&other, vec![event(1)]).await.unwrap();
    eventually("the short one forgets", LONG, async || {
        renew(&short.one, &lease).await.unwrap();
        (!known(&short.one, &lease, vec![event(1)]).await[0]).then_some(())
    })
    .await;
    renew(&long, &other).await.unwrap();
    assert_eq!(known(&long, &other, vec![event(1)]).await, [true]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_key_expires_some_time_after_the_retention_and_none_before() {
    let redis = Redis::new(stack_or_skip!(Stack::shared()).redis(), |_| {}).await;
    let (lease, _) = take(&redis.one, &partition(0), "a", 0).await;
    let check = Check { members: vec![event(1)], mark: Some(3), starts: vec![(3, event(1).id)] };
    redis.one.check(&lease, check).await.unwrap();
    redis.one.save(&lease, vec![(4, Some(EventRecord::default()))]).await.unwrap();
    redis.one.finish(&lease, (0..100).map(event).collect()).await.unwrap();
    redis.one.ping().await.unwrap();
    let keys = redis.keys("").await;
    assert_eq!(keys.iter().filter(|key| key.contains(":done:")).count(), 4);
    for key in keys {
        let days = redis.ask::<i64>(&["PTTL", &key]).await / (24 * 3600 * 1000);
        match key.rsplit_once(":group:").unwrap().1 {
            "geometry" => assert_eq!(days, 0, "binds for ever"),
            "ping" => assert_eq!(days, 0),
            _ => assert!((8..=16).contains(&days), "{key}: {days} days"),
        }
    }
}

/// A flushed Redis begins a set anew; it must not stay for ever because its worker once told the old one when to expire.
#[tokio::test(flavor = "multi_thread")]
async fn a_set_that_is_begun_anew_after_a_flush_expires_as_well() {
    let redis = Redis::new(stack_or_skip!(Stack::shared()).redis(), |_| {}).await;
    let (lease, _) = take(&redis.one, &partition(0), "a", 0).await;
    redis.one.finish(&lease, vec![event(1)]).await.unwrap();
    redis.flush().await;
    assert!(is_away(&redis.one.finish(&lease, vec![event(1)]).await));
    renew(&redis.one, &lease).await.unwrap();
    redis.one.finish(&lease, vec![event(1)]).await.unwrap();
    let set = redis.keys("done").await.remove(0);
    assert!(redis.ask::<i64>(&["PTTL", &set]).await > 0);
}

/// F81: after a flush two workers must not number generations by different lengths.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_geometry_binds_every_worker_also_after_a_flush() {
    let stack = stack_or_skip!(Stack::shared());
    let redis = Redis::new(stack.redis(), |_| {}).await;
    let (lease, _) = take(&redis.one, &partition(0), "a", 0).await;
    redis.flush().await;
    let geometry = format!("{}:geometry", redis.base);
    let _: () = redis.ask(&["SET", &geometry, "1 4 86400000"]).await;
    renew(&redis.one, &lease).await.unwrap();
    redis.one.finish(&lease, (0..100).map(event).collect()).await.unwrap();
    let day = redis.now_ms().await / 86_400_000;
    assert_eq!(redis.keys("done").await, (0..4).map(|shard| format!("{}:done:{day}:{shard}", redis.base)).collect::<Vec<_>>());
    let _: () = redis.ask(&["SET", &geometry, "2 what is this"]).await;
    assert!(matches!(renew(&redis.one, &lease).await, Err(StoreError::Refused(_))));
}

/// An end written by a clock that has since gone back by an hour must not hold a partition for an hour.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_ends_too_far_in_the_future_lasts_one_lease_time_from_now() {
    let redis = Redis::new(stack_or_skip!(Stack::shared()).redis(), |options| options.lease_time = Duration::from_millis(300)).await;
    take(&redis.one, &partition(0), "a", 0).await;
    let lease = format!("{}:lease:{{{}}}", redis.base, partition(0));
    let _: i64 = redis.ask(&["HSET", &lease, "end", &(redis.now_ms().await + 3_600_000).to_string()]).await;
    eventually("the partition is granted", LONG, async || {
        matches!(redis.two.acquire(&partition(0), &"b".into(), 0).await.unwrap(), Acquired::Granted { clean: false, .. }).then_some(())
    })
    .await;
}

/// F81: somebody else may have had the partition and been lost as well.
#[tokio::test(flavor = "multi_thread")]
async fn an_owner_past_its_time_does_not_take_a_lost_lease_back() {
    let redis = Redis::new(stack_or_skip!(Stack::shared()).redis(), |options| options.lease_time = Duration::from_millis(100)).await;
    let (lease, _) = take(&redis.one, &partition(0), "a", 0).await;
    let granted = redis.now_ms().await;
    redis.flush().await;
    eventually("its time is over", LONG, async || (redis.now_ms().await > granted + 100).then_some(())).await;
    assert_eq!(renew(&redis.one, &lease).await, Ok(Renewed::Gone));
    // Another process that was never told of the lease has no claim either.
    assert_eq!(renew(&redis.two, &lease).await, Ok(Renewed::Gone));
}

/// A failover can lose the last second: the store then shows an older owner's lease to the one that came after it.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fell_back_to_an_older_lease_follows_the_newer_owner() {
    let redis = Redis::new(stack_or_skip!(Stack::shared()).redis(), |_| {}).await;
    let (old, _) = take(&redis.one, &partition(0), "a", 0).await;
    redis.expire(&partition(0)).await;
    let (new, _) = take(&redis.two, &partition(0), "b", 0).await;
    let lease = format!("{}:lease:{{{}}}", redis.base, partition(0));
    let _: i64 = redis.ask(&["HSET", &lease, "owner", "a", "epoch", &old.epoch.to_string()]).await;
    assert!(is_away(&redis.two.save(&new, vec![]).await), "not fenced: it comes after the one that is written there");
    assert_eq!(renew(&redis.two, &new).await, Ok(Renewed::Ours { waiter: true }));
    assert_eq!(renew(&redis.one, &old).await, Ok(Renewed::Gone));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_a_newer_worker_is_skipped_and_the_others_are_read() {
    let redis = Redis::new(stack_or_skip!(Stack::shared()).redis(), |_| {}).await;
    let (lease, _) = take(&redis.one, &partition(0), "a", 0).await;
    redis.one.save(&lease, vec![(1, Some(EventRecord::default()))]).await.unwrap();
    let records = format!("{}:ev:{{{}}}", redis.base, partition(0));
    let _: i64 = redis.ask(&["HSET", &records, "2", "\u{7f}later version"]).await;
    assert_eq!(remembered(&redis.one, &lease).await.records, [(1, EventRecord::default())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_that_redis_forgot_are_loaded_again_within_the_call() {
    let stack = stack_or_skip!(Stack::private(&["redis"]));
    let redis = Redis::new(stack.redis(), |_| {}).await;
    let (lease, _) = take(&redis.one, &partition(0), "a", 0).await;
    let _: () = redis.ask(&["SCRIPT", "FLUSH"]).await;
    assert_eq!(redis.one.finish(&lease, vec![event(1)]).await, Ok(1));
    let _: () = redis.ask(&["SCRIPT", "FLUSH"]).await;
    assert_eq!(known(&redis.one, &lease, vec![event(1)]).await, [true]);
    let _: () = redis.ask(&["SCRIPT", "FLUSH"]).await;
    assert_eq!(renew(&redis.one, &lease).await, Ok(Renewed::Ours { waiter: false }));
}

/// Append-only file on, as in compose: what was acknowledged a second before is there after kill -9.
#[tokio::test(flavor = "multi_thread")]
async fn after_kill_9_and_restart_verdicts_records_and_leases_are_there() {
    let stack = stack_or_skip!(Stack::private(&["redis"]));
    let redis = Redis::new(stack.redis(), |_| {}).await;
    let _: () = redis.ask(&["CONFIG", "SET", "appendonly", "yes"]).await;
    let _: () = redis.ask(&["CONFIG", "SET", "appendfsync", "always"]).await;
    eventually("the file is begun", LONG, async || {
        redis.ask::<String>(&["INFO", "persistence"]).await.contains("aof_rewrite_in_progress:0").then_some(())
    })
    .await;
    let (lease, _) = take(&redis.one, &partition(0), "a", 0).await;
    redis.one.check(&lease, Check { mark: Some(41), ..Check::default() }).await.unwrap();
    redis.one.finish(&lease, vec![event(1)]).await.unwrap();
    redis.one.save(&lease, vec![(7, Some(EventRecord { starts: 3, ..EventRecord::default() }))]).await.unwrap();
    stack.kill("redis");
    let started = std::time::Instant::now();
    assert!(is_away(&redis.one.finish(&lease, vec![event(2)]).await));
    assert!(is_away(&redis.one.ping().await));
    assert!(started.elapsed() < Duration::from_secs(3));
    stack.start("redis");
    back(&redis.one).await;
    assert_eq!(renew(&redis.one, &lease).await, Ok(Renewed::Ours { waiter: false }));
    assert_eq!(known(&redis.one, &lease, vec![event(1), event(2)]).await, [true, false]);
    let kept = remembered(&redis.one, &lease).await;
    assert_eq!((kept.mark, kept.records[0].1.starts), (Some(41), 3));
}

/// A failover to an empty replica: the owner goes on, nobody else may for one lease time, epochs do not turn back.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_without_data_the_owner_goes_on_and_others_wait() {
    let stack = stack_or_skip!(Stack::private(&["redis"]));
    let redis = Redis::new(stack.redis(), |_| {}).await;
    let (lease, _) = take(&redis.one, &partition(0), "a", 0).await;
    redis.one.finish(&lease, vec![event(1)]).await.unwrap();
    let _: () = redis.ask(&["FLUSHALL"]).await;
    stack.kill("redis");
    stack.start("redis");
    back(&redis.two).await;
    assert!(matches!(redis.two.acquire(&partition(0), &"b".into(), lease.epoch).await, Ok(Acquired::Held(_))));
    back(&redis.one).await;
    assert_eq!(renew(&redis.one, &lease).await, Ok(Renewed::Ours { waiter: true }));
    assert_eq!(known(&redis.one, &lease, vec![event(1)]).await, [false], "a duplicate is the price");
}

/// F82, F79: slow is as good as away, and says so in time; nothing hangs, and what arrives late does no harm.
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_hangs_is_unavailable_within_the_limit_and_late_calls_do_no_harm() {
    let stack = stack_or_skip!(Stack::private(&["redis"]));
    let limits = Timing { answer: Duration::from_millis(300), connect: Duration::from_millis(300), ..Timing::default() };
    let redis = Redis::new(stack.redis(), |options| options.timing = limits).await;
    let (lease, _) = take(&redis.one, &partition(0), "a", 0).await;
    let record = |attempt| Some(EventRecord { first_failed_ms: attempt, ..EventRecord::default() });
    let start = || Check { starts: vec![(9, [9; 16])], mark: Some(9), ..Check::default() };
    stack.stop("redis");
    for attempt in 0..6 {
        let before = std::time::Instant::now();
        assert!(is_away(&redis.one.save(&lease, vec![(1, record(attempt))]).await));
        assert!(is_away(&redis.one.check(&lease, start()).await));
        assert!(before.elapsed() < Duration::from_millis(2500), "{:?}", before.elapsed());
    }
    stack.cont("redis");
    back(&redis.one).await;
    redis.one.save(&lease, vec![(1, record(100))]).await.unwrap();
    redis.one.check(&lease, start()).await.unwrap();
    redis.one.check(&lease, Check { mark: Some(12), ..Check::default() }).await.unwrap();
    let kept = remembered(&redis.one, &lease).await;
    assert_eq!(kept.mark, Some(12));
    assert_eq!(
        kept.records.iter().map(|(offset, record)| (*offset, record.first_failed_ms, record.starts)).collect::<Vec<_>>(),
        [(1, 100, 0), (9, 0, 1)]
    );
}

/// Half-open: the network swallowed the connection, and neither end was told.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_went_mute_is_replaced() {
    let stack = stack_or_skip!(Stack::shared());
    let target = stack.redis().trim_start_matches("redis://").to_owned();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let (mute, _) = tokio::sync::broadcast::channel::<()>(1);
    let muting = mute.clone();
    let proxy = tokio::spawn(async move {
        let mut kept = Vec::new();
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            let (mut muted, target) = (muting.subscribe(), target.clone());
            kept.push(tokio::spawn(async move {
                let mut far = tokio::net::TcpStream::connect(target).await.unwrap();
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    _ = muted.recv() => std::future::pending().await,
                }
            }));
        }
    });
    let limits = Timing { answer: Duration::from_millis(300), ..Timing::default() };
    let store = RedisStore::new(RedisOptions { timing: limits, ..options(&url, &unique("store")) }).unwrap();
    let (lease, _) = take(&store, &partition(0), "a", 0).await;
    mute.send(()).unwrap();
    assert!(is_away(&renew(&store, &lease).await));
    assert_eq!(renew(&store, &lease).await, Ok(Renewed::Ours { waiter: false }));
    proxy.abort();
}

/// A save that its caller gave up on and that a dead connection delivers late.
#[tokio::test(flavor = "multi_thread")]
async fn a_save_that_arrives_after_a_later_one_is_not_taken() {
    let redis = Redis::new(stack_or_skip!(Stack::shared()).redis(), |_| {}).await;
    let (lease, _) = take(&redis.one, &partition(0), "a", 0).await;
    redis.one.save(&lease, vec![(1, Some(EventRecord { first_failed_ms: 2, ..EventRecord::default() }))]).await.unwrap();
    let key = format!("{}:lease:{{{}}}", redis.base, partition(0));
    let _: i64 = redis.ask(&["HSET", &key, "seq", "1000"]).await;
    assert!(is_away(&redis.one.save(&lease, vec![(1, None)]).await));
    assert_eq!(remembered(&redis.one, &lease).await.records.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_redis_is_unavailable_with_the_reason_and_works_again_when_it_has_room() {
    let stack = stack_or_skip!(Stack::private(&["redis"]));
    let redis = Redis::new(stack.redis(), |_| {}).await;
    let (lease, _) = take(&redis.one, &partition(0), "a", 0).await;
    redis.one.finish(&lease, vec![event(1)]).await.unwrap();
    let _: () = redis.ask(&["CONFIG", "SET", "maxmemory", "1"]).await;
    for answer in [
        redis.one.finish(&lease, vec![event(2)]).await.map(|_| ()),
        redis.one.save(&lease, vec![(1, Some(EventRecord::default()))]).await,
        redis.one.ping().await,
        renew(&redis.one, &lease).await.map(|_| ()),
    ] {
        let Err(StoreError::Unavailable(text)) = answer else { panic!("{answer:?}") };
        assert!(text.contains("maxmemory"), "{text}");
    }
    let _: () = redis.ask(&["CONFIG", "SET", "maxmemory", "0"]).await;
    assert_eq!(renew(&redis.one, &lease).await, Ok(Renewed::Ours { waiter: false }));
    assert_eq!(known(&redis.one, &lease, vec![event(1), event(2)]).await, [true, false]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_evicts_is_refused_unless_told() {
    let stack = stack_or_skip!(Stack::private(&["redis"]));
    let _: () =
        Redis::new(stack.redis(), |_| {}).await.ask(&["CONFIG", "SET", "maxmemory", "100mb", "maxmemory-policy", "allkeys-lru"]).await;
    let refused = Redis::new(stack.redis(), |_| {}).await;
    let Err(StoreError::Refused(text)) = refused.one.ping().await else { panic!("accepted") };
    assert!(text.contains("allkeys-lru") && text.contains("store.allow_eviction"), "{text}");
    assert_eq!(refused.one.probe().await.unwrap().policy, "allkeys-lru");
    let told = Redis::new(stack.redis(), |options| options.allow_eviction = true).await;
    told.one.ping().await.unwrap();
    let mut config = StoreConfig {
        url: SecretUrl::new(stack.redis()),
        prefix: unique("store"),
        retention: Duration::from_secs(60),
        when_down: WhenDown::Hold,
        bypass_after: Duration::ZERO,
        allow_eviction: false,
    };
    assert!(worker::store::connect(&config, "group", &Metrics::new("test")).await.is_err());
    config.allow_eviction = true;
    worker::store::connect(&config, "group", &Metrics::new("test")).await.unwrap().ping().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_became_a_replica_is_waited_for() {
    let stack = stack_or_skip!(Stack::private(&["redis"]));
    let redis = Redis::new(stack.redis(), |_| {}).await;
    let (lease, _) = take(&redis.one, &partition(0), "a", 0).await;
    let _: () = redis.ask(&["REPLICAOF", "127.0.0.1", "1"]).await;
    assert!(is_away(&renew(&redis.one, &lease).await));
    assert!(is_away(&redis.two.ping().await));
    let _: () = redis.ask(&["REPLICAOF", "NO", "ONE"]).await;
    back(&redis.one).await;
    assert_eq!(renew(&redis.one, &lease).await, Ok(Renewed::Ours { waiter: false }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_away_at_start_is_no_error_and_the_metrics_show_it() {
    let stack = stack_or_skip!(Stack::private(&["redis"]));
    // Stopped, not killed: its port stays its own.
    stack.stop("redis");
    let metrics = Metrics::new("test");
    let config = StoreConfig {
        url: SecretUrl::new(stack.redis()),
        prefix: unique("store"),
        retention: Duration::from_secs(60),
        when_down: WhenDown::Hold,
        bypass_after: Duration::ZERO,
        allow_eviction: false,
    };
    let store = worker::store::connect(&config, "group", &metrics).await.unwrap();
    assert_eq!(metrics.store_up.get(), 0);
    assert!(metrics.store_errors.with_label_values(&["ping"]).get() >= 1);
    stack.cont("redis");
    eventually("the store answers", LONG, async || store.ping().await.ok()).await;
    assert_eq!(metrics.store_up.get(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_or_password_that_is_not_accepted_is_refused_without_naming_it() {
    let stack = stack_or_skip!(Stack::private(&["redis"]));
    let redis = Redis::new(stack.redis(), |_| {}).await;
    let _: () = redis.ask(&["CONFIG", "SET", "requirepass", "right"]).await;
    for user in ["", ":wr0ng@"] {
        let url = stack.redis().replace("redis://", &format!("redis://{user}"));
        let Err(StoreError::Refused(text)) = RedisStore::new(options(&url, "p")).unwrap().ping().await else { panic!("accepted") };
        assert!(!text.contains("wr0ng"), "{text}");
    }
    let url = stack.redis().replace("redis://", "redis://:right@");
    RedisStore::new(options(&url, "p")).unwrap().ping().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_tells_version_policy_persistence_memory_and_clock() {
    let redis = Redis::new(stack_or_skip!(Stack::shared()).redis(), |_| {}).await;
    let probe = redis.one.probe().await.unwrap();
    assert!(probe.version.starts_with(|first: char| first.is_ascii_digit()) && probe.policy == "noeviction" && probe.used_memory > 0);
    assert!(probe.clock_difference_ms.abs() < 1000, "{probe:?}");
}

/// Re-processing on purpose after a reset of the offsets.
#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_group_forgets_everything_when_asked_and_keeps_its_epochs() {
    let redis = Redis::new(stack_or_skip!(Stack::shared()).redis(), |_| {}).await;
    let (lease, _) = take(&redis.one, &partition(0), "a", 0).await;
    redis.one.finish(&lease, vec![event(1)]).await.unwrap();
    redis.one.save(&lease, vec![(7, Some(EventRecord::default()))]).await.unwrap();
    redis.one.check(&lease, Check { mark: Some(7), ..Check::default() }).await.unwrap();
    let Err(StoreError::Refused(text)) = redis.two.forget_all().await else { panic!("forgot under a running worker") };
    assert!(text.contains("stop every worker"), "{text}");
    redis.one.release(std::slice::from_ref(&lease)).await.unwrap();
    assert_eq!(redis.two.forget_all().await, Ok(3));
    let (next, _) = take(&redis.one, &partition(0), "b", 0).await;
    assert!(next.epoch > lease.epoch);
    assert_eq!(known(&redis.one, &next, vec![event(1)]).await, [false]);
    let kept = remembered(&redis.one, &next).await;
    assert_eq!((kept.records, kept.mark), (vec![], None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_group_forgets_single_events_when_asked() {
    let redis = Redis::new(stack_or_skip!(Stack::shared()).redis(), |_| {}).await;
    let (lease, _) = take(&redis.one, &partition(0), "a", 0).await;
    redis.one.finish(&lease, (0..50).map(event).collect()).await.unwrap();
    redis.one.save(&lease, vec![(7, Some(EventRecord::default())), (8, Some(EventRecord::default()))]).await.unwrap();
    redis.one.release(std::slice::from_ref(&lease)).await.unwrap();
    let some: Vec<_> =
        (7..20).map(|number| (i64::from(number), event(usize::try_from(number).unwrap()))).chain([(99, event(99))]).collect();
    assert_eq!(redis.two.forget_members(&partition(0), &some[1..]).await, Ok(12));
    let (next, _) = take(&redis.one, &partition(0), "b", 0).await;
    let left = known(&redis.one, &next, (0..50).map(event).collect()).await;
    assert!(left.iter().enumerate().all(|(number, known)| *known != (8..20).contains(&number)));
    assert_eq!(remembered(&redis.one, &next).await.records.len(), 1);
}

/// Many partitions at once over one connection, as a worker does it.
#[tokio::test(flavor = "multi_thread")]
async fn twelve_partitions_share_one_connection_and_get_their_own_answers() {
    let redis = Arc::new(Redis::new(stack_or_skip!(Stack::shared()).redis(), |_| {}).await);
    let lanes = (0..12).map(|number| {
        let redis = redis.clone();
        async move {
            let (lease, _) = take(&redis.one, &partition(number), "a", 0).await;
            let mine = |round: usize| (0..50).map(move |at| event(usize::try_from(number).unwrap() * 100_000 + round * 50 + at));
            for round in 0..20 {
                assert!(known(&redis.one, &lease, mine(round).collect()).await.iter().all(|known| !known));
                assert_eq!(redis.one.finish(&lease, mine(round).collect()).await, Ok(50));
                assert!(known(&redis.one, &lease, mine(round).collect()).await.iter().all(|known| *known));
            }
        }
    });
    join_all(lanes).await;
}

/// A measurement, not a promise: `tests/stack run cargo test --test e2e -- --ignored --nocapture cost_of_an_event`.
#[ignore = "prints figures"]
#[tokio::test(flavor = "multi_thread")]
async fn the_cost_of_an_event() {
    const LANES: i32 = 6;
    const ROUNDS: usize = 100;
    const BATCH: usize = 500;
    let stack = stack_or_skip!(Stack::private(&["redis"]));
    let redis = Redis::new(stack.redis(), |_| {}).await;
    let started = std::time::Instant::now();
    join_all((0..LANES).map(|lane| {
        let redis = &redis;
        async move {
            let (lease, _) = take(&redis.one, &partition(lane), "a", 0).await;
            for round in 0..ROUNDS {
                let first = (usize::try_from(lane).unwrap() * ROUNDS + round) * BATCH;
                let members: Vec<_> = (first..first + BATCH).map(event).collect();
                redis.one.check(&lease, Check { members: members.clone(), mark: Some(1), ..Check::default() }).await.unwrap();
                assert_eq!(redis.one.finish(&lease, members).await, Ok(BATCH));
            }
        }
    }))
    .await;
    let took = started.elapsed().as_secs_f64();
    let events = f64::from(LANES) * f64::from(u32::try_from(ROUNDS * BATCH).unwrap());
    println!("checked and finished: {:.0} events/s", events / took);
    for line in redis.ask::<String>(&["INFO", "all"]).await.lines() {
        let micros = line.split_once("usec=").and_then(|(_, rest)| rest.split(',').next()?.parse::<f64>().ok());
        if let (true, Some(micros)) = (["cmdstat_evalsha", "cmdstat_smismember"].iter().any(|name| line.starts_with(name)), micros) {
            println!("{}: {:.2} us per event", line.split(':').next().unwrap(), micros / events);
        } else if line.starts_with("used_cpu_user:") || line.starts_with("used_cpu_sys:") || line.starts_with("used_memory_dataset:") {
            println!("{line}");
        }
    }
}
