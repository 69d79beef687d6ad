//! Permits and runs: a checked head's handlers run as soon as limits and lease allow.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures_util::FutureExt;
use tokio::time::Instant;

use super::{
    io::Io,
    lane::{LaneId, Stage},
    limits::{Kind, Permit, Permits},
    ownership::LeaseState,
    partition::Partition,
    runs::{Going, panic_message, poll_answer},
    subject::Subject,
    work::PartState,
};
use crate::{handler::Run, outcome::Outcome};

/// Runs that end at once may take this much of the partition's time before its other work has its turn.
const AT_ONCE: Duration = Duration::from_millis(1);

/// How a run ended.
pub(super) struct RunDone {
    pub(super) lane: LaneId,
    pub(super) part: usize,
    pub(super) handler: usize,
    pub(super) outcome: Outcome,
    pub(super) took: Duration,
    /// When.
    pub(super) at: Instant,
}

/// One handler's heads of one kind that wait for permits.
#[derive(Default)]
struct Queue {
    waiting: VecDeque<(LaneId, usize)>,
    /// A permit in turn has been asked for.
    asked: bool,
    granted: Option<Permit>,
}

/// Runs that wait, by handler and kind.
pub(super) struct Queues {
    queues: Vec<Queue>,
    len: usize,
}

impl Queues {
    pub(super) fn new(handlers: usize) -> Self {
        Self { queues: (0..handlers * Kind::ALL.len()).map(|_| Queue::default()).collect(), len: 0 }
    }

    /// How many first runs wait for what every event's would wait for, as [`Partition::dispatch`] leaves them: the permits that all handlers
    /// share, or those of the only one.
    pub(super) fn stuck(&self, permits: &Permits) -> usize {
        let first = self.queues.iter().skip(Kind::First as usize).step_by(Kind::ALL.len()).enumerate();
        let alone = self.queues.len() == Kind::ALL.len();
        first.filter(|(handler, _)| alone || permits.in_common(*handler)).map(|(_, queue)| queue.waiting.len()).sum()
    }

    /// Gives back what was granted and cannot be used now.
    fn give_back(&mut self) {
        for queue in &mut self.queues {
            queue.granted = None;
        }
    }

    /// Forgets every run that waits, and gives back what was granted; answers their lanes.
    pub(super) fn clear(&mut self) -> Vec<(LaneId, usize)> {
        self.len = 0;
        self.queues
            .iter_mut()
            .flat_map(|queue| {
                queue.granted = None;
                queue.waiting.drain(..)
            })
            .collect()
    }
}

impl Partition {
    /// Queues a run for each handler of the head that has one due.
    pub(super) fn queue_runs(&mut self, id: LaneId, now: Instant) {
        let lane = &mut self.lanes[id];
        let Some(work) = &mut lane.work else { return };
        lane.stage = Stage::Running;
        let suspect = work.unanswered() > 0 && self.shared.rules.suspects_alone;
        for (index, part) in work.parts.iter_mut().enumerate() {
            let retry = match part.state {
                PartState::Pending => false,
                PartState::Retry { due } => {
                    if due > now {
                        continue;
                    }
                    true
                }
                _ => continue,
            };
            let Some(handler) = part.handler else { continue };
            let kind = if suspect {
                Kind::Suspect
            } else if retry || part.attempts > 0 {
                Kind::Retry
            } else {
                Kind::First
            };
            part.state = PartState::Running;
            self.queues.queues[handler * Kind::ALL.len() + kind as usize].waiting.push_back((id, index));
            self.queues.len += 1;
        }
    }

    /// Starts what has a permit; asks for permits in turn where there is none.
    pub(super) fn dispatch(&mut self) {
        self.more_runs = false;
        if self.queues.len == 0 {
            return;
        }
        let now = Instant::now();
        if !self.may_run(now) {
            self.stalled = true;
            self.queues.give_back();
            return;
        }
        let until = now + AT_ONCE;
        for number in 0..self.queues.queues.len() {
            let (handler, kind) = (number / Kind::ALL.len(), Kind::ALL[number % Kind::ALL.len()]);
            while !self.queues.queues[number].waiting.is_empty() {
                if self.more_runs {
                    break;
                }
                let queue = &mut self.queues.queues[number];
                let Some(permit) =
                    queue.granted.take().or_else(|| if queue.asked { None } else { self.shared.permits.try_acquire(handler, kind) })
                else {
                    if !queue.asked {
                        queue.asked = true;
                        let acquire = self.shared.permits.acquire(handler, kind);
                        self.io.push(Box::pin(acquire.map(move |permit| Io::Granted { queue: number, permit })));
                    }
                    break;
                };
                let Some((id, part)) = queue.waiting.pop_front() else { break };
                self.queues.len -= 1;
                let Some(run) = self.run_of(id, part) else { continue };
                match self.start_run(id, part, handler, run, permit) {
                    Started::Goes => {}
                    Started::Ended { done, permit } => {
                        self.more_runs = done.at >= until;
                        self.on_run(done);
                        // The next run may have it: nobody was let wait for longer than this.
                        self.queues.queues[number].granted = Some(permit);
                    }
                }
            }
            // A permit that nobody here needs belongs to the others.
            self.queues.queues[number].granted = None;
        }
    }

    pub(super) fn on_granted(&mut self, queue: usize, permit: Permit) {
        let queue = &mut self.queues.queues[queue];
        queue.asked = false;
        queue.granted = Some(permit).filter(|_| !queue.waiting.is_empty());
    }

    fn run_of(&self, lane: LaneId, part: usize) -> Option<Run> {
        let work = self.lanes[lane].work.as_ref()?;
        let Subject::Event(event) = &work.subject else { return None };
        let epoch = match &self.lease {
            LeaseState::Held(held) => held.lease.epoch,
            // Never lower than what handlers have seen.
            LeaseState::Asking | LeaseState::Gone => self.map_epoch,
        };
        Some(Run { event: Arc::clone(event), attempt: work.parts[part].attempts + 1, epoch, cancelled: Arc::clone(&self.cancelled) })
    }

    /// Begins a run. Many end without waiting for anything: those need no place among the runs that go on, and no time limit.
    fn start_run(&mut self, lane: LaneId, part: usize, handler: usize, run: Run, permit: Permit) -> Started {
        let binding = &self.shared.registry.bindings()[handler];
        let (call, limit) = (Arc::clone(&binding.handler), binding.timeout);
        let started = Instant::now();
        let ended = |outcome, permit| {
            let at = Instant::now();
            Started::Ended { done: RunDone { lane, part, handler, outcome, took: at - started, at }, permit }
        };
        let mut answer = match catch_unwind(AssertUnwindSafe(|| call.handle_boxed(run))) {
            Ok(answer) => answer,
            Err(panic) => return ended(Outcome::Panicked(panic_message(&*panic)), permit),
        };
        // Whoever goes on is polled again, with a waker, before the partition waits.
        match poll_answer(&mut answer, &mut Context::from_waker(Waker::noop())) {
            Poll::Ready(outcome) => ended(outcome, permit),
            Poll::Pending => {
                self.runs.push(Going { lane, part, handler, started, limit, answer, permit: Some(permit), late: false });
                Started::Goes
            }
        }
    }
}

/// How a run began.
enum Started {
    /// It waits for something.
    Goes,
    /// It has ended already.
    Ended { done: RunDone, permit: Permit },
}
