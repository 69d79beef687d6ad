//! The counters of one partition's events, each found once: a look-up by labels takes a lock and costs more than the counting.

use std::{sync::Arc, time::Duration};

use prometheus::{Histogram, IntCounter};

use super::{Label, Shared};
use crate::{
    event::record::TopicPartition,
    outcome::{Outcome, Settled},
};

/// A type's place in its partition's [`Meters`].
pub(super) type TypeId = usize;

/// Counters by outcome. An outcome that never came has none, so that nothing shows up that did not happen.
type Counters = Vec<(&'static str, IntCounter)>;

/// What a partition counts per event.
pub(super) struct Meters {
    shared: Arc<Shared>,
    topic: Arc<str>,
    latency: Option<Histogram>,
    types: Vec<TypeMeters>,
}

/// Of one event type.
struct TypeMeters {
    label: Label,
    settled: Counters,
    /// By handler.
    runs: Vec<HandlerMeters>,
}

#[derive(Default, Clone)]
struct HandlerMeters {
    results: Counters,
    duration: Option<Histogram>,
}

impl Meters {
    pub(super) fn new(shared: Arc<Shared>, partition: &TopicPartition) -> Self {
        Self { shared, topic: Arc::clone(&partition.topic), latency: None, types: Vec::new() }
    }

    /// The place of a label from [`Shared::label`]: there are few of them.
    pub(super) fn type_of(&mut self, label: &Label) -> TypeId {
        let known = self.types.iter().position(|known| Arc::ptr_eq(&known.label, label));
        known.or_else(|| self.types.iter().position(|known| known.label == *label)).unwrap_or_else(|| {
            let runs = vec![HandlerMeters::default(); self.shared.registry.bindings().len()];
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
        let Self { shared, types, .. } = self;
        let TypeMeters { label, runs, .. } = &mut types[id];
        let (metrics, name) = (&shared.metrics, &*shared.registry.bindings()[handler].name);
        let meters = &mut runs[handler];
        let code = outcome.code();
        counter(&mut meters.results, code, || metrics.handler_runs.with_label_values(&[name, label, code])).inc();
        let duration = meters.duration.get_or_insert_with(|| metrics.handler_duration.with_label_values(&[name, label]));
        duration.observe(took.as_secs_f64());
    }

    /// An event was settled.
    pub(super) fn settled(&mut self, id: TypeId, settled: Settled) {
        let Self { shared, topic, types, .. } = self;
        let TypeMeters { label, settled: counters, .. } = &mut types[id];
        let code = settled.code();
        counter(counters, code, || shared.metrics.events_settled.with_label_values(&[&**topic, label, code])).inc();
    }

    /// Its record was this old then.
    pub(super) fn latency(&mut self, seconds: f64) {
        let Self { shared, topic, latency, .. } = self;
        latency.get_or_insert_with(|| shared.metrics.event_latency.with_label_values(&[topic])).observe(seconds);
    }
}

fn counter<'a>(counters: &'a mut Counters, code: &'static str, make: impl FnOnce() -> IntCounter) -> &'a IntCounter {
    let index = counters.iter().position(|(known, _)| *known == code).unwrap_or_else(|| {
        counters.push((code, make()));
        counters.len() - 1
    });
    &counters[index].1
}
