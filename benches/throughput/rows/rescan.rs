//! What a restart reads again: records behind the frontier that were settled before it.

use std::{
    thread,
    time::{Duration, Instant},
};

use ::worker::progress::{Map, MapHead, MapLimits};
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer as _},
};

use crate::{
    meter::Measured,
    program,
    row::{Bench, Goal, Row},
    stack::{PARTITIONS, Stack, unique},
    usage::Processes,
    worker::{self, Settings},
};

/// Between two looks at the worker's metrics.
const LOOK: Duration = Duration::from_millis(2);
const PATIENCE: Duration = Duration::from_secs(60);

/// One.
pub const ROWS: &[Row] = &[Row {
    name: "worker-rescan",
    about: "records settled behind the frontier, read again after a restart and skipped by the commit map",
    floor: Some("poll"),
    goals: &[Goal::Rate(1e6)],
    part: Some(1),
    measure: rescan,
}];

fn rescan(bench: &Bench) -> anyhow::Result<Measured> {
    let (topic, group) = (bench.topic()?, unique("rescan"));
    settle_all_but_the_first(&bench.stack, &topic, &group)?;
    let port = program::free_port()?;
    let settings = Settings {
        group,
        listen: format!("127.0.0.1:{port}"),
        more: program::WAITING.to_owned(),
        bindings: vec![worker::failing()],
        ..Settings::of(&bench.stack)
    };
    let (done, told) = tokio::sync::oneshot::channel::<()>();
    thread::scope(|scope| {
        let looking = scope.spawn(move || {
            let measured = look(port, bench.events, bench.stack.processes());
            drop(done);
            measured
        });
        worker::run_until(&bench.stack, &topic, settings, async {
            let _dropped = told.await;
        })?;
        looking.join().map_err(|_| anyhow::anyhow!("the looker panicked"))?
    })
}

/// From the first records taken to the last.
fn look(port: u16, events: u64, processes: Processes) -> anyhow::Result<Measured> {
    let give_up = Instant::now() + PATIENCE;
    let until = |least: u64| loop {
        let taken = program::metric(port, "worker_events_consumed_total").map_or(0, whole);
        if taken >= least {
            return Ok(taken);
        }
        anyhow::ensure!(Instant::now() < give_up, "{taken} of {events} records within {PATIENCE:?}");
        thread::sleep(LOOK);
    };
    let before = until(1)?;
    let first = processes.snapshot();
    let taken = until(events)? - before;
    Ok(Measured::between(&first, &processes.snapshot(), taken, &processes))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of events")]
fn whole(count: f64) -> u64 {
    count as u64
}

/// Commits what a worker leaves behind of which each partition's first event waits for its next run, and everything else is settled but
/// the same user's events.
fn settle_all_but_the_first(stack: &Stack, topic: &str, group: &str) -> anyhow::Result<()> {
    let consumer: BaseConsumer = stack.client().set("group.id", group).create()?;
    let mut commit = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        let (committed, end) = Stack::ends(&consumer, topic, partition)?;
        let due_ms = u64::try_from(chrono::Utc::now().timestamp_millis()).ok().map(|now| now + 3_600_000);
        let heads = vec![MapHead { offset: committed, attempts: 1, due_ms }];
        let map = Map { committed, frontier: end - 1, epoch: 1, heads };
        let mut element = commit.add_partition(topic, partition);
        element.set_offset(Offset::Offset(committed))?;
        element.set_metadata(map.encode(MapLimits::default()).text);
    }
    consumer.commit(&commit, CommitMode::Sync)?;
    Ok(())
}
