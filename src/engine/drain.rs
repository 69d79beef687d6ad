//! Commits, and the way out: revoke, shutdown and loss are one routine with different ends.

use std::{sync::Arc, time::Duration};

use futures_util::stream::FuturesUnordered;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

use super::{
    Left, Shared,
    lane::Stage,
    lease::Held,
    partition::{Command, Io, LeaseState, Partition},
    ports::{Commit, CommitError},
    settle::half_finished,
    work::PartState,
};
use crate::progress::{Head, Snapshot};

/// Without any change, the commit is repeated this often, so that the group does not forget an idle partition (F20).
const IDLE_COMMIT: Duration = Duration::from_secs(6 * 60 * 60);
/// Dead letters under way are waited for this long at a drain: left behind, they would be written twice.
const BURY_GRACE: Duration = Duration::from_secs(2);
/// The last words to the store take no longer than this.
const RELEASE_LIMIT: Duration = Duration::from_secs(2);
/// The final commit takes no longer than this past the deadline.
const COMMIT_LIMIT: Duration = Duration::from_secs(3);

/// Between two tries of the final commit.
const COMMIT_PAUSE: Duration = Duration::from_millis(200);

/// What a partition is about.
pub(super) enum Mode {
    /// Reads, runs, commits.
    Running,
    /// Lets runs end, then commits once more.
    Draining(Drain),
    /// Nobody's any more, but runs go on: their verdicts and the lease are all that is left to do.
    Lingering,
    /// Nothing left to do.
    Over(Option<(oneshot::Sender<Left>, Left)>),
}

/// A drain under way.
pub(super) struct Drain {
    deadline: Instant,
    /// Dead letters under way are waited for until then.
    bury_until: Instant,
    drained: Option<oneshot::Sender<Left>>,
    /// The process ends afterwards.
    last: bool,
    /// The final commit: not sent, under way, answered.
    committed: Option<Option<bool>>,
    /// It met passing trouble and is sent again then.
    again_at: Option<Instant>,
}

impl Mode {
    pub(super) fn reads(&self) -> bool {
        matches!(self, Self::Running)
    }

    pub(super) fn works(&self) -> bool {
        matches!(self, Self::Running)
    }

    /// When a drain has to look at itself again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Draining(drain) if drain.committed.is_none() => {
                let now = Instant::now();
                let pending = [drain.again_at, Some(drain.bury_until), Some(drain.deadline)];
                pending.into_iter().flatten().filter(|at| *at > now).min().or(Some(now))
            }
            Self::Running | Self::Draining(_) | Self::Lingering | Self::Over(_) => None,
        }
    }
}

impl Partition {
    pub(super) fn over(&self) -> bool {
        matches!(self.mode, Mode::Over(_))
    }

    pub(super) fn command(&mut self, command: Command) {
        match command {
            Command::Drain { deadline, drained, last } => {
                if matches!(self.mode, Mode::Running) && !matches!(self.lease, LeaseState::Gone) {
                    self.stop_dispatch();
                    let bury_until = deadline.min(Instant::now() + BURY_GRACE);
                    self.mode =
                        Mode::Draining(Drain { deadline, bury_until, drained: Some(drained), last, committed: None, again_at: None });
                } else {
                    // Nothing of it is ours to commit; only runs that still go on could be left behind.
                    let left = Left { runs: self.runs.len(), committed: true };
                    self.mode = if left.runs + self.burying == 0 || last {
                        Mode::Over(Some((drained, left)))
                    } else {
                        answer(drained, left, Mode::Lingering)
                    };
                }
            }
            Command::Lose => self.abandon(),
        }
    }

    /// Kafka's assignment is gone: dispatch and commits stop, runs in flight end under the lease.
    fn abandon(&mut self) {
        self.stop_dispatch();
        self.mode = Mode::Lingering;
        self.let_go_early();
    }

