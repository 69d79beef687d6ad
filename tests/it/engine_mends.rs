//! Weaknesses that were found in the engine, each as the test that showed it.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::future::FutureExt;
use worker::{
    engine::{
        OnOverflow, WhenDown,
        ports::{Acquired, CommitError, DedupeStore, PublishError},
    },
    outcome::{Failure, Handled, HandlerResult},
    progress::Map,
    store::memory::{MemoryLimits, MemoryStore},
};

use crate::{
    faulty::{Faulty, Log, another_takes_the_lease, events_of, pass, seconds, steady},
    rig::{Rig, Setup, event},
};

/// The map of the last commit.
fn last_map(rig: &Rig) -> Map {
    let commit = rig.last_commit();
    Map::decode(commit.offset, &commit.metadata.unwrap()).unwrap().unwrap()
}

// === leases ===

/// A ledger that is away is passed by as configured, but what ended after its lease did may be another owner's by now: it is settled under a
/// lease, or where leases themselves are passed by.
#[tokio::test(start_paused = true)]
async fn an_event_that_outlived_its_lease_is_not_settled_because_the_ledger_is_away() {
    let store = Faulty::fresh();
    let mut setup = Setup { store: Arc::clone(&store) as _, ..Setup::default() }.and_async("test", |_| {
        async {
            pass(15).await;
            Ok(Handled::Done)
        }
        .boxed()
    });
    setup.options.when_down = WhenDown::BypassAfter(seconds(2));
    let mut rig = Rig::start(setup);
    let partition = rig.assign("task-events", 0, None).await;
    rig.deliver(&partition, events_of("user-1", 0..1)).await;
    rig.deliver(&partition, events_of("user-2", 1..2)).await;
    rig.until("they run", |rig| rig.effects().len() == 2).await;
    store.verdicts_fail.store(true, Ordering::SeqCst);
    store.checks_fail.store(true, Ordering::SeqCst);
    store.renewals_hang.store(true, Ordering::SeqCst);
    rig.deliver(&partition, events_of("user-3", 2..3)).await;
    pass(30).await;
    assert_eq!(rig.committed(), 0, "the lease ended 20 s ago");
    store.renewals_hang.store(false, Ordering::SeqCst);
    rig.until("the lease is held again", |rig| rig.committed() == 3).await;
}

/// A save that is answered after its lease was lost and had again: its lane may be gone, and the new lease is not the one that it means.
#[tokio::test(start_paused = true)]
async fn a_late_answer_to_a_save_says_nothing_of_the_lease_held_now() {
    let memory = Arc::new(MemoryStore::new(MemoryLimits::default()));
    let store = Faulty::new(Arc::clone(&memory));
    let setup = Setup { store: Arc::clone(&store) as _, timeout: seconds(300), schedules: Some(steady(&[1])), ..Setup::default() }
        .and("quick", &["*"], |run| if run.attempt == 1 { Err(Failure::transient("no")) } else { Ok(Handled::Done) })
        .and_async("slow", |run| {
            let first = run.epoch;
            async move {
                // Only the run under the first lease takes its time.
                static FIRST: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
                if *FIRST.get_or_init(|| first) == first {
                    pass(200).await;
                }
                Ok(Handled::Done)
            }
            .boxed()
        });
    let mut rig = Rig::start(setup);
    let partition = rig.assign("task-events", 0, None).await;
    *store.save_takes.lock().unwrap() = seconds(60);
    rig.deliver(&partition, events_of("user-1", 0..1)).await;
    rig.until("both run", |rig| rig.effects().len() == 2).await;
    pass(1).await;
    *store.save_takes.lock().unwrap() = Duration::ZERO;
    store.renewals_fail.store(true, Ordering::SeqCst);
    another_takes_the_lease(&memory, &partition).await;
    store.renewals_fail.store(false, Ordering::SeqCst);
    rig.until("the event is through under the next lease", |rig| rig.committed() == 1).await;
    pass(60).await;
    let before = rig.effects().len();
    rig.deliver(&partition, events_of("user-2", 1..2)).await;
    pass(4).await;
    assert!(!rig.ended());
    assert!(rig.effects().len() > before, "the lease that is held is taken for lost");
}

