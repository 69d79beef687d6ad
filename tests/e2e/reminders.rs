//! Reminders of several workers on a real Kafka and Redis; the store's contract on Redis; a million that wait.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::{BoxFuture, FutureExt, join_all};
use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};
use worker::{
    config::{
        redis::{StoreConfig, WhenDown},
        secret::SecretUrl,
    },
    reminders::{Change, Reminders, SHARDS},
    store::redis::{RedisOptions, RedisStore},
};

use crate::{
    reminder_contract::{KEEP, ReminderBench, scheduled},
    stack_or_skip,
    support::{
        eventually_every,
        kafka::Kafka,
        stack::Stack,
        unique,
        worker::{Launch, Worker},
    },
};

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const LONG: Duration = Duration::from_secs(90);

pub(super) struct Redis {
    stores: [RedisStore; 2],
    base: String,
    client: MultiplexedConnection,
}

impl Redis {
    pub(super) async fn new(url: &str, prefix: &str, group: &str) -> Self {
        let config = StoreConfig {
            url: SecretUrl::new(url),
            prefix: prefix.to_owned(),
            retention: Duration::from_secs(8 * 24 * 3600),
            when_down: WhenDown::Hold,
            bypass_after: Duration::ZERO,
            allow_eviction: false,
        };
        let store = || RedisStore::new(RedisOptions::new(&config, group)).unwrap();
        let client = redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap();
        Self { stores: [store(), store()], base: format!("{prefix}:{group}"), client }
    }

    pub(super) async fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let mut cmd = redis::cmd(words[0]);
        for word in &words[1..] {
            cmd.arg(word);
        }
        cmd.query_async(&mut self.client.clone()).await.unwrap()
    }

    async fn keys(&self) -> Vec<String> {
        self.ask(&["KEYS", &format!("{}:reminder:*", self.base)]).await
    }
}

impl ReminderBench for Redis {
    fn stores(&self) -> [&dyn Reminders; 2] {
        [&self.stores[0], &self.stores[1]]
    }

    fn now(&self) -> BoxFuture<'_, i64> {
        async {
            let (seconds, micros): (i64, i64) = self.ask(&["TIME"]).await;
            seconds * 1000 + micros / 1000
        }
        .boxed()
    }

    fn expire(&self) -> BoxFuture<'_, ()> {
        async {
            for shard in 0..SHARDS {
                let key = format!("{}:reminder:{shard}:claimed", self.base);
                for id in self.ask::<Vec<String>>(&["ZRANGE", &key, "0", "-1"]).await {
                    let _: i64 = self.ask(&["ZADD", &key, "1", &id]).await;
                }
            }
        }
        .boxed()
    }

    fn forget(&self) -> BoxFuture<'_, ()> {
        async {
            for key in self.keys().await {
                let left: i64 = self.ask(&["PTTL", &key]).await;
                assert!(left <= i64::try_from(KEEP.as_millis()).unwrap());
                if left >= 0 {
                    let _: i64 = self.ask(&["DEL", &key]).await;
                }
            }
        }
        .boxed()
    }

    fn flush(&self) -> BoxFuture<'_, ()> {
        async {
            for key in self.keys().await {
                let _: i64 = self.ask(&["DEL", &key]).await;
            }
        }
        .boxed()
    }
}

async fn shared() -> Option<Redis> {
    let stack = Stack::shared()?;
    Some(Redis::new(stack.redis(), &unique("reminders"), "group").await)
}

crate::reminder_contract!(tokio::test(flavor = "multi_thread"), shared);

#[tokio::test(flavor = "multi_thread")]
async fn a_reminder_that_redis_evicted_is_told_and_holds_nothing_up() {
    let Some(redis) = shared().await else { return };
    let now = redis.now().await;
    let tasks = [scheduled(1, "due_soon", now - 1), scheduled(2, "due_soon", now - 1)];
    let changes = tasks.each_ref().map(|task| Change {
        key: task.key(),
        old: None,
        new: task.encode(),
        next: task.next(),
        keep: KEEP,
        claimed: false,
    });
    redis.stores[0].replace(&changes).await.unwrap();
    let evicted = redis.keys().await.into_iter().find(|key| key.contains(&tasks[0].key().id.simple().to_string())).unwrap();
    let _: i64 = redis.ask(&["DEL", &evicted]).await;
    let claimed = redis.stores[0].claim(100).await.unwrap();
    assert_eq!((claimed.missing, claimed.tasks.len(), redis.stores[1].pending().await.unwrap()), (1, 1, 1));
}

