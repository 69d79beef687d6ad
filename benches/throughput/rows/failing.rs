//! What users whose events fail cost everybody else.

use crate::{
    journal::P99,
    pace::Pace,
    row::{Bench, Goal, Row},
    stack::user_name,
    worker,
};

/// The first of the ten thousand users: one in a hundred.
const FAILING: u64 = 100;

/// Longer than the schedule of 1 s, 5 s and 30 s, so that some events die meanwhile.
const PACE: Pace = Pace { rate: 1_000, warm: 2_000, events: 40_000, arrives: |user| !fails(user) };

/// A thousand events a second with Redis, the default schedule.
pub const ROWS: &[Row] = &[
    Row {
        name: "worker-healthy",
        about: "a thousand events a second for 40 s, from written to the handler's call",
        floor: None,
        goals: &[],
        part: None,
        measure: |bench| measure(bench, |_| false),
    },
    Row {
        name: "worker-failing",
        about: "the same, every event of one user in a hundred fails: what the others notice",
        floor: Some("worker-healthy"),
        goals: &[Goal::Times(P99, 1.1)],
        part: None,
        measure: |bench| measure(bench, fails),
    },
];

fn fails(user: &str) -> bool {
    user < user_name(FAILING).as_str()
}

fn measure(bench: &Bench, fails: fn(&str) -> bool) -> anyhow::Result<crate::meter::Measured> {
    worker::at_pace(bench, &PACE, fails)
}
