//! Verdicts made durable: failures to the store before the backoff, dead letters to the broker, finished events to the ledger;
//! only then is an event settled.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    dead::Cause,
    dispatch::RunDone,
    guard::NoAnswer,
    io::Io,
    lane::{LaneId, Stage},
    meters::TypeId,
    partition::Partition,
    ports::Member,
    subject::Subject,
    work::{Answer, Part, PartState, Verdict},
};
use crate::outcome::{DeadReason, Outcome, Settled};

/// An event whose handlers are through in part only is written down after this long. A record costs Redis 3 to 6 us, removal included, a
/// verdict 1 us: where all handlers are quick none is written, and where they are not they bound how many there are.
const NOTE_AFTER: Duration = Duration::from_millis(20);

impl Partition {
    /// A run ended: notes it, and goes on when the event's other runs have ended too.
    pub(super) fn on_run(&mut self, done: RunDone) {
        let now = done.at;
        let Some(work) = self.lanes[done.lane].work.as_mut() else { return };
        self.meters.ran(work.kind, done.handler, &done.outcome, done.took);
        let failure = failure_text(&done.outcome);
        let failed = !matches!(done.outcome, Outcome::Answered(Ok(_)));
        let schedule = self.shared.schedules.schedule_for(work.subject.event_type().unwrap_or_default());
        // Of a failure alone the store is told when it was.
        let store_ms = if failed { self.shared.keeper.store_ms(now) } else { 0 };
        let delay = work.answered(done.part, Answer { outcome: done.outcome, schedule, now, store_ms }, &mut self.rng);
        if let Some(delay) = delay {
            let (handler, label) = (&self.shared.registry.bindings()[done.handler], self.meters.label(work.kind));
            self.shared.metrics.retries_scheduled.with_label_values(&[&*handler.name, label]).inc();
            tracing::info!(
                event.id = work.subject.id(), event.r#type = &**label, handler = &*handler.name, kafka.partition = %self.id, kafka.offset = work.offset,
                retry.attempt = work.parts[done.part].attempts, retry.delay_seconds = delay.as_secs_f64(), error = failure, "event failed; it comes again"
            );
        }
        match work.verdict(now) {
            // The others go on; this failure is written down meanwhile.
            Verdict::Running if failed => self.note(done.lane),
            // What has finished is written down where the others take their time: a crash then repeats the unfinished alone.
            Verdict::Running => self.timer.push(now + NOTE_AFTER, done.lane, work.offset),
            Verdict::Run | Verdict::Wait(_) => self.save(done.lane),
            Verdict::Dead => self.give_up(done.lane),
            Verdict::Finished { .. } => self.finish(done.lane),
        }
    }

    /// A head whose verdict is dead. One that no handler ran needs no record: decoding it again gives the same verdict.
    pub(super) fn give_up(&mut self, id: LaneId) {
        let lane = &mut self.lanes[id];
        let Some(work) = &lane.work else { return };
        if matches!(work.subject, Subject::Rejected(_)) {
            self.bury(id);
        } else {
            self.save(id);
        }
    }

    /// Backoff: this lane alone waits, until its event is due or has held it up for too long.
    pub(super) fn wait(&mut self, id: LaneId, due: Instant) {
        let lane = &mut self.lanes[id];
        if lane.overflowing {
            return self.make_ready(id);
        }
        lane.stage = Stage::Waiting;
        let Some(work) = &mut lane.work else { return };
        work.at_work = None;
        self.tracker.touch();
        self.timer.push(due, id, work.offset);
        let too_old = work.since + self.shared.options.max_hold_age;
        if too_old < due {
            self.timer.push(too_old, id, work.offset);
        }
        self.check_overflow(id);
    }

    /// The time that a lane waited for has come.
    pub(super) fn wake(&mut self, id: LaneId, now: Instant) {
        let lane = &self.lanes[id];
        let Some(work) = &lane.work else { return };
        match lane.stage {
            Stage::Waiting if matches!(work.verdict(now), Verdict::Wait(due) if due > now) => self.check_overflow(id),
            Stage::Waiting => self.make_ready(id),
            Stage::Running if work.parts.iter().any(Part::finished) => self.note(id),
            _ => {}
        }
    }

    /// All handlers are through: the verdict goes to the ledger.
    pub(super) fn finish(&mut self, id: LaneId) {
        self.lanes[id].stage = Stage::Finishing;
        if self.shared.rules.ledger_before_settle {
            self.to_finish.push(id);
        } else {
            self.settle_finished(id, Instant::now());
        }
    }

