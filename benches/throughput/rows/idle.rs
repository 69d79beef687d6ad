//! What is added to the time of a single event on a system that has nothing else to do.

use std::thread;

use crate::{
    floor,
    journal::{P50, P99},
    meter::Measured,
    pace::Pace,
    row::{Bench, Goal, Row},
    stack::{number, unique},
    worker,
};

/// Ten seconds.
const PACE: Pace = Pace { rate: 100, warm: 100, events: 1_000, arrives: |_| true };

/// From handing an event to the producer, linger 0, to when it is read or its handler called.
pub const ROWS: &[Row] = &[
    Row {
        name: "poll-idle",
        about: "a hundred events a second: from written to read by the poll loop",
        floor: None,
        goals: &[],
        part: None,
        measure: poll,
    },
    Row {
        name: "worker-idle",
        about: "the same, to the handler's call, with Redis",
        floor: Some("poll-idle"),
        goals: &[Goal::Above(P50, 1.0), Goal::Above(P99, 3.0)],
        part: None,
        measure: |bench| worker::at_pace(bench, &PACE, |_| false),
    },
];

fn poll(bench: &Bench) -> anyhow::Result<Measured> {
    let (topic, journal) = (unique("idle"), PACE.journal());
    bench.stack.create(&topic)?;
    let (stack, read, arrivals) = (bench.stack.clone(), topic.clone(), journal.clone());
    thread::spawn(move || {
        floor::each(&stack, &read, |value| {
            if let Some(number) = floor::Envelope::read(value).and_then(|event| number(&event.event_id)) {
                arrivals.arrive(number);
            }
        })
    });
    PACE.run(&bench.stack, &topic, &journal, &bench.stack.processes())
}
