//! `worker demo`: a guided tour of the real engine on the embedded broker and the store in memory.
//!
//! Only the stream of events and the handler's moods are made up. What is told and counted is observed: runs that the handler saw,
//! metrics of the engine, dead letters read back from their topic, offsets read back from the group.

mod app;
mod figures;
mod jobs;
mod mailbox;
mod observed;
mod place;
mod stage;
mod story;
mod stream;
mod summary;
mod tour;

use std::sync::Arc;

use anyhow::Context;

use self::place::Place;
use super::{Exit, Format, Globals, out};
use crate::{
    config::{Config, Role, Sources},
    event::Catalog,
    roles::RunError,
    shutdown::Shutdown,
};

/// Every delay of the schedules is divided by this.
const FASTER: u32 = 100;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Needs nothing: the broker, the store and a mail server live in this process and end with it. It takes no configuration. \
                        Exit 0 only if every figure is as it must be, 1 otherwise."
)]
pub struct Args {
    /// How the summary is printed; with json, the story goes to stderr
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

/// Tells the tour.
///
/// # Errors
/// Where a part of it cannot be made, or something that must happen does not.
pub async fn run(args: Args, globals: &Globals) -> anyhow::Result<Exit> {
    if !(globals.files.is_empty() && globals.sets.is_empty() && globals.properties.is_empty() && globals.http_addr.is_none()) {
        return Err(RunError::Usage("the demo has a configuration of its own; to try yours, run worker --role standalone".into()).into());
    }
    let catalog = Arc::new(Catalog::embedded().context("the catalogue in the binary")?);
    let place = Place::new().await?;
    let shutdown = Shutdown::new();
    let toured = tokio::select! {
        biased;
        second = shutdown.follow_signals() => {
            second.context("signals cannot be caught")?;
            return Ok(Exit::Interrupted);
        }
        toured = tour::tour(config(&place)?, catalog, story::Story::new(args.output == Format::Json), &place, &shutdown) => toured?,
    };
    let Some(figures) = toured else { return Ok(Exit::Interrupted) };
    let checks = summary::judge(&figures);
    match args.output {
        Format::Table => out(&summary::table(&figures, &checks))?,
        Format::Json => out(&summary::json(&figures, &checks)?)?,
    }
    Ok(if checks.iter().all(|check| check.ok) { Exit::Ok } else { Exit::Error })
}

/// The defaults of `--role standalone` with shortened schedules; nothing of this machine's environment.
fn config(place: &Place) -> anyhow::Result<Config> {
    let sets = vec![place.handlers()];
    let mut config = Config::load(&Sources { role: Some(Role::Standalone), sets, ..Sources::default() })?.config;
    "worker-demo".clone_into(&mut config.app_id);
    for delay in config.retry.0.values_mut().flat_map(|rule| rule.delays.iter_mut().flatten()) {
        *delay /= FASTER;
    }
    Ok(config)
}
