//! Limits shared by every partition of a process: run permits, the DLQ breaker.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

/// What kind of run asks for a permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// An event's first run.
    First = 0,
    /// A due retry.
    Retry = 1,
    /// An event whose last run was never answered: alone in this process, so that no neighbour is blamed.
    Suspect = 2,
}

impl Kind {
    /// Every kind, by number.
    pub(super) const ALL: [Self; 3] = [Self::First, Self::Retry, Self::Suspect];
}

/// Permits of one run; dropping them gives them back.
pub(super) struct Permit {
    _held: [Option<OwnedSemaphorePermit>; 3],
}

/// Run permits: `concurrency` in all, at most 80 % to first deliveries and 50 % to due retries, each at least one, so that neither
/// starves the other; and each handler's own limit.
pub(super) struct Permits {
    total: Arc<Semaphore>,
    kinds: [Arc<Semaphore>; 3],
    handlers: Vec<Option<Arc<Semaphore>>>,
    alone: Arc<Semaphore>,
}

impl Permits {
    /// `handlers`: each handler's own limit.
    pub(super) fn new(concurrency: usize, handlers: impl Iterator<Item = usize>) -> Self {
        let of = |permits: usize| Arc::new(Semaphore::new(permits.clamp(1, Semaphore::MAX_PERMITS)));
        Self {
            total: of(concurrency),
            kinds: [of(concurrency * 4 / 5), of(concurrency / 2), of(1)],
            handlers: handlers.map(|limit| (limit < concurrency).then(|| of(limit))).collect(),
            alone: of(1),
        }
    }

    /// The right to be the one suspect of this process, held from before its start is counted until it is answered.
    pub(super) fn try_alone(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.alone).try_acquire_owned().ok()
    }

    /// Whether nothing but the limits of all handlers together holds up this one's runs.
    pub(super) fn in_common(&self, handler: usize) -> bool {
        self.handlers[handler].is_none()
    }

    /// A permit without waiting, where nobody waits before us.
    pub(super) fn try_acquire(&self, handler: usize, kind: Kind) -> Option<Permit> {
        let slot = match &self.handlers[handler] {
            Some(slots) => Some(Arc::clone(slots).try_acquire_owned().ok()?),
            None => None,
        };
        let kind = Arc::clone(&self.kinds[kind as usize]).try_acquire_owned().ok()?;
        let total = Arc::clone(&self.total).try_acquire_owned().ok()?;
        Some(Permit { _held: [slot, Some(kind), Some(total)] })
    }

    /// A permit, in turn. The order of the three is the same everywhere, so that no two waits can block each other.
    pub(super) fn acquire(&self, handler: usize, kind: Kind) -> impl Future<Output = Permit> + Send + 'static {
        let slots = self.handlers[handler].clone();
        let (kind, total) = (Arc::clone(&self.kinds[kind as usize]), Arc::clone(&self.total));
        async move {
            // A semaphore that is never closed answers every acquire; `ok` only drops the impossible error.
            let slot = match slots {
                Some(slots) => slots.acquire_owned().await.ok(),
                None => None,
            };
            let kind = kind.acquire_owned().await.ok();
            Permit { _held: [slot, kind, total.acquire_owned().await.ok()] }
        }
    }
}

/// How many recent settlements the breaker looks at.
const BREAKER_WINDOW: usize = 200;
/// Fewer dead than this never open it.
const BREAKER_MINIMUM: usize = 50;
/// While open, one dead letter per this time goes through as a probe.
const BREAKER_PROBE: Duration = Duration::from_secs(1);

/// Stops dead-lettering when too many recent events died: a bad deploy must not empty a topic into the DLQ (F68).
///
/// Open, it lets one dead letter a second through. Its verdict stands, so a truly bad batch still drains, and the breaker
/// closes as soon as enough events succeed again.
#[derive(Debug)]
pub(super) struct Breaker {
    ratio: f64,
    /// The window is full and nothing in it is dead: another that is not changes nothing, and needs no lock.
    calm: AtomicBool,
    state: Mutex<BreakerState>,
}

#[derive(Debug, Default)]
struct BreakerState {
    recent: VecDeque<bool>,
    dead: usize,
    /// Admitted and not settled yet.
    under_way: usize,
    next_probe: Option<Instant>,
}

/// A dead letter on its way; dropped when its event is settled, or left behind.
#[derive(Debug)]
pub(super) struct Admission(Arc<Breaker>);

