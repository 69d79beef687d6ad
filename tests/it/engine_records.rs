//! Exceptional records: what the store is told of events that failed, are half finished, or may have ended a process, and when.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::future::FutureExt;
use worker::{
    outcome::{Failure, Handled},
    store::memory::{MemoryLimits, MemoryStore},
};

use crate::{
    faulty::{Faulty, another_takes_the_lease, events_of, pass, seconds, steady},
    rig::{Rig, Setup, event},
};

/// Section 4, several handlers: "only the unfinished run again", from a few moments after the first of them has finished.
#[tokio::test(start_paused = true)]
async fn what_a_handler_has_finished_is_written_down_within_moments_while_another_goes_on() {
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
    pass(2).await;
    first.deliver(&partition, events_of("user-1", 0..1)).await;
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert_eq!(first.effects().len(), 2, "both run");
    let commit = first.kill().await;
    let mut second = Rig::start(setup());
    let partition = second.assign("task-events", 0, Some(commit)).await;
    second.deliver(&partition, events_of("user-1", 0..1)).await;
    second.until("it is through", |rig| rig.committed() == 1).await;
    let names: Vec<_> = second.effects().iter().map(|effect| effect.handler).collect();
    assert_eq!(names, ["slow"]);
}

/// The same costs nothing where all handlers of an event are quick: no record is written of it.
#[tokio::test(start_paused = true)]
async fn an_event_whose_handlers_all_finish_at_once_needs_no_record() {
    let store = Faulty::fresh();
    let mut setup = Setup { store: Arc::clone(&store) as _, ..Setup::default() };
    for (name, takes) in [("first", 1), ("second", 4), ("third", 9)] {
        setup = setup.and_async(name, move |_| {
            async move {
                tokio::time::sleep(Duration::from_millis(takes)).await;
                Ok(Handled::Done)
            }
            .boxed()
        });
    }
    let mut rig = Rig::start(setup);
    let partition = rig.assign("task-events", 0, None).await;
    rig.deliver(&partition, (0..60).map(|n| event(n, "task.created", &format!("user-{n}"), &format!("id-{n}"))).collect()).await;
    rig.until("all is committed", |rig| rig.committed() == 60).await;
    assert_eq!(store.saved.lock().unwrap().len(), 0);
}

/// Failures that come while a save takes its time are written by the next one: each once, all together, whatever their number.
#[tokio::test(start_paused = true)]
async fn thousands_of_failures_while_a_save_hangs_are_written_once_each_by_the_next() {
    const USERS: i64 = 20_000;
    let store = Faulty::fresh();
    let setup = || {
        let mut setup = Setup { store: Arc::clone(&store) as _, timeout: seconds(900), ..Setup::default() }
            .and("failing", &["*"], |_| Err(Failure::transient("no")))
            .and_async("slow", |_| {
                async {
                    pass(600).await;
                    Ok(Handled::Done)
                }
                .boxed()
            });
        setup.options.concurrency = 60_000;
        setup.schedules = Some(steady(&[30, 3600]));
        setup
    };
    let records: Vec<_> = (0..USERS).map(|n| event(n, "task.created", &format!("user-{n}"), &format!("id-{n}"))).collect();
    let mut first = Rig::start(setup());
    let partition = first.assign("task-events", 0, None).await;
    pass(2).await;
    *store.save_takes.lock().unwrap() = seconds(10);
    let begun = std::time::Instant::now();
    first.deliver(&partition, records[..1].to_vec()).await;
    first.until("it failed", |rig| rig.effects().len() == 2).await;
    first.deliver(&partition, records[1..].to_vec()).await;
    first.until("all failed", |rig| rig.effects().len() as i64 == 2 * USERS).await;
    pass(25).await;
    let saved = store.saved.lock().unwrap().clone();
    let mut offsets: Vec<i64> = saved.iter().flatten().copied().collect();
    offsets.sort_unstable();
    assert_eq!(offsets, (0..USERS).collect::<Vec<_>>());
    assert!(saved.len() <= 3, "{} saves", saved.len());
    // Linear: seconds unoptimised. A look through the whole list for each of them takes minutes.
    assert!(begun.elapsed() < seconds(60), "{:?}", begun.elapsed());
    let commit = first.kill().await;
    *store.save_takes.lock().unwrap() = Duration::ZERO;
    let mut second = Rig::start(setup());
    let partition = second.assign("task-events", 0, Some(commit)).await;
    second.deliver(&partition, records[..100].to_vec()).await;
    second.until("they run again", |rig| rig.effects().iter().filter(|effect| effect.handler == "failing").count() == 100).await;
    assert!(second.effects().iter().filter(|effect| effect.handler == "failing").all(|effect| effect.attempt == 2));
}

