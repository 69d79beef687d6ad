//! Blocked users: what each costs the worker's memory and its commits.

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
    sink,
    stack::{unique, user_name},
    usage,
};

const USERS: u64 = 100_000;
/// Two of each user on average.
const EVENTS: u64 = 200_000;
/// Until everything is committed, and what came last has been let go.
const REST: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(120);

/// None to a hundred thousand.
pub const ROWS: &[Row] = &[
    row("blocked-0", "the worker's program, 200 000 events of 100 000 users, nobody failing", |bench| measure(bench, 0)),
    row("blocked-1000", "the same, 1 000 users blocked", |bench| measure(bench, 1_000)),
    row("blocked-10000", "the same, 10 000 users blocked", |bench| measure(bench, 10_000)),
    row("blocked-100000", "the same, all 100 000 blocked", |bench| measure(bench, USERS)),
];

const fn row(name: &'static str, about: &'static str, measure: fn(&Bench) -> anyhow::Result<Measured>) -> Row {
    Row { name, about, floor: None, goals: &[], part: None, measure }
}

fn measure(bench: &Bench, blocked: u64) -> anyhow::Result<Measured> {
    let topic = bench.stack.filled_topic_of(EVENTS, USERS)?;
    let group = unique("blocked");
    let app = sink::start(move |headers| {
        let key = headers.get("__key").and_then(|key| key.to_str().ok()).unwrap_or_default();
        if key < user_name(blocked).as_str() { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK }
    })?;
    let program = Program::start(
        bench,
        "consumer",
        &format!(
            "[kafka]\ngroup_id = \"{group}\"\ntopics = [\"{topic}\"]\n[retry.default]\ndelays = [\"1h\"]\n\
             [[handlers]]\nname = \"app\"\nkind = \"http\"\nurl = \"http://127.0.0.1:{app}/event\"\n"
        ),
    )?;
    program.ready()?;
    let begin = Instant::now();
    loop {
        let of = |metric| program.metric(metric);
        let (settled, held, waiting) = (of("worker_events_settled_total")?, of("worker_held_events")?, of("worker_events_waiting_retry")?);
        // Everything is handled that nobody waits for: what is held waits for a retry, or behind one.
        if settled + held >= count(EVENTS) && waiting >= of("worker_users_blocked")? {
            break;
        }
        anyhow::ensure!(begin.elapsed() < PATIENCE, "{settled} settled and {held} held within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(50));
    }
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

#[expect(clippy::cast_precision_loss, reason = "a count of events")]
fn count(events: u64) -> f64 {
    events as f64
}