    /// Sends the next verdicts, if none are under way; only under a valid lease (!).
    pub(super) fn start_finish(&mut self, now: Instant) {
        if self.verdicts_wait(now) || !self.may_write() {
            return;
        }
        let Some(held) = self.held().cloned() else {
            let lanes = std::mem::take(&mut self.to_finish);
            return self.on_finished(lanes, Err(NoAnswer::Bypassed), 0);
        };
        let allowed = held.valid(Instant::now()) || !self.shared.rules.verdict_under_lease;
        if !allowed && !self.shared.guard.bypassing_leases() {
            self.stalled = true;
            return;
        }
        let mut lanes = std::mem::take(&mut self.to_finish);
        // One that a drain's commit has settled meanwhile has nothing to say any more.
        lanes.retain(|&id| self.lanes.get(id).is_some_and(|lane| lane.stage == Stage::Finishing));
        if lanes.is_empty() {
            return;
        }
        self.finishing = lanes.len();
        let members: Vec<Member> = lanes.iter().filter_map(|&id| self.lanes[id].work.as_ref().map(|work| work.member)).collect();
        let shared = Arc::clone(&self.shared);
        self.io.push(Box::pin(async move {
            if !shared.rules.verdict_under_lease
                && let Ok(added) = shared.guard.store().finish(&held.lease, members.clone()).await
            {
                return Io::Finished { lanes, result: Ok(added), epoch: held.lease.epoch };
            }
            let result = shared.guard.ask_under(&held, |store| store.finish(&held.lease, members.clone())).await;
            Io::Finished { lanes, result, epoch: held.lease.epoch }
        }));
    }

    pub(super) fn on_finished(&mut self, lanes: Vec<LaneId>, result: Result<usize, NoAnswer>, epoch: u64) {
        self.finishing = 0;
        match result {
            Err(NoAnswer::Fenced) => {
                // Written again under the next lease.
                self.to_finish.extend(lanes);
                return self.fenced(epoch);
            }
            Ok(added) if added < lanes.len() => {
                tracing::warn!(kafka.partition = %self.id, events = lanes.len() - added, "another worker finished the same event ids in the meantime");
            }
            Ok(_) | Err(NoAnswer::Bypassed) => {}
        }
        let now = Instant::now();
        for id in lanes {
            self.settle_finished(id, now);
        }
    }

    /// Settles a head whose handlers are all through.
    pub(super) fn settle_finished(&mut self, id: LaneId, now: Instant) {
        let lane = self.lanes.get(id).filter(|lane| lane.stage == Stage::Finishing);
        let Some(work) = lane.and_then(|lane| lane.work.as_ref()) else { return };
        let settled = match work.verdict(now) {
            Verdict::Dead => Settled::Dead(Cause::of(work).reason),
            Verdict::Finished { effect: false } => Settled::Dropped,
            _ => Settled::Done,
        };
        self.settle(id, settled);
    }

    /// The head is settled: the lane's next event has its turn.
    pub(super) fn settle(&mut self, id: LaneId, settled: Settled) {
        let lane = &mut self.lanes[id];
        let Some(work) = lane.work.take() else { return };
        lane.overflowing &= matches!(settled, Settled::Dead(_));
        // What was still to be written was said of this event.
        lane.to_save = false;
        if matches!(settled, Settled::Done | Settled::Dropped) {
            self.handled_from = self.handled_from.max(Some(work.since));
        }
        if work.recorded {
            self.removable.push_back(work.offset);
        }
        if let Some(ms) = work.subject.record().timestamp() {
            #[expect(clippy::cast_precision_loss, reason = "an age in milliseconds")]
            self.meters.latency(self.wall_ms.saturating_sub(ms).max(0) as f64 / 1000.0);
        }
        let bytes = work.subject.record().footprint();
        self.settle_now(id, work.offset, bytes, settled, work.kind);
    }

    /// Counts a settlement and moves the lane on.
    pub(super) fn settle_now(&mut self, id: LaneId, offset: i64, bytes: usize, settled: Settled, kind: TypeId) {
        self.gate.subtract(bytes);
        self.tracker.settle(offset);
        self.counts.settled += 1;
        self.meters.settled(kind, settled);
        let metrics = &self.shared.metrics;
        let died = matches!(settled, Settled::Dead(reason) if reason != DeadReason::UserOverflow);
        match self.shared.breaker.settled(died) {
            Some(true) => {
                metrics.dlq_breaker_open.set(1);
                tracing::error!("too many events die: dead-lettering is down to one a second until enough succeed again (a bad deploy?)");
            }
            Some(false) => {
                metrics.dlq_breaker_open.set(0);
                tracing::info!("enough events succeed again: dead letters flow freely");
            }
            None => {}
        }
        if settled == Settled::Unrouted {
            self.shared.unrouted(self.meters.label(kind));
        }
        if self.paused == Some(id) {
            self.paused = None;
            self.gate.set_paused(false);
        }
        if self.lanes[id].len() == 0 {
            self.lanes.remove(id);
        } else {
            self.make_ready(id);
        }
    }
}

/// Error text of a failed run, for the log.
fn failure_text(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Answered(Ok(_)) => String::new(),
        Outcome::Answered(Err(failure)) => failure.error().to_owned(),
        Outcome::TimedOut(limit) => format!("no answer within {}", humantime::format_duration(*limit)),
        Outcome::Panicked(message) => format!("handler panicked: {message}"),
    }
}

/// Whether some handlers are through and others have runs to come, for `drain`.
pub(super) fn half_finished(parts: &[Part]) -> bool {
    parts.iter().any(Part::finished) && parts.iter().any(|part| matches!(part.state, PartState::Pending | PartState::Retry { .. }))
}
