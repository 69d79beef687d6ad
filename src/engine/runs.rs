//! Runs that wait for something, each with its time limit. One alarm is kept for all of a partition's: a timer of its own costs a run more
//! than its place among the others.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::time::Instant;

use super::{dispatch::RunDone, lane::LaneId, limits::Permit};
use crate::outcome::{HandlerResult, Outcome};

/// One that goes on. Dropping it ends it.
pub(super) struct Going {
    pub(super) lane: LaneId,
    pub(super) part: usize,
    pub(super) handler: usize,
    pub(super) started: Instant,
    /// Longest that it may take.
    pub(super) limit: Duration,
    pub(super) answer: BoxFuture<'static, HandlerResult>,
    /// `None` once it has ended.
    pub(super) permit: Option<Permit>,
    /// Its time is over.
    pub(super) late: bool,
}

impl Future for Going {
    type Output = RunDone;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<RunDone> {
        let run = &mut *self;
        let outcome = match poll_answer(&mut run.answer, context) {
            Poll::Ready(outcome) => outcome,
            Poll::Pending if run.late => Outcome::TimedOut(run.limit),
            Poll::Pending => return Poll::Pending,
        };
        run.permit = None;
        let at = Instant::now();
        Poll::Ready(RunDone { lane: run.lane, part: run.part, handler: run.handler, outcome, took: at - run.started, at })
    }
}

/// What a handler answers; that it panicked is an answer as well.
pub(super) fn poll_answer(answer: &mut BoxFuture<'static, HandlerResult>, context: &mut Context<'_>) -> Poll<Outcome> {
    match catch_unwind(AssertUnwindSafe(|| answer.as_mut().poll(context))) {
        Ok(Poll::Ready(result)) => Poll::Ready(Outcome::Answered(result)),
        Ok(Poll::Pending) => Poll::Pending,
        Err(panic) => Poll::Ready(Outcome::Panicked(panic_message(&*panic))),
    }
}

/// What a panic said, where it said it in words.
pub(super) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

/// Those of a partition.
#[derive(Default)]
pub(super) struct Runs {
    going: FuturesUnordered<Going>,
    /// Nobody's time is over before this.
    look_at: Option<Instant>,
}

impl Runs {
    /// How many go on.
    pub(super) fn len(&self) -> usize {
        self.going.len()
    }

    /// Whether none does.
    pub(super) fn is_empty(&self) -> bool {
        self.going.is_empty()
    }

    /// One more, to be polled.
    pub(super) fn push(&mut self, run: Going) {
        let end = run.started + run.limit;
        self.look_at = Some(self.look_at.map_or(end, |at| at.min(end)));
        self.going.push(run);
    }

    /// Ends all.
    pub(super) fn clear(&mut self) {
        self.going.clear();
        self.look_at = None;
    }

    /// When somebody's time may be over.
    pub(super) fn look_at(&self) -> Option<Instant> {
        self.look_at.filter(|_| !self.is_empty())
    }

    /// Finds those whose time is over: they end when they are polled next, unless they have an answer then.
    pub(super) fn look(&mut self, now: Instant) {
        if self.look_at.is_none_or(|at| now < at) {
            return;
        }
        self.look_at = None;
        // All are polled anew: nothing else wakes one that waits. That is once per time limit, not per run.
        for mut run in std::mem::take(&mut self.going) {
            run.late = run.started + run.limit <= now;
            if run.late {
                self.going.push(run);
            } else {
                self.push(run);
            }
        }
    }

    /// Adds those that have ended; pending where none has.
    pub(super) fn poll_ended(&mut self, context: &mut Context<'_>, ended: &mut Vec<RunDone>) -> Poll<()> {
        while let Poll::Ready(Some(done)) = self.going.poll_next_unpin(context) {
            ended.push(done);
        }
        if ended.is_empty() { Poll::Pending } else { Poll::Ready(()) }
    }
}