    /// Without `Rules::runs_keep_lease`: the lease goes back while runs go on.
    fn let_go_early(&mut self) {
        if !self.shared.rules.runs_keep_lease
            && let Some(held) = self.shared.keeper.forget(&self.owner)
        {
            let shared = Arc::clone(&self.shared);
            self.io.push(Box::pin(async move {
                release(&shared, &held).await;
                Io::Swept { left: Vec::new() }
            }));
        }
    }

    /// The lease is another's, or the store forgot it: runs are cancelled, nothing is written or committed under it any more (!). Where the
    /// group still counts the partition as ours, proved by a commit, nobody else can have come between, and the lease is asked for again;
    /// where it does not, it takes the partition away, or the engine ends the process.
    pub(super) fn lease_gone(&mut self) {
        let drained = match &mut self.mode {
            Mode::Running => return self.regain(),
            Mode::Draining(drain) => drain.drained.take(),
            Mode::Lingering | Mode::Over(_) => None,
        };
        self.lease = LeaseState::Gone;
        self.runs.clear();
        self.mode = Mode::Over(drained.map(|drained| (drained, Left { runs: 0, committed: true })));
    }

    fn regain(&mut self) {
        if self.regaining {
            return;
        }
        tracing::warn!(kafka.partition = %self.id, "the partition's lease is lost; its runs are cancelled until the group and the store confirm it");
        self.shared.keeper.forget(&self.owner);
        self.lease = LeaseState::Asking;
        self.owner = self.shared.new_owner();
        self.regaining = true;
        self.commit_now = true;
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
    }

    /// Takes back every run that has not started, and saves what is half finished. A dead letter under way has its last attempt.
    fn stop_dispatch(&mut self) {
        self.last_letters.cancel();
        let now = Instant::now();
        for (id, index) in self.queues.clear() {
            let lane = &mut self.lanes[id];
            let Some(work) = &mut lane.work else { continue };
            let part = &mut work.parts[index];
            part.state = if part.attempts > 0 { PartState::Retry { due: now } } else { PartState::Pending };
            let runs_on = work.parts.iter().any(|part| part.state == PartState::Running);
            if !runs_on && half_finished(&work.parts) {
                lane.stage = Stage::Saving;
                self.to_save.push(id);
            }
        }
    }

    /// Moves a drain on: runs end, then the final commit, then the end.
    pub(super) fn advance_drain(&mut self) {
        let written = self.to_save.is_empty() && !self.saving && self.to_finish.is_empty() && !self.finishing;
        let quiet = self.runs.is_empty() && (written || !self.may_write());
        let now = Instant::now();
        match &mut self.mode {
            Mode::Running | Mode::Over(_) => {}
            Mode::Lingering => {
                let gone = matches!(self.lease, LeaseState::Gone | LeaseState::Asking);
                // What the client was given may still be written: until it says, nobody else may write that letter again (F57, F71).
                if quiet && self.burying == 0 || gone && self.runs.is_empty() {
                    self.mode = Mode::Over(None);
                }
            }
            Mode::Draining(drain) => {
                let ready = now >= drain.deadline || quiet && (self.burying == 0 || now >= drain.bury_until);
                let ready = ready && drain.again_at.is_none_or(|at| now >= at);
                match drain.committed {
                    None if ready => self.final_commit(),
                    Some(Some(committed)) => {
                        let (left, last) = (Left { runs: self.runs.len(), committed }, drain.last);
                        if !self.runs.is_empty() {
                            tracing::warn!(kafka.partition = %self.id, runs = self.runs.len(), "runs outlive the drain; their events will run again unless they finish in time");
                        }
                        if let Some(drained) = drain.drained.take() {
                            self.mode = if self.runs.is_empty() && self.burying == 0 || last {
                                Mode::Over(Some((drained, left)))
                            } else {
                                answer(drained, left, Mode::Lingering)
                            };
                            self.let_go_early();
                        }
                    }
                    None | Some(None) => {}
                }
            }
        }
    }

