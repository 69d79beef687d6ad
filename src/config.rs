//! Configuration: plain data, one struct per table of the file, validated before anything starts.
//!
//! Layers, later ones win: the embedded `config/default.toml`, each `-c FILE`, `WORKER_A__B` environment variables,
//! `--set a.b=value` and flags. Tables merge, arrays replace. Every problem is reported at once, with its origin.

pub mod engine;
pub mod handlers;
pub mod http;
pub mod kafka;
pub mod redis;
pub mod retry;

use serde::Deserialize;

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
    /// Cron entries of the producer role.
    #[serde(default)]
    pub schedules: Vec<handlers::ScheduleConfig>,
}
