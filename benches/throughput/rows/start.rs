//! From the start of the process to ready, on a broker that does not wait for more members of a new group.

use std::time::Instant;

use axum::http::StatusCode;

use crate::{
    meter::Measured,
    program::Program,
    row::{Bench, Goal, Row},
    sink,
    stack::unique,
};

const SECONDS: &str = "seconds";

/// One.
pub const ROWS: &[Row] = &[Row {
    name: "start",
    about: "the worker's program, from its start to ready, partitions assigned and leased",
    floor: None,
    goals: &[Goal::Most(SECONDS, 1.5)],
    part: None,
    measure: start,
}];

fn start(bench: &Bench) -> anyhow::Result<Measured> {
    let (topic, group) = (unique("start"), unique("start"));
    bench.stack.create(&topic)?;
    let app = sink::start(|_| StatusCode::OK)?;
    let started = Instant::now();
    let program = Program::consumer(bench, &group, &topic, app, "")?;
    program.ready()?;
    let seconds = started.elapsed().as_secs_f64();
    Ok(Measured { figures: [(SECONDS.to_owned(), seconds)].into(), ..Measured::default() })
}
