//! The store as the engine uses it: asked again until it answers, or passed by where the configuration says so.

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::{
    lease::Held,
    ports::{DedupeStore, StoreError},
};
use crate::telemetry::Metrics;

/// First and longest wait between two attempts at a store that is away.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// What happens while the store is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenDown {
    /// Nothing is dispatched until it is back.
    Hold,
    /// After this long, Kafka's assignment alone decides.
    BypassAfter(Duration),
}

/// Why a call ended without the store's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoAnswer {
    /// The lease is another's.
    Fenced,
    /// The store is away, and we go on without it.
    Bypassed,
}

/// The store, with what is known of its health.
#[derive(Clone)]
pub(super) struct Guard {
    store: Arc<dyn DedupeStore>,
    when_down: WhenDown,
    health: Arc<Health>,
    metrics: Metrics,
}

struct Health {
    down_since: Mutex<Option<Instant>>,
    /// Told when the store goes away or comes back.
    changed: Notify,
}

impl Guard {
    pub(super) fn new(store: Arc<dyn DedupeStore>, when_down: WhenDown, metrics: Metrics) -> Self {
        let health = Arc::new(Health { down_since: Mutex::new(None), changed: Notify::new() });
        Self { store, when_down, health, metrics }
    }

    /// Asks until the store answers. While it is away: again with backoff, for ever with `hold`, up to `bypass_after` with `bypass`.
    pub(super) async fn ask<'a, T, F>(&'a self, call: impl Fn(&'a dyn DedupeStore) -> F) -> Result<T, NoAnswer>
    where
        F: Future<Output = Result<T, StoreError>> + Send,
    {
        let mut delay = BACKOFF.0;
        // While bypassing, the lease keeper finds out when it is back.
        while !self.bypassing() {
            if let Some(answer) = self.judge(call(self.store()).await) {
                return answer;
            }
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(BACKOFF.1);
        }
        Err(NoAnswer::Bypassed)
    }

    /// As [`Guard::ask`], but every attempt is made under a valid lease only: a woken zombie reads and writes nothing (!).
    pub(super) async fn ask_under<'a, T, F>(&'a self, held: &Held, call: impl Fn(&'a dyn DedupeStore) -> F) -> Result<T, NoAnswer>
    where
        F: Future<Output = Result<T, StoreError>> + Send,
    {
        let mut delay = BACKOFF.0;
        while !self.bypassing() {
            if held.gone() {
                return Err(NoAnswer::Fenced);
            }
            if held.valid(Instant::now())
                && let Some(answer) = self.judge(call(self.store()).await)
            {
                return answer;
            }
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(BACKOFF.1);
        }
        Err(NoAnswer::Bypassed)
    }

    /// Notes whether the store answered; `None`: it did not.
    fn judge<T>(&self, result: Result<T, StoreError>) -> Option<Result<T, NoAnswer>> {
        match result {
            Ok(answer) => {
                self.answered();
                Some(Ok(answer))
            }
            Err(StoreError::Fenced) => {
                self.answered();
                Some(Err(NoAnswer::Fenced))
            }
            Err(error) => {
                self.failed(&error);
                None
            }
        }
    }

    /// The store answered.
    pub(super) fn answered(&self) {
        let since = self.health.down_since.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(since) = since {
            tracing::info!(store.down_seconds = since.elapsed().as_secs_f64(), "store answers again");
            self.metrics.store_up.set(1);
            self.health.changed.notify_waiters();
        }
    }

    /// The store did not answer.
    pub(super) fn failed(&self, error: &StoreError) {
        let mut since = self.health.down_since.lock().unwrap_or_else(PoisonError::into_inner);
        if since.is_none() {
            *since = Some(Instant::now());
            let outcome =
                if self.when_down == WhenDown::Hold { "events are held until it does" } else { "events are held, then run without dedupe" };
            tracing::warn!(error = %error, outcome, "store does not answer");
            self.metrics.store_up.set(0);
            self.health.changed.notify_waiters();
        }
    }

    /// Whether the store has been away for so long that events run without it.
    pub(super) fn bypassing(&self) -> bool {
        match self.when_down {
            WhenDown::Hold => false,
            WhenDown::BypassAfter(after) => {
                self.health.down_since.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|since| since.elapsed() >= after)
            }
        }
    }

    /// Whether the store answered last time.
    pub(super) fn is_up(&self) -> bool {
        self.health.down_since.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// The store itself, for calls that are not repeated.
    pub(super) fn store(&self) -> &dyn DedupeStore {
        &*self.store
    }
}