/// What is written while a run goes on says nothing of what follows: the run's own end does.
#[tokio::test(start_paused = true)]
async fn an_answer_to_a_save_does_not_touch_a_lane_whose_handlers_still_run() {
    let store = Faulty::fresh();
    let mut setup = Setup { store: Arc::clone(&store) as _, ..Setup::default() }
        .and("failing", &["*"], |run| if run.attempt == 1 { Err(Failure::transient("no")) } else { Ok(Handled::Done) })
        .and_async("slow", |_| {
            async {
                pass(10).await;
                Ok(Handled::Done)
            }
            .boxed()
        });
    setup.schedules = Some(steady(&[1]));
    let mut rig = Rig::start(setup);
    let partition = rig.assign("task-events", 0, None).await;
    rig.deliver(&partition, events_of("user-1", 0..2)).await;
    rig.until("all is committed", |rig| rig.committed() == 2).await;
    let runs: Vec<_> = rig.effects().iter().map(|effect| (effect.offset, effect.handler, effect.attempt)).collect();
    let of = |offset| [(offset, "failing", 1), (offset, "slow", 1), (offset, "failing", 2)];
    assert_eq!(runs, [of(0), of(1)].concat());
}

/// Section 4: "a run of an offset <= mark first bumps `starts`". Where the lease was lost before the store had answered, nothing was
/// counted: it is counted under the next lease, before the run.
#[tokio::test(start_paused = true)]
async fn a_start_that_was_refused_with_its_lease_is_counted_under_the_next() {
    let memory = Arc::new(MemoryStore::new(MemoryLimits::default()));
    let store = Faulty::new(Arc::clone(&memory));
    let epochs = Arc::new(std::sync::Mutex::new(Vec::new()));
    let setup = || {
        let epochs = Arc::clone(&epochs);
        Setup { store: Arc::clone(&store) as _, timeout: seconds(900), ..Setup::default() }.and_async("test", move |run| {
            epochs.lock().unwrap().push(run.epoch);
            let first = epochs.lock().unwrap().len() == 1;
            async move {
                if first {
                    pass(800).await;
                }
                Ok(Handled::Done)
            }
            .boxed()
        })
    };
    let mut first = Rig::start(setup());
    let partition = first.assign("task-events", 0, None).await;
    pass(2).await;
    first.deliver(&partition, events_of("user-1", 0..1)).await;
    first.until("it runs", |rig| rig.effects().len() == 1).await;
    let commit = first.kill().await;

    *store.check_takes.lock().unwrap() = seconds(40);
    let mut second = Rig::start(setup());
    let partition = second.assign("task-events", 0, Some(commit)).await;
    second.deliver(&partition, events_of("user-1", 0..1)).await;
    // It has the lease when the one of the dead has ended, and asks.
    pass(15).await;
    *store.check_takes.lock().unwrap() = Duration::ZERO;
    store.renewals_fail.store(true, Ordering::SeqCst);
    let other: Arc<str> = "another worker".into();
    let lease = loop {
        use worker::engine::ports::{Acquired, DedupeStore};
        if let Acquired::Granted { lease, .. } = memory.acquire(&partition, &other, 0).await.unwrap() {
            break lease;
        }
        pass(1).await;
    };
    // The other dies as well; what it left behind ends by itself.
    store.renewals_fail.store(false, Ordering::SeqCst);
    assert_eq!(*store.counted.lock().unwrap(), []);
    second.until("it is through", |rig| rig.committed() == 1).await;
    let ran = *epochs.lock().unwrap().last().unwrap();
    assert!(ran > lease.epoch);
    assert_eq!(*store.counted.lock().unwrap(), [(ran, 0)]);
    assert_eq!(second.effects().len(), 1);
}

