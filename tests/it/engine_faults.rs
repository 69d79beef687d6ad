//! Failures of other systems that the engine has to stand, by their numbers in `tests/faults.md`; and that the map really travels.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::{BoxFuture, FutureExt};
use worker::{
    engine::ports::{Acquired, Check, DedupeStore, EventRecord, Lease, Member, Remembered, Renewed, StoreError},
    event::record::{RecordParts, TopicPartition},
    outcome::{Failure, Handled, HandlerResult},
    store::memory::{MemoryLimits, MemoryStore},
};

use crate::{
    faulty::{events_of, pass, seconds, steady},
    rig::{Rig, Setup, event},
};

/// A store in memory that counts what the ledger is asked.
struct Counted {
    inner: MemoryStore,
    asked: Mutex<BTreeSet<[u8; 16]>>,
}

impl DedupeStore for Counted {
    fn check<'a>(&'a self, lease: &'a Lease, check: Check) -> BoxFuture<'a, Result<Vec<bool>, StoreError>> {
        self.asked.lock().unwrap().extend(check.members.iter().map(|member| member.id));
        self.inner.check(lease, check)
    }
    fn finish<'a>(&'a self, lease: &'a Lease, members: Vec<Member>) -> BoxFuture<'a, Result<usize, StoreError>> {
        self.inner.finish(lease, members)
    }
    fn save<'a>(&'a self, lease: &'a Lease, changes: Vec<(i64, Option<EventRecord>)>) -> BoxFuture<'a, Result<(), StoreError>> {
        self.inner.save(lease, changes)
    }
    fn load<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<Remembered, StoreError>> {
        self.inner.load(lease)
    }
    fn acquire<'a>(&'a self, id: &'a TopicPartition, owner: &'a Arc<str>, epoch: u64) -> BoxFuture<'a, Result<Acquired, StoreError>> {
        self.inner.acquire(id, owner, epoch)
    }
    fn renew<'a>(&'a self, leases: &'a [Lease]) -> BoxFuture<'a, Result<(Vec<Renewed>, u64), StoreError>> {
        self.inner.renew(leases)
    }
    fn release<'a>(&'a self, leases: &'a [Lease]) -> BoxFuture<'a, Result<(), StoreError>> {
        self.inner.release(leases)
    }
    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.inner.ping()
    }
    fn lease_time(&self) -> Duration {
        self.inner.lease_time()
    }
}

/// The map travels: another process with an empty store, in the middle of 500 blocked users. Their events come again, in order and as the
/// attempt that they had come to; of 50 000 settled ones behind the frontier none is decoded, asked for, or run.
#[tokio::test(start_paused = true)]
async fn a_restart_among_500_blocked_users_repeats_none_of_50_000_settled_events() {
    const BLOCKED: usize = 500;
    const EVENTS: i64 = 55_000;
    // Of eleven events one is a blocked user's: ten of each of 500, and 50 000 of others.
    let blocked_user = |n: i64| (n % 11 == 5).then(|| format!("blocked-{}", (n / 11) as usize % BLOCKED));
    let user = |n: i64| blocked_user(n).unwrap_or_else(|| format!("user-{}", n % 3_001));
    let log: Vec<RecordParts> = (0..EVENTS).map(|n| event(n, "task.created", &user(n), &format!("id-{n}"))).collect();
    let healthy = Arc::new(AtomicBool::new(false));
    let setup = |store: &Arc<Counted>| {
        let switch = Arc::clone(&healthy);
        let setup = Setup::handler(move |run| {
            let fails = run.event.user_id().starts_with("blocked") && !switch.load(Ordering::SeqCst);
            if fails { Err(Failure::transient("not yet")) } else { Ok(Handled::Done) }
        });
        Setup { store: Arc::clone(store) as _, schedules: Some(steady(&[60, 600])), ..setup }
    };
    let store = || {
        let inner = MemoryStore::new(MemoryLimits::default());
        Arc::new(Counted { inner, asked: Mutex::default() })
    };

    let mut first = Rig::start(setup(&store()));
    let partition = first.assign("task-events", 0, None).await;
    for batch in log.chunks(500) {
        first.deliver(&partition, batch.to_vec()).await;
    }
    let settled = |rig: &Rig| rig.settled("task-events", "task.created", "done");
    first
        .until("the others are through, and the blocked have failed twice", |rig| {
            settled(rig) == 50_000 && rig.effects.lock().unwrap().iter().filter(|effect| effect.attempt == 2).count() == BLOCKED
        })
        .await;
    pass(3).await;
    let commit = first.kill().await;
    assert_eq!(commit.offset, 5, "the first blocked user's first event");

    healthy.store(true, Ordering::SeqCst);
    let books = store();
    let mut second = Rig::start(setup(&books));
    let partition = second.assign("task-events", commit.offset, Some(commit.clone())).await;
    for batch in log[commit.offset as usize..].chunks(500) {
        second.deliver(&partition, batch.to_vec()).await;
    }
    second.until("all is committed", |rig| rig.committed() == EVENTS).await;
    let effects = second.effects();
    let wanted: Vec<i64> = (0..EVENTS).filter(|n| blocked_user(*n).is_some()).collect();
    let mut ran: Vec<i64> = effects.iter().map(|effect| effect.offset).collect();
    ran.sort_unstable();
    // Thousands of numbers would say no more than this.
    assert!(ran == wanted, "{} runs, not the blocked users' {} events, each once", ran.len(), wanted.len());
    assert_eq!(effects.iter().filter(|effect| effect.attempt == 3).count(), BLOCKED, "their schedules go on");
    assert_eq!(books.asked.lock().unwrap().len(), wanted.len(), "the store is asked for nothing that was settled");
    for n in 0..BLOCKED {
        let of_user: Vec<i64> = effects.iter().filter(|effect| effect.user == format!("blocked-{n}")).map(|effect| effect.offset).collect();
        assert!(of_user.is_sorted() && of_user.len() == 10, "{of_user:?}");
    }
}

