//! When each event was written and when it arrived: latencies of single events.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// The figure's name: median, milliseconds.
pub const P50: &str = "p50 ms";
/// 99th percentile.
pub const P99: &str = "p99 ms";

/// Events by their numbers, from 0. The first ones are a warm-up and not counted.
pub struct Journal {
    warm: u64,
    written: Vec<OnceLock<Instant>>,
    arrived: AtomicU64,
    latencies: Mutex<Vec<Duration>>,
}

impl Journal {
    /// For a warm-up of that many, and as many events after it.
    pub fn new(warm: u64, events: u64) -> Self {
        let written = (0..warm + events).map(|_| OnceLock::new()).collect();
        Self { warm, written, arrived: AtomicU64::new(0), latencies: Mutex::default() }
    }

    /// It is handed to the client now.
    pub fn write(&self, number: u64) {
        if let Some(written) = usize::try_from(number).ok().and_then(|number| self.written.get(number)) {
            let _again = written.set(Instant::now());
        }
    }

    /// It has arrived.
    pub fn arrive(&self, number: u64) {
        let now = Instant::now();
        let written = usize::try_from(number).ok().and_then(|number| self.written.get(number)?.get());
        let Some(written) = written else { return };
        if number >= self.warm {
            self.latencies.lock().unwrap_or_else(PoisonError::into_inner).push(now - *written);
        }
        self.arrived.fetch_add(1, Ordering::Relaxed);
    }

    /// How many have arrived, those of the warm-up as well.
    pub fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::Relaxed)
    }

    /// Median and 99th percentile.
    pub fn figures(&self) -> BTreeMap<String, f64> {
        figures(&mut self.latencies.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Median and 99th percentile of any latencies.
pub fn figures(latencies: &mut [Duration]) -> BTreeMap<String, f64> {
    latencies.sort_unstable();
    let last = latencies.len().saturating_sub(1);
    let ms = |percent: usize| latencies.get((latencies.len() * percent / 100).min(last)).map_or(0.0, |one| one.as_secs_f64() * 1000.0);
    [(P50.to_owned(), ms(50)), (P99.to_owned(), ms(99))].into()
}
