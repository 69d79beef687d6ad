//! `worker topics export`: the catalogue for other tools (AsyncAPI) and for people (a page). Asks no broker.

mod asyncapi;
mod draft;
mod fields;
mod page;

use clap::ValueEnum;

use crate::{
    cli::{Exit, Globals, out},
    config::Config,
    event::{Catalog, EventType, catalog::TopicSpec, time},
    roles::{self, RunError},
};

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  worker topics export > asyncapi.yaml
  worker topics export --profile production -o json > asyncapi.json
  worker topics export -o html > catalogue.html        one file, nothing else to load")]
pub struct Args {
    /// Replication, retention and partitions as the catalogue's profile of that name has them
    #[arg(long, default_value = "local")]
    profile: String,
    /// As what
    #[arg(short, long, value_enum, default_value_t = Output::Yaml)]
    output: Output,
}

/// What the catalogue is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// An AsyncAPI 3.0 document, as YAML
    Yaml,
    /// The same as JSON
    Json,
    /// A page for people
    Html,
}

/// What is exported.
struct Source<'a> {
    config: &'a Config,
    catalog: &'a Catalog,
    profile: &'a str,
    /// The topics as the profile makes them.
    specs: Vec<TopicSpec>,
}

impl Source<'_> {
    /// The topics that a type travels on, by their names on the brokers.
    fn topics_of(&self, kind: &EventType) -> Vec<String> {
        self.catalog.topics_for(&kind.name).iter().map(ToString::to_string).collect()
    }
}

/// Runs it.
///
/// # Errors
/// Where the configuration or the catalogue cannot be used, or there is no such profile.
pub fn run(args: &Args, globals: &Globals) -> anyhow::Result<Exit> {
    let loaded = globals.load_and_warn(None)?;
    let catalog = roles::catalog(&loaded)?;
    let Some(specs) = catalog.topic_specs(&args.profile) else {
        let known: Vec<_> = catalog.profiles().collect();
        return Err(RunError::Usage(format!("the catalogue has no profile `{}`; it has {}", args.profile, known.join(", "))).into());
    };
    let source = Source { config: &loaded.config, catalog: &catalog, profile: &args.profile, specs };
    out(&match args.output {
        Output::Html => page::page(&source),
        Output::Json => serde_json::to_string_pretty(&asyncapi::document(&source))? + "\n",
        Output::Yaml => serde_yaml_ng::to_string(&asyncapi::document(&source))?,
    })?;
    Ok(Exit::Ok)
}

/// A whole event with this data: what a producer would write.
fn envelope(kind: &EventType, source: &str, data: &serde_json::Value) -> serde_json::Value {
    let happened = kind.fill.iter().chain([&"tick_at".to_owned()]).find_map(|field| data.get(field)).and_then(|at| at.as_str());
    let at = happened.and_then(time::parse).map_or_else(|| "2026-01-01T00:00:00Z".to_owned(), time::format);
    // Stable, so that two exports of one catalogue are the same text.
    let id = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_URL, format!("{}:{data}", kind.name).as_bytes());
    serde_json::json!({
        "event_id": id.to_string(), "event_type": &*kind.name, "event_version": kind.version.to_string(), "timestamp": at,
        "source": source, "data": data,
    })
}