/// F20: the group forgets an idle partition's commit after `offsets.retention.minutes`.
#[tokio::test(start_paused = true)]
async fn an_idle_partition_is_committed_again_every_six_hours() {
    let mut rig = Rig::start(Setup::handler(|_| Ok(Handled::Done)));
    let partition = rig.assign("task-events", 0, None).await;
    rig.deliver(&partition, events_of("user-1", 0..1)).await;
    rig.until("it is committed", |rig| rig.committed() == 1).await;
    pass(60).await;
    let commits = || rig.offsets.log.lock().unwrap().len();
    let before = commits();
    pass(5 * 3600).await;
    assert_eq!(commits(), before, "nothing has changed");
    pass(2 * 3600).await;
    assert_eq!(commits(), before + 1);
    assert_eq!(rig.committed(), 1);
}

/// F22: what finds no room in the map is said and counted, and comes again.
#[tokio::test(start_paused = true)]
async fn a_map_that_leaves_something_out_is_counted_and_replays_it() {
    let healthy = Arc::new(AtomicBool::new(false));
    let setup = || {
        let switch = Arc::clone(&healthy);
        let mut setup = Setup::handler(move |run| {
            let fails = run.event.user_id() != "ok" && !switch.load(Ordering::SeqCst);
            if fails { Err(Failure::transient("no")) } else { Ok(Handled::Done) }
        });
        setup.options.commit_map_chars = 24;
        setup.schedules = Some(steady(&[600]));
        setup
    };
    let user = |n: i64| if n % 2 == 0 { "ok".to_owned() } else { format!("user-{n}") };
    let log: Vec<RecordParts> = (0..400).map(|n| event(n, "task.created", &user(n), &format!("id-{n}"))).collect();
    let mut first = Rig::start(setup());
    let partition = first.assign("task-events", 0, None).await;
    first.deliver(&partition, log.clone()).await;
    first.until("all ran", |rig| rig.effects().len() == 400).await;
    pass(3).await;
    let overflows = first.metrics.commit_map_overflows.with_label_values(&["task-events", "partial"]).get();
    assert!(overflows > 0, "200 heads in 24 characters");
    let commit = first.kill().await;
    healthy.store(true, Ordering::SeqCst);
    let mut second = Rig::start(setup());
    let partition = second.assign("task-events", commit.offset, Some(commit.clone())).await;
    second.deliver(&partition, log[commit.offset as usize..].to_vec()).await;
    second.until("all is committed", |rig| rig.committed() == 400).await;
    let ran: BTreeSet<i64> = second.effects().iter().map(|effect| effect.offset).collect();
    assert!((0..400).filter(|n| n % 2 == 1).all(|n| ran.contains(&n)), "every blocked event comes again");
}

