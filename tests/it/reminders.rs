//! Reminders: the store in memory, the handler, and firing, in virtual time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use futures_util::future::{BoxFuture, FutureExt};
use serde_json::{Value, json};
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;
use worker::{
    engine::{
        Clock,
        ports::{PublishError, StoreError},
    },
    event::{
        Catalog, Decoder,
        record::{Record, RecordParts, TopicPartition},
    },
    handler::Run,
    handlers::{self, Handlers, reminder::fire::Firing},
    health::{Health, Part},
    outcome::{Failure, Handled, HandlerResult},
    publish::Publishing,
    reminders::{CLAIM_TIME, Change, Claimed, Key, Reminders},
    store::reminders::MemoryReminders,
    telemetry::Metrics,
};

use crate::{
    reminder_contract::{KEEP, ReminderBench},
    support::{config, publisher::FakePublisher},
};

struct Memory {
    store: MemoryReminders,
    clock: Clock,
}

impl ReminderBench for Memory {
    fn stores(&self) -> [&dyn Reminders; 2] {
        [&self.store, &self.store]
    }

    fn now(&self) -> BoxFuture<'_, i64> {
        async { self.clock.now().timestamp_millis() }.boxed()
    }

    fn expire(&self) -> BoxFuture<'_, ()> {
        tokio::time::advance(CLAIM_TIME + Duration::from_millis(1)).boxed()
    }

    fn forget(&self) -> BoxFuture<'_, ()> {
        tokio::time::advance(KEEP + Duration::from_millis(1)).boxed()
    }

    fn flush(&self) -> BoxFuture<'_, ()> {
        self.store.flush();
        async {}.boxed()
    }
}

fn clock(time: &str) -> Clock {
    Clock::Virtual { base: time.parse().unwrap(), start: Instant::now() }
}

async fn empty() -> Option<Memory> {
    let clock = clock("2026-01-01T00:00:00Z");
    Some(Memory { store: MemoryReminders::new(clock), clock })
}

crate::reminder_contract!(tokio::test(start_paused = true), empty);

/// A store that a test can cut off.
struct Cut {
    store: MemoryReminders,
    /// Nothing gets through, or only no change.
    all: AtomicBool,
    changes: AtomicBool,
}

impl Cut {
    fn reach(&self, change: bool) -> Result<&MemoryReminders, StoreError> {
        let away = self.all.load(Ordering::SeqCst) || change && self.changes.load(Ordering::SeqCst);
        if away { Err(StoreError::Unavailable("cut off".to_owned())) } else { Ok(&self.store) }
    }
}

impl Reminders for Cut {
    fn load<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<Vec<u8>>, StoreError>> {
        async move { self.reach(false)?.load(key).await }.boxed()
    }

    fn replace<'a>(&'a self, changes: &'a [Change]) -> BoxFuture<'a, Result<Vec<bool>, StoreError>> {
        async move { self.reach(true)?.replace(changes).await }.boxed()
    }

    fn claim(&self, most: usize) -> BoxFuture<'_, Result<Claimed, StoreError>> {
        async move { self.reach(false)?.claim(most).await }.boxed()
    }

    fn renew<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Result<(), StoreError>> {
        async move { self.reach(true)?.renew(keys).await }.boxed()
    }

    fn pending(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
        async move { self.reach(false)?.pending().await }.boxed()
    }
}

/// What workers share: the clock, the brokers, the store.
struct World {
    clock: Clock,
    publisher: Arc<FakePublisher>,
    store: Arc<Cut>,
    handlers: Handlers,
}

/// One worker that fires.
struct Firer {
    metrics: Metrics,
    stop: CancellationToken,
    task: JoinHandle<bool>,
}

