//! Blocked users: what each costs the worker's memory and its commits.

use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
    time::Duration,
};

use axum::http::StatusCode;

use crate::{
    meter::{Measured, mib},
    program::{Program, WAITING},
    row::{Bench, Row},
    rows::capacity::step,
    sink,
    stack::{unique, user},
    usage,
};

const USERS: u64 = 100_000;
/// Two of each user on average.
const EVENTS: u64 = 200_000;
/// Until everything is committed, and what came last has been let go.
const REST: Duration = Duration::from_secs(5);

/// None to a hundred thousand.
pub const ROWS: &[Row] = &[
    step("blocked-0", "the worker's program, 200 000 events of 100 000 users, nobody failing", |bench| measure(bench, 0)),
    step("blocked-1000", "the same, 1 000 users blocked", |bench| measure(bench, 1_000)),
    step("blocked-10000", "the same, 10 000 users blocked", |bench| measure(bench, 10_000)),
    step("blocked-100000", "the same, everybody blocked", |bench| measure(bench, USERS)),
];

fn measure(bench: &Bench, blocked: u64) -> anyhow::Result<Measured> {
    let topic = bench.stack.filled_topic_of(EVENTS, USERS)?;
    let app = sink::start(move |headers| {
        let key = headers.get("__key").and_then(|key| key.to_str().ok()).unwrap_or_default();
        if fails(key, blocked) { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK }
    })?;
    let program = Program::consumer(bench, &unique("blocked"), &topic, app, WAITING)?;
    program.ready()?;
    let (others, failing): (Vec<String>, Vec<String>) =
        (0..EVENTS).map(|number| user(number, USERS)).partition(|user| !fails(user, blocked));
    let failing: BTreeSet<String> = failing.into_iter().collect();
    program.until("worker_events_settled_total", |settled| settled >= count(others.len()))?;
    program.until("worker_users_blocked", |users| users >= count(failing.len()))?;
    thread::sleep(REST);
    let mut figures = BTreeMap::from([("RSS MiB".to_owned(), mib(program.rss()))]);
    for (figure, metric) in [
        ("held", "worker_held_events"),
        ("blocked", "worker_users_blocked"),
        ("map characters", "worker_commit_map_chars"),
        ("maps too long", "worker_commit_map_overflows_total"),
    ] {
        figures.insert(figure.to_owned(), program.metric(metric)?);
    }
    Ok(Measured { peak_rss: usage::peak_rss(program.id()), figures, ..Measured::default() })
}

/// The first so many users' events fail.
fn fails(user: &str, blocked: u64) -> bool {
    user.strip_prefix("user-").and_then(|number| number.parse::<u64>().ok()).is_some_and(|number| number < blocked)
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
fn count(many: usize) -> f64 {
    many as f64
}
