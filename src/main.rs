//! Parse, run, exit code.

use std::process::ExitCode;

use clap::Parser;
use worker::cli::{Cli, Exit};

/// Records are copied on one thread and let go on another, in no order, which the C library's allocator pays for with a third of all
/// processor time: measured with `make bench`, see ARCHITECTURE.md. On Linux it stands in for `malloc` as well, and takes no huge pages.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    worker::telemetry::logs::init(cli.log_level());
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: no threads to run on: {error}");
            return Exit::Error.into();
        }
    };
    let exit = runtime.block_on(cli.run());
    // A thread that waits for stdin would hold the process until the next line.
    runtime.shutdown_background();
    exit.into()
}
