//! `worker events tail`: records of topics as they come, decoded as a consumer would decode them.

mod pick;
mod show;

use std::{io, sync::Arc, time::Duration};

use clap::ValueEnum;
use tokio::signal::unix::{SignalKind, signal};

use self::{
    pick::{Pick, start},
    show::{Lines, Rows, Show},
};
use crate::{
    cli::{Exit, Globals, stream},
    config::engine::UnknownType,
    event::{Catalog, Decoder, pattern::matches},
    kafka::{
        client::Clients,
        scan::{Scan, Selection, Start},
    },
    roles::{self, RunError},
};

/// A person waits at a terminal: brokers that are away are told soon.
const PATIENCE: Duration = Duration::from_secs(10);

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
It joins no group and commits nothing. A record that is no event of the catalogue is shown with the reason that it would be dead-lettered for.
Order holds within a partition. Ctrl-C ends it.

Examples:
  worker events tail                                 everything, from now on
  worker events tail --user ada --from 2h            what ada did in the last two hours, and does
  worker events tail --type 'task.*' --from beginning --until-end -o ndjson > tasks.ndjson
  worker events tail --topic dlq --from -10          the last ten of each partition, then what comes")]
pub struct Args {
    /// Of this event type or pattern, such as task.*; repeat it for more
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<String>,
    /// Of this user; repeat it for more
    #[arg(long = "user", value_name = "USER")]
    users: Vec<String>,
    /// From this topic; repeat it for more. Default: every topic of the catalogue that carries the types, dead letters aside
    #[arg(long = "topic", value_name = "TOPIC")]
    topics: Vec<String>,
    /// Only from this partition
    #[arg(long, value_name = "N")]
    partition: Option<i32>,
    /// Where to begin: beginning, end, an offset, -N (that many before the end), a time (2026-01-31T12:00:00Z) or how long ago (2h).
    /// Default: end; with --until-end: beginning
    #[arg(long, value_name = "START", value_parser = start, allow_hyphen_values = true)]
    from: Option<Start>,
    /// Stop after so many
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Stop at the end that the topics have now
    #[arg(long)]
    until_end: bool,
    /// How to print them
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

/// What can be printed without an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Aligned columns
    Table,
    /// One JSON object per line
    Ndjson,
}

/// Runs it.
///
/// # Errors
/// Where the configuration cannot be used, no broker answers, or none of the topics can be read.
pub async fn run(args: Args, globals: &Globals) -> anyhow::Result<Exit> {
    let loaded = globals.load_and_warn(None)?;
    let catalog = Arc::new(roles::catalog(&loaded)?);
    let config = &loaded.config;
    if config.kafka.is_embedded() {
        return Err(RunError::Usage("an embedded broker's events end with its process; set kafka.brokers".into()).into());
    }
    let pick = Pick::new(&catalog, &args.types, &args.users);
    let selection = selection(&args, &catalog, &pick)?;
    let clients = Clients::new(config)?;
    clients.wait_for_brokers(Some(PATIENCE)).await?;
    let mut scan = Scan::start(&clients, selection).await?;
    if !scan.missing().is_empty() {
        eprintln!("not there, or hidden from this client: {}", scan.missing().join(", "));
    }
    let decoder = Decoder::new(catalog, config.catalog.validate).delivering_unknown(config.catalog.unknown_type == UnknownType::Deliver);
    let mut show: Box<dyn Show + Send> = match args.output {
        Format::Table => Box::new(Rows::new()),
        Format::Ndjson => Box::new(Lines),
    };
    let (mut shown, mut read) = (0, 0);
    let watch = async {
        stream(&show.header())?;
        while args.limit.is_none_or(|limit| shown < limit) {
            let Some(record) = scan.next().await? else { break };
            read += 1;
            let decoded = decoder.decode(record);
            if !pick.takes(&decoded) {
                continue;
            }
            shown += 1;
            if !stream(&show.one(&decoded)?)? {
                break;
            }
        }
        anyhow::Ok(())
    };
    tokio::select! {
        result = watch => result?,
        result = stopped() => result?,
    }
    eprintln!("{shown} shown, {read} read");
    Ok(Exit::Ok)
}

fn selection(args: &Args, catalog: &Catalog, pick: &Pick) -> Result<Selection, RunError> {
    let topics: Vec<_> = if args.topics.is_empty() {
        let is_covered = |wanted: &str| catalog.types().any(|kind| matches(wanted, &kind.name));
        if let Some(unknown) = pick.patterns().find(|wanted| !is_covered(wanted)) {
            let message = format!("--type {unknown}: the catalogue has no such type; name the --topic that carries it");
            return Err(RunError::Usage(message));
        }
        catalog.topics_needed(pick.patterns()).iter().map(ToString::to_string).collect()
    } else {
        args.topics.iter().map(|topic| catalog.topic(topic).unwrap_or(topic).to_owned()).collect()
    };
    let start = args.from.unwrap_or(if args.until_end { Start::Beginning } else { Start::End });
    Ok(Selection { topics, partition: args.partition, start, follow: !args.until_end })
}

/// Resolves at SIGINT or SIGTERM.
async fn stopped() -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}