impl World {
    async fn at(time: &str) -> Self {
        let clock = clock(time);
        let store = Arc::new(Cut { store: MemoryReminders::new(clock), all: AtomicBool::new(false), changes: AtomicBool::new(false) });
        let config = config(&["store.url=memory", r#"handlers=[{name = "reminders", kind = "reminder"}]"#]);
        let handlers = handlers::build(&config, &Catalog::embedded().unwrap(), &Health::new(), &Metrics::new("consumer")).await.unwrap();
        handlers.shelf().unwrap().open(store.clone());
        Self { clock, publisher: FakePublisher::new(), store, handlers }
    }

    /// Lets the handler have an event as another program wrote it.
    async fn handle(&self, event_type: &str, id: &str, at: &str, data: Value) -> HandlerResult {
        self.handle_written(event_type, id, at, data, None).await
    }

    async fn handle_written(&self, event_type: &str, id: &str, at: &str, data: Value, timestamp: Option<i64>) -> HandlerResult {
        let value = json!({ "event_id": id, "event_type": event_type, "timestamp": at, "user_id": "ada", "task_id": 7, "data": data });
        let value = Some(value.to_string().into_bytes());
        let parts = RecordParts { key: Some(b"ada".to_vec()), value, timestamp, ..RecordParts::default() };
        let record = Record::copy_of(&TopicPartition::new("any", 0), &parts);
        let event = Decoder::new(Arc::new(Catalog::embedded().unwrap()), true).decode(record).expect("a valid event");
        let run = Run { event: Arc::new(event), attempt: 1, epoch: 1, cancelled: Arc::default() };
        let registry = self.handlers.registry();
        assert!(registry.bindings()[0].wants(event_type, "any"));
        Arc::clone(&registry.bindings()[0].handler).handle_boxed(run).await
    }

    async fn schedule(&self, id: &str, remind: &str, due: &str) {
        let data = json!({ "remind_at": remind, "due_date": due, "title": "Call the bank" });
        assert_eq!(self.handle("reminder.scheduled", id, "2026-01-01T08:00:00Z", data).await, Ok(Handled::Done));
    }

    fn firer(&self) -> Firer {
        let (metrics, stop) = (Metrics::new("consumer"), CancellationToken::new());
        let publishing = Publishing::new(&config(&[]), Arc::new(Catalog::embedded().unwrap()), self.publisher.clone(), metrics.clone());
        let firing = Firing {
            store: self.store.clone(),
            remember: Duration::from_secs(3600),
            publishing: Arc::new(publishing),
            report: Health::new().part(Part::Reminders),
            metrics: metrics.clone(),
        };
        let task = tokio::spawn(firing.run(stop.clone(), Duration::from_secs(25)));
        Firer { metrics, stop, task }
    }

    /// Lets virtual time pass until then.
    async fn until(&self, time: &str) {
        let time: DateTime<Utc> = time.parse().unwrap();
        tokio::time::sleep((time - self.clock.now()).to_std().unwrap()).await;
    }

    /// Time and type of what was published, in order.
    fn fired(&self) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        self.events().iter().map(|event| (text(&event["data"]["remind_at"]), text(&event["data"]["reminder_type"]))).collect()
    }

    fn events(&self) -> Vec<Value> {
        self.publisher.queued().iter().map(|message| serde_json::from_slice(message.value.as_deref().unwrap()).unwrap()).collect()
    }
}

impl Firer {
    async fn stop(self) -> bool {
        self.stop.cancel();
        self.task.await.unwrap()
    }
}

fn one(time: &str, kind: &str) -> Vec<(String, String)> {
    vec![(time.to_owned(), kind.to_owned())]
}

#[tokio::test(start_paused = true)]
async fn a_reminder_fires_once_at_its_time_however_many_workers_there_are() {
    let world = World::at("2026-01-01T08:00:00Z").await;
    let firers: Vec<_> = (0..4).map(|_| world.firer()).collect();
    world.schedule("s-1", "2026-01-01T09:30:00Z", "2026-01-01T10:00:00Z").await;
    world.until("2026-01-01T09:29:59.999Z").await;
    assert_eq!(world.fired(), []);
    world.until("2026-01-01T09:30:01Z").await;
    assert_eq!(world.fired(), one("2026-01-01T09:30:00Z", "due_soon"));
    world.until("2026-01-03T00:00:00Z").await;
    assert_eq!(world.fired().len(), 1);
    let event = &world.events()[0];
    assert_eq!(
        (&event["data"]["title"], &event["data"]["task_id"], &event["data"]["user_id"]),
        (&json!("Call the bank"), &json!(7), &json!("ada"))
    );
    assert_eq!(event["metadata"], json!({ "correlation_id": "s-1", "causation_id": "s-1" }));
    let message = &world.publisher.queued()[0];
    assert_eq!((message.key.as_deref(), &*message.topic), (Some(&b"ada"[..]), "reminders"));
    let fired: u64 = firers.iter().map(|firer| firer.metrics.reminders_fired.with_label_values(&["due_soon"]).get()).sum();
    assert_eq!(fired, 1);
    let late: f64 = firers.iter().map(|firer| firer.metrics.reminder_lateness.get_sample_sum()).sum();
    assert!(late < 0.6, "{late}");
    for firer in firers {
        assert!(firer.stop().await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_moved_due_date_a_removal_and_what_comes_late_decide_what_fires() {
    let world = World::at("2026-01-01T08:00:00Z").await;
    let _firer = world.firer();
    // The move is told before the reminder that it moves.
    let moved = json!({ "due_date": "2026-01-01T12:00:00Z" });
    assert_eq!(world.handle("task.updated", "u-1", "2026-01-01T08:00:01Z", moved.clone()).await, Ok(Handled::Done));
    world.schedule("s-1", "2026-01-01T09:30:00Z", "2026-01-01T10:00:00Z").await;
    assert!(matches!(world.handle("task.updated", "u-1", "2026-01-01T08:00:01Z", moved).await, Ok(Handled::Dropped(_))), "once more");
    assert!(matches!(world.handle("task.updated", "u-2", "2026-01-01T08:00:02Z", json!({ "title": "t" })).await, Ok(Handled::Dropped(_))));
    world.until("2026-01-01T11:29:00Z").await;
    assert_eq!(world.fired(), []);
    world.until("2026-01-01T11:31:00Z").await;
    assert_eq!(world.fired(), one("2026-01-01T11:30:00Z", "due_soon"));

    // Moved on after it had fired: it comes again, half an hour before.
    world.handle("task.updated", "u-3", "2026-01-01T11:40:00Z", json!({ "due_date": "2026-01-01T15:00:00Z" })).await.unwrap();
    world.until("2026-01-01T14:31:00Z").await;
    assert_eq!(world.fired().len(), 2);

    for (name, id) in [("reminder.cancelled", "c-1"), ("task.completed", "d-1"), ("task.deleted", "x-1")] {
        let data = json!({ "remind_at": "2026-01-01T20:00:00Z" });
        world.handle("reminder.scheduled", &format!("for {id}"), "2026-01-01T14:40:00Z", data).await.unwrap();
        assert_eq!(world.store.pending().await.unwrap(), u64::from(id == "c-1"), "{name}: what was removed later stays removed");
        world.handle(name, id, "2026-01-01T14:50:00Z", json!({})).await.unwrap();
        assert_eq!(world.store.pending().await.unwrap(), 0, "{name}");
    }
    world.until("2026-01-01T21:00:00Z").await;
    assert_eq!(world.fired().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_removal_by_a_clock_that_is_ahead_does_not_outlast_what_is_scheduled_later() {
    let world = World::at("2026-01-01T08:00:00Z").await;
    let written = |time: &str| Some(time.parse::<DateTime<Utc>>().unwrap().timestamp_millis());
    world.handle_written("task.completed", "d-1", "2026-01-01T10:00:00Z", json!({}), written("2026-01-01T08:00:00Z")).await.unwrap();
    let data = json!({ "remind_at": "2026-01-01T20:00:00Z" });
    let at = "2026-01-01T08:00:00.001Z";
    assert_eq!(world.handle_written("reminder.scheduled", "s-1", at, data, written(at)).await, Ok(Handled::Done));
    assert_eq!(world.store.pending().await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_due_while_nobody_was_there_fires_at_the_start_as_overdue() {
    let world = World::at("2026-01-01T08:00:00Z").await;
    world.schedule("s-1", "2026-01-01T09:30:00Z", "2026-01-01T10:00:00Z").await;
    world.until("2026-01-02T00:00:00Z").await;
    let firer = world.firer();
    world.until("2026-01-02T00:00:01Z").await;
    assert_eq!(world.fired(), one("2026-01-01T09:30:00Z", "overdue"));
    // One that was over when it was scheduled.
    let data = json!({ "remind_at": "2025-06-01T00:00:00Z" });
    world.handle("reminder.scheduled", "s-2", "2026-01-01T23:59:00Z", data).await.unwrap();
    world.until("2026-01-02T00:00:02Z").await;
    assert_eq!(world.fired().last(), one("2025-06-01T00:00:00Z", "due_soon").first());
    assert!(firer.stop().await);
}

#[tokio::test(start_paused = true)]
async fn one_that_dies_between_publishing_and_noting_is_followed_by_another_with_the_same_id() {
    let world = World::at("2026-01-01T09:00:00Z").await;
    world.schedule("s-1", "2026-01-01T09:30:00Z", "2026-01-01T10:00:00Z").await;
    let publisher = FakePublisher::holding();
    let dying = World { publisher: publisher.clone(), ..World::at("2026-01-01T09:00:00Z").await };
    let dying = World { store: world.store.clone(), clock: world.clock, ..dying };
    let first = dying.firer();
    world.until("2026-01-01T09:30:01Z").await;
    assert_eq!(dying.fired().len(), 1, "queued, and not acknowledged");
    first.task.abort();
    let second = world.firer();
    world.until("2026-01-01T09:30:14Z").await;
    assert_eq!(world.fired(), [], "it may be alive");
    world.until("2026-01-01T09:30:20Z").await;
    assert_eq!(world.events(), dying.events());
    assert!(second.stop().await);
}

#[tokio::test(start_paused = true)]
async fn while_the_brokers_are_away_reminders_are_published_again_and_claimed_no_further() {
    let world = World::at("2026-01-01T09:00:00Z").await;
    world.schedule("s-1", "2026-01-01T09:30:00Z", "2026-01-01T10:00:00Z").await;
    world.publisher.answer(vec![Some(PublishError::Unreachable("away".to_owned())); 120]);
    let firers = [world.firer(), world.firer()];
    world.until("2026-01-01T09:31:00Z").await;
    let tries = world.events().len();
    assert!((55..65).contains(&tries), "one of them tries, once a second: {tries}");
    world.until("2026-01-01T10:00:00Z").await;
    assert_eq!((world.events().len(), world.store.pending().await.unwrap()), (121, 0));
    for firer in firers {
        assert!(firer.stop().await);
    }
}

#[tokio::test(start_paused = true)]
async fn while_the_store_is_away_reminders_wait_and_none_fires_twice_when_it_is_back() {
    let world = World::at("2026-01-01T09:00:00Z").await;
    world.schedule("s-1", "2026-01-01T09:30:00Z", "2026-01-01T10:00:00Z").await;
    let firer = world.firer();
    world.store.all.store(true, Ordering::SeqCst);
    let data = json!({ "remind_at": "2026-01-01T20:00:00Z" });
    let refused = world.handle("reminder.scheduled", "s-2", "2026-01-01T09:00:00Z", data).await;
    assert!(matches!(refused, Err(Failure::Transient { .. })), "it is retried: {refused:?}");
    world.until("2026-01-01T09:31:00Z").await;
    assert_eq!(world.fired(), []);
    assert!(firer.metrics.store_errors.with_label_values(&["reminder"]).get() > 0);
    // It can be claimed and published, but not noted, for longer than a claim lasts.
    world.store.changes.store(true, Ordering::SeqCst);
    world.store.all.store(false, Ordering::SeqCst);
    world.until("2026-01-01T09:32:00Z").await;
    assert_eq!(world.fired(), one("2026-01-01T09:30:00Z", "due_soon"));
    world.store.changes.store(false, Ordering::SeqCst);
    world.until("2026-01-01T10:00:00Z").await;
    assert_eq!((world.fired().len(), world.store.pending().await.unwrap()), (1, 0));
    assert!(firer.stop().await);
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_what_is_on_its_way_and_not_beyond_its_limit() {
    let world = World { publisher: FakePublisher::holding(), ..World::at("2026-01-01T09:00:00Z").await };
    world.schedule("s-1", "2026-01-01T09:00:00Z", "2026-01-01T10:00:00Z").await;
    let first = world.firer();
    world.until("2026-01-01T09:00:01Z").await;
    first.stop.cancel();
    assert!(!first.stop().await, "never acknowledged");
    assert_eq!(world.clock.now().timestamp(), "2026-01-01T09:00:26Z".parse::<DateTime<Utc>>().unwrap().timestamp());
    let second = world.firer();
    world.until("2026-01-01T09:01:00Z").await;
    second.stop.cancel();
    world.publisher.acknowledge(10);
    assert!(second.stop().await);
    assert_eq!(world.store.pending().await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_reminder_that_makes_no_sense_is_dead_and_names_its_field() {
    let world = World::at("2026-01-01T08:00:00Z").await;
    let far = json!({ "remind_at": "2226-01-01T00:00:00Z" });
    let failure = world.handle("reminder.scheduled", "s-1", "2026-01-01T08:00:00Z", far).await;
    assert_eq!(failure, Err(Failure::permanent("data.remind_at: 2226-01-01T00:00:00Z is more than ten years ahead")));
    for n in 0..32 {
        let data = json!({ "remind_at": "2026-01-02T00:00:00Z", "reminder_type": format!("kind-{n}") });
        assert_eq!(world.handle("reminder.scheduled", &format!("k-{n}"), "2026-01-01T08:00:00Z", data).await, Ok(Handled::Done));
    }
    let more = json!({ "remind_at": "2026-01-02T00:00:00Z", "reminder_type": "one more" });
    let failure = world.handle("reminder.scheduled", "k-32", "2026-01-01T08:00:00Z", more).await.unwrap_err();
    assert!(matches!(&failure, Failure::Permanent { error } if error.starts_with("data.reminder_type: ")), "{failure:?}");
}

#[test]
fn a_rebuild_without_a_log_a_store_or_a_handler_is_told_what_is_missing() {
    for (brokers, store, why) in [
        ("embedded", "redis://h", "an embedded broker's log ends with its process"),
        ("h:1", "memory", "a store in memory is gone with its process"),
        ("h:1", "redis://h", "no handler of kind \"reminder\" is configured"),
    ] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_worker"));
        command.args(["reminders", "rebuild", "--set", &format!("kafka.brokers={brokers}"), "--set", &format!("store.url={store}")]);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains(why), "{:?}: {said}", output.status);
    }
}
