//! How fast the worker is, told against the floor: the same librdkafka, the same fetch settings, the same records and the same Redis,
//! with nothing of the worker in between. `make bench` starts a Kafka and a Redis of its own and runs this; see `--help`.
//!
//! Every measurement is a process of its own, so that CPU time and memory are its alone. Rows take turns, repetition by repetition: a
//! machine that slows down slows all of them down.

mod driver;
mod floor;
mod meter;
mod plain;
mod report;
mod rows;
mod stack;
mod usage;
mod worker;

use clap::Parser;

use crate::{driver::Options, rows::Row};

/// The worker's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures the worker and the floor below it, in turns.
#[derive(Debug, Parser)]
#[command(name = "throughput", after_help = rows::HELP)]
struct Args {
    #[command(flatten)]
    options: Options,
    /// Measure this row once, here, and print the result: what the driver starts
    #[arg(long, value_name = "ROW", hide = true)]
    child: Option<Row>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let Some(stack) = stack::Stack::from_env()? else {
        eprintln!("skipped: WORKER_TEST_KAFKA and WORKER_TEST_REDIS are not set; `make bench` starts both");
        return Ok(());
    };
    match args.child {
        Some(row) => rows::measure(row, &stack, args.options.events),
        None => driver::run(&args.options, &stack),
    }
}