    /// The commit that settles what is finished, also where the ledger has not answered (nobody else will).
    fn final_commit(&mut self) {
        if self.committing {
            return;
        }
        let finished: Vec<_> = self.lanes.iter().filter(|(_, lane)| lane.stage == Stage::Finishing).map(|(id, _)| id).collect();
        self.to_finish.clear();
        for id in finished {
            self.settle_finished(id);
        }
        if let Mode::Draining(drain) = &mut self.mode {
            drain.committed = Some(None);
            let limit = drain.deadline.max(Instant::now()) + COMMIT_LIMIT;
            self.send_commit(Some(limit));
        }
    }

    /// Time to commit, if there is anything new.
    pub(super) fn on_tick(&mut self) {
        self.report();
        if self.tracker.is_dirty() || self.regaining || self.last_commit.elapsed() >= IDLE_COMMIT {
            self.commit_now = true;
        }
        // A renewal saw a waiter, and no commit has proved since that the partition is still ours: as if revoked (!).
        if self.shared.rules.prove_to_waiter
            && self.prove.is_some_and(|since| since.elapsed() > self.shared.guard.store().lease_time())
            && matches!(self.mode, Mode::Running)
        {
            tracing::warn!(kafka.partition = %self.id, "the group does not confirm this partition and another worker waits for it; giving it up");
            self.abandon();
        }
    }

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

    /// Sends the due commit, if none is under way.
    pub(super) fn start_commit(&mut self) {
        if self.commit_now && !self.committing && matches!(self.mode, Mode::Running) && !matches!(self.lease, LeaseState::Gone) {
            self.commit_now = false;
            self.send_commit(None);
        }
    }

    fn send_commit(&mut self, until: Option<Instant>) {
        let snapshot = self.snapshot();
        self.committing = true;
        let commit = Commit { partition: self.id.clone(), offset: snapshot.offset, metadata: snapshot.metadata.clone() };
        let commits = self.shared.commits.clone();
        self.io.push(Box::pin(async move {
            let call = commits.commit(commit);
            let result = match until {
                None => call.await,
                Some(until) => tokio::time::timeout_at(until, call)
                    .await
                    .unwrap_or_else(|_| Err(CommitError::Retriable("no answer in time".to_owned()))),
            };
            Io::Committed { snapshot, result }
        }));
    }

    /// Offset and map of this moment, from the heads of every lane.
    fn snapshot(&mut self) -> Snapshot {
        let now = Instant::now();
        let wall_ms = self.shared.clock.now_ms();
        let heads = self.lanes.iter().filter_map(|(_, lane)| {
            let offset = lane.head()?;
            let work = lane.work.as_deref();
            let due = work.into_iter().flat_map(|work| &work.parts).filter_map(|part| match part.state {
                PartState::Retry { due } => Some(wall_ms + super::work::millis(due.saturating_duration_since(now))),
                _ => None,
            });
            // A head whose turn has not come still has what the loaded map said of it.
            let hint = self.hints.get(&offset).filter(|_| work.is_none());
            let attempts = work.map_or(0, |work| work.attempts()).max(hint.map_or(0, |hint| hint.attempts));
            let due_ms = due.min().or(hint.and_then(|hint| hint.due_ms));
            Some(Head { offset, first_keyed: lane.first_keyed(), attempts, due_ms })
        });
        if !self.shared.rules.one_snapshot {
            let now = heads.collect();
            let before = std::mem::replace(&mut self.heads_before, now);
            return self.tracker.snapshot(before, self.map_epoch, self.limits);
        }
        self.tracker.snapshot(heads, self.map_epoch, self.limits)
    }

