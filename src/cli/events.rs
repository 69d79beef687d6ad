//! `worker events send|tail|validate|check|codegen`.

mod check;
mod codegen;
mod send;
mod tail;
mod validate;

use clap::Subcommand;

use super::{Exit, Globals};

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Publish one event, checked against the catalogue
    Send(send::Args),
    /// Watch events as they come, decoded; or those that are there
    Tail(tail::Args),
    /// Check events of files or stdin against the catalogue: one JSON object, an array, or one object per line
    Validate(validate::Args),
    /// Compare the catalogue's schemas with those of a git ref or folder: exit 3 on a break
    Check(check::Args),
    /// Write models of a domain's events for Python, TypeScript or Rust, or their JSON Schema
    Codegen(codegen::Args),
}

/// Runs it.
///
/// # Errors
/// Where the configuration, the catalogue, an input or the brokers cannot be used.
pub async fn run(args: Args, globals: &Globals) -> anyhow::Result<Exit> {
    match args.command {
        What::Send(args) => send::run(args, globals).await,
        What::Tail(args) => tail::run(args, globals).await,
        What::Validate(args) => validate::run(&args, globals),
        What::Check(args) => check::run(&args, globals),
        What::Codegen(args) => codegen::run(&args, globals),
    }
}
