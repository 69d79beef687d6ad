//! Assembles a role from its parts and runs it.

mod alerts;
pub mod brokers;
pub(crate) mod consumer;
pub mod dead_reminders;
mod footprint;
pub mod ingest;
pub mod input;
mod intake;
mod retention;
pub mod producer;
mod reminders;
mod schedules;
mod service;
mod standalone;
mod sync;

use std::{path::PathBuf, sync::Arc, time::Duration};

use crate::{
    config::{ConfigErrors, Loaded, Problem, Role},
    event::Catalog,
    handler::Binding,
    roles::consumer::Consumer,
    shutdown::Shutdown,
};

/// What the command line says beyond the configuration.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Producer: publish this and end.
    pub input: Option<Input>,
    /// Producer: be the long-running service, whatever stdin is.
    pub serve: bool,
    /// Producer: publish to this topic instead of the catalogue's first for the type.
    pub topic: Option<String>,
    /// Producer: rejected lines of the input are no error.
    pub partial_ok: bool,
    /// Consumer, standalone: handlers of the program that this crate is part of, besides the configured ones.
    pub bindings: Vec<Binding>,
    /// Give up when the brokers do not answer within this time at start; `None`: wait for them.
    pub exit_if_unreachable: Option<Duration>,
}

/// What the producer reads events from, besides its listeners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Standard input.
    Stdin,
    /// A file.
    File(PathBuf),
}

/// Why a role ended other than as asked.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The command line makes no sense for this role.
    #[error("{0}")]
    Usage(String),
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// A Kafka client is beyond repair, or its thread is gone.
    #[error("fatal Kafka error: {0}")]
    KafkaFatal(String),
    /// Runs, requests or records were unfinished at the drain's deadline. A run begins again elsewhere; a caller got no answer.
    #[error("{running} still unfinished after {}, engine.drain_timeout", humantime::format_duration(*.after))]
    DrainDeadline {
        /// What was left behind: runs of a consumer; requests, or else records, of a producer.
        running: usize,
        /// `engine.drain_timeout`.
        after: Duration,
    },
    /// Anything else.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

impl RunError {
    /// The kind, for logs and metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Usage(_) => "usage",
            Self::Config(_) => "config",
            Self::KafkaFatal(_) => "kafka_fatal",
            Self::DrainDeadline { .. } => "drain_deadline",
            Self::Other(_) => "other",
        }
    }
}

/// Runs a role until its input ends, `shutdown` is given, or an error that a restart must mend. Signals are the caller's: it gives
/// `shutdown` at SIGTERM and SIGINT, and ends the process at a second SIGINT.
///
/// # Errors
/// Why it ended other than as asked.
pub async fn run(role: Role, loaded: Loaded, options: Options, shutdown: Shutdown) -> Result<(), RunError> {
    let catalog = Arc::new(catalog(&loaded)?);
    // Boxed: the future of a whole process is large, and is moved once.
    match role {
        Role::Producer => Box::pin(producer::run(&loaded.config, catalog, options, shutdown)).await,
        Role::Consumer => Box::pin(Consumer::new(loaded.config, catalog, options).run(shutdown)).await,
        Role::Standalone => Box::pin(standalone::run(loaded.config, catalog, options, shutdown)).await,
    }
}

/// The event catalogue that the configuration names, else the one in the binary.
///
/// # Errors
/// Every problem of its files, as configuration errors.
pub fn catalog(loaded: &Loaded) -> Result<Catalog, RunError> {
    let is_default = loaded.origins.get("catalog.dir") == "default";
    Catalog::open(&loaded.config.catalog.dir, is_default).map_err(|error| {
        let problems = error.problems.iter().map(|problem| Problem::new("", problem.to_string())).collect();
        ConfigErrors::of(problems).map_or_else(|| RunError::Other(error.into()), RunError::Config)
    })
}