/// A topic of tasks and reminders, and consumers that keep reminders.
pub(super) struct Place {
    pub(super) stack: Stack,
    kafka: Kafka,
    pub(super) name: String,
    topic: String,
    toml: String,
    _catalog: tempfile::TempDir,
}

/// An event that other programs write.
struct Sent<'a> {
    name: &'a str,
    id: String,
    user: String,
    at: DateTime<Utc>,
    data: Value,
}

impl Place {
    pub(super) async fn new(stack: Stack) -> Self {
        let (kafka, name, topic) = (stack.kafka(), unique("remind"), unique("remind-topic"));
        kafka.create_topic(&topic, 3, &[]).await;
        let types = ["reminder.scheduled", "reminder.cancelled", "reminder.due", "task.updated", "task.completed", "task.deleted"];
        let catalog = super::schedules::catalog(&topic, &types);
        let toml = format!(
            "catalog.dir = {:?}\nkafka.topics = [{topic:?}]\n[[handlers]]\nname = \"reminders\"\nkind = \"reminder\"\n",
            catalog.path()
        );
        Self { stack, kafka, name, topic, toml, _catalog: catalog }
    }

    pub(super) fn consumer(&self) -> Launch {
        Launch::role("consumer", &self.stack, &self.name, &self.toml)
    }

    async fn send(&self, sent: Sent<'_>) {
        let value = json!({ "event_id": sent.id, "event_type": sent.name, "timestamp": sent.at, "user_id": sent.user, "task_id": 7, "data": sent.data });
        self.kafka.produce(&self.topic, &sent.user, value.to_string().as_bytes(), &[]).await;
    }

    pub(super) async fn schedule(&self, user: &str, remind: DateTime<Utc>) {
        let data = json!({ "remind_at": remind, "due_date": remind + TimeDelta::minutes(5) });
        self.send(Sent { name: "reminder.scheduled", id: format!("s-{user}"), user: user.to_owned(), at: Utc::now(), data }).await;
    }

    async fn say(&self, name: &str, user: &str, data: Value) {
        self.send(Sent { name, id: format!("{name}-{user}"), user: user.to_owned(), at: Utc::now(), data }).await;
    }

    /// What was fired: of each user the ids, and how many records.
    pub(super) async fn fired(&self) -> (BTreeMap<String, BTreeSet<String>>, usize) {
        let (mut fired, mut records) = (BTreeMap::<String, BTreeSet<String>>::new(), 0);
        for record in self.kafka.read_all(&self.topic).await {
            let event = record.json();
            if event["event_type"] == "reminder.due" {
                records += 1;
                fired.entry(record.key_text().to_owned()).or_default().insert(event["event_id"].as_str().unwrap().to_owned());
            }
        }
        (fired, records)
    }

    pub(super) async fn wait_for(&self, users: usize) {
        eventually_every(SECOND, "reminders fired", LONG, async || (self.fired().await.0.len() >= users).then_some(())).await;
    }

    /// `worker reminders rebuild`: what it answers as JSON.
    pub(super) async fn rebuild(&self, args: &[&str]) -> Value {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("worker.toml");
        std::fs::write(&config, &self.toml).unwrap();
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_worker"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("WORKER_")) {
            command.env_remove(name);
        }
        command.env("WORKER_APP_ID", &self.name).env("WORKER_STORE__PREFIX", &self.name);
        command.env("WORKER_KAFKA__BROKERS", self.stack.brokers()).env("WORKER_STORE__URL", self.stack.redis());
        let output = command.args(["reminders", "rebuild", "-o", "json", "-c"]).arg(&config).args(args).output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    pub(super) async fn pending(&self, worker: &Worker, count: f64) {
        worker.wait_for_metric("worker_reminders_pending", &[], LONG, |pending| (pending - count).abs() < 0.5).await;
    }
}

