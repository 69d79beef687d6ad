//! How fast the worker is, told against the floor: the same librdkafka, the same fetch settings, the same records and the same Redis,
//! with nothing of the worker in between. `make bench` starts a Kafka and a Redis of its own and runs this; see `--help`.
//!
//! Every measurement is a process of its own, so that CPU time and memory are its alone. Rows take turns, repetition by repetition: a
//! machine that slows down slows all of them down.

mod app;
mod driver;
mod floor;
mod journal;
mod load;
mod meter;
mod pace;
mod plain;
mod program;
mod report;
mod row;
mod rows;
mod sink;
mod stack;
mod usage;
mod worker;

use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, ValueEnum};

use crate::{
    driver::Options,
    row::{Bench, Row},
};

/// The worker's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures the worker and the floor below it, in turns.
#[derive(Parser)]
#[command(name = "throughput", after_help = rows::help())]
struct Args {
    #[command(flatten)]
    options: Options,
    /// Measure this row once, here, and print the result: what the driver starts
    #[arg(long, value_name = "ROW", hide = true, value_parser = rows::named)]
    child: Option<&'static Row>,
    /// Be the other side of a row: what a row starts
    #[arg(long, hide = true)]
    serve: Option<Side>,
    /// The app's time for an event, or the publisher's linger
    #[arg(long, hide = true, value_parser = humantime::parse_duration, default_value = "0s")]
    delay: Duration,
    /// The publisher's topic
    #[arg(long, hide = true, default_value = "")]
    topic: String,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// What a row needs in a process of its own.
#[derive(Clone, Copy, ValueEnum)]
enum Side {
    /// The app that events are posted to.
    App,
    /// The floor of publishing.
    Publish,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if let Some(Side::App) = args.serve {
        return app::serve(args.options.events, args.delay);
    }
    let Some(stack) = stack::Stack::from_env()? else {
        eprintln!("skipped: WORKER_TEST_KAFKA and WORKER_TEST_REDIS are not set; `make bench` starts both");
        return Ok(());
    };
    if let Some(Side::Publish) = args.serve {
        return floor::publish(&stack, &args.topic, args.delay).context("the publisher");
    }
    match args.child {
        Some(row) => rows::measure(row, &Bench { events: row.events(args.options.events), stack, binary: args.options.binary }),
        None => driver::run(&args.options, &stack),
    }
}