/// Section 4: an owner that cannot prove its membership to somebody who waits gives the lease back. When the brokers answer again, and the
/// group counts it as the owner after all, it goes on; nothing has to end for that.
#[tokio::test(start_paused = true)]
async fn an_owner_that_gave_its_lease_back_for_want_of_proof_goes_on_when_the_brokers_answer() {
    let memory = Arc::new(MemoryStore::new(MemoryLimits::default()));
    let mut rig = Rig::start(Setup { store: Arc::clone(&memory) as _, ..Setup::handler(|_| Ok(Handled::Done)) });
    let partition = rig.assign("task-events", 0, None).await;
    rig.deliver(&partition, events_of("user-1", 0..1)).await;
    rig.until("it ran", |rig| rig.committed() == 1).await;
    *rig.offsets.failing.lock().unwrap() = Some(CommitError::Retriable("coordinator is moving".into()));
    another_takes_the_lease(&memory, &partition).await;
    rig.deliver(&partition, events_of("user-1", 1..2)).await;
    pass(100).await;
    assert!(!rig.ended(), "a coordinator that is away for two minutes ends no worker");
    assert_eq!(rig.effects().len(), 1, "nothing runs unproved");
    *rig.offsets.failing.lock().unwrap() = None;
    rig.until("it goes on", |rig| rig.committed() == 2).await;
    pass(100).await;
    assert!(!rig.ended());
}

/// The same, where the proof comes while a run still keeps the lease: it is not given back at all.
#[tokio::test(start_paused = true)]
async fn a_proof_that_comes_before_the_lease_is_back_keeps_it() {
    let memory = Arc::new(MemoryStore::new(MemoryLimits::default()));
    let setup = Setup { store: Arc::clone(&memory) as _, timeout: seconds(300), ..Setup::default() }.and_async("test", |run| {
        let takes = if run.event.record().offset() == 0 { 60 } else { 0 };
        async move {
            pass(takes).await;
            Ok(Handled::Done)
        }
        .boxed()
    });
    let mut rig = Rig::start(setup);
    let partition = rig.assign("task-events", 0, None).await;
    rig.deliver(&partition, events_of("user-1", 0..1)).await;
    rig.until("it runs", |rig| rig.effects().len() == 1).await;
    *rig.offsets.failing.lock().unwrap() = Some(CommitError::Retriable("coordinator is moving".into()));
    let other: Arc<str> = "another worker".into();
    for _ in 0..30 {
        assert!(matches!(memory.acquire(&partition, &other, 0).await.unwrap(), Acquired::Held(_)), "a run goes on under it");
        pass(1).await;
    }
    rig.deliver(&partition, events_of("user-2", 1..2)).await;
    pass(5).await;
    assert_eq!(rig.effects().len(), 1, "nothing starts unproved");
    *rig.offsets.failing.lock().unwrap() = None;
    pass(3).await;
    assert_eq!(rig.effects().len(), 2, "proved: it goes on at once");
    rig.until("all is committed", |rig| rig.committed() == 2).await;
    assert_eq!(rig.effects().len(), 2);
}

/// F02: a dead letter that the brokers refuse survives the loss of its lease: it is written under the next one.
#[tokio::test(start_paused = true)]
async fn a_dead_letter_that_waits_while_its_lease_is_lost_is_written_under_the_next() {
    let memory = Arc::new(MemoryStore::new(MemoryLimits::default()));
    let store = Faulty::new(Arc::clone(&memory));
    let setup = Setup { store: Arc::clone(&store) as _, ..Setup::handler(|_| Err(Failure::permanent("no"))) };
    let mut rig = Rig::start(setup);
    *rig.published.failing.lock().unwrap() = Some(PublishError::TopicMissing("dlq".into()));
    let partition = rig.assign("task-events", 0, None).await;
    rig.deliver(&partition, events_of("user-1", 0..1)).await;
    rig.until("it was tried", |rig| *rig.published.attempts.lock().unwrap() > 2).await;
    store.renewals_fail.store(true, Ordering::SeqCst);
    another_takes_the_lease(&memory, &partition).await;
    store.renewals_fail.store(false, Ordering::SeqCst);
    pass(20).await;
    *rig.published.failing.lock().unwrap() = None;
    pass(60).await;
    assert_eq!((rig.dead().len(), rig.committed(), rig.effects().len()), (1, 1, 1));
}

