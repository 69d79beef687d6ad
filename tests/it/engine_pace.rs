//! What changes where more events could run than may: less is asked of the store and of the log, and nothing waits for long.

use std::{sync::Arc, time::Duration};

use worker::{event::record::RecordParts, outcome::Handled};

use crate::{
    faulty::{Faulty, Log},
    rig::{Rig, Setup, event},
};

/// Events of as many users.
fn events(from: i64, count: i64) -> Vec<RecordParts> {
    (from..from + count).map(|n| event(n, "task.created", &format!("user-{n}"), &format!("id-{n}"))).collect()
}

/// A handler that takes so long for each of the first user's events, and so long for the others'.
fn taking(first: Duration, others: Duration) -> Setup {
    Setup::default().and_async("test", move |run| {
        let takes = if run.event.user_id() == "user-0" { first } else { others };
        Box::pin(async move {
            tokio::time::sleep(takes).await;
            Ok(Handled::Done)
        })
    })
}

#[tokio::test(start_paused = true)]
async fn where_permits_are_out_verdicts_are_written_together() {
    let store = Faulty::fresh();
    let mut setup = taking(Duration::from_millis(1), Duration::from_millis(1));
    setup.store = Arc::clone(&store) as _;
    setup.options.concurrency = 5;
    let mut rig = Rig::start(setup);
    let partition = rig.assign("task-events", 0, None).await;
    rig.deliver(&partition, events(0, 400)).await;
    rig.until("all is committed", |rig| rig.committed() == 400).await;
    let exchanges = store.verdicts.lock().unwrap().clone();
    assert_eq!(exchanges.iter().sum::<usize>(), 400);
    // Four run at once: one by one it would be a hundred.
    assert!(exchanges.len() < 50, "{exchanges:?}");
}

#[tokio::test(start_paused = true)]
async fn a_verdict_waits_for_nobody_elses_run() {
    let store = Faulty::fresh();
    let mut setup = taking(Duration::from_millis(1), Duration::from_secs(10));
    setup.store = Arc::clone(&store) as _;
    setup.options.concurrency = 2;
    let mut rig = Rig::start(setup);
    let partition = rig.assign("task-events", 0, None).await;
    rig.deliver(&partition, events(0, 40)).await;
    rig.until("the first is handled", |rig| rig.effects().len() == 2).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!((store.verdicts.lock().unwrap().clone(), rig.effects().len()), (vec![1], 2), "and the second runs");
}

/// Where it minded what it no longer asks for, it would spin: time, which is virtual, would stand still.
#[tokio::test(start_paused = true)]
async fn a_partition_that_is_drained_while_heads_wait_waits_for_its_runs_alone() {
    let mut setup = taking(Duration::from_millis(1), Duration::from_secs(10));
    setup.options.concurrency = 2;
    let mut rig = Rig::start(setup);
    let partition = rig.assign("task-events", 0, None).await;
    let mut records = events(0, 40);
    records.push(event(40, "task.created", "user-0", "id-40"));
    rig.deliver(&partition, records).await;
    // The first user's next event is ready since its verdict was written, a moment ago.
    tokio::time::sleep(Duration::from_millis(12)).await;
    assert_eq!(rig.effects().len(), 2);
    rig.revoke(&partition).await;
    assert_eq!(rig.committed(), 2);
}

#[tokio::test(start_paused = true)]
async fn where_permits_are_out_no_more_is_read_than_can_be_asked_for_at_once() {
    let mut setup = taking(Duration::from_secs(10), Duration::from_secs(10));
    setup.options.concurrency = 2;
    setup.reader = Some(Log::new(&events(0, 20_000)) as _);
    let mut rig = Rig::start(setup);
    let partition = rig.assign("task-events", 0, None).await;
    for from in 0..40 {
        rig.deliver(&partition, events(from * 500, 500)).await;
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    let read = rig.metrics.events_consumed.with_label_values(&["task-events"]).get();
    assert!((500..2_000).contains(&read), "{read}");
}

#[tokio::test(start_paused = true)]
async fn a_handler_at_its_own_limit_hides_nobody_elses_events() {
    let mut setup = Setup::default();
    let slow = |_: &_| Box::pin(async { std::future::pending().await }) as _;
    setup.registry.push(("slow", &["task.created"], Arc::new(slow)));
    let mut setup = setup.and("quick", &["task.updated"], |_| Ok(Handled::Done));
    setup.limit = Some(("slow", 1));
    let mut records = events(0, 5_000);
    records.push(event(5_000, "task.updated", "somebody", "last"));
    setup.reader = Some(Log::new(&records) as _);
    let mut rig = Rig::start(setup);
    let partition = rig.assign("task-events", 0, None).await;
    for batch in records.chunks(100) {
        rig.deliver(&partition, batch.to_vec()).await;
    }
    rig.until("the other handler's event is handled", |rig| rig.effects().iter().any(|effect| effect.handler == "quick")).await;
}
