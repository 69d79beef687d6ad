//! Permits and runs: a checked head's handlers run as soon as limits and lease allow.

use std::{collections::VecDeque, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt;
use tokio::time::Instant;

use super::{
    lane::{LaneId, Stage},
    limits::{Kind, Permit},
    ownership::LeaseState,
    partition::{Io, Partition},
    work::{PartState, Subject},
};
use crate::{handler::Run, outcome::Outcome};

/// How a run ended.
pub(super) struct RunDone {
    pub(super) lane: LaneId,
    pub(super) part: usize,
    pub(super) handler: usize,
    pub(super) outcome: Outcome,
    pub(super) took: Duration,
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
        if self.queues.len == 0 {
            return;
        }
        if !self.may_run(Instant::now()) {
            self.stalled = true;
            self.queues.give_back();
            return;
        }
        for number in 0..self.queues.queues.len() {
            let (handler, kind) = (number / Kind::ALL.len(), Kind::ALL[number % Kind::ALL.len()]);
            while !self.queues.queues[number].waiting.is_empty() {
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
                if let Some((id, part)) = queue.waiting.pop_front() {
                    self.queues.len -= 1;
                    self.start_run(id, part, handler, permit);
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

    fn start_run(&mut self, lane: LaneId, part: usize, handler: usize, permit: Permit) {
        let Some(work) = &self.lanes[lane].work else { return };
        let Subject::Event(event) = &work.subject else { return };
        let epoch = match &self.lease {
            LeaseState::Held(held) => held.lease.epoch,
            // Never lower than what handlers have seen.
            LeaseState::Asking | LeaseState::Gone => self.map_epoch,
        };
        let run = Run { event: Arc::clone(event), attempt: work.parts[part].attempts + 1, epoch, cancelled: self.cancelled.clone() };
        let binding = &self.shared.registry.bindings()[handler];
        let (call, limit) = (Arc::clone(&binding.handler), binding.timeout);
        self.runs.push(Box::pin(async move {
            let started = Instant::now();
            let answer = AssertUnwindSafe(async move { tokio::time::timeout(limit, call.handle_boxed(run)).await }).catch_unwind().await;
            let outcome = match answer {
                Ok(Ok(result)) => Outcome::Answered(result),
                Ok(Err(_elapsed)) => Outcome::TimedOut(limit),
                Err(panic) => Outcome::Panicked(panic_message(&*panic)),
            };
            drop(permit);
            RunDone { lane, part, handler, outcome, took: started.elapsed() }
        }));
    }
}

/// What a panic said, where it said it in words.
fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}
