//! Verdicts made durable: failures to the store before the backoff, dead letters to the broker, finished events to the ledger;
//! only then is an event settled.

use std::sync::Arc;

use tokio::time::Instant;

use super::{
    Label,
    dead::{self, Cause},
    dispatch::RunDone,
    guard::NoAnswer,
    lane::{LaneId, Stage},
    limits::Breaker,
    partition::{Io, Partition},
    ports::{Acked, Member},
    work::{PartState, Subject, Verdict},
};
use crate::outcome::{DeadReason, Outcome, Settled};

impl Partition {
    /// A run ended: notes it, and goes on when the event's other runs have ended too.
    pub(super) fn on_run(&mut self, done: RunDone) {
        let now = Instant::now();
        let store_ms = self.shared.keeper.store_ms(now);
        let Some(work) = self.lanes[done.lane].work.as_mut() else { return };
        let label = self.shared.label(work.subject.event_type());
        let handler = &self.shared.registry.bindings()[done.handler];
        let metrics = &self.shared.metrics;
        metrics.handler_runs.with_label_values(&[&*handler.name, &*label, done.outcome.code()]).inc();
        metrics.handler_duration.with_label_values(&[&*handler.name, &*label]).observe(done.took.as_secs_f64());
        let schedule = self.shared.schedules.schedule_for(work.subject.event_type().unwrap_or_default());
        let failure = failure_text(&done.outcome);
        let failed = !matches!(done.outcome, Outcome::Answered(Ok(_)));
        let delay = work.answered(done.part, done.outcome, schedule, now, store_ms, &mut self.rng);
        if let Some(delay) = delay {
            metrics.retries_scheduled.with_label_values(&[&*handler.name, &*label]).inc();
            tracing::info!(
                event.id = work.subject.id(), event.r#type = &*label, handler = &*handler.name, kafka.partition = %self.id, kafka.offset = work.offset,
                retry.attempt = work.parts[done.part].attempts, retry.delay_seconds = delay.as_secs_f64(), error = failure, "event failed; it comes again"
            );
        }
        match work.verdict(now) {
            // The others go on; this failure is written down meanwhile.
            Verdict::Running if failed => self.note_failure(done.lane),
            Verdict::Running => {}
            Verdict::Run | Verdict::Wait(_) => self.save(done.lane),
            Verdict::Dead => self.give_up(done.lane),
            Verdict::Finished { .. } => self.finish(done.lane),
        }
    }

    /// Writes the head's record before what comes next: its backoff, or its dead letter.
    fn save(&mut self, id: LaneId) {
        self.lanes[id].stage = Stage::Saving;
        if self.shared.rules.save_before_next {
            self.note_failure(id);
        } else {
            self.on_saved(vec![id], Err(NoAnswer::Bypassed));
        }
    }

