//! One native worker between Kafka and a team's services: per-user order, retries on a schedule, dedupe, an acknowledged DLQ.
//!
//! Modules stand in the order in which they may depend on each other: a module uses those above it only.

pub mod calendar;
pub mod config;
pub mod outcome;
pub mod event;
pub mod codegen;
pub mod retry;
pub mod progress;
pub mod capacity;
pub mod telemetry;
pub mod shutdown;
pub mod health;
pub mod handler;
pub mod engine;
pub mod reminders;
pub mod kafka;
pub mod store;
pub mod publish;
pub mod sync;
pub mod dlq;
pub mod audit;
pub mod handlers;
pub mod ticks;
pub mod sidecar;
pub mod http;
pub mod grpc;
pub mod roles;
pub mod cli;

/// The source's revision, as the build was told by the environment variable `WORKER_REVISION`.
pub const REVISION: &str = match option_env!("WORKER_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};