/// A worker is killed every two seconds, while reminders come due all the time.
#[tokio::test(flavor = "multi_thread")]
async fn every_reminder_fires_with_one_id_although_workers_are_killed_again_and_again() {
    const USERS: usize = 150;
    let place = Place::new(stack_or_skip!(Stack::shared())).await;
    let mut workers = vec![place.consumer().start_ready().await, place.consumer().start_ready().await];
    let start = Utc::now() + TimeDelta::seconds(3);
    let all = (0..USERS).map(|user| {
        let place = &place;
        async move { place.schedule(&format!("user-{user}"), start + TimeDelta::milliseconds(user as i64 * 100)).await }
    });
    join_all(all).await;
    for _ in 0..6 {
        tokio::time::sleep(2 * SECOND).await;
        workers.remove(0).kill();
        workers.push(place.consumer().start());
    }
    place.wait_for(USERS).await;
    for worker in &mut workers {
        worker.ready(LONG).await;
        assert_eq!(worker.terminate(LONG).await, Some(0));
    }
    let (fired, records) = place.fired().await;
    assert_eq!(fired.len(), USERS);
    assert!(fired.values().all(|ids| ids.len() == 1), "{fired:?}");
    eprintln!("{records} records of {USERS} reminders, six kills");
    place.kafka.delete_topic(&place.topic).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_cancelled_or_moved_does_not_fire_and_a_late_start_fires_what_is_overdue() {
    let place = Place::new(stack_or_skip!(Stack::shared())).await;
    let mut worker = place.consumer().start_ready().await;
    let soon = Utc::now() + TimeDelta::seconds(20);
    for user in ["kept", "cancelled", "completed", "deleted", "moved"] {
        place.schedule(user, soon).await;
    }
    place.say("reminder.cancelled", "cancelled", json!({})).await;
    place.say("task.completed", "completed", json!({})).await;
    place.say("task.deleted", "deleted", json!({})).await;
    place.say("task.updated", "moved", json!({ "due_date": soon + TimeDelta::hours(1) })).await;
    place.kafka.wait_until_committed(&place.name, &place.topic, LONG).await;
    worker.kill();
    tokio::time::sleep((soon + TimeDelta::seconds(1) - Utc::now()).to_std().unwrap_or_default()).await;
    assert_eq!(place.fired().await.1, 0, "nobody was there");
    let mut worker = place.consumer().start_ready().await;
    place.wait_for(1).await;
    place.pending(&worker, 1.0).await;
    assert_eq!(worker.terminate(LONG).await, Some(0));
    let (fired, records) = place.fired().await;
    assert_eq!((fired.keys().map(String::as_str).collect::<Vec<_>>(), records), (vec!["kept"], 1));
    place.kafka.delete_topic(&place.topic).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_redis_lost_everything_a_rebuild_brings_back_what_is_to_come_and_nothing_fires_twice() {
    let place = Place::new(stack_or_skip!(Stack::private(&["kafka", "redis"]))).await;
    let mut worker = place.consumer().start_ready().await;
    let (soon, later) = (Utc::now() + TimeDelta::seconds(1), Utc::now() + TimeDelta::hours(1));
    place.schedule("fired", soon).await;
    for user in ["a", "b", "c", "moved", "completed"] {
        place.schedule(user, later).await;
    }
    place.say("task.completed", "completed", json!({})).await;
    place.say("task.updated", "moved", json!({ "due_date": later + TimeDelta::hours(2) })).await;
    place.wait_for(1).await;
    place.pending(&worker, 4.0).await;

    let redis = Redis::new(place.stack.redis(), &place.name, &place.name).await;
    let _: () = redis.ask(&["FLUSHALL"]).await;
    place.pending(&worker, 0.0).await;
    assert!(worker.log().contains("the store has lost its reminders"), "{}", worker.log());
    let dry = place.rebuild(&[]).await;
    assert_eq!(
        (&dry["pending"], &dry["overdue"], &dry["fired"], &dry["changed"]),
        (&json!(4), &json!(0), &json!(1), &Value::Null),
        "{dry}"
    );
    place.pending(&worker, 0.0).await;
    let done = place.rebuild(&["--execute"]).await;
    assert_eq!((&done["pending"], &done["changed"]), (&json!(4), &json!(6)), "{done}");
    place.pending(&worker, 4.0).await;
    assert_eq!(place.rebuild(&["--execute"]).await["changed"], json!(0), "once more changes nothing");
    assert_eq!(worker.terminate(LONG).await, Some(0));
    assert_eq!(place.fired().await.1, 1);
    let next = redis.stores[0].claim(1).await.unwrap().next.unwrap();
    assert_eq!(next, later.timestamp_millis());
}

/// What `docs/jobs.md` says of a million reminders. `WORKER_REMINDERS` sets another number.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement of minutes: tests/stack run cargo test --test e2e a_million -- --ignored --nocapture"]
async fn a_million_reminders_wait_and_fire_on_time_in_bounded_memory() {
    let number: i64 = std::env::var("WORKER_REMINDERS").map_or(1_000_000, |number| number.parse().unwrap());
    let (part, window, burst) = (number / 100, 60_000, number / 20);
    let place = Place::new(stack_or_skip!(Stack::private(&["kafka", "redis"]))).await;
    let redis = Redis::new(place.stack.redis(), &place.name, &place.name).await;
    let (before, begun) = (redis.used().await, Instant::now());
    // One in a hundred is due within a minute, evenly; the rest in the year to come.
    let first = redis.now().await + 150_000;
    let remind = |n: i64| if n < part { first + n * window / part } else { first + 3_600_000 + n * 30 };
    redis.fill((0..number).map(|n| (n, remind(n)))).await;
    let took = begun.elapsed();
    eprintln!("{number} reminders stored in {took:?}, {:.0} B each in Redis", (redis.used().await - before) / number as f64);
    assert!(redis.now().await < first, "the first came due meanwhile");

    let mut workers = [place.consumer().start_ready().await, place.consumer().start_ready().await];
    eprintln!("resident at start: {:?} MiB", workers.each_ref().map(peak_mib));
    fired(&workers, part).await;
    eprintln!("{part} due within {} s: {}", window / 1000, place.lateness(0, part).await);
    // And all at one moment, as at nine o'clock.
    let moment = redis.now().await + 30_000;
    redis.fill((number..number + burst).map(|n| (n, moment))).await;
    assert!(redis.now().await < moment, "it came meanwhile");
    fired(&workers, part + burst).await;
    eprintln!("{burst} due at one moment: {}", place.lateness(part, burst).await);
    eprintln!("peak at the end: {:?} MiB", workers.each_ref().map(peak_mib));
    for worker in &mut workers {
        assert_eq!(worker.terminate(LONG).await, Some(0));
    }
}

impl Redis {
    /// Bytes in use.
    async fn used(&self) -> f64 {
        let info: String = self.ask(&["INFO", "memory"]).await;
        info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap().trim().parse().unwrap()
    }

    /// Stores reminders by task and time.
    async fn fill(&self, all: impl Iterator<Item = (i64, i64)>) {
        let all: Vec<_> = all.collect();
        for chunk in all.chunks(2000) {
            let tasks = chunk.iter().map(|(task, remind)| scheduled(*task, "due_soon", *remind));
            let changes: Vec<_> = tasks
                .map(|task| Change { key: task.key(), old: None, new: task.encode(), next: task.next(), keep: KEEP, claimed: false })
                .collect();
            assert!(self.stores[0].replace(&changes).await.unwrap().into_iter().all(|done| done));
        }
    }
}

impl Place {
    /// From a reminder's time to its record's in the log, of `count` reminders after the first `skip`, all of which must be there.
    async fn lateness(&self, skip: i64, count: i64) -> String {
        let mut all = Vec::new();
        for record in self.kafka.read_all(&self.topic).await {
            let remind: DateTime<Utc> = record.json()["data"]["remind_at"].as_str().unwrap().parse().unwrap();
            all.push((remind, record.timestamp.unwrap() - remind.timestamp_millis()));
        }
        all.sort_unstable();
        let mut late: Vec<_> = all.into_iter().skip(usize::try_from(skip).unwrap()).map(|(_, late)| late).collect();
        assert_eq!(i64::try_from(late.len()).unwrap(), count);
        late.sort_unstable();
        let at = |part: f64| late[((late.len() - 1) as f64 * part) as usize];
        format!("late by p50 {} ms, p99 {} ms, at most {} ms", at(0.5), at(0.99), at(1.0))
    }
}

async fn fired(workers: &[Worker], wanted: i64) {
    let fired = async || {
        let mut sum = 0.0;
        for worker in workers {
            sum += worker.metrics().await.sum("worker_reminders_fired_total", &[]);
        }
        (sum >= wanted as f64).then_some(())
    };
    eventually_every(SECOND, "those that are due fired", Duration::from_secs(400), fired).await;
}

/// Most that a process had resident.
fn peak_mib(worker: &Worker) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", worker.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}