    /// Queues the head's record to be written, if it is not queued.
    fn note_failure(&mut self, id: LaneId) {
        if self.shared.rules.save_before_next && !self.to_save.contains(&id) {
            self.to_save.push(id);
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

    /// Sends the next save, if none is under way. Fields of settled events that a commit has covered go with it.
    pub(super) fn start_save(&mut self) {
        if self.saving || self.to_save.is_empty() || !self.may_write() {
            return;
        }
        self.saving = true;
        let lanes = std::mem::take(&mut self.to_save);
        let now = Instant::now();
        let store_ms = self.shared.keeper.store_ms(now);
        let mut changes = Vec::with_capacity(lanes.len());
        for &id in &lanes {
            if let Some(work) = &mut self.lanes[id].work {
                work.recorded = true;
                changes.push((work.offset, Some(work.to_record(now, store_ms))));
            }
        }
        let Some(held) = self.held().cloned() else {
            return self.on_saved(lanes, Err(NoAnswer::Bypassed));
        };
        let shared = Arc::clone(&self.shared);
        self.io.push(Box::pin(async move {
            let result = shared.guard.ask(|store| store.save(&held.lease, changes.clone())).await;
            Io::Saved { lanes, result }
        }));
    }

    /// Removes the records of settled events that the commit up to `committed` covers.
    pub(super) fn sweep(&mut self, committed: i64) {
        let Some(held) = self.held().cloned() else { return };
        if self.saving {
            return;
        }
        let mut covered: Vec<i64> = Vec::new();
        self.removable.retain(|&offset| {
            let goes = offset < committed;
            if goes {
                covered.push(offset);
            }
            !goes
        });
        if covered.is_empty() {
            return;
        }
        self.saving = true;
        let shared = Arc::clone(&self.shared);
        self.io.push(Box::pin(async move {
            let changes = covered.iter().map(|&offset| (offset, None)).collect();
            let left = match shared.guard.store().save(&held.lease, changes).await {
                Ok(()) => Vec::new(),
                Err(error) => {
                    tracing::debug!(error = %error, "records of settled events not removed; trying again after the next commit");
                    covered
                }
            };
            Io::Swept { left }
        }));
    }

    pub(super) fn on_saved(&mut self, lanes: Vec<LaneId>, result: Result<(), NoAnswer>) {
        self.saving = false;
        if result == Err(NoAnswer::Fenced) {
            // Written again under the next lease.
            self.to_save.extend(lanes);
            return self.lease_gone();
        }
        let now = Instant::now();
        for id in lanes {
            // Written while a run went on, or to be written again with what another run has answered since.
            if self.lanes.get(id).is_none_or(|lane| lane.stage != Stage::Saving) || self.to_save.contains(&id) {
                continue;
            }
            match self.lanes[id].work.as_ref().map(|work| work.verdict(now)) {
                Some(Verdict::Wait(due)) => self.wait(id, due),
                Some(Verdict::Run) => self.make_ready(id),
                Some(Verdict::Dead) => self.bury(id),
                Some(Verdict::Finished { .. }) => self.finish(id),
                Some(Verdict::Running) | None => {}
            }
        }
    }

    /// Backoff: this lane alone waits.
    pub(super) fn wait(&mut self, id: LaneId, due: Instant) {
        let lane = &mut self.lanes[id];
        if lane.overflowing {
            return self.make_ready(id);
        }
        lane.stage = Stage::Waiting;
        if let Some(work) = &mut lane.work {
            work.at_work = None;
        }
        self.tracker.touch();
        if let Some(offset) = self.lanes[id].head() {
            self.timer.push(due, id, offset);
        }
        self.check_overflow(id);
    }

    fn bury(&mut self, id: LaneId) {
        self.lanes[id].stage = Stage::Burying;
        self.to_bury.push_back(id);
    }

    /// Publishes dead letters that the breaker lets through.
    pub(super) fn start_bury(&mut self) {
        let now = Instant::now();
        // The next owner writes what is not written under this lease (F71).
        if !self.to_bury.is_empty() && !self.may_run(now) {
            self.stalled = true;
            return;
        }
        while self.bury_again_at.is_none() {
            let Some(&id) = self.to_bury.front() else { return };
            let Some(work) = &mut self.lanes[id].work else { return };
            let cause = Cause::of(work);
            if cause.reason != DeadReason::UserOverflow {
                match Breaker::admit(&self.shared.breaker, now) {
                    Ok(admission) => work.admission = Some(admission),
                    Err(at) => {
                        self.bury_again_at = Some(at);
                        return;
                    }
                }
            }
            self.to_bury.pop_front();
            let schedule = self.shared.schedules.schedule_for(work.subject.event_type().unwrap_or_default());
            let wall = self.shared.clock.now();
            let ago = self.shared.keeper.store_ms(now).saturating_sub(work.first_failed_ms);
            let first = if work.failed() { wall - chrono::TimeDelta::milliseconds(i64::try_from(ago).unwrap_or_default()) } else { wall };
            let topic = dead::letter_topic(work, &self.shared.registry, &self.shared.origin.topic);
            let letter = dead::letter(work, &cause, &self.shared.origin, topic, &schedule.to_string(), wall, first);
            let (shared, held) = (Arc::clone(&self.shared), self.held().cloned());
            let last = self.last_letters.clone();
            self.burying += 1;
            if !self.shared.rules.letter_before_settle {
                self.finish(id);
            }
            self.io.push(Box::pin(async move {
                let acked = dead::bury(&shared, held.as_deref(), letter, &last).await;
                let reason = if acked.is_some_and(|(_, stub)| stub) { DeadReason::Oversize } else { cause.reason };
                Io::Buried { lane: id, cause: Cause { reason, ..cause }, acked: acked.map(|(acked, _)| acked) }
            }));
        }
    }

    pub(super) fn on_buried(&mut self, id: LaneId, cause: &Cause, acked: Option<Acked>) {
        self.burying -= 1;
        let Some(acked) = acked else { return };
        if !self.shared.rules.letter_before_settle {
            return;
        }
        let Some(work) = &self.lanes[id].work else { return };
        let label = self.shared.label(work.subject.event_type());
        self.shared.metrics.dead_letters.with_label_values(&[&*self.id.topic, &*label, cause.reason.code()]).inc();
        tracing::error!(
            event.id = work.subject.id(), event.r#type = &*label, dlq.reason = cause.reason.code(), dlq.partition = acked.partition, dlq.offset = acked.offset,
            kafka.partition = %self.id, kafka.offset = work.offset, retry.attempts = cause.attempts, handler = cause.handlers, error = cause.error, "event dead-lettered"
        );
        self.shared.alerts.dead_letter(&label, cause, &self.id, work.offset);
        self.finish(id);
    }

    /// All handlers are through: the verdict goes to the ledger.
    pub(super) fn finish(&mut self, id: LaneId) {
        self.lanes[id].stage = Stage::Finishing;
        if self.shared.rules.ledger_before_settle {
            self.to_finish.push(id);
        } else {
            self.settle_finished(id);
        }
    }

    /// Sends the next verdicts, if none are under way; only under a valid lease (!).
    pub(super) fn start_finish(&mut self) {
        if self.finishing || self.to_finish.is_empty() {
            return;
        }
        if !self.may_write() {
            return;
        }
        let Some(held) = self.held().cloned() else {
            let lanes = std::mem::take(&mut self.to_finish);
            return self.on_finished(lanes, Err(NoAnswer::Bypassed));
        };
        if !held.valid(Instant::now()) && !self.shared.guard.bypassing() {
            self.stalled = true;
            return;
        }
        self.finishing = true;
        let lanes = std::mem::take(&mut self.to_finish);
        let members: Vec<Member> = lanes.iter().filter_map(|&id| self.lanes[id].work.as_ref().map(|work| work.member)).collect();
        let shared = Arc::clone(&self.shared);
        self.io.push(Box::pin(async move {
            let result = shared.guard.ask_under(&held, |store| store.finish(&held.lease, members.clone())).await;
            Io::Finished { lanes, result }
        }));
    }

    pub(super) fn on_finished(&mut self, lanes: Vec<LaneId>, result: Result<usize, NoAnswer>) {
        self.finishing = false;
        match result {
            Err(NoAnswer::Fenced) => {
                // Written again under the next lease.
                self.to_finish.extend(lanes);
                return self.lease_gone();
            }
            Ok(added) if added < lanes.len() => {
                tracing::warn!(kafka.partition = %self.id, events = lanes.len() - added, "another worker finished the same event ids in the meantime");
            }
            Ok(_) | Err(NoAnswer::Bypassed) => {}
        }
        for id in lanes {
            self.settle_finished(id);
        }
    }

    /// Settles a head whose handlers are all through.
    pub(super) fn settle_finished(&mut self, id: LaneId) {
        let Some(work) = self.lanes.get(id).and_then(|lane| lane.work.as_ref()) else { return };
        let settled = match work.verdict(Instant::now()) {
            Verdict::Dead => Settled::Dead(Cause::of(work).reason),
            Verdict::Finished { effect: false } => Settled::Dropped,
            _ => Settled::Done,
        };
        self.settle(id, settled);
    }

    /// The head is settled: the lane's next event has its turn.
    pub(super) fn settle(&mut self, id: LaneId, settled: Settled) {
        let Some(work) = self.lanes[id].work.take() else { return };
        let label = self.shared.label(work.subject.event_type());
        if !matches!(settled, Settled::Dead(_)) {
            self.lanes[id].overflowing = false;
        }
        if work.recorded {
            self.removable.push_back(work.offset);
        }
        if let Some(ms) = work.subject.record().timestamp() {
            let age = self.shared.clock.now().timestamp_millis().saturating_sub(ms).max(0);
            #[expect(clippy::cast_precision_loss, reason = "an age in milliseconds")]
            self.shared.metrics.event_latency.with_label_values(&[&*self.id.topic]).observe(age as f64 / 1000.0);
        }
        let bytes = work.subject.record().footprint();
        self.settle_now(id, work.offset, bytes, settled, &label);
    }

    /// Counts a settlement and moves the lane on.
    pub(super) fn settle_now(&mut self, id: LaneId, offset: i64, bytes: usize, settled: Settled, label: &Label) {
        self.gate.subtract(bytes);
        self.tracker.settle(offset);
        self.counts.settled += 1;
        let metrics = &self.shared.metrics;
        metrics.events_settled.with_label_values(&[&*self.id.topic, &**label, settled.code()]).inc();
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
            self.shared.unrouted(label);
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
pub(super) fn half_finished(parts: &[super::work::Part]) -> bool {
    let any = |wanted: fn(&PartState) -> bool| parts.iter().any(|part| wanted(&part.state));
    any(|state| matches!(state, PartState::Done | PartState::Dropped | PartState::Dead { .. }))
        && any(|state| matches!(state, PartState::Pending | PartState::Retry { .. }))
}
