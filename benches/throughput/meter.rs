//! Counts events and takes the time and the CPU from the first to the last: joining the group and connecting are no part of it.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::usage::{self, Processes, Snapshot};

/// What one measurement found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Measured {
    /// Events between the first and the last.
    pub events: u64,
    /// Their time.
    pub seconds: f64,
    /// CPU of the measured process per event, microseconds; librdkafka's threads are a part of it.
    pub own_us: f64,
    /// Of the broker, where it runs here.
    pub broker_us: Option<f64>,
    /// Of Redis, where it runs here.
    pub redis_us: Option<f64>,
    /// CPUs that others kept busy meanwhile.
    pub others: f64,
    /// Most memory resident, bytes.
    pub peak_rss: u64,
}

impl Measured {
    /// Events per second.
    #[expect(clippy::cast_precision_loss, reason = "a count of events")]
    pub fn rate(&self) -> f64 {
        self.events as f64 / self.seconds
    }
}

/// Counts up to a number of events.
#[derive(Debug)]
pub struct Meter {
    count: AtomicU64,
    total: u64,
    processes: Processes,
    first: OnceLock<Snapshot>,
    last: OnceLock<Snapshot>,
    done: Notify,
}

impl Meter {
    /// Until `total`.
    pub fn new(total: u64, processes: Processes) -> Self {
        Self { count: AtomicU64::new(0), total, processes, first: OnceLock::new(), last: OnceLock::new(), done: Notify::new() }
    }

    /// Counts; answers whether that was the last.
    pub fn add(&self, events: u64) -> bool {
        let before = self.count.fetch_add(events, Ordering::Relaxed);
        if before == 0 {
            let _first = self.first.set(self.processes.snapshot());
        }
        let last = before + events >= self.total;
        if last && self.last.set(self.processes.snapshot()).is_ok() {
            self.done.notify_one();
        }
        last
    }

    /// Resolves at the last.
    pub async fn done(&self) {
        self.done.notified().await;
    }

    /// Tells the next who waits in [`Meter::done`].
    pub fn wake(&self) {
        self.done.notify_one();
    }

    /// What was found; `None` before the last.
    #[expect(clippy::cast_precision_loss, reason = "CPU times and counts far below 2^53")]
    pub fn measured(&self) -> Option<Measured> {
        let (first, last) = (self.first.get()?, self.last.get()?);
        let events = self.total.max(1);
        let per_event = |from: u64, to: u64| to.saturating_sub(from) as f64 / 1000.0 / events as f64;
        let both = |from: Option<u64>, to: Option<u64>| Some(per_event(from?, to?));
        let seconds = last.at.duration_since(first.at).as_secs_f64();
        let known = [Some(first.own), first.broker, first.redis].into_iter().flatten().sum::<u64>();
        let known = [Some(last.own), last.broker, last.redis].into_iter().flatten().sum::<u64>().saturating_sub(known);
        let machine = last.machine.saturating_sub(first.machine);
        Some(Measured {
            events,
            seconds,
            own_us: per_event(first.own, last.own),
            broker_us: both(first.broker, last.broker),
            redis_us: both(first.redis, last.redis),
            others: machine.saturating_sub(known) as f64 / 1e9 / seconds,
            peak_rss: usage::peak_rss(),
        })
    }
}
