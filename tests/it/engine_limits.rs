//! Limits of the engine: backlogs that do not fit, users that hold too much, events that keep killing the process.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use worker::{
    engine::{
        OnOverflow,
        ports::{LogReader, ReadError},
    },
    event::record::{Record, RecordParts, TopicPartition},
    outcome::{Failure, Handled},
};

use crate::rig::{Rig, Setup, event};

/// The log, to be read again.
struct Log {
    records: Vec<RecordParts>,
    reads: AtomicUsize,
}

impl LogReader for Log {
    fn read_up_to<'a>(
        &'a self,
        _all: usize,
        partition: &'a TopicPartition,
        offsets: &'a [i64],
    ) -> BoxFuture<'a, Result<Vec<Record>, ReadError>> {
        Box::pin(async move {
            if self.reads.fetch_add(1, Ordering::SeqCst) == 0 {
                return Err(ReadError("the first reading fails".into()));
            }
            Ok(self
                .records
                .iter()
                .filter(|record| offsets.contains(&record.offset))
                .map(|record| Record::copy_of(partition, record))
                .collect())
        })
    }
}

fn backlog(users: usize, each: usize) -> Vec<RecordParts> {
    (0..users * each).map(|n| event(n as i64, "task.created", &format!("user-{}", n % users), &format!("id-{n}"))).collect()
}

/// The backlog of a blocked user waits as stubs and is read again from the log, in order; others go on.
#[tokio::test(start_paused = true)]
async fn a_blocked_users_backlog_is_spilled_and_handled_in_order_when_the_handler_recovers() {
    let healthy = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&healthy);
    let mut setup = Setup::handler(move |run| {
        if run.event.user_id() == "user-0" && !switch.load(Ordering::SeqCst) { Err(Failure::transient("no")) } else { Ok(Handled::Done) }
    });
    setup.options.lane_events = 4;
    let records = backlog(3, 100);
    let log = Arc::new(Log { records: records.clone(), reads: AtomicUsize::new(0) });
    setup.reader = Some(Arc::clone(&log) as Arc<dyn LogReader>);
    let mut rig = Rig::start(setup);
    let partition = rig.assign("task-events", 0, None).await;
    rig.deliver(&partition, records).await;
    rig.until("the others are through", |rig| rig.effects().iter().filter(|effect| effect.user != "user-0").count() == 200).await;
    rig.until("the backlog is counted", |rig| rig.metrics.spilled_events.with_label_values(&["task-events"]).get() == 96).await;
    healthy.store(true, Ordering::SeqCst);
    rig.until("all is committed", |rig| rig.committed() == 300).await;
    let mut done: Vec<i64> = rig.effects().iter().filter(|effect| effect.user == "user-0").map(|effect| effect.offset).collect();
    assert!(done.is_sorted(), "{done:?}");
    done.dedup();
    assert_eq!(done.len(), 100);
    assert_eq!(rig.held_bytes(&partition), 0, "every byte is given back");
    assert_eq!(rig.metrics.conservation_error.get(), 0);
}

/// A record that left the log before its turn is settled as lost, counted, and blocks nobody (F12).
#[tokio::test(start_paused = true)]
async fn a_stub_whose_record_left_the_log_is_counted_as_lost_and_blocks_nobody() {
    let mut setup =
        Setup::handler(
            |run| if run.event.record().offset() == 0 && run.attempt < 3 { Err(Failure::transient("no")) } else { Ok(Handled::Done) },
        );
    setup.options.lane_events = 2;
    let records = backlog(1, 20);
    let kept = records.iter().filter(|record| !(5..10).contains(&record.offset)).cloned().collect();
    setup.reader = Some(Arc::new(Log { records: kept, reads: AtomicUsize::new(0) }));
    let mut rig = Rig::start(setup);
    let partition = rig.assign("task-events", 0, None).await;
    rig.deliver(&partition, records).await;
    rig.until("all is committed", |rig| rig.committed() == 20).await;
    assert_eq!(rig.metrics.lost_to_retention.with_label_values(&["task-events"]).get(), 5);
    assert_eq!(rig.effects().iter().filter(|effect| effect.attempt == 1).count(), 15);
}

#[tokio::test(start_paused = true)]
async fn a_user_that_holds_too_many_events_goes_to_the_dlq_in_order_and_nobody_else_does() {
    let mut setup = Setup::handler(|run| if run.event.user_id() == "user-0" { Err(Failure::transient("no")) } else { Ok(Handled::Done) });
    setup.options.max_held_events = 10;
    let mut rig = Rig::start(setup);
    let partition = rig.assign("task-events", 0, None).await;
    rig.deliver(&partition, backlog(2, 30)).await;
    rig.until("all is committed", |rig| rig.committed() == 60).await;
    let dead = rig.dead();
    let offsets: Vec<i64> = dead.iter().map(|headers| headers["x-dlq-source-offset"].parse().unwrap()).collect();
    assert_eq!(offsets, (0..30).map(|n| n * 2).collect::<Vec<i64>>());
    assert!(dead.iter().all(|headers| headers["x-dlq-reason"] == "user_overflow"), "{dead:?}");
}

#[tokio::test(start_paused = true)]
async fn a_user_that_is_held_too_long_goes_to_the_dlq() {
    let mut setup = Setup::handler(|_| Err(Failure::transient("no")));
    setup.options.max_hold_age = Duration::from_secs(60);
    let mut rig = Rig::start(setup);
    let partition = rig.assign("task-events", 0, None).await;
    rig.deliver(&partition, vec![event(0, "task.completed", "user-0", "id-0"), event(1, "task.completed", "user-0", "id-1")]).await;
    rig.until("all is committed", |rig| rig.committed() == 2).await;
    let reasons: Vec<String> = rig.dead().into_iter().map(|mut headers| headers.remove("x-dlq-reason").unwrap()).collect();
    assert_eq!(reasons, ["user_overflow", "user_overflow"]);
}

#[tokio::test(start_paused = true)]
async fn with_pause_partition_a_full_user_stops_the_reading_until_it_moves() {
    let healthy = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&healthy);
    let mut setup = Setup::handler(move |_| if switch.load(Ordering::SeqCst) { Ok(Handled::Done) } else { Err(Failure::transient("no")) });
    setup.options.max_held_events = 5;
    setup.options.on_overflow = OnOverflow::PausePartition;
    let mut rig = Rig::start(setup);
    let partition = rig.assign("task-events", 0, None).await;
    rig.deliver(&partition, vec![event(0, "reminder.due", "user-0", "id-0")]).await;
    rig.until("it failed", |rig| rig.effects().len() == 1).await;
    rig.deliver(&partition, (1..10).map(|n| event(n, "reminder.due", "user-0", &format!("id-{n}"))).collect()).await;
    rig.until("the gate is closed", |rig| !rig.gate_open(&partition)).await;
    healthy.store(true, Ordering::SeqCst);
    rig.until("all is committed", |rig| rig.committed() == 10).await;
    assert!(rig.gate_open(&partition));
    assert!(rig.dead().is_empty());
}
