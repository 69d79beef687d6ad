//! `worker reminders rebuild`: what waits, from the log again.

use std::{
    collections::{HashMap, HashSet},
    io::{IsTerminal, stderr},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use chrono::{DateTime, Utc};
use clap::Subcommand;
use futures_util::{StreamExt, TryStreamExt, stream};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use uuid::Uuid;

use super::{Exit, Format, Globals, moment::moment, out, table};
use crate::{
    config::{
        Config,
        handlers::{HandlerConfig, HandlerKind},
    },
    event::{Catalog, Decoder, record::Record, time},
    kafka::{
        client::Clients,
        scan::{Scan, Selection, Start},
    },
    reminders::{Key, Reminders, apply, fact, task::Task},
    roles::{self, RunError},
    store,
};

/// How long brokers may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Tasks that are written at once.
const AT_ONCE: usize = 64;
/// What was fired is known by these.
const FIRED: &str = "reminder.due";

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Read the reminders from the log again, after the store lost them
    #[command(
        after_help = "Reads the topics of reminders and tasks and puts into the store what is still to come; what was fired, as reminder.due in \
                      the log says, is not fired again. Workers may go on meanwhile, and what the store still has stays: the latest event \
                      counts. What the log no longer has (topics.yaml: retention of reminders) is not found."
    )]
    Rebuild(Rebuild),
}

