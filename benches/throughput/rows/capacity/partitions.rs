//! Partitions: what each costs a worker that owns them all and has nothing to do.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use axum::http::StatusCode;

use crate::{
    meter::{Measured, mib},
    program::Program,
    row::{Bench, Row},
    rows::capacity::step,
    sink,
    stack::unique,
    usage::{self, Processes},
};

/// Until start-up is over.
const REST: Duration = Duration::from_secs(5);
/// Of which the CPU is taken.
const DURING: Duration = Duration::from_secs(10);

/// Twelve to a thousand.
pub const ROWS: &[Row] = &[
    step("partitions-12", "the worker's program with 12 partitions and nothing to do", |bench| measure(bench, 12)),
    step("partitions-100", "the same with 100", |bench| measure(bench, 100)),
    step("partitions-1000", "the same with 1 000", |bench| measure(bench, 1_000)),
];

fn measure(bench: &Bench, partitions: i32) -> anyhow::Result<Measured> {
    let topic = unique("partitions");
    bench.stack.create_with(&topic, partitions)?;
    let (app, group) = (sink::start(|_| StatusCode::OK)?, unique("partitions"));
    let started = Instant::now();
    let program = Program::consumer(bench, &group, &topic, app, "")?;
    program.ready()?;
    let mut figures = BTreeMap::from([("ready s".to_owned(), started.elapsed().as_secs_f64())]);
    thread::sleep(REST);
    let processes = Processes { own: Some(program.id()), ..bench.stack.processes() };
    let first = processes.snapshot();
    thread::sleep(DURING);
    let idle = Measured::between(&first, &processes.snapshot(), 1, &processes);
    // Microseconds of one "event", all of the time that passed.
    let percent = |us: f64| us / 1e4 / idle.seconds;
    figures.insert("CPU %".to_owned(), percent(idle.own_us));
    figures.extend(idle.redis_us.map(|us| ("Redis CPU %".to_owned(), percent(us))));
    figures.extend(idle.broker_us.map(|us| ("broker CPU %".to_owned(), percent(us))));
    figures.insert("RSS MiB".to_owned(), mib(program.rss()));
    Ok(Measured { peak_rss: usage::peak_rss(program.id()), figures, ..Measured::default() })
}
