//! The built `worker` against a real Apache Kafka and a real Redis, as an operator meets them.
//!
//! `tests/stack run cargo test --test e2e` starts both and sets `WORKER_TEST_KAFKA` and `WORKER_TEST_REDIS`. Without them each test
//! prints why it is skipped; with `CI=true` it fails instead. Tests are `#[tokio::test(flavor = "multi_thread")]`, own every name
//! they use ([`support::unique`]) and wait with [`support::eventually`], never by sleeping. Whoever kills or floods a broker starts
//! one of their own: [`support::stack::Stack::private`].

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

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
#[path = "../it/kafka_member.rs"]
mod kafka_member;
mod support;

mod analytics;
mod audit;
mod dapr_apps;
mod dapr_sarama;
mod dapr_stream;
mod dapr_subscribe;
mod dapr_takeover;
mod dead_letters;
mod dlq;
mod doctor;
mod examples;
mod forward;
mod harness;
mod isolation;
mod kafka_group;
mod lifecycle;
mod main_job;
mod notify;
mod outbox;
mod reminders;
mod reminders_redis;
mod points;
mod schedules;
mod secure;
mod tokens;
mod security;
mod shapes;
mod sidecar;
mod standalone;
mod state;
mod store;
mod store_forget;
mod sync;
mod tail;
mod takeover;
mod todo_day;
mod topics;