#[derive(Debug, clap::Args)]
struct Rebuild {
    /// Do it; without this, only say what would be done
    #[arg(long)]
    execute: bool,
    /// Records since then: a time (2026-01-31T12:00:00Z) or how long ago (2h); everything if not given
    #[arg(long, value_name = "TIME", value_parser = moment)]
    from: Option<DateTime<Utc>>,
    /// How to print the outcome
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

/// Runs it.
///
/// # Errors
/// Where brokers or store cannot be used, or no handler stores reminders.
pub async fn run(args: Args, globals: &Globals) -> anyhow::Result<Exit> {
    let What::Rebuild(args) = args.command;
    let loaded = globals.load_and_warn(None)?;
    let catalog = Arc::new(roles::catalog(&loaded)?);
    let config = loaded.config;
    let handler = usable(&config)?;
    let remember = handler.reminder.clone().unwrap_or_default().remember;
    let clients = Clients::new(&config)?;
    clients.wait_for_brokers(Some(PATIENCE)).await?;
    let mut found = read(&config, &catalog, &clients, args.from).await?;
    found.settle(remember, Utc::now());
    let mut outcome = found.outcome();
    if args.execute {
        let store = store::reminders(&config.store, clients.group_id()).await?;
        outcome.changed = Some(write(&*store, found.tasks, remember).await?);
    }
    match args.output {
        Format::Table => out(&outcome.table())?,
        Format::Json => out(&(serde_json::to_string_pretty(&outcome.json())? + "\n"))?,
    }
    if !args.execute {
        eprintln!("dry run: nothing was written; --execute does it");
    }
    Ok(Exit::Ok)
}

fn usable(config: &Config) -> Result<&HandlerConfig, RunError> {
    let usage = |why: &str| Err(RunError::Usage(why.to_owned()));
    if config.kafka.is_embedded() {
        return usage("an embedded broker's log ends with its process; set kafka.brokers");
    }
    if config.store.is_memory() {
        return usage("a store in memory is gone with its process; set store.url");
    }
    let handler = config.handlers.iter().find(|handler| handler.kind == HandlerKind::Reminder);
    handler.map_or_else(|| usage("no handler of kind \"reminder\" is configured: nothing would fire them"), Ok)
}

/// What the log says.
#[derive(Default)]
struct Found {
    records: u64,
    tasks: HashMap<Key, Task>,
    /// Ids of what was fired.
    fired: HashSet<Uuid>,
    /// Events that make no sense to a reminder handler; their dead letters say more.
    refused: u64,
    /// The oldest record that was read of each topic.
    since: HashMap<Arc<str>, DateTime<Utc>>,
}

async fn read(config: &Config, catalog: &Arc<Catalog>, clients: &Clients, from: Option<DateTime<Utc>>) -> anyhow::Result<Found> {
    let wanted = catalog.topics_needed(fact::CAUSES.into_iter().chain([FIRED]));
    let topics = config.kafka.topics.clone().unwrap_or_else(|| wanted.iter().map(ToString::to_string).collect());
    let start = from.map_or(Start::Beginning, |from| Start::Since(from.timestamp_millis()));
    let mut scan = Scan::start(clients, Selection { topics: topics.clone(), start, ..Selection::default() })
        .await
        .with_context(|| format!("topics {}", topics.join(", ")))?;
    for topic in scan.missing() {
        eprintln!("warning: topic {topic} does not exist; nothing is read from it");
    }
    let bar = bar(scan.total(), "records");
    let decoder = Decoder::new(Arc::clone(catalog), config.catalog.validate);
    let mut found = Found::default();
    while let Some(record) = scan.next().await? {
        found.take(record, &decoder);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(found)
}

impl Found {
    fn take(&mut self, record: Record, decoder: &Decoder) {
        self.records += 1;
        if let Some(at) = record.timestamp().and_then(DateTime::from_timestamp_millis) {
            let since = self.since.entry(Arc::clone(record.topic())).or_insert(at);
            *since = at.min(*since);
        }
        let Ok(event) = decoder.decode(record) else { return };
        if &**event.event_type() == FIRED {
            self.fired.extend(Uuid::try_parse(event.id()));
            return;
        }
        if !fact::CAUSES.contains(&&**event.event_type()) {
            return;
        }
        match fact::said(&event) {
            Ok(Some(said)) => {
                let task = match self.tasks.remove(&said.key()) {
                    Some(known) => known.merge(said),
                    None => said,
                };
                self.tasks.insert(task.key(), task);
            }
            Ok(None) => {}
            Err(_) => self.refused += 1,
        }
    }

    /// Notes what was fired, and leaves out what a store would have forgotten by now.
    fn settle(&mut self, remember: Duration, now: DateTime<Utc>) {
        let oldest = now - chrono::TimeDelta::from_std(remember).unwrap_or_default();
        let fired = &self.fired;
        self.tasks.retain(|_, task| {
            task.told_where(|id| fired.contains(id));
            task.next().is_some() || task.latest().is_some_and(|latest| latest > oldest)
        });
    }

    fn outcome(&self) -> Outcome {
        let now = Utc::now().timestamp_millis();
        let (mut pending, mut overdue) = (0, 0);
        for task in self.tasks.values() {
            pending += task.count();
            overdue += task.due(now).len();
        }
        let mut since: Vec<_> = self.since.iter().map(|(topic, at)| (topic.to_string(), time::format(*at))).collect();
        since.sort();
        Outcome { records: self.records, pending, overdue, fired: self.fired.len(), refused: self.refused, since, changed: None }
    }
}

/// Merges what was found into what the store has; answers how many tasks that changed.
async fn write(store: &dyn Reminders, tasks: HashMap<Key, Task>, remember: Duration) -> anyhow::Result<u64> {
    let bar = bar(tasks.len() as u64, "tasks");
    let written = stream::iter(tasks.into_values()).map(|task| {
        let bar = &bar;
        async move {
            let changed = apply(store, &task, remember).await;
            bar.inc(1);
            changed
        }
    });
    let changed = written.buffer_unordered(AT_ONCE).try_fold(0, async |sum, changed| Ok(sum + u64::from(changed))).await;
    bar.finish_and_clear();
    changed.context("not everything is written; the same command goes on")
}

/// What came of it.
struct Outcome {
    records: u64,
    pending: usize,
    overdue: usize,
    fired: usize,
    refused: u64,
    since: Vec<(String, String)>,
    /// Tasks whose reminders in the store changed; `None`: a dry run.
    changed: Option<u64>,
}

impl Outcome {
    fn table(&self) -> String {
        let mut table = table(["what", "how many"]);
        table.add_row(["records read".to_owned(), self.records.to_string()]);
        for (topic, since) in &self.since {
            table.add_row([format!("of {topic} since"), since.clone()]);
        }
        table.add_row(["reminders to come".to_owned(), self.pending.to_string()]);
        table.add_row(["of them due already".to_owned(), self.overdue.to_string()]);
        table.add_row(["fired before".to_owned(), self.fired.to_string()]);
        table.add_row(["events that make no sense".to_owned(), self.refused.to_string()]);
        table
            .add_row(["tasks changed in the store".to_owned(), self.changed.map_or_else(|| "-".to_owned(), |changed| changed.to_string())]);
        format!("{table}\n")
    }

    fn json(&self) -> serde_json::Value {
        let since: serde_json::Map<_, _> = self.since.iter().map(|(topic, at)| (topic.clone(), at.as_str().into())).collect();
        json!({
            "records": self.records, "since": since, "pending": self.pending, "overdue": self.overdue, "fired": self.fired,
            "refused": self.refused, "changed": self.changed,
        })
    }
}

fn bar(total: u64, what: &str) -> ProgressBar {
    let target = if stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(total), target);
    let style = ProgressStyle::with_template(&format!("{{bar:40}} {{human_pos}}/{{human_len}} {what}  {{eta}} left"));
    style.map_or_else(|_| bar.clone(), |style| bar.clone().with_style(style))
}