/// Section 3: the map carries the epoch, should the store lose it: also of a partition where nothing happens.
#[tokio::test(start_paused = true)]
async fn the_epoch_of_a_new_lease_is_committed_though_nothing_else_has_changed() {
    let store = Arc::new(MemoryStore::new(MemoryLimits::default()));
    let mut rig = Rig::start(Setup { store: Arc::clone(&store) as _, ..Setup::handler(|_| Ok(Handled::Done)) });
    let partition = rig.assign("task-events", 0, None).await;
    pass(5).await;
    let first = last_map(&rig).epoch;
    assert!(first > 0, "a lease was had");
    let commit = rig.last_commit();
    rig.revoke(&partition).await;
    rig.assign("task-events", commit.offset, Some(commit)).await;
    pass(5).await;
    assert!(last_map(&rig).epoch > first);
}

// === commits ===

/// F16: what still waits for the committer when its partition is lost would land behind the next owner's commits.
#[tokio::test(start_paused = true)]
async fn a_commit_that_waits_when_its_partition_is_lost_is_never_sent() {
    let mut rig = Rig::start(Setup::handler(|_| Ok(Handled::Done)));
    let kept = rig.assign("task-events", 0, None).await;
    let lost = rig.assign("reminders", 0, None).await;
    pass(2).await;
    rig.offsets.silent.store(true, Ordering::SeqCst);
    rig.deliver(&kept, events_of("user-1", 0..1)).await;
    pass(2).await;
    rig.deliver(&lost, vec![event(0, "reminder.due", "user-1", "id-r")]).await;
    pass(2).await;
    let before = rig.offsets.log.lock().unwrap().len();
    rig.lose(&lost).await;
    pass(1).await;
    rig.offsets.silent.store(false, Ordering::SeqCst);
    pass(5).await;
    let log = rig.offsets.log.lock().unwrap().split_off(before);
    assert!(log.iter().any(|commit| commit.partition == kept && commit.offset == 1), "{log:?}");
    assert!(log.iter().all(|commit| commit.partition != lost), "{log:?}");
}

/// `commit_map.max_chars`: a broker with a smaller limit is not asked to refuse first.
#[tokio::test(start_paused = true)]
async fn no_commit_carries_more_characters_than_are_configured() {
    let mut setup = Setup::handler(|run| if run.event.user_id() == "ok" { Ok(Handled::Done) } else { Err(Failure::transient("no")) });
    setup.options.commit_map_chars = 64;
    setup.schedules = Some(steady(&[600]));
    let mut rig = Rig::start(setup);
    let partition = rig.assign("task-events", 0, None).await;
    let mut records: Vec<_> = (0..300).map(|n| event(n, "task.created", &format!("user-{n}"), &format!("id-{n}"))).collect();
    records.push(event(300, "task.created", "ok", "id-ok"));
    rig.deliver(&partition, records).await;
    rig.until("all failed", |rig| rig.effects().len() == 301).await;
    pass(3).await;
    let longest = rig.offsets.log.lock().unwrap().iter().map(|commit| commit.metadata.encode_utf16().count()).max().unwrap();
    assert!((32..=64).contains(&longest), "{longest} characters");
}

// === handlers ===

