//! `worker topics lint`: what is legal and yet wrong, in the catalogue and in what this configuration makes of it. Asks no broker.

mod dead_letters;
mod finding;
mod handlers;
mod names;
mod retention;
mod safety;
mod types;

use std::collections::BTreeSet;

use self::finding::{Findings, Level};
use crate::{
    cli::{Exit, Format, Globals, out},
    config::Config,
    event::{Catalog, catalog::TopicSpec},
    handlers::wanted,
    roles::{self, RunError},
};

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit 0 where there is no error (with --strict: nor a warning), else 1. A note asks for nothing.
It looks at names, retention beside store.retention and the retries, sizes of dead letters, copies, settings, and handlers whose events
nothing carries.")]
pub struct Args {
    /// Only with the settings of this profile; default: each in turn
    #[arg(long)]
    profile: Option<String>,
    /// A warning fails too
    #[arg(long)]
    strict: bool,
    /// How it is printed
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

/// Everything that a rule looks at.
struct Scene<'a> {
    config: &'a Config,
    catalog: &'a Catalog,
    /// The topics as one profile makes them.
    specs: Vec<TopicSpec>,
    /// Each handler of the configuration with its patterns, aliases resolved.
    handlers: Vec<(&'a str, Vec<String>)>,
    /// The topics that a consumer of this configuration reads; what an app tells when it is asked is not among them.
    read: BTreeSet<String>,
}

impl<'a> Scene<'a> {
    fn new(config: &'a Config, catalog: &'a Catalog, specs: Vec<TopicSpec>) -> Self {
        let told = |handler: &&crate::config::handlers::HandlerConfig| handler.discover.is_none();
        let handlers: Vec<_> = config.handlers.iter().filter(told).map(|one| (one.name.as_str(), wanted(one, catalog))).collect();
        let read = match &config.kafka.topics {
            Some(topics) => topics.iter().map(|topic| catalog.topic(topic).unwrap_or(topic).to_owned()).collect(),
            None => {
                let wanted = handlers.iter().flat_map(|(_, patterns)| patterns.iter().map(String::as_str));
                catalog.topics_needed(wanted).iter().map(ToString::to_string).collect()
            }
        };
        Self { config, catalog, specs, handlers, read }
    }

    fn spec(&self, name: &str) -> Option<&TopicSpec> {
        self.specs.iter().find(|spec| *spec.name == *name)
    }
}

/// Every rule.
const RULES: [fn(&Scene<'_>, &mut Findings); 8] =
    [names::topics, names::types, retention::dedupe, retention::retries, dead_letters::check, safety::check, types::check, handlers::check];

/// Looks, then prints what it found.
///
/// # Errors
/// Where the configuration or the catalogue cannot be used, or there is no such profile.
pub fn run(args: &Args, globals: &Globals) -> anyhow::Result<Exit> {
    let loaded = globals.load_and_warn(None)?;
    let catalog = roles::catalog(&loaded)?;
    let profiles: Vec<&str> = match &args.profile {
        Some(profile) => vec![profile],
        None => catalog.profiles().collect(),
    };
    let mut findings = Findings::default();
    for profile in profiles {
        let specs = catalog.topic_specs(profile).ok_or_else(|| {
            let known: Vec<_> = catalog.profiles().collect();
            RunError::Usage(format!("the catalogue has no profile `{profile}`; it has {}", known.join(", ")))
        })?;
        findings.of_profile(profile);
        let scene = Scene::new(&loaded.config, &catalog, specs);
        RULES.iter().for_each(|rule| rule(&scene, &mut findings));
    }
    let least = if args.strict { Level::Warning } else { Level::Error };
    let ok = findings.count(least) == 0;
    out(&match args.output {
        Format::Table => findings.table(),
        Format::Json => findings.json(ok)?,
    })?;
    Ok(if ok { Exit::Ok } else { Exit::Error })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::config::Sources;

    /// What the rule finds in the shipped catalogue after `edits` (file, from, to; a new file has no `from`), under a configuration with these `sets`, in the local
    /// profile: level, rule and subject.
    pub(super) fn found(
        rule: fn(&Scene<'_>, &mut Findings),
        edits: &[(&str, &str, &str)],
        sets: &[&str],
    ) -> Vec<(Level, &'static str, String)> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("events")).unwrap();
        for (name, text) in Catalog::embedded_files() {
            let mut text = (*text).to_owned();
            for (file, from, to) in edits.iter().filter(|(file, ..)| file == name) {
                assert!(text.contains(from), "{file} has no {from}");
                text = text.replacen(from, to, 1);
            }
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        for (file, _, text) in edits.iter().filter(|(_, from, _)| from.is_empty()) {
            std::fs::write(dir.path().join(file), text).unwrap();
        }
        let catalog = Catalog::load(dir.path()).unwrap();
        let sets = sets.iter().map(|set| (*set).to_owned()).collect();
        let config = Config::load(&Sources { sets, ..Sources::default() }).unwrap().config;
        let mut findings = Findings::default();
        findings.of_profile("local");
        rule(&Scene::new(&config, &catalog, catalog.topic_specs("local").unwrap()), &mut findings);
        findings.all().map(|one| (one.level, one.rule, one.subject.clone())).collect()
    }

    /// [`Config::load`]'s way to one handler of these events.
    pub(super) fn handler(events: &str) -> String {
        format!("handlers=[{{name=\"app\",kind=\"log\",events={events}}}]")
    }

    #[test]
    fn the_shipped_catalogue_has_nothing_to_complain_about() {
        for rule in RULES {
            let found = found(rule, &[], &[]);
            assert!(found.iter().all(|(level, ..)| *level == Level::Note), "{found:?}");
        }
    }
}
