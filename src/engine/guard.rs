//! The store as the engine uses it: asked again until it answers, or passed by where the configuration says so.

use std::{
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    lease::Held,
    ports::{DedupeStore, StoreError},
};
use crate::telemetry::Metrics;

/// First and longest wait between two attempts at a store that is away.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// Between two tries of a ledger that is passed by.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// A failure that nobody has seen again for this long, whoever asked has gone, says nothing any more.
const STALE: Duration = Duration::from_secs(30);

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
    health: Arc<Mutex<Health>>,
    metrics: Metrics,
}

/// Calls that fail and recover on their own: a store may well renew leases and answer nothing heavier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Calls {
    /// Renewals and pings.
    Renewals,
    /// What makes a partition ours: the lease, and what is remembered.
    Takeovers,
    /// Checks, verdicts and records of events.
    Ledger,
}

/// Since when calls of one kind fail, and when one last did.
#[derive(Debug, Clone, Copy)]
struct Outage {
    since: Instant,
    last: Instant,
}

impl Outage {
    /// Whether it was seen to last for `after`; a single failure is no outage, however long ago.
    fn lasts(&self, after: Duration) -> bool {
        self.last.duration_since(self.since) >= after
    }
}

#[derive(Debug, Default)]
struct Health {
    /// By [`Calls`].
    outages: [Option<Outage>; 3],
    /// Since when any of them fails.
    down_since: Option<Instant>,
}

impl Health {
    /// Whether calls of that kind have failed for `after`.
    fn away(&self, calls: Calls, after: Duration) -> bool {
        self.outages[calls as usize].is_some_and(|outage| outage.lasts(after))
    }
}

impl Guard {
    pub(super) fn new(store: Arc<dyn DedupeStore>, when_down: WhenDown, metrics: Metrics) -> Self {
        Self { store, when_down, health: Arc::default(), metrics }
    }

    /// Asks until the store answers, and only while the lease `held` is valid: a woken zombie reads and writes nothing (!). While the store
    /// is away: again with backoff, for ever with `hold`, up to `bypass_after` with `bypass`.
    pub(super) async fn ask_under<'a, T, F>(&'a self, held: &Held, call: impl Fn(&'a dyn DedupeStore) -> F) -> Result<T, NoAnswer>
    where
        F: Future<Output = Result<T, StoreError>> + Send,
    {
        let mut delay = BACKOFF.0;
        let mut failing: Option<Instant> = None;
        while self.may_ask() {
            if held.gone() {
                return Err(NoAnswer::Fenced);
            }
            if held.valid(Instant::now()) {
                if let Some(answer) = self.judge(call(self.store()).await) {
                    return answer;
                }
                // Others may be answered meanwhile; this call has its own patience.
                let failing = *failing.get_or_insert_with(Instant::now);
                if self.lost_patience(|health, after| failing.elapsed() >= after || health.away(Calls::Ledger, after)) {
                    break;
                }
            }
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(BACKOFF.1);
        }
        Err(NoAnswer::Bypassed)
    }

    /// Whether the ledger is asked. While it is passed by, one call at a time finds out whether it is back; nothing is tried while not
    /// even renewals are answered: the lease keeper finds that out.
    fn may_ask(&self) -> bool {
        let WhenDown::BypassAfter(after) = self.when_down else { return true };
        let mut health = self.health();
        if health.away(Calls::Renewals, after) {
            return false;
        }
        let away = health.away(Calls::Ledger, after);
        match &mut health.outages[Calls::Ledger as usize] {
            Some(outage) if away => {
                let probe = outage.last.elapsed() >= PROBE_EVERY;
                if probe {
                    outage.last = Instant::now();
                }
                probe
            }
            _ => true,
        }
    }

    /// Notes whether the store answered; `None`: it did not.
    fn judge<T>(&self, result: Result<T, StoreError>) -> Option<Result<T, NoAnswer>> {
        match result {
            Ok(answer) => {
                self.answered(Calls::Ledger);
                Some(Ok(answer))
            }
            Err(StoreError::Fenced) => {
                self.answered(Calls::Ledger);
                Some(Err(NoAnswer::Fenced))
            }
            Err(error) => {
                self.failed(Calls::Ledger, &error);
                None
            }
        }
    }

    /// The store answered a call of that kind: this says nothing of the other kinds, unless nobody has asked any for long.
    pub(super) fn answered(&self, calls: Calls) {
        let mut health = self.health();
        health.outages[calls as usize] = None;
        for outage in &mut health.outages {
            *outage = outage.filter(|outage| outage.last.elapsed() < STALE);
        }
        if health.outages.iter().all(Option::is_none)
            && let Some(since) = health.down_since.take()
        {
            tracing::info!(store.down_seconds = since.elapsed().as_secs_f64(), "store answers again");
            self.metrics.store_up.set(1);
        }
    }

    /// The store did not answer a call of that kind.
    pub(super) fn failed(&self, calls: Calls, error: &StoreError) {
        let now = Instant::now();
        let mut health = self.health();
        health.outages[calls as usize].get_or_insert(Outage { since: now, last: now }).last = now;
        if health.down_since.is_none() {
            health.down_since = Some(now);
            let outcome =
                if self.when_down == WhenDown::Hold { "events are held until it does" } else { "events are held, then run without dedupe" };
            tracing::warn!(error = %error, store.calls = ?calls, outcome, "store does not answer");
            self.metrics.store_up.set(0);
        }
    }

    /// Whether anything of the store has been away for so long that events run without it.
    pub(super) fn bypassing(&self) -> bool {
        self.lost_patience(|health, after| health.outages.iter().flatten().any(|outage| outage.lasts(after)))
    }

    /// Whether leases have been out of reach for so long that events run without one. A ledger that is away is no reason: the lease of
    /// another is still another's (!).
    pub(super) fn bypassing_leases(&self) -> bool {
        self.lost_patience(|health, after| health.away(Calls::Renewals, after) || health.away(Calls::Takeovers, after))
    }

    fn lost_patience(&self, away: impl FnOnce(&Health, Duration) -> bool) -> bool {
        match self.when_down {
            WhenDown::Hold => false,
            WhenDown::BypassAfter(after) => away(&self.health(), after),
        }
    }

    /// Whether the store answered last time, calls of every kind.
    pub(super) fn is_up(&self) -> bool {
        self.health().down_since.is_none()
    }

    /// The store itself, for calls that are not repeated.
    pub(super) fn store(&self) -> &dyn DedupeStore {
        &*self.store
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