/// Section 4, several handlers: only the unfinished run again, also where the process ends while one of them still runs.
#[tokio::test(start_paused = true)]
async fn a_handler_that_has_finished_does_not_run_again_because_the_process_ended_while_another_ran() {
    let store = Arc::new(MemoryStore::new(MemoryLimits::default()));
    let setup = || {
        Setup { store: Arc::clone(&store) as _, ..Setup::default() }.and("quick", &["*"], |_| Ok(Handled::Done)).and_async("slow", |_| {
            async {
                pass(20).await;
                Ok(Handled::Done)
            }
            .boxed()
        })
    };
    let mut first = Rig::start(setup());
    let partition = first.assign("task-events", 0, None).await;
    first.deliver(&partition, events_of("user-1", 0..1)).await;
    first.until("both run", |rig| rig.effects().len() == 2).await;
    pass(5).await;
    let commit = first.kill().await;
    let mut second = Rig::start(setup());
    let partition = second.assign("task-events", 0, Some(commit)).await;
    second.deliver(&partition, events_of("user-1", 0..1)).await;
    second.until("it is through", |rig| rig.committed() == 1).await;
    let names: Vec<_> = second.effects().iter().map(|effect| effect.handler).collect();
    assert_eq!(names, ["slow"]);
}

// === backlogs ===

/// Section 5: a user held up for `max_hold_age` overflows then, not when the next attempt or record happens to come.
#[tokio::test(start_paused = true)]
async fn a_user_that_is_held_too_long_goes_to_the_dlq_when_its_time_is_up() {
    let mut setup = Setup::handler(|_| HandlerResult::Err(Failure::transient("no")));
    setup.options.max_hold_age = seconds(60);
    setup.schedules = Some(steady(&[3600]));
    let mut rig = Rig::start(setup);
    let partition = rig.assign("task-events", 0, None).await;
    rig.deliver(&partition, events_of("user-1", 0..3)).await;
    rig.until("it failed", |rig| rig.effects().len() == 1).await;
    pass(58).await;
    assert_eq!(rig.dead().len(), 0);
    pass(4).await;
    assert_eq!(rig.committed(), 3);
    assert!(rig.dead().iter().all(|headers| headers["x-dlq-reason"] == "user_overflow"));
}

/// Section 5: "the stub carries the ledger member: asked first, compared after".
#[tokio::test(start_paused = true)]
async fn a_backlog_that_the_ledger_knows_is_not_read_from_the_log_again() {
    let store = Arc::new(MemoryStore::new(MemoryLimits::default()));
    let records = events_of("user-1", 0..100);
    let log = Log::new(&records);
    let setup = || {
        let mut setup =
            Setup { store: Arc::clone(&store) as _, reader: Some(Arc::clone(&log) as _), ..Setup::handler(|_| Ok(Handled::Done)) };
        setup.options.lane_events = 4;
        setup
    };
    let mut first = Rig::start(setup());
    let partition = first.assign("task-events", 0, None).await;
    first.deliver(&partition, records[..90].to_vec()).await;
    first.until("all is committed", |rig| rig.committed() == 90).await;
    first.stop().await.unwrap();
    log.read.lock().unwrap().clear();
    // The group forgot the commit.
    let mut second = Rig::start(setup());
    let partition = second.assign("task-events", 0, None).await;
    second.deliver(&partition, records.clone()).await;
    second.until("all is committed", |rig| rig.committed() == 100).await;
    assert_eq!(second.effects().iter().map(|effect| effect.offset).collect::<Vec<_>>(), (90..100).collect::<Vec<_>>());
    let read = log.read.lock().unwrap().clone();
    assert!(read.iter().all(|offset| *offset >= 88), "{read:?}");
    assert_eq!(second.held_bytes(&partition), 0);
    assert_eq!(second.metrics.conservation_error.get(), 0);
}

