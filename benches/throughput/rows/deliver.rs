//! Events over HTTP to an app: one by one, 100 at a time, and one by one to an app that takes its time.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;

use crate::{
    app::App,
    floor::{self, Form, Posts},
    meter::{Measured, Meter},
    program::posting_to,
    row::{Bench, Goal, Row},
    usage::Processes,
    worker::{self, Settings},
};

/// What the slow app takes for an event.
const SLOW: Duration = Duration::from_millis(5);
/// Events of one POST.
const BULK: usize = 100;

/// Each floor with the lanes that suit it best.
pub const ROWS: &[Row] = &[
    Row {
        name: "post",
        about: "poll, hand-over to 64 lanes by key, each parses and POSTs over an HTTP/1.1 connection of its own",
        floor: None,
        goals: &[],
        part: Some(5),
        measure: |bench| post(bench, Duration::ZERO, 64, Form::Value),
    },
    Row {
        name: "worker-post",
        about: "the consumer role, a handler of kind `http`, the same app",
        floor: Some("post"),
        goals: &[Goal::Share(0.68)],
        part: Some(5),
        measure: |bench| worker(bench, Duration::ZERO, &single),
    },
    Row {
        name: "post-bulk",
        about: "as `post`, 100 events per POST, 16 lanes",
        floor: None,
        goals: &[],
        part: Some(1),
        measure: |bench| post(bench, Duration::ZERO, 16, Form::List),
    },
    Row {
        name: "post-bulk-ledger",
        about: "+ a ledger as in `ledger`, a CloudEvent around each event, its metadata, a verdict for each",
        floor: Some("post-bulk"),
        goals: &[],
        part: Some(1),
        measure: |bench| post(bench, Duration::ZERO, 16, Form::Batch),
    },
    Row {
        name: "worker-bulk",
        about: "the consumer role, `bulk` delivery of 100, a verdict for each",
        floor: Some("post-bulk"),
        goals: &[Goal::Share(0.38)],
        part: Some(1),
        measure: |bench| worker(bench, Duration::ZERO, &bulk),
    },
    Row {
        name: "post-slow",
        about: "as `post`, the app takes 5 ms per event, 256 lanes",
        floor: None,
        goals: &[],
        part: Some(5),
        measure: |bench| post(bench, SLOW, 256, Form::Value),
    },
    Row {
        name: "worker-slow",
        about: "as `worker-post`, that app, 256 in flight",
        floor: Some("post-slow"),
        goals: &[Goal::Share(0.55)],
        part: Some(5),
        measure: |bench| worker(bench, SLOW, &single),
    },
];

fn post(bench: &Bench, delay: Duration, lanes: usize, form: Form) -> anyhow::Result<Measured> {
    let events = if form == Form::Value { 1 } else { BULK };
    with_app(bench, delay, |port, topic, meter| floor::post(&bench.stack, topic, &Posts { port, lanes, events, form }, meter))
}

fn worker(bench: &Bench, delay: Duration, handler: &dyn Fn(u16, &str) -> String) -> anyhow::Result<Measured> {
    with_app(bench, delay, |port, topic, meter| {
        let settings = Settings { more: handler(port, topic), ..Settings::of(&bench.stack) };
        worker::consume(&bench.stack, topic, settings, meter)
    })
}

fn single(port: u16, _topic: &str) -> String {
    posting_to(port)
}

fn bulk(port: u16, topic: &str) -> String {
    format!(
        "[[handlers]]\nname = \"app\"\nkind = \"http\"\ndiscover = \"http://127.0.0.1:{port}\"\n\
         [[handlers.routes]]\ntopic = \"{topic}\"\npath = \"/events\"\nbulk = true\nbulk_events = {BULK}\n"
    )
}

fn with_app(bench: &Bench, delay: Duration, run: impl FnOnce(u16, &str, &Arc<Meter>) -> anyhow::Result<()>) -> anyhow::Result<Measured> {
    let topic = bench.topic()?;
    let mut app = App::start(bench.events, delay)?;
    let meter = Arc::new(Meter::new(bench.events, Processes { app: Some(app.id()), ..bench.stack.processes() }));
    app.count_into(bench.events, &meter);
    run(app.port(), &topic, &meter)?;
    meter.measured().context("ended before the last event")
}
