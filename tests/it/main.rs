//! Integration tests that need nothing installed: the real binary, the embedded broker, and the store in memory.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod analytics;
mod asyncapi;
mod audit;
mod catalog_cli;
mod config;
#[path = "../contract/store.rs"]
mod contract;
#[path = "../contract/ticks.rs"]
mod tick_contract;
#[path = "../contract/outbox.rs"]
mod outbox_contract;
#[path = "../contract/accounts.rs"]
mod account_contract;
#[path = "../contract/tally.rs"]
mod tally_contract;
#[path = "../contract/state.rs"]
mod contract_state;
#[path = "../contract/reminders.rs"]
mod reminder_contract;
mod dead_reminders;
mod demo;
mod engine;
mod engine_epochs;
mod engine_fairness;
mod engine_faults;
mod engine_limits;
mod engine_mends;
mod engine_pace;
mod engine_records;
mod engine_review;
mod engine_shutdown;
mod events_cli;
mod faulty;
mod forward;
mod healthcheck;
mod http_handler;
mod http_routes;
mod http_wire;
mod import_dapr;
mod ingest;
mod notify;
mod ops;
mod outbox;
mod points;
mod producer;
mod publish;
mod kafka_embedded;
mod kafka_member;
mod kafka_source;
mod rig;
mod schedule_cli;
mod security;
mod sidecar_about;
mod sidecar_grpc;
mod sidecar_publish;
mod sidecar_state;
mod store;
mod recurrence;
mod reminders;
mod support;
mod sync;
mod ticks;
