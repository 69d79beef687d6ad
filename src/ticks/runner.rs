//! One schedule's loop: waits for ticks, claims them, watches those of other replicas.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    Entry,
    fire::{STORE_PAUSE, Shared, fire},
    target::Target,
};
use crate::{engine::ports::StoreError, store::ticks::Claim};

/// Longest sleep: the wall clock may be set meanwhile.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// Ticks of one schedule under way at once, where that is allowed.
const MOST_AT_ONCE: usize = 16;

pub(super) struct Runner {
    entry: Arc<Entry>,
    shared: Arc<Shared>,
    /// Ticks up to here are dealt with, or in `pending`.
    cursor: DateTime<Utc>,
    /// Whether the store has told what it knows.
    entered: bool,
    /// Not before this is that asked for.
    enter_at: Instant,
    /// Due, and not claimed yet.
    pending: VecDeque<DateTime<Utc>>,
    /// Ticks that other replicas fire, and when their claims end.
    watched: BTreeMap<DateTime<Utc>, Instant>,
    fires: JoinSet<()>,
    /// Whether any tick was.
    fired: bool,
    /// Not before this is a tick asked for again.
    ask_again: Option<Instant>,
}

/// What became of an attempt to get a tick.
enum Got {
    /// It is dealt with, or somebody else does.
    Settled,
    /// The store is away; later.
    Later,
}

impl Runner {
    pub(super) fn new(entry: Arc<Entry>, shared: Arc<Shared>) -> Self {
        let cursor = shared.clock.now();
        Self {
            entry,
            shared,
            cursor,
            entered: false,
            enter_at: Instant::now(),
            pending: VecDeque::new(),
            watched: BTreeMap::new(),
            fires: JoinSet::new(),
            fired: false,
            ask_again: None,
        }
    }

    pub(super) async fn run(mut self, stop: CancellationToken) {
        loop {
            self.enter().await;
            self.ask_watched(&stop).await;
            self.ask_due(&stop).await;
            let wake = self.wake();
            tokio::select! {
                () = stop.cancelled() => break,
                Some(ended) = self.fires.join_next() => self.ended(ended.is_ok()),
                () = tokio::time::sleep_until(wake) => {}
            }
        }
        while self.fires.join_next().await.is_some() {}
    }

    /// Learns from the store what happened before.
    async fn enter(&mut self) {
        if self.entered || Instant::now() < self.enter_at {
            return;
        }
        match self.shared.store.enter(&self.entry.name, self.cursor.timestamp_millis()).await {
            Ok(known) => {
                self.entered = true;
                self.store_answers();
                // What was fired without a claim while the store was away is not fired again.
                if let Some(last) = DateTime::from_timestamp_millis(known.last).filter(|_| !self.fired) {
                    self.cursor = self.cursor.min(last);
                }
                let now = Instant::now();
                self.watched.extend(known.open.iter().filter_map(|tick| Some((DateTime::from_timestamp_millis(*tick)?, now))));
            }
            Err(error) => {
                self.enter_at = Instant::now() + STORE_PAUSE;
                self.store_fails(&error);
            }
        }
    }

    /// Asks for the ticks of others whose claims should have ended.
    async fn ask_watched(&mut self, stop: &CancellationToken) {
        let now = Instant::now();
        let ended: Vec<_> = self.watched.iter().filter(|(_, until)| **until <= now).map(|(tick, _)| *tick).collect();
        for tick in ended {
            if self.is_busy() {
                self.watched.insert(tick, now + STORE_PAUSE);
                continue;
            }
            self.watched.remove(&tick);
            if matches!(self.ask(tick, stop).await, Got::Later) {
                self.watched.insert(tick, now + STORE_PAUSE);
            }
        }
    }

    /// Asks for the ticks that are due.
    async fn ask_due(&mut self, stop: &CancellationToken) {
        if self.pending.is_empty() && !self.is_busy() {
            self.plan();
        }
        while !self.is_busy() && self.ask_again.is_none_or(|at| Instant::now() >= at) {
            let Some(tick) = self.pending.pop_front() else { return };
            if matches!(self.ask(tick, stop).await, Got::Later) {
                // Once the store is back, the policy says what is still to be fired.
                self.pending.clear();
                self.cursor = tick - TimeDelta::milliseconds(1);
            }
        }
    }

