//! A failing user delays that user alone, also where its backlog is all that the memory budget has room for.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use worker::{
    engine::OnOverflow,
    event::record::{RecordParts, TopicPartition},
    outcome::{Failure, Handled},
};

use crate::{
    faulty::{Faulty, Log, pass, seconds, steady},
    rig::{Rig, Setup, event},
};

/// A partition's share: room for 2 700 stubs.
const SHARE: usize = 64 << 10;
const BATCH: usize = 16;

/// The topic: of `each` events one is another user's, the others are those of the users in `heavy`.
fn log(events: i64, each: i64, heavy: &[&str]) -> Vec<RecordParts> {
    let user = |n: i64| match n % each {
        0 => format!("user-{}", n / each % 50),
        n => heavy[n as usize % heavy.len()].to_owned(),
    };
    (0..events).map(|n| event(n, "task.updated", &user(n), &format!("id-{n}"))).collect()
}

fn others(rig: &Rig) -> usize {
    let mut offsets: Vec<_> = rig.effects().iter().filter(|effect| effect.user.starts_with("user-")).map(|effect| effect.offset).collect();
    offsets.dedup();
    offsets.len()
}

/// Where the failing users' events went, in the order that they were written.
fn given_up(rig: &Rig) -> Vec<(String, i64)> {
    let dead = rig.dead();
    assert!(dead.iter().all(|headers| headers["x-dlq-reason"] == "user_overflow"));
    dead.iter().map(|headers| (headers["x-dlq-user-id"].clone(), headers["x-dlq-source-offset"].parse().unwrap())).collect()
}

/// An engine whose handler fails what `fails` says, as long as it says so, on a partition with a small share.
async fn start(records: &[RecordParts], fails: impl Fn(&str) -> bool + Send + Sync + 'static) -> (Rig, TopicPartition) {
    let mut setup = Setup::handler(move |run| if fails(run.event.user_id()) { Err(Failure::transient("no")) } else { Ok(Handled::Done) });
    setup.options.memory = SHARE as u64;
    setup.options.lane_events = 4;
    setup.schedules = Some(steady(&[600; 100]));
    setup.reader = Some(Log::new(records) as _);
    let mut rig = Rig::start(setup);
    let partition = rig.assign("task-events", 0, None).await;
    pass(1).await;
    (rig, partition)
}

/// The Source's part: batches from `next` on, for as long as the gate lets it read; at most `span`.
async fn read(rig: &Rig, partition: &TopicPartition, records: &[RecordParts], next: &mut usize, open: &mut bool, span: Duration) {
    let until = tokio::time::Instant::now() + span;
    while *next < records.len() && tokio::time::Instant::now() < until {
        *open = rig.gate_lets(partition, *open);
        if !*open {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        }
        let end = records.len().min(*next + BATCH);
        rig.deliver(partition, records[*next..end].to_vec()).await;
        *next = end;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// The backlog of one user fills its partition's share long before `max_held_events`, and a partition that is held is read again only below
/// half of it: nobody else may wait for that.
#[tokio::test(start_paused = true)]
async fn a_failing_user_whose_backlog_fills_its_partitions_share_goes_to_the_dlq_and_nobody_else_waits() {
    let records = log(10_000, 10, &["heavy"]);
    let (rig, partition) = start(&records, |user| user == "heavy").await;
    let (mut next, mut open) = (0, true);
    read(&rig, &partition, &records, &mut next, &mut open, seconds(300)).await;
    assert_eq!((next, others(&rig)), (10_000, 1_000), "read, and others' events handled, within five minutes");
    rig.until("all is committed", |rig| rig.committed() == 10_000).await;
    let dead = given_up(&rig);
    assert!(dead.iter().all(|(user, _)| user == "heavy"));
    assert!(dead.is_sorted_by_key(|(_, offset)| *offset), "in order");
    assert_eq!(rig.metrics.conservation_error.get(), 0);
    assert_eq!(rig.held_bytes(&partition), 0);
}

/// More events of each user stand in the log than a lane keeps whole. What the store takes its time for is read at the store's pace: else
/// nearly all would become positions, and be read from the log again one lane after the other.
#[tokio::test(start_paused = true)]
async fn a_backlog_of_few_users_who_do_not_fail_is_read_once() {
    let records: Vec<_> = (0..10_000).map(|n| event(n, "task.updated", &format!("user-{}", n % 20), &format!("id-{n}"))).collect();
    let (store, reader) = (Faulty::fresh(), Log::new(&records));
    for takes in [&store.check_takes, &store.verdicts_take] {
        *takes.lock().unwrap() = Duration::from_millis(5);
    }
    let mut setup = Setup::handler(|_| Ok(Handled::Done));
    setup.store = store as _;
    setup.reader = Some(Arc::clone(&reader) as _);
    let mut rig = Rig::start(setup);
    let partition = rig.assign("task-events", 0, None).await;
    pass(1).await;
    for batch in records.chunks(100) {
        rig.deliver(&partition, batch.to_vec()).await;
    }
    rig.until("all is committed", |rig| rig.committed() == 10_000).await;
    assert!(reader.read.lock().unwrap().is_empty());
}

/// Two of them, neither of which would fill the share alone.
#[tokio::test(start_paused = true)]
async fn of_several_failing_users_that_fill_the_share_together_the_largest_gives_way() {
    let records = log(9_000, 10, &["first", "first", "second"]);
    let healthy = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&healthy);
    let (rig, partition) = start(&records, move |user| !user.starts_with("user-") && !switch.load(Ordering::SeqCst)).await;
    let (mut next, mut open) = (0, true);
    read(&rig, &partition, &records, &mut next, &mut open, seconds(300)).await;
    assert_eq!((next, others(&rig)), (9_000, 900));
    assert_eq!(given_up(&rig).first().map(|(user, _)| user.as_str()), Some("first"));
    healthy.store(true, Ordering::SeqCst);
    rig.until("all is committed", |rig| rig.committed() == 9_000).await;
}

/// F68: where nobody's events are handled, nobody waits behind the one who has most of them: an outage empties no backlog into the DLQ.
#[tokio::test(start_paused = true)]
async fn in_an_outage_a_full_partition_is_held_and_nobody_is_given_up() {
    let records = log(10_000, 10, &["heavy"]);
    let away = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&away);
    let (rig, partition) = start(&records, move |_| switch.load(Ordering::SeqCst)).await;
    let (mut next, mut open) = (0, true);
    read(&rig, &partition, &records[..1_000], &mut next, &mut open, seconds(300)).await;
    rig.until("before it all is well", |rig| rig.committed() == 1_000).await;
    away.store(true, Ordering::SeqCst);
    read(&rig, &partition, &records, &mut next, &mut open, seconds(3_000)).await;
    assert!(next < 6_000 && !open, "held after {next}");
    away.store(false, Ordering::SeqCst);
    read(&rig, &partition, &records, &mut next, &mut open, seconds(3_000)).await;
    rig.until("all is committed", |rig| rig.committed() == 10_000).await;
    assert_eq!(given_up(&rig), []);
}