    pub(super) fn on_committed(&mut self, snapshot: Snapshot, result: Result<(), CommitError>) {
        self.committing = false;
        self.last_commit = Instant::now();
        let committed = result.is_ok();
        let passing = matches!(result, Err(CommitError::Retriable(_)));
        match result {
            Ok(()) => {
                self.prove = None;
                if std::mem::take(&mut self.regaining) {
                    self.ask_for_lease();
                }
                self.tracker.acked(&snapshot);
                let chars = snapshot.metadata.encode_utf16().count();
                let labels = [&*self.id.topic, &self.id.partition.to_string()];
                self.shared.metrics.commit_map_chars.with_label_values(&labels).set(i64::try_from(chars).unwrap_or(i64::MAX));
                self.sweep(snapshot.offset);
            }
            Err(CommitError::MetadataTooLarge) => {
                // The broker refuses per partition, the client reports all: whoever is longer than the new limit is sent shorter.
                self.limits = self.limits.halved();
                self.commit_now = true;
                if let Mode::Draining(drain) = &mut self.mode
                    && drain.committed == Some(None)
                {
                    drain.committed = None;
                }
                return;
            }
            Err(CommitError::NotOwner(_)) if (self.prove.is_some() || self.regaining) && matches!(self.mode, Mode::Running) => {
                self.abandon()
            }
            Err(_) => {}
        }
        let now = Instant::now();
        if let Mode::Draining(drain) = &mut self.mode {
            // A commit of before the drain is not the final one; one that met passing trouble is sent again while there is time (F40).
            drain.committed = match drain.committed {
                Some(_) if passing && now < drain.deadline => {
                    drain.again_at = Some(now + COMMIT_PAUSE);
                    None
                }
                sent => sent.map(|_| Some(committed)),
            };
        }
    }

    /// The end: the lease goes back where nothing of ours can still run, then whoever waits is answered.
    pub(super) async fn leave(mut self) {
        let Mode::Over(answer) = std::mem::replace(&mut self.mode, Mode::Over(None)) else { return };
        self.clear_report();
        let idle = self.runs.is_empty();
        self.cancelled.cancel();
        // Runs and answers still under way end here; what they would have said is asked again by the next owner.
        let (shared, id, owner) = (Arc::clone(&self.shared), self.id.clone(), Arc::clone(&self.owner));
        drop(self);
        // Also one that was granted and not heard of yet: else it would be renewed for ever.
        if let Some(held) = shared.keeper.forget(&owner).filter(|held| idle && !held.gone()) {
            release(&shared, &held).await;
        }
        if let Some((drained, left)) = answer {
            tracing::debug!(kafka.partition = %id, runs = left.runs, committed = left.committed, "partition drained");
            // The engine that asked may have given up meanwhile.
            let _gone = drained.send(left);
        }
    }

    /// The log was recreated or truncated: what the lanes hold is of a log that no longer exists.
    pub(super) fn forget_log(&mut self) {
        tracing::error!(kafka.partition = %self.id, events = self.counts.taken - self.counts.settled, "the log has turned back (topic recreated?); events of the old one are dropped");
        self.gate.subtract(self.lanes.iter().map(|(_, lane)| lane.footprint()).sum());
        self.lanes = super::lane::Lanes::default();
        self.counts.settled = self.counts.taken;
        self.counts.stubs = 0;
        self.runs.clear();
        self.queues.clear();
        self.io = FuturesUnordered::new();
        self.timer = super::timer::Timer::default();
        (self.checking, self.saving, self.finishing, self.refetching, self.committing) = (false, false, false, false, false);
        self.burying = 0;
        self.ready.clear();
        self.twins.clear();
        self.to_save.clear();
        self.to_bury.clear();
        self.to_finish.clear();
        self.to_refetch.clear();
        self.hints.clear();
        self.remembered.clear();
        self.mark = -1;
        if matches!(self.lease, LeaseState::Asking) {
            self.ask_for_lease();
        }
    }
}

async fn release(shared: &Shared, held: &Held) {
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

fn answer(drained: oneshot::Sender<Left>, left: Left, next: Mode) -> Mode {
    // The engine that asked may have given up meanwhile.
    let _gone = drained.send(left);
    next
}
