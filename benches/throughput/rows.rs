//! What is measured: each row, the floor that it is told against, and how it is run.

use std::sync::Arc;

use anyhow::Context as _;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::{floor, meter::Meter, plain, stack::Stack, worker};

/// What each row is, for `--help`.
pub const HELP: &str = "\
Rows (each told against the floor in brackets):
  poll            librdkafka's batch poll loop, nothing else
  parse           + copy and typed parse of the envelope [poll]
  ledger          + hand-over to a task per partition, two SMISMEMBER and one SADD per batch [parse]
  worker-memory   the consumer role with `store.url = \"memory\"` [poll]
  worker-redis    the consumer role with Redis: full semantics [ledger]
  plain           a careful program on the client's async API, MGET and SET with a TTL [ledger]";

/// One thing that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Row {
    Poll,
    Parse,
    Ledger,
    WorkerMemory,
    WorkerRedis,
    Plain,
}

impl Row {
    /// Its name on the command line and in the JSON.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// What it is told against.
    pub fn floor(self) -> Option<Self> {
        match self {
            Self::Poll => None,
            Self::Parse | Self::WorkerMemory => Some(Self::Poll),
            Self::Ledger => Some(Self::Parse),
            Self::WorkerRedis | Self::Plain => Some(Self::Ledger),
        }
    }

    /// The share of the floor's rate that it is to reach.
    pub fn goal(self) -> Option<f64> {
        match self {
            Self::WorkerMemory => Some(0.3),
            Self::WorkerRedis => Some(0.6),
            _ => None,
        }
    }
}

/// Measures one row in this process and prints the result as one line of JSON.
///
/// # Errors
/// Where the row cannot be run.
pub fn measure(row: Row, stack: &Stack, events: u64) -> anyhow::Result<()> {
    let topic = stack.filled_topic(events)?;
    let meter = Arc::new(Meter::new(events, stack.processes()));
    match row {
        Row::Poll => floor::poll(stack, &topic, &meter)?,
        Row::Parse => floor::parse(stack, &topic, &meter)?,
        Row::Ledger => floor::ledger(stack, &topic, &meter)?,
        Row::WorkerMemory => worker::consume(stack, &topic, "memory", &meter)?,
        Row::WorkerRedis => worker::consume(stack, &topic, &stack.redis, &meter)?,
        Row::Plain => plain::consume(stack, &topic, &meter)?,
    }
    let measured = meter.measured().context("ended before the last event")?;
    println!("{}", serde_json::to_string(&measured)?);
    Ok(())
}
