//! The counters of one partition's events, each found once: a look-up by labels takes a lock and costs more than the counting. What is
//! counted is added to the process' counters once per step of the partition: they are shared by all threads.

use std::{sync::Arc, time::Duration};

use prometheus::{
    IntCounter,
    local::{LocalHistogram, LocalIntCounter},
};

use super::{Label, Shared};
use crate::{
    event::record::TopicPartition,
    outcome::{Outcome, Settled},
};

/// A type's place in its partition's [`Meters`].
pub(super) type TypeId = usize;

/// Counters by outcome. An outcome that never came has none, so that nothing shows up that did not happen.
type Counters = Vec<(&'static str, LocalIntCounter)>;

/// What a partition counts per event.
pub(super) struct Meters {
    shared: Arc<Shared>,
    topic: Arc<str>,
    latency: Option<LocalHistogram>,
    types: Vec<TypeMeters>,
    /// Something was counted since the last flush.
    counted: bool,
}

/// Of one event type.
struct TypeMeters {
    label: Label,
    settled: Counters,
    /// By handler.
    runs: Vec<HandlerMeters>,
}

#[derive(Default)]
struct HandlerMeters {
    results: Counters,
    duration: Option<LocalHistogram>,
}

impl Meters {
    pub(super) fn new(shared: Arc<Shared>, partition: &TopicPartition) -> Self {
        Self { shared, topic: Arc::clone(&partition.topic), latency: None, types: Vec::new(), counted: false }
    }

    /// The place of a label from [`Shared::label`]: there are few of them.
    pub(super) fn type_of(&mut self, label: &Label) -> TypeId {
        let known = self.types.iter().position(|known| Arc::ptr_eq(&known.label, label));
        known.or_else(|| self.types.iter().position(|known| known.label == *label)).unwrap_or_else(|| {
            let runs = self.shared.registry.bindings().iter().map(|_| HandlerMeters::default()).collect();
            self.types.push(TypeMeters { label: Arc::clone(label), settled: Vec::new(), runs });
            self.types.len() - 1
        })
    }

    /// The label itself.
    pub(super) fn label(&self, id: TypeId) -> &Label {
        &self.types[id].label
    }

    /// A run ended.
    pub(super) fn ran(&mut self, id: TypeId, handler: usize, outcome: &Outcome, took: Duration) {
        let Self { shared, types, counted, .. } = self;
        *counted = true;
        let TypeMeters { label, runs, .. } = &mut types[id];
        let (metrics, name) = (&shared.metrics, &*shared.registry.bindings()[handler].name);
        let meters = &mut runs[handler];
        let code = outcome.code();
        counter(&mut meters.results, code, || metrics.handler_runs.with_label_values(&[name, label, code])).inc();
        let duration = meters.duration.get_or_insert_with(|| metrics.handler_duration.with_label_values(&[name, label]).local());
        duration.observe(took.as_secs_f64());
    }

    /// An event was settled.
    pub(super) fn settled(&mut self, id: TypeId, settled: Settled) {
        let Self { shared, topic, types, counted, .. } = self;
        *counted = true;
        let TypeMeters { label, settled: counters, .. } = &mut types[id];
        let code = settled.code();
        counter(counters, code, || shared.metrics.events_settled.with_label_values(&[&**topic, label, code])).inc();
    }

    /// Adds what was counted to what the process shows.
    pub(super) fn flush(&mut self) {
        if !std::mem::take(&mut self.counted) {
            return;
        }
        self.latency.iter().for_each(LocalHistogram::flush);
        for kind in &self.types {
            let results = kind.runs.iter().flat_map(|run| &run.results);
            kind.settled.iter().chain(results).for_each(|(_, counter)| counter.flush());
            kind.runs.iter().filter_map(|run| run.duration.as_ref()).for_each(LocalHistogram::flush);
        }
    }

    /// Its record was this old then.
    pub(super) fn latency(&mut self, seconds: f64) {
        let Self { shared, topic, latency, counted, .. } = self;
        *counted = true;
        latency.get_or_insert_with(|| shared.metrics.event_latency.with_label_values(&[topic]).local()).observe(seconds);
    }
}

fn counter<'a>(counters: &'a mut Counters, code: &'static str, make: impl FnOnce() -> IntCounter) -> &'a LocalIntCounter {
    let index = counters.iter().position(|(known, _)| *known == code).unwrap_or_else(|| {
        counters.push((code, make().local()));
        counters.len() - 1
    });
    &counters[index].1
}

impl Drop for Meters {
    fn drop(&mut self) {
        self.flush();
    }
}
