//! How fast records are read and handled, with a handler in process that does nothing.

use std::sync::Arc;

use anyhow::Context as _;

use crate::{
    floor::{self, Keep, Parse},
    meter::{Measured, Meter},
    plain,
    row::{Bench, Goal, Row},
    worker::{self, Settings},
};

/// Three loops, each adds one thing; the worker; and what a careful user would write.
pub const ROWS: &[Row] = &[
    Row {
        name: "poll",
        about: "librdkafka's batch poll loop, nothing else",
        floor: None,
        goals: &[],
        part: Some(1),
        measure: |bench| count(bench, |topic, meter| floor::poll(&bench.stack, topic, meter)),
    },
    Row {
        name: "parse",
        about: "+ copy and typed parse of the envelope",
        floor: Some("poll"),
        goals: &[],
        part: Some(1),
        measure: |bench| count(bench, |topic, meter| floor::parse(&bench.stack, topic, meter)),
    },
    Row {
        name: "ledger",
        about: "+ hand-over to a task per partition, two SMISMEMBER and one SADD per batch",
        floor: Some("parse"),
        goals: &[],
        part: Some(1),
        measure: |bench| count(bench, |topic, meter| floor::ledger(&bench.stack, topic, &Parse::Typed, Keep::Commands, meter)),
    },
    Row {
        name: "ledger-decoded",
        about: "the same with the worker's decoder: any shape, validated, the worker's identity",
        floor: Some("ledger"),
        goals: &[],
        part: Some(1),
        measure: |bench| count(bench, |topic, meter| floor::ledger(&bench.stack, topic, &Parse::worker()?, Keep::Commands, meter)),
    },
    Row {
        name: "ledger-leased",
        about: "the same in the worker's store: each partition under a lease, a verdict only while it is held",
        floor: Some("ledger"),
        goals: &[],
        part: Some(1),
        measure: |bench| count(bench, |topic, meter| floor::ledger(&bench.stack, topic, &Parse::worker()?, Keep::Store, meter)),
    },
    Row {
        name: "worker-memory",
        about: "the consumer role with `store.url = \"memory\"`",
        floor: Some("poll"),
        goals: &[Goal::Share(0.3)],
        part: Some(1),
        measure: |bench| count(bench, |topic, meter| consume(bench, topic, "memory", meter)),
    },
    Row {
        name: "worker-redis",
        about: "the consumer role with Redis: full semantics",
        floor: Some("ledger"),
        goals: &[Goal::Share(0.6)],
        part: Some(1),
        measure: |bench| count(bench, |topic, meter| consume(bench, topic, &bench.stack.redis, meter)),
    },
    Row {
        name: "plain",
        about: "a careful program on the client's async API, MGET and SET with a TTL",
        floor: Some("ledger"),
        goals: &[],
        part: Some(1),
        measure: |bench| count(bench, |topic, meter| plain::consume(&bench.stack, topic, meter)),
    },
];

fn consume(bench: &Bench, topic: &str, store: &str, meter: &Arc<Meter>) -> anyhow::Result<()> {
    let settings = Settings { store: store.to_owned(), bindings: vec![worker::counting(meter)], ..Settings::of(&bench.stack) };
    worker::consume(&bench.stack, topic, settings, meter)
}

fn count(bench: &Bench, run: impl FnOnce(&str, &Arc<Meter>) -> anyhow::Result<()>) -> anyhow::Result<Measured> {
    let topic = bench.topic()?;
    let meter = Arc::new(Meter::new(bench.events, bench.stack.processes()));
    run(&topic, &meter)?;
    meter.measured().context("ended before the last event")
}