    fn plan(&mut self) {
        let Some((due, until)) = self.entry.plan(self.cursor, self.shared.clock.now()) else { return };
        self.skipped("missed", due.skipped);
        self.pending = due.fire.into();
        self.cursor = until;
    }

    async fn ask(&mut self, tick: DateTime<Utc>, stop: &CancellationToken) -> Got {
        match self.shared.store.claim(self.shared.wish(&self.entry, tick)).await {
            Ok(claim) => {
                self.store_answers();
                match claim {
                    Claim::Granted => self.fire(tick, true, stop),
                    Claim::Done => {}
                    Claim::Held(wait) => drop(self.watched.insert(tick, Instant::now() + wait)),
                    Claim::Overlaps => self.skipped("overlap", 1),
                }
                Got::Settled
            }
            Err(error) => {
                self.ask_again = Some(Instant::now() + STORE_PAUSE);
                self.store_fails(&error);
                if self.may_go_unclaimed(tick) {
                    self.fire(tick, false, stop);
                    return Got::Settled;
                }
                Got::Later
            }
        }
    }

    /// An event has the same id from every replica; a call is only made unclaimed where the configuration prefers that to waiting.
    fn may_go_unclaimed(&self, tick: DateTime<Utc>) -> bool {
        let late = (self.shared.clock.now() - tick).to_std().unwrap_or_default();
        self.entry.target().is_some_and(Target::repeats_safely) || self.shared.bypass_after.is_some_and(|limit| late >= limit)
    }

    fn fire(&mut self, tick: DateTime<Utc>, claimed: bool, stop: &CancellationToken) {
        self.fired = true;
        self.fires.spawn(fire(Arc::clone(&self.shared), Arc::clone(&self.entry), tick, claimed, stop.clone()));
    }

    fn is_busy(&self) -> bool {
        self.fires.len() >= if self.entry.exclusive { 1 } else { MOST_AT_ONCE }
    }

    fn ended(&mut self, well: bool) {
        if !well {
            tracing::error!(schedule = %self.entry.name, "firing a tick panicked");
        }
        if !self.entry.exclusive {
            return;
        }
        // What came due during the run overlapped with it; what was to be caught up before is still to be.
        if let Some((due, until)) = self.entry.plan(self.cursor, self.shared.clock.now()) {
            self.skipped("overlap", due.skipped + due.fire.len());
            self.cursor = until;
        }
    }

    fn skipped(&self, reason: &str, ticks: usize) {
        if ticks > 0 {
            self.shared.metrics.schedule_skipped.with_label_values(&[&*self.entry.name, reason]).inc_by(ticks as u64);
            tracing::warn!(schedule = %self.entry.name, reason, ticks, "ticks skipped");
        }
    }

    fn store_answers(&mut self) {
        self.ask_again = None;
        self.shared.report.ok();
    }

    fn store_fails(&self, error: &StoreError) {
        self.shared.metrics.store_errors.with_label_values(&["tick"]).inc();
        self.shared.report.fail(format!("ticks cannot be claimed: {error}"));
    }

    /// When something may be to do again, unless a run ends before.
    fn wake(&self) -> Instant {
        let now = Instant::now();
        let mut wake = now + LONGEST_SLEEP;
        if !self.is_busy() {
            let wait = |due: DateTime<Utc>| (due - self.shared.clock.now()).to_std().unwrap_or_default();
            let tick = match self.pending.is_empty() {
                true => self.entry.next_due(self.cursor).map(|due| now + wait(due).min(LONGEST_SLEEP)),
                false => Some(now),
            };
            // While the store is away nothing is asked more often than this, but events that are due go out.
            wake = tick.into_iter().fold(wake, Instant::min).max(self.ask_again.unwrap_or(now));
        }
        let watched = self.watched.values().copied().min();
        watched.into_iter().chain((!self.entered).then_some(self.enter_at)).fold(wake, Instant::min).max(now)
    }
}
