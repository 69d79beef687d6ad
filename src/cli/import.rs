//! `worker import dapr`: a folder of Dapr's component files as this worker's configuration.

use std::{
    fs::OpenOptions,
    io::{self, IsTerminal, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::Subcommand;

use super::{BOLD, Exit, Globals, RED, YELLOW, out, paint};
use crate::config::{
    Config, ConfigErrors, Problem, Sources,
    dapr::{self, Facts, Fate, Note, Translation},
};

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Translate Dapr's components, subscriptions and resiliency policies: TOML on stdout, a report on stderr
    Dapr {
        /// Folder of .yaml files
        dir: PathBuf,
        /// Write the TOML to this file, readable by its owner alone, instead of stdout; an existing file is kept
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Dapr's app-id: the default consumer group, and whom scopes name [default: app_id of the configuration, where it is given]
        #[arg(long)]
        app_id: Option<String>,
        /// Where the app listens, such as http://localhost:8000
        #[arg(long, value_name = "URL")]
        app_url: Option<String>,
    },
}

/// Runs it.
///
/// # Errors
/// Where a file cannot be read or is no YAML, or the TOML cannot be written.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<Exit> {
    let What::Dapr { dir, output, app_id, app_url } = args.command;
    let app_id = match app_id {
        Some(app_id) => app_id,
        None => configured_app_id(globals)?,
    };
    let facts = Facts { app_id, app_url };
    let mut translation = dapr::import(&dir, &facts).map_err(|problems| {
        let problems = problems.into_iter().map(|problem| Problem::new(dir.join(problem.origin).display().to_string(), problem.message));
        ConfigErrors::of(problems.collect()).map_or_else(|| anyhow::anyhow!("{} cannot be read", dir.display()), Into::into)
    })?;
    if !facts.app_id.is_empty() {
        translation.root.set(&["app_id"], facts.app_id.into(), "app-id");
    }
    let toml = dapr::to_toml(&translation.root);
    match &output {
        Some(file) => write_new(file, &toml)?,
        None => out(&toml)?,
    }
    eprint!("{}", report(&translation));
    check(toml);
    Ok(Exit::Ok)
}

/// `app_id` where a file, a variable or a flag gives it; else empty.
fn configured_app_id(globals: &Globals) -> anyhow::Result<String> {
    let loaded = globals.load(None)?;
    Ok(if loaded.origins.get("app_id") == "default" { String::new() } else { loaded.config.app_id })
}

fn write_new(file: &Path, toml: &str) -> anyhow::Result<()> {
    // It may hold secrets that stood in the component files.
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    let mut opened = opened.with_context(|| format!("{} cannot be made", file.display()))?;
    opened.write_all(toml.as_bytes()).with_context(|| format!("{} cannot be written", file.display()))
}

/// What no component file tells.
const UNKNOWN: &str = "before it starts
  events of types that topics/ lacks go to the dead-letter topic; catalog.unknown_type = \"deliver\" gives them to the app unchecked, as the sidecar did
  each event needs a user_id: `worker events validate` on a sample shows which would be dead-lettered
";

/// What became of everything, what needs a person last.
fn report(translation: &Translation) -> String {
    let terminal = io::stderr().is_terminal();
    let section = |title: &str, colour: &str, fate: Fate| {
        let lines: Vec<&Note> = translation.of(fate).collect();
        let lines: String = lines.iter().map(|note| format!("  {}: {}\n", note.from, note.text)).collect();
        if lines.is_empty() { String::new() } else { format!("{}\n{lines}", paint(terminal, colour, title)) }
    };
    section("translated", BOLD, Fate::Translated)
        + &section("ignored", BOLD, Fate::Ignored)
        + &section("needs a decision", YELLOW, Fate::Decide)
        + UNKNOWN
}

/// Says what `worker config check` would say of it.
fn check(toml: String) {
    let sources = Sources { texts: vec![("line".to_owned(), toml)], ..Sources::default() };
    if let Err(errors) = Config::load(&sources) {
        eprintln!("{} {errors}", paint(io::stderr().is_terminal(), RED, "not yet usable:"));
    }
}
