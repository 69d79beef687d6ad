//! How a partition stands with its lease: asked for, held, given back, lost, had again.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    Shared,
    check::remaining,
    drain::Mode,
    guard::Calls,
    io::Io,
    lane::{LaneId, Stage},
    lease::Held,
    partition::Partition,
    ports::{Acquired, Remembered},
    work::PartState,
};

/// Shortest and longest time between two questions for a lease that is not to be had.
const LEASE_PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));
/// The last words to the store take no longer than this.
const RELEASE_LIMIT: Duration = Duration::from_secs(2);

/// How the partition stands with the store.
pub(super) enum LeaseState {
    /// Asked for, not had.
    Asking,
    /// Had, its memory read.
    Held(Arc<Held>),
    /// Nothing may run any more.
    Gone,
}

/// A lease that was granted, with what the store remembers of the partition.
pub(super) struct Leased {
    held: Arc<Held>,
    remembered: Remembered,
    /// The owner before had released it.
    clean: bool,
}

impl Partition {
    /// Whether a run may start now: under a valid lease, or without one where the configuration says so.
    pub(super) fn may_run(&self, now: Instant) -> bool {
        match &self.lease {
            LeaseState::Held(_) if self.yielding => false,
            LeaseState::Held(held) => held.valid(now) || !self.shared.rules.last_check || self.shared.guard.bypassing_leases(),
            LeaseState::Asking => !self.shared.rules.lease_before_run || self.shared.guard.bypassing_leases(),
            LeaseState::Gone => false,
        }
    }

    /// Whether verdicts can be written down now: under the lease, or not at all where the configuration says so. A ledger that is away is no
    /// reason to settle what another owner may have taken over.
    pub(super) fn may_write(&self) -> bool {
        self.held().is_some() || self.shared.guard.bypassing_leases()
    }

    /// The lease, where one is held.
    pub(super) fn held(&self) -> Option<&Arc<Held>> {
        match &self.lease {
            LeaseState::Held(held) => Some(held),
            LeaseState::Asking | LeaseState::Gone => None,
        }
    }

    /// Asks for the partition until it is ours, then reads what is remembered of it; never before (!).
    pub(super) fn ask_for_lease(&mut self) {
        let (shared, id, owner, map_epoch) = (Arc::clone(&self.shared), self.id.clone(), Arc::clone(&self.owner), self.map_epoch);
        self.io.push(Box::pin(async move {
            loop {
                let sent = Instant::now();
                // Without the store there is nothing to hold: ask again, however long; `may_run` knows about bypassing.
                let wait = match shared.guard.store().acquire(&id, &owner, map_epoch).await {
                    Ok(Acquired::Granted { lease, clean, now_ms }) => {
                        shared.keeper.saw_clock(now_ms);
                        let held = shared.keeper.keep(lease, sent);
                        match shared.guard.store().load(&held.lease).await {
                            Ok(remembered) => {
                                shared.guard.answered(Calls::Takeovers);
                                return Io::Leased(Leased { held, remembered, clean });
                            }
                            Err(error) => {
                                shared.guard.failed(Calls::Takeovers, &error);
                                shared.keeper.forget(&held.lease.owner);
                                LEASE_PAUSE.1
                            }
                        }
                    }
                    Ok(Acquired::Held(wait)) => {
                        shared.guard.answered(Calls::Takeovers);
                        wait.clamp(LEASE_PAUSE.0, LEASE_PAUSE.1)
                    }
                    Err(error) => {
                        shared.guard.failed(Calls::Takeovers, &error);
                        LEASE_PAUSE.1
                    }
                };
                tokio::time::sleep(wait).await;
            }
        }));
    }

    pub(super) fn on_leased(&mut self, leased: Leased) {
        let Leased { held, remembered, clean } = leased;
        tracing::debug!(kafka.partition = %self.id, lease.epoch = held.lease.epoch, lease.clean = clean, "partition leased");
        self.suspects_below = remembered.mark.filter(|_| !clean);
        self.mark = remembered.mark.unwrap_or(-1);
        // What an earlier owner settled and could not remove any more.
        let start = self.start;
        self.removable.extend(remembered.records.iter().map(|(offset, _)| *offset).filter(|offset| *offset < start));
        self.remembered = remembered.records.into_iter().filter(|(offset, _)| *offset >= start).collect();
        self.map_epoch = held.lease.epoch;
        // The map carries the epoch on, should the store lose it.
        self.tracker.touch_epoch();
        self.lease = LeaseState::Held(held);
        self.catch_up();
    }

    /// Heads that were begun before this lease learn what an owner in between has written of them.
    fn catch_up(&mut self) {
        let now = Instant::now();
        let store_ms = self.shared.keeper.store_ms(now);
        let begun: Vec<LaneId> = self.lanes.iter().filter(|(_, lane)| lane.work.is_some()).map(|(id, _)| id).collect();
        for id in begun {
            let Some(work) = &mut self.lanes[id].work else { continue };
            let Some(known) = self.remembered.remove(&work.offset).filter(|known| known.id == work.member.id) else { continue };
            let schedule = self.shared.schedules.schedule_for(work.subject.event_type().unwrap_or_default());
            work.restore(&known, |due_ms| now + remaining(due_ms, store_ms, schedule));
        }
    }

    /// The keeper has news.
    pub(super) fn on_lease_change(&mut self) {
        self.stalled = false;
        let Some(held) = self.held().cloned() else { return };
        if held.gone() {
            self.lease_gone();
        } else if held.take_waiter() && self.prove.is_none() {
            self.prove = Some(Instant::now());
            self.commit_now = true;
        }
    }

