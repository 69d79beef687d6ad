//! `worker audit verify`: whether the audit records are all there, unchanged and in their place.

use std::path::Path;

use anyhow::Context;
use clap::Subcommand;
use comfy_table::Color;
use serde_json::json;

use super::{Exit, Format, Globals, cell, out, table};
use crate::{
    audit::verify::{Report, TopicWalk, verify_dir},
    kafka::{
        client::Clients,
        scan::{Scan, Selection},
    },
    roles::RunError,
};

/// A person waits: brokers that are away are told soon.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Check every chain of a folder or a topic; exit 1 names the first record of each that was changed, removed or moved
    Verify(Verify),
}

#[derive(Debug, clap::Args)]
struct Verify {
    /// A folder of audit files, else a topic
    #[arg(value_name = "DIR|TOPIC")]
    place: String,
    /// The oldest files, or the topic's oldest records, were put elsewhere: chains may begin in the middle
    #[arg(long)]
    archived: bool,
    /// How the chains are printed
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

/// Runs it.
///
/// # Errors
/// Where the folder or the topic cannot be read.
pub async fn run(args: Args, globals: &Globals) -> anyhow::Result<Exit> {
    let What::Verify(args) = args.command;
    let dir = Path::new(&args.place);
    let reports = match dir.is_dir() {
        true => verify_dir(dir, args.archived).with_context(|| args.place.clone())?,
        false if args.place.contains('/') => return Err(RunError::Usage(format!("{} is no folder", args.place)).into()),
        false => of_topic(&args, globals).await?,
    };
    if reports.is_empty() {
        anyhow::bail!("{} holds no audit records", args.place);
    }
    let broken = reports.iter().any(|report| report.broken.is_some());
    out(&match args.output {
        Format::Table => shown(&reports),
        Format::Json => serde_json::to_string_pretty(&json!({ "place": args.place, "whole": !broken, "chains": reports }))? + "\n",
    })?;
    Ok(if broken { Exit::Error } else { Exit::Ok })
}

async fn of_topic(args: &Verify, globals: &Globals) -> anyhow::Result<Vec<Report>> {
    let config = globals.load_and_warn(None)?.config;
    if config.kafka.is_embedded() {
        return Err(RunError::Usage("an embedded broker's records end with its process; set kafka.brokers, or give a folder".into()).into());
    }
    let clients = Clients::new(&config)?;
    clients.wait_for_brokers(Some(PATIENCE)).await?;
    let mut scan = Scan::start(&clients, Selection { topics: vec![args.place.clone()], ..Selection::default() }).await?;
    let mut walk = TopicWalk::new(args.archived);
    while let Some(record) = scan.next().await? {
        let at = format!("{}@{}", record.partition(), record.offset());
        walk.take(&String::from_utf8_lossy(record.key().unwrap_or_default()), record.value().unwrap_or_default(), &at);
    }
    Ok(walk.reports())
}

fn shown(reports: &[Report]) -> String {
    let mut table = table(["chain", "files", "records", "events", "first", "last", ""]);
    let mut text = String::new();
    for report in reports {
        let [first, last] = [&report.first, &report.last].map(|at| at.clone().unwrap_or_else(|| "-".to_owned()));
        let verdict = if report.broken.is_some() { cell("broken", Color::Red) } else { cell("whole", Color::Green) };
        let counts = [report.files.to_string(), report.records.to_string(), report.events.to_string()];
        let row = [report.chain.clone()].into_iter().chain(counts).chain([first, last]).map(Into::into).chain([verdict]);
        table.add_row(row.collect::<Vec<comfy_table::Cell>>());
        text.extend(report.notes.iter().map(|note| format!("note: {note}\n")));
        text.extend(report.broken.iter().map(|fault| format!("{}: {}: {}\n", fault.kind, fault.at, fault.what)));
    }
    format!("{table}\n{text}")
}
