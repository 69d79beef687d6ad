//! Times every exchange with a store and counts the failed ones; who handles a failure logs it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;

use crate::{
    engine::ports::{Acquired, Check, DedupeStore, EventRecord, Lease, Member, Remembered, Renewed, StoreError},
    event::record::TopicPartition,
    telemetry::Metrics,
};

/// A store whose calls are seen: `worker_store_up`, `worker_store_errors_total{op}`, `worker_store_duration_seconds{op}`.
///
/// A lease that is another's ([`StoreError::Fenced`]) is an answer, not a failure.
pub struct Measured<S> {
    store: S,
    metrics: Metrics,
}

impl<S> Measured<S> {
    /// Wraps `store`, which counts as up until it fails.
    pub fn new(store: S, metrics: &Metrics) -> Self {
        metrics.store_up.set(1);
        Self { store, metrics: metrics.clone() }
    }

    /// What is measured.
    pub(super) fn inner(&self) -> &S {
        &self.store
    }

    pub(super) async fn seen<T>(&self, op: &'static str, call: BoxFuture<'_, Result<T, StoreError>>) -> Result<T, StoreError> {
        let started = Instant::now();
        let answer = call.await;
        self.metrics.store_duration.with_label_values(&[op]).observe(started.elapsed().as_secs_f64());
        let failed = match &answer {
            Ok(_) | Err(StoreError::Fenced) => None,
            Err(error) => Some(error),
        };
        if failed.is_some() {
            self.metrics.store_errors.with_label_values(&[op]).inc();
        }
        self.metrics.store_up.set(i64::from(failed.is_none()));
        answer
    }
}

impl<S: DedupeStore> DedupeStore for Measured<S> {
    fn check<'a>(&'a self, lease: &'a Lease, check: Check) -> BoxFuture<'a, Result<Vec<bool>, StoreError>> {
        Box::pin(self.seen("check", self.store.check(lease, check)))
    }

    fn finish<'a>(&'a self, lease: &'a Lease, members: Vec<Member>) -> BoxFuture<'a, Result<usize, StoreError>> {
        Box::pin(self.seen("finish", self.store.finish(lease, members)))
    }

    fn save<'a>(&'a self, lease: &'a Lease, changes: Vec<(i64, Option<EventRecord>)>) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(self.seen("save", self.store.save(lease, changes)))
    }

    fn load<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<Remembered, StoreError>> {
        Box::pin(self.seen("load", self.store.load(lease)))
    }

    fn acquire<'a>(
        &'a self,
        partition: &'a TopicPartition,
        owner: &'a Arc<str>,
        map_epoch: u64,
    ) -> BoxFuture<'a, Result<Acquired, StoreError>> {
        Box::pin(self.seen("acquire", self.store.acquire(partition, owner, map_epoch)))
    }

    fn renew<'a>(&'a self, leases: &'a [Lease]) -> BoxFuture<'a, Result<(Vec<Renewed>, u64), StoreError>> {
        Box::pin(self.seen("renew", self.store.renew(leases)))
    }

    fn release<'a>(&'a self, leases: &'a [Lease]) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(self.seen("release", self.store.release(leases)))
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.seen("ping", self.store.ping()))
    }

    fn lease_time(&self) -> Duration {
        self.store.lease_time()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;

    #[tokio::test(start_paused = true)]
    async fn a_call_is_timed_and_another_owners_lease_is_no_failure_of_the_store() {
        let metrics = Metrics::new("test");
        let store = Measured::new(MemoryStore::default(), &metrics);
        store.ping().await.unwrap();
        let foreign = Lease { partition: TopicPartition::new("t", 0), owner: "nobody".into(), epoch: 1 };
        let answer = store.finish(&foreign, Vec::new()).await;
        assert!(answer.is_err());
        let text = metrics.render().unwrap();
        assert!(text.contains("worker_store_duration_seconds_count{op=\"ping\"} 1"), "{text}");
        assert!(text.contains("worker_store_duration_seconds_count{op=\"finish\"} 1"), "{text}");
    }
}