/// Section 4: "a field goes when an acknowledged commit covers it", also where failures are written all the time.
#[tokio::test(start_paused = true)]
async fn records_are_removed_although_others_are_written_without_a_pause() {
    let store = Faulty::fresh();
    let flaky = |run: &worker::handler::Run| if run.attempt == 1 { Err(Failure::transient("no")) } else { Ok(Handled::Done) };
    let mut rig = Rig::start(Setup { store: Arc::clone(&store) as _, schedules: Some(steady(&[1])), ..Setup::handler(flaky) });
    *store.save_takes.lock().unwrap() = Duration::from_millis(100);
    let partition = rig.assign("task-events", 0, None).await;
    for n in 0..600 {
        rig.deliver(&partition, vec![event(n, "task.created", &format!("user-{n}"), &format!("id-{n}"))]).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let removed = store.removed.lock().unwrap().len();
    assert!(removed > 400, "{removed} of 600 after half a minute");
}

/// A lease that is lost with records to write: they are written under the next one.
#[tokio::test(start_paused = true)]
async fn what_was_to_be_written_when_the_lease_was_lost_is_written_under_the_next() {
    let memory = Arc::new(MemoryStore::new(MemoryLimits::default()));
    let store = Faulty::new(Arc::clone(&memory));
    let flaky = |run: &worker::handler::Run| if run.attempt < 3 { Err(Failure::transient("no")) } else { Ok(Handled::Done) };
    let mut rig = Rig::start(Setup { store: Arc::clone(&store) as _, schedules: Some(steady(&[1, 1])), ..Setup::handler(flaky) });
    let partition = rig.assign("task-events", 0, None).await;
    pass(2).await;
    *store.save_takes.lock().unwrap() = seconds(40);
    rig.deliver(&partition, events_of("user-1", 0..1)).await;
    rig.until("it failed", |rig| rig.effects().len() == 1).await;
    pass(1).await;
    *store.save_takes.lock().unwrap() = Duration::ZERO;
    store.renewals_fail.store(true, Ordering::SeqCst);
    another_takes_the_lease(&memory, &partition).await;
    store.renewals_fail.store(false, Ordering::SeqCst);
    rig.until("all is committed", |rig| rig.committed() == 1).await;
    assert_eq!(rig.effects().iter().map(|effect| effect.attempt).collect::<Vec<_>>(), [1, 2, 3]);
}

/// What was to be written of an event that is through meanwhile is not written of the one behind it.
#[tokio::test(start_paused = true)]
async fn an_event_has_no_record_because_the_one_before_it_was_to_have_one() {
    let store = Faulty::fresh();
    let setup = Setup { store: Arc::clone(&store) as _, schedules: Some(steady(&[600])), ..Setup::default() }
        .and("quick", &["task.created", "reminder.due"], |run| {
            if run.event.user_id() == "failing" { Err(Failure::transient("no")) } else { Ok(Handled::Done) }
        })
        .and_async("slow", |run| {
            let takes = if run.event.record().offset() == 1 { 100 } else { 20_000 };
            async move {
                tokio::time::sleep(Duration::from_millis(takes)).await;
                Ok(Handled::Done)
            }
            .boxed()
        });
    let mut rig = Rig::start(setup);
    let partition = rig.assign("task-events", 0, None).await;
    pass(2).await;
    *store.save_takes.lock().unwrap() = seconds(1);
    rig.deliver(&partition, vec![event(0, "task.created", "failing", "id-0")]).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    rig.deliver(&partition, vec![event(1, "task.created", "user-1", "id-1"), event(2, "task.updated", "user-1", "id-2")]).await;
    rig.until("the second of them runs", |rig| rig.effects().iter().any(|effect| effect.offset == 2)).await;
    pass(5).await;
    assert_eq!(store.saved.lock().unwrap().concat(), [0]);
}
