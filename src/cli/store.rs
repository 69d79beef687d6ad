//! `worker store forget`: the way past the ledger, for events that are to be handled again on purpose.

use clap::Subcommand;

use super::{Exit, Globals};
use crate::{
    roles::RunError,
    store::redis::{RedisOptions, RedisStore},
};

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Forget what the group has handled, so that events are handled again
    #[command(
        after_help = "To handle events again: stop every worker of the group, set its offsets back with Kafka's tools, forget, start \
                            the workers. Everything of the group is forgotten; what lies before its offsets is not read again. A single \
                            dead letter needs none of this: worker dlq redrive."
    )]
    Forget {
        /// Do it; without this, only say what would be done
        #[arg(long)]
        execute: bool,
    },
}

/// Runs it.
///
/// # Errors
/// Where the store is away, or a worker of the group still runs.
pub async fn run(args: Args, globals: &Globals) -> anyhow::Result<Exit> {
    let What::Forget { execute } = args.command;
    let config = globals.load_and_warn(None)?.config;
    if config.store.is_memory() {
        return Err(RunError::Usage("a store in memory is forgotten when its process ends; set store.url".into()).into());
    }
    let group = config.group_id();
    let what = format!("every finished event, failure and mark of group {group}");
    if !execute {
        eprintln!("dry run: {what} would be forgotten; --execute does it");
        return Ok(Exit::Ok);
    }
    let keys = RedisStore::new(RedisOptions::new(&config.store, group))?.forget_all().await?;
    eprintln!("forgotten: {what} ({keys} keys)");
    Ok(Exit::Ok)
}