/// F53: attempts are the event's, whatever it fails of.
#[tokio::test(start_paused = true)]
async fn errors_that_change_are_still_attempts_of_one_event() {
    let setup = Setup { timeout: seconds(5), schedules: Some(steady(&[1, 1, 1, 1])), ..Setup::default() }.and_async("test", |run| {
        let attempt = run.attempt;
        async move {
            match attempt % 4 {
                1 => HandlerResult::Err(Failure::transient("away")),
                2 => panic!("boom"),
                3 => std::future::pending().await,
                _ => HandlerResult::Err(Failure::Transient { error: "busy".into(), after: Some(seconds(1)) }),
            }
        }
        .boxed()
    });
    let mut rig = Rig::start(setup);
    let partition = rig.assign("task-events", 0, None).await;
    rig.deliver(&partition, events_of("user-1", 0..1)).await;
    rig.until("it is dead", |rig| rig.committed() == 1).await;
    assert_eq!(rig.effects().iter().map(|effect| effect.attempt).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    assert_eq!(rig.dead()[0]["x-dlq-reason"], "exhausted");
}

/// F61: order is per topic, partition and user.
#[tokio::test(start_paused = true)]
async fn a_user_that_fails_on_one_topic_is_not_held_up_on_another() {
    let mut rig = Rig::start(Setup::handler(|run| {
        if &**run.event.event_type() == "task.created" { Err(Failure::transient("no")) } else { Ok(Handled::Done) }
    }));
    let (tasks, reminders) = (rig.assign("task-events", 0, None).await, rig.assign("reminders", 0, None).await);
    rig.deliver(&tasks, events_of("user-1", 0..1)).await;
    rig.until("it failed", |rig| rig.effects().len() == 1).await;
    rig.deliver(&reminders, vec![event(0, "reminder.due", "user-1", "id-r")]).await;
    rig.until("the reminder is through", |rig| rig.effects().len() == 2).await;
    assert!(rig.effects()[1].at < seconds(1), "{:?}", rig.effects()[1]);
    assert_eq!(rig.settled("reminders", "reminder.due", "done"), 1);
}

/// F87: after an outage thousands of retries are overdue at once; they share the permits of their kind, and first runs keep theirs.
#[tokio::test(start_paused = true)]
async fn thousands_of_overdue_retries_run_no_more_at_once_than_is_configured() {
    const USERS: usize = 2_000;
    let (running, most, healthy) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let mut setup = Setup::default().and_async("test", {
        let (running, most, healthy) = (Arc::clone(&running), Arc::clone(&most), Arc::clone(&healthy));
        move |run| {
            let (running, most, healthy, retry) = (Arc::clone(&running), Arc::clone(&most), Arc::clone(&healthy), run.attempt > 1);
            async move {
                if !healthy.load(Ordering::SeqCst) {
                    return Err(Failure::transient("away"));
                }
                if retry {
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    running.fetch_sub(1, Ordering::SeqCst);
                }
                Ok(Handled::Done)
            }
            .boxed()
        }
    });
    setup.options.concurrency = 16;
    setup.schedules = Some(steady(&[600]));
    let mut rig = Rig::start(setup);
    let partition = rig.assign("task-events", 0, None).await;
    let records = (0..USERS).map(|n| event(n as i64, "task.created", &format!("user-{n}"), &format!("id-{n}"))).collect();
    rig.deliver(&partition, records).await;
    rig.until("all failed", |rig| rig.effects.lock().unwrap().len() == USERS).await;
    healthy.store(true, Ordering::SeqCst);
    rig.until("the retries run", |_| most.load(Ordering::SeqCst) > 0).await;
    let began = rig.start.elapsed();
    rig.deliver(&partition, vec![event(USERS as i64, "task.created", "newcomer", "id-new")]).await;
    rig.until("all is committed", |rig| rig.committed() == USERS as i64 + 1).await;
    assert_eq!(most.load(Ordering::SeqCst), 8, "half of 16");
    let newcomer = rig.effects().into_iter().find(|effect| effect.user == "newcomer").unwrap().at;
    assert!(newcomer < began + seconds(1), "a first run waits for no retry: {:?}", newcomer - began);
}

/// F92: what a partition took goes with it.
#[tokio::test(start_paused = true)]
async fn a_partition_that_was_given_up_leaves_no_series_and_no_held_bytes() {
    let mut rig = Rig::start(Setup::handler(|_| Err(Failure::transient("no"))));
    for round in 0..20 {
        let partition = rig.assign("task-events", 0, None).await;
        rig.deliver(&partition, events_of("user-1", 0..50)).await;
        rig.until("it failed", |rig| rig.effects().len() > round).await;
        pass(2).await;
        assert!(rig.metrics.held_bytes.with_label_values(&["task-events"]).get() > 0);
        rig.revoke(&partition).await;
        pass(1).await;
    }
    for gauge in [&rig.metrics.held_bytes, &rig.metrics.held_events, &rig.metrics.users_blocked, &rig.metrics.events_waiting_retry] {
        assert_eq!(gauge.with_label_values(&["task-events"]).get(), 0);
    }
    let text = rig.metrics.render().unwrap();
    assert!(!text.lines().any(|line| line.starts_with("worker_consumer_lag_records{")), "{text}");
}
