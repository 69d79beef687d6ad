//! Fires what `[[schedules]]` say: an event published, or an app called, once per tick however many replicas run.
//!
//! Each schedule has a runner. It waits for the next tick, claims it in the store, and fires it in a task of its own, which renews the claim. The other
//! replicas watch the claim: where its owner dies, one of them fires the tick again, with the same id.

mod entry;
mod fire;
mod runner;
mod target;

use std::{sync::Arc, time::Duration};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use self::entry::Entry;
use self::{fire::Shared, runner::Runner, target::Target};
use crate::{
    config::{Config, redis::WhenDown, schedules::ScheduleConfig},
    engine::Clock,
    health::Reporter,
    publish::Publishing,
    retry::Schedules,
    store::ticks::TickStore,
    telemetry::Metrics,
};

/// A schedule that cannot be fired.
#[derive(Debug, thiserror::Error)]
pub enum TickError {
    /// The configuration does not make sense.
    #[error("schedule `{name}`: {problem}")]
    Config {
        /// The schedule.
        name: String,
        /// What is wrong, without secrets.
        problem: String,
    },
}

impl TickError {
    /// A short name of the kind of error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Config { .. } => "config",
        }
    }
}

/// What a [`Ticker`] is made of.
pub struct Parts {
    /// Publishes events.
    pub publishing: Arc<Publishing>,
    /// Where ticks are claimed.
    pub store: Arc<dyn TickStore>,
    /// Told while ticks wait for the store.
    pub report: Reporter,
    /// Counts.
    pub metrics: Metrics,
    /// The time.
    pub clock: Clock,
}

/// Every configured schedule of this process.
pub struct Ticker {
    entries: Vec<Arc<Entry>>,
    shared: Arc<Shared>,
}

impl Ticker {
    /// Makes every `[[schedules]]` entry ready to be fired.
    ///
    /// # Errors
    /// Where an entry cannot work: its event is none that the catalogue takes, its URL is none.
    pub fn new(config: &Config, parts: Parts) -> Result<Self, TickError> {
        let entries = config.schedules.iter().map(|schedule| {
            let problem = |problem: String| TickError::Config { name: schedule.name.clone(), problem };
            let entry = Entry::new(schedule).map_err(problem)?;
            let target = Target::new(schedule, &entry, &parts.publishing).map_err(problem)?;
            Ok(Arc::new(entry.aimed_at(target)))
        });
        let entries = entries.collect::<Result<_, TickError>>()?;
        let shared = Shared {
            store: parts.store,
            report: parts.report,
            metrics: parts.metrics,
            clock: parts.clock,
            retries: Schedules::new(&config.retry).schedule_for(ScheduleConfig::EVENT).clone(),
            owner: uuid::Uuid::new_v4().to_string(),
            bypass_after: match config.store.when_down {
                WhenDown::Hold => None,
                WhenDown::Bypass => Some(config.store.bypass_after),
            },
        };
        Ok(Self { entries, shared: Arc::new(shared) })
    }

    /// Fires ticks until `stop`; then waits for the runs in flight, not for retries. Answers how many were left behind at `limit` after `stop`: they are
    /// fired again, here after a restart or by another replica.
    pub async fn run(self, stop: CancellationToken, limit: Duration) -> usize {
        let mut runners = JoinSet::new();
        for entry in self.entries {
            runners.spawn(Runner::new(entry, Arc::clone(&self.shared)).run(stop.clone()));
        }
        let all = async {
            while let Some(ended) = runners.join_next().await {
                if let Err(error) = ended {
                    tracing::error!(%error, "a schedule's runner ended");
                }
            }
        };
        let deadline = async {
            stop.cancelled().await;
            tokio::time::sleep(limit).await;
        };
        tokio::select! {
            () = all => 0,
            () = deadline => runners.len(),
        }
    }
}