/// Many users that fail, each with little: the same, although some others are well.
#[tokio::test(start_paused = true)]
async fn many_failing_users_with_little_each_are_held_and_not_given_up() {
    let names: Vec<String> = (0..40).map(|n| format!("failing-{n}")).collect();
    let records = log(8_000, 10, &names.iter().map(String::as_str).collect::<Vec<_>>());
    let healthy = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&healthy);
    let (rig, partition) = start(&records, move |user| user.starts_with("failing") && !switch.load(Ordering::SeqCst)).await;
    let (mut next, mut open) = (0, true);
    read(&rig, &partition, &records, &mut next, &mut open, seconds(300)).await;
    assert!(!open, "held after {next}");
    healthy.store(true, Ordering::SeqCst);
    read(&rig, &partition, &records, &mut next, &mut open, seconds(3_000)).await;
    rig.until("all is committed", |rig| rig.committed() == 8_000).await;
    assert_eq!(given_up(&rig), []);
}

/// `on_overflow = "pause_partition"` asks for just that: nothing is given up, everybody waits.
#[tokio::test(start_paused = true)]
async fn with_pause_partition_a_full_share_holds_the_partition_until_the_user_recovers() {
    let records = log(10_000, 10, &["heavy"]);
    let healthy = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&healthy);
    let mut setup = Setup::handler(move |run| {
        if run.event.user_id() == "heavy" && !switch.load(Ordering::SeqCst) { Err(Failure::transient("no")) } else { Ok(Handled::Done) }
    });
    setup.options.memory = SHARE as u64;
    setup.options.lane_events = 4;
    setup.options.on_overflow = OnOverflow::PausePartition;
    setup.schedules = Some(steady(&[600; 100]));
    setup.reader = Some(Log::new(&records) as _);
    let mut rig = Rig::start(setup);
    let partition = rig.assign("task-events", 0, None).await;
    pass(1).await;
    let (mut next, mut open) = (0, true);
    read(&rig, &partition, &records, &mut next, &mut open, seconds(300)).await;
    assert!(next < 6_000 && !rig.gate_open(&partition), "held after {next}");
    healthy.store(true, Ordering::SeqCst);
    read(&rig, &partition, &records, &mut next, &mut open, seconds(3_000)).await;
    rig.until("all is committed", |rig| rig.committed() == 10_000).await;
    assert_eq!(given_up(&rig), []);
}
