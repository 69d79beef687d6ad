//! Users: what each costs the worker while its events pass, and what each event costs Redis.

use std::sync::Arc;

use anyhow::Context as _;

use crate::{
    meter::{Measured, Meter},
    row::{Bench, Row},
    rows::capacity::step,
    worker::{self, Settings},
};

const EVENTS: u64 = 1_000_000;

/// A thousand to a million.
pub const ROWS: &[Row] = &[
    step("users-1000", "a million events of 1 000 users, handler in process, Redis", |bench| measure(bench, 1_000)),
    step("users-10000", "the same of 10 000 users", |bench| measure(bench, 10_000)),
    step("users-100000", "the same of 100 000 users", |bench| measure(bench, 100_000)),
    step("users-1000000", "the same of 1 000 000 users", |bench| measure(bench, 1_000_000)),
];

fn measure(bench: &Bench, users: u64) -> anyhow::Result<Measured> {
    let topic = bench.stack.filled_topic_of(EVENTS, users)?;
    let before = bench.stack.redis_memory()?;
    let meter = Arc::new(Meter::new(EVENTS, bench.stack.processes()));
    let settings = Settings { bindings: vec![worker::counting(&meter)], ..Settings::of(&bench.stack) };
    worker::consume(&bench.stack, &topic, settings, &meter)?;
    let mut measured = meter.measured().context("ended before the last event")?;
    let remembered = bench.stack.redis_memory()?.saturating_sub(before);
    // This process has written the topic, too: what it had resident says nothing.
    measured.peak_rss = 0;
    #[expect(clippy::cast_precision_loss, reason = "bytes and counts far below 2^53")]
    measured.figures.insert("Redis B/event".to_owned(), remembered as f64 / EVENTS as f64);
    Ok(measured)
}
