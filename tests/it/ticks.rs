//! Schedules: replicas, crashes, absences and retries in virtual time; calls as an app sees them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, routing::post};
use chrono::{DateTime, Utc};
use futures_util::future::{BoxFuture, FutureExt};
use serde_json::{Value, json};
use tokio::{
    sync::{Notify, mpsc},
    task::JoinHandle,
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use worker::{
    engine::{
        Clock,
        ports::{PublishError, StoreError},
    },
    event::{Catalog, ids},
    health::{Health, Part},
    publish::Publishing,
    store::ticks::{CLAIM_TIME, Claim, Entered, MemoryTicks, TickStore, Wish},
    telemetry::Metrics,
    ticks::{Parts, Ticker},
};

use crate::{
    support::{
        app::{App, Got, reply},
        config,
        publisher::FakePublisher,
        serve,
    },
    tick_contract::TickBench,
};

struct Memory(MemoryTicks);

impl TickBench for Memory {
    fn stores(&self) -> [&dyn TickStore; 2] {
        [&self.0, &self.0]
    }

    fn expire(&self) -> BoxFuture<'_, ()> {
        tokio::time::advance(CLAIM_TIME + Duration::from_millis(1)).boxed()
    }

    fn flush(&self) -> BoxFuture<'_, ()> {
        self.0.flush();
        async {}.boxed()
    }
}

async fn empty() -> Option<Memory> {
    Some(Memory(MemoryTicks::default()))
}

crate::tick_contract!(tokio::test(start_paused = true), empty);

/// What replicas share: the clock, the brokers, the store.
struct World {
    clock: Clock,
    publisher: Arc<FakePublisher>,
    store: Arc<dyn TickStore>,
}

/// One producer's scheduler.
struct Replica {
    metrics: Metrics,
    stop: CancellationToken,
    task: JoinHandle<usize>,
}

impl World {
    fn at(time: &str) -> Self {
        let clock = Clock::Virtual { base: time.parse().unwrap(), start: Instant::now() };
        Self { clock, publisher: FakePublisher::new(), store: Arc::new(MemoryTicks::default()) }
    }

    fn ticker(&self, schedule: &str, sets: &[&str], metrics: &Metrics) -> Result<Ticker, String> {
        let schedule = format!("schedules=[{schedule}]");
        let config = config(&[&["store.url=memory", &schedule], sets].concat());
        let catalog = Arc::new(Catalog::embedded().unwrap());
        let publishing = Arc::new(Publishing::new(&config, catalog, self.publisher.clone(), metrics.clone()));
        let report = Health::new().part(Part::Schedules);
        let parts = Parts { publishing, store: Arc::clone(&self.store), report, metrics: metrics.clone(), clock: self.clock };
        Ticker::new(&config, parts).map_err(|error| error.to_string())
    }

    fn replica(&self, schedule: &str, sets: &[&str]) -> Replica {
        let metrics = Metrics::new("producer");
        let (ticker, stop) = (self.ticker(schedule, sets, &metrics).unwrap(), CancellationToken::new());
        let task = tokio::spawn(ticker.run(stop.clone(), Duration::from_secs(25)));
        Replica { metrics, stop, task }
    }

    /// Lets virtual time pass until then.
    async fn until(&self, time: &str) {
        let time: DateTime<Utc> = time.parse().unwrap();
        tokio::time::sleep((time - self.clock.now()).to_std().unwrap()).await;
    }

    /// The nominal times of what was published, in order.
    fn ticks(&self) -> Vec<String> {
        self.events().iter().map(|event| event["data"]["tick_at"].as_str().unwrap().to_owned()).collect()
    }

    fn events(&self) -> Vec<Value> {
        self.publisher.queued().iter().map(|message| serde_json::from_slice(message.value.as_deref().unwrap()).unwrap()).collect()
    }
}

impl Replica {
    async fn stop(self) -> usize {
        self.stop.cancel();
        self.task.await.unwrap()
    }

    fn skipped(&self, schedule: &str, reason: &str) -> u64 {
        self.metrics.schedule_skipped.with_label_values(&[schedule, reason]).get()
    }

