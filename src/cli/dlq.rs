//! `worker dlq stats|ls|show|redrive|export`.

mod export;
mod ls;
mod redrive;
mod show;
mod stats;

use std::{
    io::{IsTerminal, stdout},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use chrono::{DateTime, Utc};
use clap::{Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Map, Value};

use super::{
    Exit, Globals,
    columns::{Columns, one_line, or_dash},
    moment::moment,
    out,
};
use crate::{
    config::Config,
    dlq::{Filter, Letter, Letters},
    event::Catalog,
    kafka::{
        client::Clients,
        scan::{Scan, Selection, Start},
    },
    outcome::DeadReason,
    roles::{self, RunError},
};

/// A person waits at a terminal: brokers that are away are told soon.
const PATIENCE: Duration = Duration::from_secs(10);

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Count dead letters by type, reason and handler
    Stats(Listing),
    /// List dead letters, one line each
    Ls(Listing),
    /// Show one dead letter whole, with its earlier passes
    Show(show::Args),
    /// Send dead letters back to their topics; without --execute, say which
    Redrive(redrive::Args),
    /// Write dead letters as NDJSON, every byte of them
    Export(export::Args),
}

/// Runs it.
///
/// # Errors
/// Where the configuration, the brokers or the DLQ topic cannot be used.
pub async fn run(args: Args, globals: &Globals) -> anyhow::Result<Exit> {
    match args.command {
        What::Stats(args) => stats::run(args, globals).await,
        What::Ls(args) => ls::run(args, globals).await,
        What::Show(args) => show::run(args, globals).await,
        What::Redrive(args) => redrive::run(args, globals).await,
        What::Export(args) => export::run(args, globals).await,
    }
}

/// Which dead letters, of which topic.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Which dead letters")]
struct Which {
    /// Of this topic instead of dlq.topic
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Of this event type or pattern, such as task.*; repeat it for more
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<String>,
    /// With this reason, such as exhausted; repeat it for more
    #[arg(long = "reason", value_name = "REASON", value_parser = reason)]
    reasons: Vec<String>,
    /// Of this user; repeat it for more
    #[arg(long = "user", value_name = "USER")]
    users: Vec<String>,
    /// Given up by this handler; repeat it for more
    #[arg(long = "handler", value_name = "NAME")]
    handlers: Vec<String>,
    /// With this event id; repeat it for more
    #[arg(long = "id", value_name = "ID")]
    ids: Vec<String>,
    /// With this text in the error
    #[arg(long, value_name = "TEXT")]
    error: Option<String>,
    /// Given up since then: a time (2026-01-31T12:00:00Z) or how long ago (2h)
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<DateTime<Utc>>,
    /// Given up before then
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<DateTime<Utc>>,
    /// At most so many
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
}

/// Which dead letters, printed how.
#[derive(Debug, clap::Args)]
struct Listing {
    /// How to print them
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
    // Last: its heading covers whatever follows.
    #[command(flatten)]
    which: Which,
}

/// How many documents make one output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Aligned columns
    Table,
    /// One JSON document
    Json,
    /// One JSON object per line
    Ndjson,
}

fn reason(text: &str) -> Result<String, String> {
    let known = || DeadReason::ALL.into_iter().map(DeadReason::code).chain(["unknown"]);
    match known().find(|code| *code == text) {
        Some(code) => Ok(code.to_owned()),
        None => Err(format!("one of {}", known().collect::<Vec<_>>().join(", "))),
    }
}

/// What every command works with.
struct Desk {
    config: Config,
    catalog: Arc<Catalog>,
    clients: Clients,
    letters: Letters,
    topic: String,
}

impl Desk {
    /// Loads the configuration and waits for the brokers.
    async fn open(globals: &Globals, which: &Which) -> anyhow::Result<Self> {
        let loaded = globals.load_and_warn(None)?;
        let catalog = Arc::new(roles::catalog(&loaded)?);
        let config = loaded.config;
        if config.kafka.is_embedded() {
            return Err(RunError::Usage("an embedded broker's dead letters end with its process; set kafka.brokers".into()).into());
        }
        let clients = Clients::new(&config)?;
        clients.wait_for_brokers(Some(PATIENCE)).await?;
        let topic = which.topic.clone().unwrap_or_else(|| config.dlq.topic.clone());
        Ok(Self { letters: Letters::new(Arc::clone(&catalog)), config, catalog, clients, topic })
    }

    fn filter(&self, which: &Which) -> Filter {
        Filter {
            types: which.types.iter().map(|name| self.catalog.canonical_pattern(name).to_owned()).collect(),
            reasons: which.reasons.clone(),
            users: which.users.clone(),
            handlers: which.handlers.clone(),
            ids: which.ids.clone(),
            error: which.error.clone(),
            since: which.since,
            until: which.until,
        }
    }

    /// Begins to read the topic. `quiet`: letters are printed while it goes on, where a bar on the same terminal would be in the way.
    async fn read(&self, which: &Which, quiet: bool) -> anyhow::Result<Reading> {
        let filter = self.filter(which);
        let start = filter.read_from().map_or(Start::Beginning, Start::Since);
        let selection = Selection { topics: vec![self.topic.clone()], start, ..Selection::default() };
        let scan = Scan::start(&self.clients, selection).await.with_context(|| format!("topic {}", self.topic))?;
        let target = if quiet && stdout().is_terminal() { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(Some(scan.total()), target);
        let style = ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} records  {msg}  {eta} left");
        let bar = style.map_or_else(|_| bar.clone(), |style| bar.clone().with_style(style));
        Ok(Reading { scan, letters: self.letters.clone(), filter, left: which.limit.unwrap_or(u64::MAX), bar })
    }
}

/// One pass over the DLQ.
struct Reading {
    scan: Scan,
    letters: Letters,
    filter: Filter,
    left: u64,
    bar: ProgressBar,
}

impl Reading {
    /// The next letter that is meant; `None` at the end, or past the limit.
    async fn next(&mut self) -> anyhow::Result<Option<Letter>> {
        while self.left > 0 {
            let Some(record) = self.scan.next().await? else { break };
            self.bar.inc(1);
            let letter = self.letters.read(record);
            if self.filter.takes(&letter) {
                self.left -= 1;
                return Ok(Some(letter));
            }
        }
        self.bar.finish_and_clear();
        Ok(None)
    }

    /// A letter that was taken does not count towards the limit after all.
    fn give_back(&mut self) {
        self.left = self.left.saturating_add(1);
    }
}

/// Prints objects as they come, as a JSON array or one per line, and never holds more than one.
struct Objects {
    format: Format,
    any: bool,
}

impl Objects {
    fn new(format: Format) -> Self {
        Self { format, any: false }
    }

    fn put(&mut self, object: &Map<String, Value>) -> anyhow::Result<()> {
        let text = match (self.format, self.any) {
            (Format::Json, false) => format!("[\n{}", serde_json::to_string(object)?),
            (Format::Json, true) => format!(",\n{}", serde_json::to_string(object)?),
            _ => serde_json::to_string(object)? + "\n",
        };
        self.any = true;
        Ok(out(&text)?)
    }

    fn end(self) -> anyhow::Result<()> {
        let end = match (self.format, self.any) {
            (Format::Json, true) => "\n]\n",
            (Format::Json, false) => "[]\n",
            _ => return Ok(()),
        };
        Ok(out(end)?)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_reason_outside_the_closed_set_is_refused_with_the_set() {
        assert_eq!(reason("crash_loop").as_deref(), Ok("crash_loop"));
        assert!(reason("crash").unwrap_err().contains("undecodable"));
    }
}
