//! Configuration: plain data, one struct per table of the file, validated before anything starts.
//!
//! Layers, later ones win: the embedded `config/default.toml`, each `-c FILE`, `WORKER_A__B` environment variables,
//! `--set a.b=value` and flags. Tables merge, arrays replace. Every problem is reported at once, with its origin.

pub mod analytics;
pub mod audit;
pub mod condition;
pub mod dapr;
pub mod engine;
pub mod handlers;
pub mod http;
pub mod kafka;
pub mod notify;
pub mod oidc;
pub mod points;
pub mod redis;
pub mod reminder;
pub mod retry;
pub mod schedules;
pub mod secret;
pub mod security;
pub mod subscription;
pub mod sync;
pub mod units;

pub mod env;
mod file;
mod flags;
pub mod keys;
mod layer;
mod origins;
mod problem;
mod rules;
pub mod schema;
mod sources;
mod text;
mod values;

use serde::Deserialize;

pub use origins::{Origins, Setting};
pub use problem::{ConfigErrors, Problem};
pub use secret::{Secret, SecretUrl};
pub use sources::{DEFAULT_TOML, Flag, Loaded, Sources};

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Takes events over HTTP, gRPC, stdin and from schedules, and publishes them.
    Producer,
    /// Consumes events and runs their handlers.
    Consumer,
    /// Both in one process, on an embedded broker and store unless configured otherwise.
    Standalone,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 3] = [Self::Producer, Self::Consumer, Self::Standalone];

    /// Its name on the command line and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Producer => "producer",
            Self::Consumer => "consumer",
            Self::Standalone => "standalone",
        }
    }
}

/// The whole effective configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Default consumer group id and CloudEvents `source`.
    pub app_id: String,
    /// How to reach the brokers, and what to read.
    pub kafka: kafka::KafkaConfig,
    /// Where finished events are remembered.
    pub store: redis::StoreConfig,
    /// Limits of the engine.
    pub engine: engine::EngineConfig,
    /// What travels with a committed offset.
    pub commit_map: engine::CommitMapConfig,
    /// Backoff schedules by event type or pattern.
    pub retry: retry::RetryConfig,
    /// Where exhausted events go.
    pub dlq: engine::DlqConfig,
    /// The event catalogue.
    pub catalog: engine::CatalogConfig,
    /// Who handles which events.
    #[serde(default)]
    pub handlers: Vec<handlers::HandlerConfig>,
    /// `/metrics`, `/livez`, `/readyz`.
    pub http: http::HttpConfig,
    /// The producer role's listener.
    pub publish: http::PublishConfig,
    /// Dapr state API on the publish listener.
    pub state: http::StateConfig,
    /// The consumer role's listener for clients.
    pub sync: sync::SyncConfig,
    /// Cron entries of the producer role.
    #[serde(default)]
    pub schedules: Vec<schedules::ScheduleConfig>,
}

impl Config {
    /// The consumer group.
    pub fn group_id(&self) -> &str {
        self.kafka.group_id.as_deref().unwrap_or(&self.app_id)
    }
}

#[cfg(test)]
mod tests;
