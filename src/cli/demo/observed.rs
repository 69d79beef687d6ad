//! What was seen so far: the handler's runs, and the engine's counters.

use std::collections::BTreeMap;

use prometheus::{IntCounterVec, core::Collector};

use super::app::Ran;
use crate::telemetry::Metrics;

/// Everything seen.
pub(super) struct Observed {
    /// Runs, in the order in which they began.
    pub(super) runs: Vec<Ran>,
    metrics: Metrics,
}

impl Observed {
    pub(super) fn new(metrics: Metrics) -> Self {
        Self { runs: Vec::new(), metrics }
    }

    /// The run that finished that event.
    pub(super) fn effect(&self, id: &str) -> Option<&Ran> {
        self.runs.iter().find(|ran| ran.id == id && !ran.failed)
    }

    /// Runs of that event, in order.
    pub(super) fn runs_of(&self, id: &str) -> impl Iterator<Item = &Ran> {
        self.runs.iter().filter(move |ran| ran.id == id)
    }

    /// Effects by event id.
    pub(super) fn effects(&self) -> BTreeMap<&str, usize> {
        let mut effects = BTreeMap::new();
        for ran in self.runs.iter().filter(|ran| !ran.failed) {
            *effects.entry(ran.id.as_str()).or_default() += 1;
        }
        effects
    }

    /// Effects of one user that came before that of an earlier record of the same partition.
    pub(super) fn out_of_order(&self) -> usize {
        let mut last = BTreeMap::new();
        let mut wrong = 0;
        for ran in self.runs.iter().filter(|ran| !ran.failed) {
            let before = last.insert((ran.partition.to_string(), ran.user.as_str()), ran.offset);
            wrong += usize::from(before.is_some_and(|before| before > ran.offset));
        }
        wrong
    }

    /// Events settled as `outcome`.
    pub(super) fn settled(&self, outcome: &str) -> u64 {
        sum(&self.metrics.events_settled, "outcome", outcome)
    }

    /// Events with a final outcome, whichever.
    pub(super) fn settled_in_all(&self) -> u64 {
        sum_all(&self.metrics.events_settled)
    }

    /// Retries put on the schedule.
    pub(super) fn retries(&self) -> u64 {
        sum_all(&self.metrics.retries_scheduled)
    }

    /// Records that are neither settled nor held.
    pub(super) fn unaccounted(&self) -> i64 {
        self.metrics.conservation_error.get()
    }
}

fn sum_all(counters: &IntCounterVec) -> u64 {
    add(counters, |_, _| true, true)
}

fn sum(counters: &IntCounterVec, label: &str, value: &str) -> u64 {
    add(counters, |name, found| name == label && found == value, false)
}

/// The counters one of whose labels is `wanted`, added up.
fn add(counters: &IntCounterVec, wanted: impl Fn(&str, &str) -> bool, all: bool) -> u64 {
    let families = counters.collect();
    let metrics = families.iter().flat_map(|family| family.get_metric());
    let matching = metrics.filter(|metric| all || metric.get_label().iter().any(|label| wanted(label.name(), label.value())));
    let sum: f64 = matching.map(|metric| metric.get_counter().get_value()).sum();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a sum of small whole counters")]
    let sum = sum as u64;
    sum
}