impl Drop for Admission {
    fn drop(&mut self) {
        self.0.lock().under_way -= 1;
    }
}

impl Breaker {
    /// Opens above `ratio` of dead among recent settlements.
    pub(super) fn new(ratio: f64) -> Self {
        Self { ratio, calm: AtomicBool::new(false), state: Mutex::default() }
    }

    /// Counts a settlement; answers whether the breaker is open where that has changed.
    pub(super) fn settled(&self, dead: bool) -> Option<bool> {
        if !dead && self.calm.load(Ordering::Acquire) {
            return None;
        }
        let mut state = self.lock();
        let was_open = self.is_open(&state);
        state.recent.push_back(dead);
        state.dead += usize::from(dead);
        if state.recent.len() > BREAKER_WINDOW {
            let oldest = state.recent.pop_front().unwrap_or_default();
            state.dead -= usize::from(oldest);
        }
        // Changed under the lock only, where every death passes.
        self.calm.store(state.dead == 0 && state.recent.len() == BREAKER_WINDOW, Ordering::Release);
        let open = self.is_open(&state);
        (open != was_open).then_some(open)
    }

    /// Whether a dead letter may go now; else when to ask again. Those under way count as dead: their broker may take its time.
    pub(super) fn admit(this: &Arc<Self>, now: Instant) -> Result<Admission, Instant> {
        let mut state = this.lock();
        if this.is_open(&state) {
            if let Some(at) = state.next_probe.filter(|at| now < *at) {
                return Err(at);
            }
            state.next_probe = Some(now + BREAKER_PROBE);
        } else {
            state.next_probe = None;
        }
        state.under_way += 1;
        Ok(Admission(Arc::clone(this)))
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of events held")]
    fn is_open(&self, state: &BreakerState) -> bool {
        let (dead, all) = (state.dead + state.under_way, state.recent.len() + state.under_way);
        dead >= BREAKER_MINIMUM && dead as f64 > self.ratio * all as f64
    }

    fn lock(&self) -> MutexGuard<'_, BreakerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_and_first_runs_cannot_take_each_others_last_permits() {
        let permits = Permits::new(10, std::iter::once(usize::MAX));
        let firsts: Vec<_> = std::iter::from_fn(|| permits.try_acquire(0, Kind::First)).collect();
        assert_eq!(firsts.len(), 8);
        let retries: Vec<_> = std::iter::from_fn(|| permits.try_acquire(0, Kind::Retry)).collect();
        assert_eq!(retries.len(), 2);
        drop(firsts);
        let more: Vec<_> = std::iter::from_fn(|| permits.try_acquire(0, Kind::Retry)).collect();
        assert_eq!(more.len(), 3);
    }

    #[test]
    fn a_handlers_own_limit_holds_without_holding_up_the_others() {
        let permits = Permits::new(100, [2, usize::MAX].into_iter());
        let mut held: Vec<_> = std::iter::from_fn(|| permits.try_acquire(0, Kind::First)).collect();
        assert_eq!(held.len(), 2);
        assert!(permits.try_acquire(0, Kind::Retry).is_none() && permits.try_acquire(1, Kind::First).is_some());
        held.pop();
        assert!(permits.try_acquire(0, Kind::Retry).is_some());
    }

    #[test]
    fn one_permit_still_serves_every_kind() {
        let permits = Permits::new(1, std::iter::once(usize::MAX));
        for kind in Kind::ALL {
            assert!(permits.try_acquire(0, kind).is_some());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_bad_deploy_does_not_empty_the_topic_into_the_dlq() {
        let breaker = Arc::new(Breaker::new(0.5));
        for _ in 0..49 {
            assert_eq!(breaker.settled(true), None);
        }
        assert_eq!(breaker.settled(true), Some(true), "the 50th dead of 50 opens it");
        let now = Instant::now();
        assert!(Breaker::admit(&breaker, now).is_ok(), "one probe goes through");
        assert_eq!(Breaker::admit(&breaker, now).err(), Some(now + BREAKER_PROBE));
        assert!(Breaker::admit(&breaker, now + BREAKER_PROBE).is_ok());
        for _ in 0..50 {
            breaker.settled(false);
        }
        assert!(Breaker::admit(&breaker, now).is_ok());
        assert!(Breaker::admit(&breaker, now).is_ok(), "closed again: as many die as live");
    }
}
