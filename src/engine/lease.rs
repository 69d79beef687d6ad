//! Leases: one keeper renews all of a process' leases in one exchange per second, and tells each partition how long it may run.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::{
    guard::{Calls, Guard},
    ports::{Lease, Renewed},
};

/// Between two renewals.
const RENEW_EVERY: Duration = Duration::from_secs(1);
/// No run starts within this time of the lease's end: clocks and pauses are not exact.
pub(super) const MARGIN: Duration = Duration::from_secs(2);

/// What a partition knows of its lease.
#[derive(Debug, Clone, Copy)]
struct Standing {
    /// The lease's end, counted from when its last acknowledged renewal was sent.
    end: Instant,
    waiter: bool,
    gone: bool,
}

/// One held lease, shared by its partition and the keeper.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) lease: Lease,
    standing: Mutex<Standing>,
    /// Told when any of it changes for the worse or the better.
    pub(super) changed: Notify,
}

impl Held {
    /// Whether a run may start now.
    pub(super) fn valid(&self, now: Instant) -> bool {
        let standing = *self.lock();
        !standing.gone && now + MARGIN < standing.end
    }

    /// Another owner came: cancel the runs, drop the state.
    pub(super) fn gone(&self) -> bool {
        self.lock().gone
    }

    /// Nothing is done under it any more.
    pub(super) fn let_go(&self) {
        self.lock().gone = true;
    }

    /// Somebody waits for it; answered once per renewal that saw it.
    pub(super) fn take_waiter(&self) -> bool {
        std::mem::take(&mut self.lock().waiter)
    }

    fn lock(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Renews every lease of the process.
#[derive(Clone)]
pub(super) struct Keeper {
    guard: Guard,
    held: Arc<Mutex<BTreeMap<Arc<str>, Arc<Held>>>>,
    /// The store's clock less ours, in milliseconds, as of the last answer.
    clock: Arc<Mutex<StoreClock>>,
}

/// The store's clock, as last seen.
#[derive(Debug, Clone, Copy)]
struct StoreClock {
    seen: Instant,
    ms: u64,
}

impl Keeper {
    /// `wall_ms`: our own clock, taken for the store's until that was seen.
    pub(super) fn new(guard: Guard, wall_ms: u64) -> Self {
        Self { guard, held: Arc::default(), clock: Arc::new(Mutex::new(StoreClock { seen: Instant::now(), ms: wall_ms })) }
    }

    /// Takes a granted lease into care. `sent`: when it was asked for.
    pub(super) fn keep(&self, lease: Lease, sent: Instant) -> Arc<Held> {
        let end = sent + self.guard.store().lease_time();
        let held = Arc::new(Held { lease, standing: Mutex::new(Standing { end, waiter: false, gone: false }), changed: Notify::new() });
        self.lock().insert(Arc::clone(&held.lease.owner), Arc::clone(&held));
        held
    }

    /// Renews `owner`'s lease no more; answers it, if there is one.
    pub(super) fn forget(&self, owner: &str) -> Option<Arc<Held>> {
        self.lock().remove(owner)
    }

    /// The store's clock now, milliseconds since 1970.
    pub(super) fn store_ms(&self, now: Instant) -> u64 {
        let clock = *self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        clock.ms + super::work::millis(now.saturating_duration_since(clock.seen))
    }

    /// Notes the store's clock.
    pub(super) fn saw_clock(&self, ms: u64) {
        *self.clock.lock().unwrap_or_else(PoisonError::into_inner) = StoreClock { seen: Instant::now(), ms };
    }

    /// Renews for ever.
    pub(super) async fn run(self) {
        let mut tick = tokio::time::interval(RENEW_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.renew().await;
        }
    }

    async fn renew(&self) {
        let mut held: Vec<Arc<Held>> = self.lock().values().filter(|held| !held.gone()).cloned().collect();
        if held.is_empty() {
            // Nobody else may be asking, and readiness wants to know.
            match self.guard.store().ping().await {
                Ok(()) => self.guard.answered(Calls::Renewals),
                Err(error) => self.guard.failed(Calls::Renewals, &error),
            }
            return;
        }
        held.sort_by(|a, b| a.lease.partition.cmp(&b.lease.partition));
        let leases: Vec<Lease> = held.iter().map(|held| held.lease.clone()).collect();
        let sent = Instant::now();
        match self.guard.store().renew(&leases).await {
            Ok((answers, now_ms)) => {
                self.guard.answered(Calls::Renewals);
                self.saw_clock(now_ms);
                let end = sent + self.guard.store().lease_time();
                for (held, answer) in held.iter().zip(answers) {
                    let mut standing = held.lock();
                    match answer {
                        // One that was seen and not acted on yet is still there.
                        Renewed::Ours { waiter } => *standing = Standing { end, waiter: waiter || standing.waiter, ..*standing },
                        Renewed::Gone => standing.gone = true,
                    }
                    drop(standing);
                    held.changed.notify_one();
                }
            }
            Err(error) => {
                self.guard.failed(Calls::Renewals, &error);
                for held in held {
                    held.changed.notify_one();
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Arc<Held>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
