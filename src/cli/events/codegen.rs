//! `worker events codegen`: models of a domain's events for other programs.

use std::path::PathBuf;

use anyhow::Context;
use clap::{ArgAction, ValueEnum};

use crate::{
    cli::{Exit, Globals, out},
    codegen::{Language, Options, generate},
    roles::{self, RunError},
};

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Whose events: tasks, reminders, recurring, notifications, users, or another domain of the catalogue
    #[arg(long)]
    domain: String,
    /// Which of them, by action, such as created,updated, or by type; all where none is named
    #[arg(long, value_delimiter = ',', value_name = "EVENTS")]
    events: Vec<String>,
    /// The file to write; stdout where none is given
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The language
    #[arg(long, value_enum, default_value_t = Lang::Pydantic)]
    lang: Lang,
    /// Whether the envelope has metadata: correlation and causation
    #[arg(long, default_value_t = true, action = ArgAction::Set, value_name = "BOOL")]
    metadata: bool,
    /// Whether lengths, ranges and patterns are checked; what the language cannot say is named on stderr
    #[arg(long, default_value_t = true, action = ArgAction::Set, value_name = "BOOL")]
    validation: bool,
    /// Whether older versions are brought to the newest
    #[arg(long, default_value_t = true, action = ArgAction::Set, value_name = "BOOL")]
    versioning: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Lang {
    /// Python 3.10 with Pydantic 2
    Pydantic,
    /// TypeScript, for Node 20 or a browser
    Typescript,
    /// Rust, with serde, serde_json, uuid and chrono; with regex where there are patterns
    Rust,
    /// JSON Schema 2020-12
    JsonSchema,
}

/// Runs it. What the models cannot check is told on stderr: the worker checks it at publish.
///
/// # Errors
/// Where the catalogue has no such domain or event, or the file cannot be written.
pub fn run(args: &Args, globals: &Globals) -> anyhow::Result<Exit> {
    let catalog = roles::catalog(&globals.load_and_warn(None)?)?;
    let language = match args.lang {
        Lang::Pydantic => Language::Pydantic,
        Lang::Typescript => Language::TypeScript,
        Lang::Rust => Language::Rust,
        Lang::JsonSchema => Language::JsonSchema,
    };
    let options = Options { metadata: args.metadata, validation: args.validation, versioning: args.versioning };
    let made = generate(&catalog, &args.domain, &args.events, language, options).map_err(|error| RunError::Usage(error.to_string()))?;
    for unchecked in &made.unchecked {
        eprintln!("not in the models, checked by the worker alone: {unchecked}");
    }
    match &args.output {
        None => out(&made.text)?,
        Some(file) => std::fs::write(file, &made.text).with_context(|| format!("cannot write {}", file.display()))?,
    }
    Ok(Exit::Ok)
}