    fn fired(&self, schedule: &str) -> u64 {
        self.metrics.schedule_ticks.with_label_values(&[schedule]).get()
    }
}

const HOURLY: &str = r#"{ name = "hourly", cron = "0 * * * *" }"#;

#[tokio::test(start_paused = true)]
async fn a_tick_is_one_event_with_its_own_id_however_many_replicas_run() {
    let world = World::at("2026-01-01T09:30:00Z");
    let replicas: Vec<_> = (0..4).map(|_| world.replica(HOURLY, &[])).collect();
    world.until("2026-01-01T12:30:00Z").await;
    assert_eq!(world.ticks(), ["2026-01-01T10:00:00Z", "2026-01-01T11:00:00Z", "2026-01-01T12:00:00Z"]);
    let first = &world.events()[0];
    let id = ids::of_tick("hourly", "2026-01-01T10:00:00Z".parse().unwrap()).to_string();
    assert_eq!(
        *first,
        json!({
            "event_id": id, "event_type": "schedule.ticked", "event_version": "1.0", "timestamp": "2026-01-01T10:00:00Z", "source": "todo-worker",
            "data": { "user_id": "schedule:hourly", "schedule": "hourly", "tick_at": "2026-01-01T10:00:00Z" }
        })
    );
    let message = &world.publisher.queued()[0];
    assert_eq!((message.key.as_deref(), &*message.topic), (Some(&b"schedule:hourly"[..]), "task-events"));
    assert_eq!(replicas.iter().map(|replica| replica.fired("hourly")).sum::<u64>(), 3);
    for replica in replicas {
        let late = replica.metrics.schedule_lateness.with_label_values(&["hourly"]);
        assert!(late.get_sample_sum() < 0.01, "{}", late.get_sample_sum());
        assert_eq!(replica.stop().await, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_named_event_and_a_user_are_the_schedules_own() {
    let world = World::at("2026-01-01T09:59:00Z");
    let entry = r#"{ name = "nightly", cron = "@hourly", event = "schedule.ticked", user_id = "ops" }"#;
    let _replica = world.replica(entry, &[]);
    world.until("2026-01-01T10:00:01Z").await;
    assert_eq!(
        (world.events()[0]["data"]["user_id"].as_str(), world.publisher.queued()[0].key.as_deref()),
        (Some("ops"), Some(&b"ops"[..]))
    );
    let refused =
        world.ticker(r#"{ name = "bad", cron = "@hourly", event = "task.created" }"#, &[], &Metrics::new("producer")).err().unwrap();
    assert!(refused.starts_with("schedule `bad`: a tick cannot be published as task.created: "), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_tick_that_a_crash_cut_short_is_fired_by_another_replica_with_the_same_id() {
    let mut world = World::at("2026-01-01T09:59:00Z");
    world.publisher = FakePublisher::holding();
    let first = world.replica(HOURLY, &[]);
    world.until("2026-01-01T10:00:01Z").await;
    assert_eq!(world.ticks().len(), 1, "on its way, not acknowledged");
    let second = world.replica(HOURLY, &[]);
    first.task.abort();
    world.until("2026-01-01T10:00:14Z").await;
    assert_eq!(world.ticks().len(), 1, "the claim still stands");
    world.publisher.acknowledge(10);
    world.until("2026-01-01T10:00:31Z").await;
    let ids: Vec<_> = world.events().iter().map(|event| event["event_id"].clone()).collect();
    assert_eq!((ids.len(), ids[0] == ids[1], second.fired("hourly")), (2, true, 1));
    world.until("2026-01-01T10:59:00Z").await;
    assert_eq!(world.ticks().len(), 2, "and never again");
}

#[tokio::test(start_paused = true)]
async fn a_slow_run_keeps_its_claim_for_as_long_as_it_takes() {
    let mut world = World::at("2026-01-01T09:59:00Z");
    world.publisher = FakePublisher::holding();
    let _replicas: Vec<_> = (0..3).map(|_| world.replica(HOURLY, &[])).collect();
    world.until("2026-01-01T10:30:00Z").await;
    assert_eq!(world.ticks().len(), 1);
}

/// Runs a replica from 9:30, stops it at 10:30, starts another one at that time, and tells what it fired until ten minutes later.
async fn after_an_absence(policy: &str, back: &str) -> (Vec<String>, u64) {
    let world = World::at("2026-01-01T09:30:00Z");
    let entry = format!(r#"{{ name = "hourly", cron = "0 * * * *", catch_up = "{policy}" }}"#);
    let before = world.replica(&entry, &[]);
    world.until("2026-01-01T10:30:00Z").await;
    before.stop().await;
    world.until(back).await;
    let after = world.replica(&entry, &[]);
    tokio::time::sleep(Duration::from_secs(600)).await;
    let fired = world.ticks().split_off(1).iter().map(|tick| tick[11..16].to_owned()).collect();
    (fired, after.skipped("hourly", "missed"))
}

#[tokio::test(start_paused = true)]
async fn ticks_missed_by_everybody_are_skipped_caught_up_once_or_all_as_configured() {
    let back = "2026-01-01T13:20:00Z";
    assert_eq!(after_an_absence("skip", back).await, (vec![], 3));
    assert_eq!(after_an_absence("once", back).await, (vec!["13:00".to_owned()], 2));
    assert_eq!(after_an_absence("all", back).await, (vec!["11:00".to_owned(), "12:00".to_owned(), "13:00".to_owned()], 0));
    let in_time = after_an_absence("skip", "2026-01-01T13:00:40Z").await;
    assert_eq!(in_time, (vec!["13:00".to_owned()], 2), "a restart over a tick does not lose it");
}

#[tokio::test(start_paused = true)]
async fn an_event_is_published_again_until_the_brokers_have_it() {
    let world = World::at("2026-01-01T09:59:00Z");
    world.publisher.answer(std::iter::repeat_n(Some(PublishError::Unreachable("away".to_owned())), 20));
    let replica = world.replica(HOURLY, &[]);
    world.until("2026-01-01T10:30:00Z").await;
    assert_eq!((world.ticks().len(), replica.fired("hourly")), (21, 1));
    assert!(world.ticks().iter().all(|tick| tick == "2026-01-01T10:00:00Z"));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_runs_and_not_for_retries() {
    let mut world = World::at("2026-01-01T09:59:00Z");
    world.publisher = FakePublisher::holding();
    let running = world.replica(HOURLY, &[]);
    world.until("2026-01-01T10:00:05Z").await;
    running.stop.cancel();
    world.until("2026-01-01T10:00:10Z").await;
    assert!(!running.task.is_finished());
    world.publisher.acknowledge(1);
    assert_eq!(running.task.await.unwrap(), 0);

    world.until("2026-01-01T10:59:00Z").await;
    world.publisher.answer([Some(PublishError::Unreachable("away".to_owned()))]);
    world.publisher.acknowledge(1);
    let retrying = world.replica(HOURLY, &["retry.default.delays=[\"1h\"]"]);
    world.until("2026-01-01T11:00:05Z").await;
    let began = Instant::now();
    assert_eq!((retrying.stop().await, began.elapsed() < Duration::from_secs(1)), (0, true));
    // Who comes next finds it open.
    world.publisher.acknowledge(1);
    let _next = world.replica(HOURLY, &[]);
    world.until("2026-01-01T11:01:00Z").await;
    assert_eq!(world.ticks(), ["2026-01-01T10:00:00Z", "2026-01-01T11:00:00Z", "2026-01-01T11:00:00Z"]);
}

#[tokio::test(start_paused = true)]
async fn runs_left_behind_at_the_deadline_are_told() {
    let mut world = World::at("2026-01-01T09:59:00Z");
    world.publisher = FakePublisher::holding();
    let replica = world.replica(HOURLY, &[]);
    world.until("2026-01-01T10:00:05Z").await;
    assert_eq!(replica.stop().await, 1);
}

/// A store that can be away.
struct Away {
    store: MemoryTicks,
    away: AtomicBool,
}

impl Away {
    fn world(time: &str) -> (World, Arc<Self>) {
        let store = Arc::new(Self { store: MemoryTicks::default(), away: AtomicBool::new(true) });
        (World { store: Arc::clone(&store) as _, ..World::at(time) }, store)
    }

    fn there(&self) -> Result<(), StoreError> {
        if self.away.load(Ordering::SeqCst) { Err(StoreError::Unavailable("away".to_owned())) } else { Ok(()) }
    }
}

impl TickStore for Away {
    fn enter<'a>(&'a self, schedule: &'a str, now: i64) -> BoxFuture<'a, Result<Entered, StoreError>> {
        async move {
            self.there()?;
            self.store.enter(schedule, now).await
        }
        .boxed()
    }

    fn claim<'a>(&'a self, wish: Wish<'a>) -> BoxFuture<'a, Result<Claim, StoreError>> {
        async move {
            self.there()?;
            self.store.claim(wish).await
        }
        .boxed()
    }

    fn renew<'a>(&'a self, wish: Wish<'a>) -> BoxFuture<'a, Result<bool, StoreError>> {
        async move {
            self.there()?;
            self.store.renew(wish).await
        }
        .boxed()
    }

    fn finish<'a>(&'a self, wish: Wish<'a>) -> BoxFuture<'a, Result<(), StoreError>> {
        async move {
            self.there()?;
            self.store.finish(wish).await
        }
        .boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn with_the_store_away_events_go_out_all_the_same() {
    let (world, store) = Away::world("2026-01-01T09:30:00Z");
    let _replica = world.replica(HOURLY, &[]);
    world.until("2026-01-01T11:30:00Z").await;
    assert_eq!(world.ticks(), ["2026-01-01T10:00:00Z", "2026-01-01T11:00:00Z"]);
    store.away.store(false, Ordering::SeqCst);
    world.until("2026-01-01T12:30:00Z").await;
    assert_eq!(world.ticks().split_off(2), ["2026-01-01T12:00:00Z"], "and nothing again when it is back");
}

#[tokio::test(start_paused = true)]
async fn with_the_store_away_calls_wait_and_are_missed_once_they_are_too_late() {
    let (world, store) = Away::world("2026-01-01T09:59:00Z");
    // Nobody listens there: nothing must be asked.
    let entry = r#"{ name = "call", cron = "*/5 * * * *", http = "http://127.0.0.1:1/tick", overlap = "allow" }"#;
    let replica = world.replica(entry, &[]);
    world.until("2026-01-01T10:06:30Z").await;
    store.away.store(false, Ordering::SeqCst);
    world.until("2026-01-01T10:09:00Z").await;
    assert_eq!((replica.skipped("call", "missed"), replica.fired("call")), (2, 0));
    assert_eq!(replica.metrics.schedule_lateness.with_label_values(&["call"]).get_sample_count(), 0);
}

// === Calls, in real time ===

/// Just before a minute of the worker's clock.
const BEFORE: &str = "2026-01-01T09:59:59.800Z";

async fn until<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let end = std::time::Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(std::time::Instant::now() < end, "not within 20 s");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn an_app_is_called_as_daprs_cron_binding_calls_it() {
    let (world, app) = (World::at(BEFORE), App::start().await);
    app.reply([reply(404, "")]);
    let entry =
        format!(r#"{{ name = "recurring-scheduler", cron = "* * * * * *", timezone = "Europe/Berlin", http = "{}" }}"#, app.served.url(""));
    let replica = world.replica(&entry, &[]);
    let got = until(|| Some(app.got()).filter(|got| got.len() >= 3)).await;
    let paths: Vec<_> = got[..3].iter().map(|got| (got.method.as_str(), got.path.as_str())).collect();
    let bindings = ("POST", "/bindings/recurring-scheduler");
    assert_eq!(paths, [("POST", "/recurring-scheduler"), bindings, bindings], "where it was found it is looked for first");
    let first = &got[1];
    assert!(first.body.is_empty());
    assert_eq!((first.header("content-type"), first.header("timezone")), (Some("application/json"), Some("Europe/Berlin")));
    let tick: DateTime<Utc> = first.header("x-worker-tick").unwrap().parse().unwrap();
    let read = first.header("readtimeutc").unwrap();
    assert!(read.starts_with(&tick.format("%Y-%m-%d %H:%M:%S").to_string()) && read.ends_with(" +0000 UTC"), "{read}");
    let id = ids::of_tick("recurring-scheduler", tick).to_string();
    assert_eq!((first.header("idempotency-key"), first.header("x-worker-attempt")), (Some(id.as_str()), Some("1")));
    assert_eq!(replica.stop().await, 0);
}

#[tokio::test]
async fn a_route_or_a_whole_url_is_called_as_written_and_nothing_else() {
    let (world, app) = (World::at(BEFORE), App::start().await);
    app.reply((0..9).map(|_| reply(404, "")));
    let url = app.served.url("/bindings/x?key=a");
    let whole = format!(r#"{{ name = "whole", cron = "@every 24h", http = "{url}" }}"#);
    let route = format!(r#"{{ name = "routed", cron = "* * * * * *", http = "{}", route = "/on/tick" }}"#, app.served.url(""));
    let replica = world
        .replica(&format!("{whole}, {route}, {}", whole.replace("24h", "1s").replace("whole", "second")), &["retry.default.delays=[]"]);
    let got = until(|| Some(app.got()).filter(|got| got.len() >= 2)).await;
    let mut paths: Vec<_> = got.iter().map(|got| got.path.as_str()).collect();
    paths.sort_unstable();
    paths.dedup();
    assert_eq!(paths, ["/bindings/x?key=a", "/on/tick"]);
    replica.stop().await;
}

#[tokio::test]
async fn a_failed_call_is_retried_on_the_schedule_and_then_given_up() {
    let (world, app) = (World::at(BEFORE), App::start().await);
    app.reply([reply(500, ""), reply(503, ""), reply(200, ""), reply(500, ""), reply(500, ""), reply(500, ""), reply(422, "")]);
    let entry = format!(r#"{{ name = "call", cron = "* * * * * *", http = "{}" }}"#, app.served.url("/tick"));
    let replica = world.replica(&entry, &["retry.\"schedule.ticked\".delays=[\"10ms\", \"10ms\"]"]);
    let got = until(|| Some(app.got()).filter(|got| got.len() >= 8)).await;
    let tick = |got: &Got| got.header("x-worker-tick").unwrap().parse::<DateTime<Utc>>().unwrap();
    let seen: Vec<_> =
        got[..8].iter().map(|one| ((tick(one) - tick(&got[0])).num_seconds(), one.header("x-worker-attempt").unwrap())).collect();
    assert_eq!(
        seen,
        [(0, "1"), (0, "2"), (0, "3"), (1, "1"), (1, "2"), (1, "3"), (2, "1"), (3, "1")],
        "the third run succeeded; three failed; a 422 is not retried"
    );
    assert_eq!(got[0].header("idempotency-key"), got[2].header("idempotency-key"));
    until(|| (replica.fired("call") >= 2).then_some(())).await;
    assert_eq!(replica.metrics.schedule_failures.with_label_values(&["call"]).get(), 2);
    replica.stop().await;
}

#[tokio::test]
async fn a_tick_while_another_one_runs_is_skipped_by_every_replica_unless_that_is_allowed() {
    for (overlap, beside) in [("skip", false), ("allow", true)] {
        let world = World::at(BEFORE);
        let (release, (begun, mut runs)) = (Arc::new(Notify::new()), mpsc::channel(64));
        let handler = {
            let release = Arc::clone(&release);
            move || async move {
                begun.send(()).await.unwrap();
                release.notified().await;
            }
        };
        let served = serve(Router::new().route("/slow", post(handler))).await;
        let entry = format!(r#"{{ name = "slow", cron = "* * * * * *", http = "{}", overlap = "{overlap}" }}"#, served.url("/slow"));
        let replicas = [world.replica(&entry, &[]), world.replica(&entry, &[])];
        runs.recv().await.unwrap();
        if beside {
            runs.recv().await.unwrap();
        } else {
            until(|| (replicas.iter().map(|replica| replica.skipped("slow", "overlap")).sum::<u64>() > 0).then_some(())).await;
            assert!(runs.try_recv().is_err(), "one run at a time");
            release.notify_one();
            runs.recv().await.unwrap();
        }
        for replica in &replicas {
            replica.stop.cancel();
        }
        release.notify_waiters();
        release.notify_one();
        for replica in replicas {
            replica.task.abort();
        }
    }
}
