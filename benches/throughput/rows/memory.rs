//! Resident memory of the worker's program: holding nothing, holding whole events, holding positions.

use std::time::Duration;

use axum::http::StatusCode;

use crate::{
    meter::{Measured, mib},
    program::{Program, WAITING},
    row::{Bench, Goal, Row},
    sink,
    stack::unique,
    usage,
};

/// Events held whole: ten of each user.
const HELD: u64 = 100_000;
/// Events of a hundred users, of which each keeps `engine.lane_events` whole and the rest as stubs.
const BACKLOG: u64 = 1_000_000;
const FEW_USERS: u64 = 100;
/// Until what came last has been let go.
const REST: Duration = Duration::from_secs(5);
const RSS: &str = "RSS MiB";

/// What the process holds, and what that costs.
pub const ROWS: &[Row] = &[
    Row {
        name: "rss-idle",
        about: "resident memory of the worker's program that has joined, with nothing to do",
        floor: None,
        goals: &[Goal::Most(RSS, 25.0)],
        part: None,
        measure: |bench| {
            let topic = unique("idle");
            bench.stack.create(&topic)?;
            resident(bench, &topic, |_| Ok(()))
        },
    },
    Row {
        name: "rss-held",
        about: "the same, 100 000 events held whole behind failing ones",
        floor: None,
        goals: &[Goal::Most(RSS, 120.0)],
        part: None,
        measure: |bench| {
            let topic = bench.stack.filled_topic(HELD)?;
            resident(bench, &topic, |program| program.until("worker_held_events", at_least(HELD)))
        },
    },
    Row {
        name: "rss-stubs",
        about: "the same, a million events of a hundred users, most of them kept as stubs",
        floor: None,
        goals: &[Goal::Most(RSS, 120.0)],
        part: None,
        measure: |bench| {
            let topic = bench.stack.filled_topic_of(BACKLOG, FEW_USERS)?;
            resident(bench, &topic, |program| program.until("worker_held_events", at_least(BACKLOG)))
        },
    },
];

/// A consumer whose app refuses everything, once `filled` says that it holds what it is to hold.
fn resident(bench: &Bench, topic: &str, filled: impl FnOnce(&Program) -> anyhow::Result<()>) -> anyhow::Result<Measured> {
    let app = sink::start(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    let program = Program::consumer(bench, &unique("memory"), topic, app, WAITING)?;
    program.ready()?;
    filled(&program)?;
    std::thread::sleep(REST);
    Ok(Measured {
        peak_rss: usage::peak_rss(program.id()),
        figures: [
            (RSS.to_owned(), mib(program.rss())),
            ("of it files MiB".to_owned(), mib(usage::rss_of_files(program.id()))),
            ("held".to_owned(), program.metric("worker_held_events")?),
            ("stubs".to_owned(), program.metric("worker_spilled_events")?),
        ]
        .into(),
        ..Measured::default()
    })
}

#[expect(clippy::cast_precision_loss, reason = "a count of events")]
fn at_least(events: u64) -> impl Fn(f64) -> bool {
    move |held| held >= events as f64
}