/// `on_overflow = "pause_partition"`: what the partition waits for goes with the log that it stood in.
#[tokio::test(start_paused = true)]
async fn a_log_that_turns_back_opens_a_partition_that_was_paused_for_an_event_of_the_old_one() {
    let mut setup = Setup::handler(|run| if run.event.id() == "new" { Ok(Handled::Done) } else { Err(Failure::transient("no")) });
    setup.options.max_held_events = 2;
    setup.options.on_overflow = OnOverflow::PausePartition;
    setup.schedules = Some(steady(&[3600]));
    let mut rig = Rig::start(setup);
    let partition = rig.assign("task-events", 0, None).await;
    rig.deliver(&partition, events_of("user-1", 0..1)).await;
    rig.until("it failed", |rig| rig.effects().len() == 1).await;
    rig.deliver(&partition, events_of("user-1", 1..5)).await;
    rig.until("the gate is closed", |rig| !rig.gate_open(&partition)).await;
    // The topic was made anew; this was on its way when the gate closed.
    rig.deliver(&partition, vec![event(0, "task.created", "user-1", "new")]).await;
    rig.until("the new log is handled", |rig| rig.committed() == 1).await;
    assert!(rig.gate_open(&partition), "nothing of the new log is ever read");
}

/// The permit that a run of the old log waited for is nobody's any more: the new log's runs ask for their own.
#[tokio::test(start_paused = true)]
async fn a_log_that_turns_back_while_a_run_waits_for_its_permit_runs_on() {
    let mut setup = Setup { timeout: seconds(900), ..Setup::default() }.and_async("test", |run| {
        let hangs = run.event.id().starts_with("old");
        async move {
            pass(if hangs { 600 } else { 0 }).await;
            Ok(Handled::Done)
        }
        .boxed()
    });
    setup.options.concurrency = 1;
    let mut rig = Rig::start(setup);
    let partition = rig.assign("task-events", 0, None).await;
    let of = |name: &str, n: i64| event(n, "task.created", &format!("user-{n}"), &format!("{name}-{n}"));
    rig.deliver(&partition, (0..3).map(|n| of("old", n)).collect()).await;
    rig.until("one runs, the others wait", |rig| rig.effects().len() == 1).await;
    rig.deliver(&partition, (0..3).map(|n| of("new", n)).collect()).await;
    pass(60).await;
    assert_eq!(rig.committed(), 3, "the new log is handled");
}

/// One reading of a backlog is outside of the memory budget: it is no larger than what a lane may hold whole, and nothing is read twice.
#[tokio::test(start_paused = true)]
async fn a_backlog_of_large_events_is_read_again_in_small_parts_and_once() {
    const EACH: usize = 100_000;
    let healthy = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let switch = Arc::clone(&healthy);
    let records: Vec<_> = events_of("user-1", 0..300)
        .into_iter()
        .map(|mut record| {
            let value = String::from_utf8(record.value.unwrap()).unwrap();
            record.value = Some(value.replace("\"task_id\"", &format!("\"note\":\"{}\",\"task_id\"", "x".repeat(EACH))).into_bytes());
            record
        })
        .collect();
    let log = Log::new(&records);
    let setup = Setup {
        reader: Some(Arc::clone(&log) as _),
        schedules: Some(steady(&[1; 100])),
        ..Setup::handler(move |_| if switch.load(Ordering::SeqCst) { Ok(Handled::Done) } else { Err(Failure::transient("no")) })
    };
    let mut rig = Rig::start(setup);
    let partition = rig.assign("task-events", 0, None).await;
    for part in records.chunks(20) {
        rig.deliver(&partition, part.to_vec()).await;
    }
    rig.until("it failed", |rig| rig.effects().len() > 1).await;
    healthy.store(true, Ordering::SeqCst);
    rig.until("all is committed", |rig| rig.committed() == 300).await;
    let bytes = log.bytes.lock().unwrap().clone();
    assert!(bytes.iter().all(|bytes| *bytes < 256 * 1024 + 2 * EACH), "{bytes:?}");
    assert!(bytes.iter().sum::<usize>() < 300 * (EACH + 2_000), "{} bytes read", bytes.iter().sum::<usize>());
    assert_eq!(rig.metrics.lost_to_retention.with_label_values(&["task-events"]).get(), 0);
    assert_eq!(rig.held_bytes(&partition), 0);
}
