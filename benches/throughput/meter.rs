//! Counts events and takes the time and the CPU from the first to the last: joining the group and connecting are no part of it.

use std::{
    collections::BTreeMap,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::usage::{self, Processes, Snapshot};

/// What one measurement found.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Measured {
    /// Events between the first and the last; 0 where the row is not about many events.
    pub events: u64,
    /// Their time.
    pub seconds: f64,
    /// CPU of the measured process per event, microseconds; librdkafka's threads are a part of it.
    pub own_us: f64,
    /// Of the broker, where it runs here.
    pub broker_us: Option<f64>,
    /// Of Redis, where it runs here.
    pub redis_us: Option<f64>,
    /// Of the app that events are posted to, or of the clients that post.
    #[serde(default)]
    pub app_us: Option<f64>,
    /// CPUs that others kept busy meanwhile.
    pub others: f64,
    /// Most memory resident, bytes.
    pub peak_rss: u64,
    /// What else was found, by name and unit.
    #[serde(default)]
    pub figures: BTreeMap<String, f64>,
}

impl Measured {
    /// Of `events` between two moments.
    #[expect(clippy::cast_precision_loss, reason = "CPU times and counts far below 2^53")]
    pub fn between(first: &Snapshot, last: &Snapshot, events: u64, processes: &Processes) -> Self {
        let per_event = |from: u64, to: u64| to.saturating_sub(from) as f64 / 1000.0 / events.max(1) as f64;
        let both = |from: Option<u64>, to: Option<u64>| Some(per_event(from?, to?));
        let seconds = last.at.duration_since(first.at).as_secs_f64();
        let known = |at: &Snapshot| [Some(at.own), at.broker, at.redis, at.app].into_iter().flatten().sum::<u64>();
        let machine = last.machine.saturating_sub(first.machine);
        Self {
            events,
            seconds,
            own_us: per_event(first.own, last.own),
            broker_us: both(first.broker, last.broker),
            redis_us: both(first.redis, last.redis),
            app_us: both(first.app, last.app),
            others: machine.saturating_sub(known(last).saturating_sub(known(first))) as f64 / 1e9 / seconds,
            peak_rss: usage::peak_rss(processes.measured()),
            figures: BTreeMap::new(),
        }
    }

    /// Events per second.
    #[expect(clippy::cast_precision_loss, reason = "a count of events")]
    pub fn rate(&self) -> f64 {
        if self.seconds > 0.0 { self.events as f64 / self.seconds } else { 0.0 }
    }

    /// CPU per event of everybody involved but the app.
    pub fn all_cpu(&self) -> f64 {
        self.own_us + self.broker_us.unwrap_or_default() + self.redis_us.unwrap_or_default()
    }
}

/// Bytes as MiB.
#[expect(clippy::cast_precision_loss, reason = "bytes of memory")]
pub fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
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
    pub fn measured(&self) -> Option<Measured> {
        Some(Measured::between(self.first.get()?, self.last.get()?, self.total, &self.processes))
    }
}
