//! A killed worker's partitions in another one's hands.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use axum::http::StatusCode;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use crate::{
    meter::Measured,
    program::Program,
    row::{Bench, Goal, Row},
    sink,
    stack::{PARTITIONS, Stack, USERS, event, unique},
};

/// `session.timeout.ms` and the lease, both 10 s, and one.
const MOST: f64 = 21.0;
const SECONDS: &str = "seconds";
const PATIENCE: Duration = Duration::from_secs(60);
/// More than are ever written.
const MANY: u64 = 1_000_000;

/// One.
pub const ROWS: &[Row] = &[Row {
    name: "takeover",
    about: "one of two workers killed: until an event of every partition that came after it is handled",
    floor: None,
    goals: &[Goal::Most(SECONDS, MOST)],
    part: None,
    measure: takeover,
}];

/// When an event of a partition was handled last.
type Handled = Arc<Mutex<BTreeMap<i32, Instant>>>;

fn takeover(bench: &Bench) -> anyhow::Result<Measured> {
    let (topic, group) = (unique("takeover"), unique("takeover"));
    bench.stack.create(&topic)?;
    let handled = Handled::default();
    let seen = Arc::clone(&handled);
    let app = sink::start(move |headers| {
        let partition = headers.get("__partition").and_then(|value| value.to_str().ok()?.parse().ok());
        if let Some(partition) = partition {
            seen.lock().unwrap_or_else(PoisonError::into_inner).insert(partition, Instant::now());
        }
        StatusCode::OK
    })?;
    let worker = || Program::consumer(bench, &group, &topic, app, "");
    let half = |program: &Program| program.until("worker_assigned_partitions", |partitions| partitions == f64::from(PARTITIONS / 2));
    let (survivor, killed) = (worker()?, worker()?);
    half(&survivor)?;
    half(&killed)?;
    every_partition_after(bench, &topic, &handled, 0)?;
    let at = Instant::now();
    drop(killed);
    // What it had sent before may still arrive.
    thread::sleep(Duration::from_millis(200));
    every_partition_after(bench, &topic, &handled, MANY)?;
    Ok(Measured { figures: [(SECONDS.to_owned(), at.elapsed().as_secs_f64())].into(), ..Measured::default() })
}

/// Writes an event to each partition ten times a second until each had one handled from now on. `from`: their numbers, which no other has.
fn every_partition_after(bench: &Bench, topic: &str, handled: &Handled, from: u64) -> anyhow::Result<()> {
    let producer: BaseProducer = Stack::client(&bench.stack).set("linger.ms", "0").create()?;
    let (now, mut numbers) = (Instant::now(), from..);
    loop {
        for partition in 0..PARTITIONS {
            let (_, value) = event(numbers.next().unwrap_or_default(), USERS, chrono::Utc::now());
            let key = format!("user-of-{partition}");
            producer.send(BaseRecord::to(topic).partition(partition).key(&key).payload(&value)).map_err(|(error, _)| error)?;
        }
        producer.flush(PATIENCE)?;
        thread::sleep(Duration::from_millis(100));
        let handled = handled.lock().unwrap_or_else(PoisonError::into_inner);
        let since = handled.values().filter(|at| **at > now).count();
        if since == usize::try_from(PARTITIONS)? {
            return Ok(());
        }
        anyhow::ensure!(now.elapsed() < PATIENCE, "events of {since} of {PARTITIONS} partitions handled within {PATIENCE:?}");
    }
}
