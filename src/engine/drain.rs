//! The way out: revoke, shutdown and loss are one routine with different ends.

use std::{sync::Arc, time::Duration};

use futures_util::stream::FuturesUnordered;
use tokio::{sync::oneshot, time::Instant};

use super::{
    Left,
    dispatch::Queues,
    io::Command,
    lane::Stage,
    ownership::{LeaseState, release},
    partition::Partition,
    ports::CommitError,
    settle::half_finished,
    work::PartState,
};

/// Dead letters under way are waited for this long at a drain: left behind, they would be written twice.
const BURY_GRACE: Duration = Duration::from_secs(2);
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

    /// The end of a partition that has nothing to commit any more.
    pub(super) fn over_without_commit(drained: Option<oneshot::Sender<Left>>) -> Self {
        Self::Over(drained.map(|drained| (drained, Left { runs: 0, committed: true })))
    }

    /// The answer to a commit, where a drain waits for one. One of before the drain is not the final one; one that met passing trouble is
    /// sent again while there is time (F40), and one that was too large at once.
    pub(super) fn commit_answered(&mut self, result: &Result<(), CommitError>) {
        let Self::Draining(drain) = self else { return };
        let now = Instant::now();
        drain.committed = match (drain.committed, result) {
            (Some(_), Err(CommitError::MetadataTooLarge)) => None,
            (Some(_), Err(CommitError::Retriable(_))) if now < drain.deadline => {
                drain.again_at = Some(now + COMMIT_PAUSE);
                None
            }
            (sent, result) => sent.map(|_| Some(result.is_ok())),
        };
    }
}

impl Drain {
    /// Who waits for the answer.
    pub(super) fn asker(&mut self) -> Option<oneshot::Sender<Left>> {
        self.drained.take()
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
    pub(super) fn abandon(&mut self) {
        self.stop_dispatch();
        self.no_commits.cancel();
        self.mode = Mode::Lingering;
        self.let_go_early();
    }

    /// Takes back every run that has not started, and saves what is half finished. A dead letter under way has its last attempt.
    fn stop_dispatch(&mut self) {
        self.last_letters.cancel();
        let now = Instant::now();
        for (id, index) in self.queues.clear() {
            let Some(work) = &mut self.lanes[id].work else { continue };
            let part = &mut work.parts[index];
            part.state = if part.attempts > 0 { PartState::Retry { due: now } } else { PartState::Pending };
            let runs_on = work.parts.iter().any(|part| part.state == PartState::Running);
            if !runs_on && half_finished(&work.parts) {
                self.save(id);
            }
        }
    }

    /// Whether everything that has ended is written down.
    pub(super) fn written(&self) -> bool {
        self.to_save.is_empty() && !self.saving && self.to_finish.is_empty() && self.finishing == 0
    }

    /// Moves a drain on: runs end, then the final commit, then the end.
    pub(super) fn advance_drain(&mut self) {
        let quiet = self.runs.is_empty() && (self.written() || !self.may_write());
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
                            // A run that ended at the deadline's last moment may still have to be written down.
                            self.mode = if quiet && self.burying == 0 || last {
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
            self.settle_finished(id, Instant::now());
        }
        if let Mode::Draining(drain) = &mut self.mode {
            drain.committed = Some(None);
            let limit = drain.deadline.max(Instant::now()) + COMMIT_LIMIT;
            self.send_commit(Some(limit));
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
        // With them goes what was asked for: permits, answers.
        self.queues = Queues::new(self.shared.registry.bindings().len());
        self.io = FuturesUnordered::new();
        self.timer = super::timer::Timer::default();
        (self.checking, self.finishing) = (0, 0);
        (self.saving, self.refetching, self.committing) = (false, false, false);
        self.burying = 0;
        self.ready.clear();
        self.twins.clear();
        self.to_save.clear();
        self.to_bury.clear();
        self.to_finish.clear();
        self.to_refetch.clear();
        self.hints.clear();
        self.remembered.clear();
        self.sweep_to = None;
        self.mark = -1;
        // The lane that it waited for is of the old log.
        if self.paused.take().is_some() {
            self.gate.set_paused(false);
        }
        // Where a commit has to prove membership first, it asks then.
        if matches!(self.lease, LeaseState::Asking) && !self.regaining {
            self.ask_for_lease();
        }
    }
}

fn answer(drained: oneshot::Sender<Left>, left: Left, next: Mode) -> Mode {
    // The engine that asked may have given up meanwhile.
    let _gone = drained.send(left);
    next
}
