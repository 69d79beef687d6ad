//! `worker --role ..`: runs a role until it is done or told to stop.

use std::{path::PathBuf, time::Duration};

use anyhow::Context;

use super::{Exit, Globals};
use crate::{
    config::{Role, units},
    roles::{self, Input, Options, RunError},
    shutdown::Shutdown,
};

/// Arguments of a role.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Role")]
pub struct Args {
    /// What this process does
    #[arg(long, value_enum)]
    role: Option<Role>,
    /// How long the brokers may be away at start before the process gives up; without it, it waits for them
    #[arg(long, value_name = "DURATION", value_parser = units::parse_duration)]
    exit_if_unreachable: Option<Duration>,
    #[command(flatten)]
    producer: ProducerArgs,
}

/// Arguments of the producer role.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Producer")]
struct ProducerArgs {
    /// Publish the events of this file (- for stdin), one JSON object per line, and exit at its end
    #[arg(long, value_name = "FILE", conflicts_with = "serve")]
    input: Option<PathBuf>,
    /// Be the long-running service even where stdin is a file or a pipe
    #[arg(long)]
    serve: bool,
    /// Publish to this topic instead of the catalogue's first for the type
    #[arg(long)]
    topic: Option<String>,
    /// Exit 0 although lines of the input were rejected
    #[arg(long)]
    partial_ok: bool,
}

impl Args {
    /// Whether none was given.
    pub fn is_empty(&self) -> bool {
        let producer = &self.producer;
        self.role.is_none() && self.exit_if_unreachable.is_none() && producer.is_empty()
    }
}

impl ProducerArgs {
    fn is_empty(&self) -> bool {
        self.input.is_none() && !self.serve && self.topic.is_none() && !self.partial_ok
    }
}

/// Loads the configuration and runs the role.
///
/// # Errors
/// A bad command line or configuration, or whatever the role ended with.
pub async fn run(args: Args, globals: &Globals) -> anyhow::Result<Exit> {
    let Some(role) = args.role else {
        return Err(
            RunError::Usage("say what to run: --role producer, consumer or standalone, or a subcommand; see worker --help".into()).into()
        );
    };
    if role == Role::Consumer && !args.producer.is_empty() {
        return Err(RunError::Usage("--input, --serve, --topic and --partial-ok are the producer's".into()).into());
    }
    let loaded = globals.load_and_warn(Some(role))?;
    let options = Options {
        input: args.producer.input.map(|path| if path.as_os_str() == "-" { Input::Stdin } else { Input::File(path) }),
        serve: args.producer.serve,
        topic: args.producer.topic,
        partial_ok: args.producer.partial_ok,
        exit_if_unreachable: args.exit_if_unreachable,
        bindings: Vec::new(),
    };
    let shutdown = Shutdown::new();
    tokio::select! {
        // First, so that a signal is never lost to a role that ends at once.
        biased;
        second = shutdown.follow_signals() => {
            second.context("signals cannot be caught")?;
            Ok(Exit::Interrupted)
        }
        ended = roles::run(role, loaded, options, shutdown.clone()) => Ok(ended.map(|()| Exit::Ok)?),
    }
}