    /// Whether an answer of the store was given under the lease that is held now, or none was asked under. One of an older lease says nothing:
    /// another owner may have come between.
    pub(super) fn is_current(&self, epoch: u64) -> bool {
        epoch == 0 || self.held().is_some_and(|held| held.lease.epoch == epoch)
    }

    /// The store refused what was sent under the lease of that epoch, or answered when it was lost already. Only if it is still held this says
    /// anything of it.
    pub(super) fn fenced(&mut self, epoch: u64) {
        if self.held().is_some_and(|held| held.lease.epoch == epoch) {
            self.lease_gone();
        }
    }

    /// The lease is another's, or the store forgot it: runs are cancelled, nothing is written or committed under it any more (!). Where the
    /// group still counts the partition as ours, proved by a commit, the lease is asked for again; where it does not, it takes the partition
    /// away, or the engine ends the process.
    fn lease_gone(&mut self) {
        let drained = match &mut self.mode {
            Mode::Running => {
                tracing::warn!(kafka.partition = %self.id, "the partition's lease is lost; its runs are cancelled until the group and the store confirm it");
                self.part_with_lease();
                return;
            }
            Mode::Draining(drain) => drain.asker(),
            Mode::Lingering | Mode::Over(_) => None,
        };
        self.lease = LeaseState::Gone;
        self.runs.clear();
        self.no_commits.cancel();
        self.mode = Mode::over_without_commit(drained);
    }

    /// Back to asking for a lease, once a commit has proved membership. What was under way under the old one is asked anew under the next;
    /// its answers come as fenced.
    fn part_with_lease(&mut self) -> Option<Arc<Held>> {
        let held = self.shared.keeper.forget(&self.owner);
        if let LeaseState::Held(held) = std::mem::replace(&mut self.lease, LeaseState::Asking) {
            held.let_go();
        }
        self.owner = self.shared.new_owner();
        (self.regaining, self.commit_now) = (true, true);
        self.stay();
        self.runs.clear();
        self.queues.clear();
        let now = Instant::now();
        let running: Vec<_> = self.lanes.iter().filter(|(_, lane)| lane.stage == Stage::Running).map(|(id, _)| id).collect();
        for id in running {
            for part in self.lanes[id].work.iter_mut().flat_map(|work| &mut work.parts).filter(|part| part.state == PartState::Running) {
                part.state = if part.attempts > 0 { PartState::Retry { due: now } } else { PartState::Pending };
            }
            self.make_ready(id);
        }
        // Under the next lease the ledger is asked before anything else.
        let mut waiting: Vec<_> = std::mem::take(&mut self.to_bury).into();
        self.to_save.retain(|&id| {
            let Some(lane) = self.lanes.get_mut(id).filter(|lane| lane.stage == Stage::Saving) else { return true };
            lane.to_save = false;
            waiting.push(id);
            false
        });
        for id in waiting {
            self.make_ready(id);
        }
        held
    }

    /// Somebody waits for the lease, and no commit has proved within a lease's time that the partition is still ours: as if revoked (!).
    /// Nothing is started any more; what is under way ends, then the lease goes back. The lanes stay: where it was the brokers that did not
    /// answer, and the group counts us as the owner after all, a commit proves it and the lease is asked for again.
    pub(super) fn check_proof(&mut self) {
        let unproved = self.prove.is_some_and(|since| since.elapsed() > self.shared.guard.store().lease_time());
        if self.shared.rules.prove_to_waiter && unproved && matches!(self.mode, Mode::Running) && !self.yielding {
            tracing::warn!(kafka.partition = %self.id, "the group does not confirm this partition and another worker waits for it; its lease goes back");
            self.yielding = true;
            self.last_letters.cancel();
        }
    }

    /// Membership is proved: nobody else is owed the lease.
    pub(super) fn proved(&mut self) {
        self.prove = None;
        self.stay();
        if std::mem::take(&mut self.regaining) && matches!(self.mode, Mode::Running) {
            self.ask_for_lease();
        }
    }

    fn stay(&mut self) {
        self.prove = None;
        if std::mem::take(&mut self.yielding) {
            self.last_letters = CancellationToken::new();
        }
    }

    /// Gives a lease back that was not proved to be ours, once nothing goes on under it.
    pub(super) fn advance_yield(&mut self) {
        let under_way = !self.runs.is_empty() || self.burying > 0 || self.checking > 0 || !self.written();
        if !self.yielding || under_way || !matches!(self.mode, Mode::Running) {
            return;
        }
        if let Some(held) = self.part_with_lease() {
            self.release_later(held);
        }
    }

    /// Without `Rules::runs_keep_lease`: the lease goes back while runs go on.
    pub(super) fn let_go_early(&mut self) {
        if !self.shared.rules.runs_keep_lease
            && let Some(held) = self.shared.keeper.forget(&self.owner)
        {
            self.release_later(held);
        }
    }

    fn release_later(&mut self, held: Arc<Held>) {
        let shared = Arc::clone(&self.shared);
        self.io.push(Box::pin(async move {
            release(&shared, &held).await;
            Io::Released
        }));
    }
}

/// Gives a lease back; its next owner has it at once.
pub(super) async fn release(shared: &Shared, held: &Held) {
    let leases = [held.lease.clone()];
    let partition = &held.lease.partition;
    match timeout(RELEASE_LIMIT, shared.guard.store().release(&leases)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!(kafka.partition = %partition, error = %error, "lease not released; the next owner waits until it ends")
        }
        Err(_elapsed) => tracing::warn!(kafka.partition = %partition, "lease not released in time; the next owner waits until it ends"),
    }
}
