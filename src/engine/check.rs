//! The ledger at an event's turn: one exchange per tick for every lane that is ready, before first runs and retries alike.

use std::{sync::Arc, time::Duration};

use smallvec::SmallVec;
use tokio::time::Instant;

use super::{
    dead,
    guard::NoAnswer,
    intake::Hint,
    io::Io,
    lane::{LaneId, Stage},
    meters::TypeId,
    partition::Partition,
    ports::{Check, EventRecord},
    subject::Subject,
    work::{Part, PartState, Verdict, Work},
};
use crate::{
    event::Event,
    outcome::{DeadReason, Settled},
    retry::{Schedule, clamp_due},
};

/// Heads asked for in one exchange.
pub(super) const BATCH: usize = 512;
/// An id at work in another lane is asked for again after this long.
const TWIN_PAUSE: Duration = Duration::from_millis(20);

/// Answer of the ledger.
pub(super) struct Checked {
    lanes: Vec<LaneId>,
    mark: Option<i64>,
    /// Of which lanes a start was to be counted.
    counted: Vec<LaneId>,
    result: Result<Vec<bool>, NoAnswer>,
    /// Of the lease that it was asked under.
    epoch: u64,
}

impl Partition {
    /// Sends the next ledger check, if none is under way.
    pub(super) fn start_check(&mut self, now: Instant) {
        if self.check_waits(now) {
            return;
        }
        if !self.may_run(now) {
            self.stalled = true;
            return;
        }
        let (mut lanes, mut counted, mut check) = (Vec::new(), Vec::new(), Check::default());
        while lanes.len() < BATCH {
            let Some(id) = self.ready.pop_front() else { break };
            if !self.prepare(id, now) {
                continue;
            }
            if !self.stands_alone(id, now) {
                continue;
            }
            let must_count = self.must_count(id, now);
            let Some(work) = &mut self.lanes[id].work else { continue };
            check.members.push(work.member);
            if self.shared.rules.mark {
                check.mark = check.mark.max(Some(work.offset).filter(|offset| *offset > self.mark));
            }
            if must_count {
                check.starts.push((work.offset, work.member.id));
                work.count_start();
                counted.push(id);
            }
            self.lanes[id].stage = Stage::Checking;
            lanes.push(id);
        }
        if lanes.is_empty() {
            return;
        }
        self.checking = lanes.len();
        let (shared, mark) = (Arc::clone(&self.shared), check.mark);
        // Bypassing: Kafka's assignment alone decides; no ledger, no mark.
        let Some(held) = self.held().cloned() else {
            return self.on_checked(Checked { lanes, mark: None, counted, result: Err(NoAnswer::Bypassed), epoch: 0 });
        };
        self.io.push(Box::pin(async move {
            let result = shared.guard.ask_under(&held, |store| store.check(&held.lease, check.clone())).await;
            Io::Checked(Checked { lanes, mark, counted, result, epoch: held.lease.epoch })
        }));
    }

    /// Whether a head's start has to be written down before it runs: it may have been in a dead owner's hands, and a run that kills the
    /// process must leave a trace (!).
    fn must_count(&self, id: LaneId, now: Instant) -> bool {
        let Some(work) = &self.lanes[id].work else { return false };
        let suspect = self.suspects_below.is_some_and(|mark| work.offset <= mark);
        self.shared.rules.count_starts && suspect && !work.counted && work.verdict(now) == Verdict::Run
    }

    /// Whether a head may be asked for as far as its unanswered runs are concerned: of such events one at a time goes on in this process,
    /// from before its start is counted, so that an innocent one collects no strikes (F54).
    fn stands_alone(&mut self, id: LaneId, now: Instant) -> bool {
        let Some(work) = &mut self.lanes[id].work else { return false };
        if work.unanswered() == 0 || work.alone.is_some() || work.verdict(now) != Verdict::Run {
            return true;
        }
        work.alone = self.shared.permits.try_alone();
        let alone = work.alone.is_some() || !self.shared.rules.suspects_alone;
        if !alone {
            self.twins.push(id);
            self.twins_ask_at.get_or_insert(now + TWIN_PAUSE);
        }
        alone
    }

    /// Makes the head's work ready to be asked for; `false`: it was settled without asking, or must wait.
    fn prepare(&mut self, id: LaneId, now: Instant) -> bool {
        let lane = &mut self.lanes[id];
        if lane.work.is_none() {
            let next = lane.next.take().or_else(|| lane.queue.pop_front().map(|record| self.shared.decode(record)));
            let Some(subject) = next else { return false };
            let bytes = subject.record().footprint();
            lane.queued_bytes -= bytes;
            let work = match self.begin(subject, now) {
                Ok(work) => work,
                Err((offset, settled, kind)) => {
                    self.settle_now(id, offset, bytes, settled, kind);
                    return false;
                }
            };
            self.lanes[id].work = Some(work);
        }
        let lane = &mut self.lanes[id];
        let overflowing = lane.overflowing;
        let Some(work) = &mut lane.work else { return false };
        work.overflowed |= overflowing;
        if work.at_work.is_none() {
            work.at_work = self.claims.enter(work.member.id);
        }
        if work.at_work.is_none() {
            self.twins.push(id);
            self.twins_ask_at.get_or_insert(now + TWIN_PAUSE);
            return false;
        }
        true
    }

    /// An event at its turn: work for its handlers or the DLQ; or what settles without a run: expired, unrouted, skipped.
    fn begin(&mut self, subject: Subject, now: Instant) -> Result<Box<Work>, (i64, Settled, TypeId)> {
        let offset = subject.record().offset();
        let hint = self.hints.remove(&offset);
        let kind = self.meters.type_of(self.shared.label(&subject));
        let parts = match &subject {
            Subject::Rejected(rejected) if rejected.reason == DeadReason::UnknownType && self.shared.options.skip_unknown => {
                return Err((offset, Settled::Dropped, kind));
            }
            Subject::Rejected(_) => SmallVec::new(),
            Subject::Event(event) => {
                if event.expires().is_some_and(|at| at <= self.shared.clock.now()) {
                    return Err((offset, Settled::Expired, kind));
                }
                self.parts_of(event)
            }
        };
        let member = self.shared.identify(&subject);
        let is_event = matches!(subject, Subject::Event(_));
        let mut work = Box::new(Work {
            offset,
            kind,
            member,
            parts,
            subject,
            starts: 0,
            rules: self.shared.rules,
            counted: false,
            alone: None,
            first_failed_ms: 0,
            recorded: false,
            at_work: None,
            since: now,
            overflowed: false,
            admission: None,
        });
        // Another event's record at this offset (a recreated topic) is ignored.
        let known = self.remembered.remove(&offset).filter(|known| known.id == member.id);
        let hint = hint.filter(|_| is_event);
        if known.is_some() || hint.is_some() {
            self.restore(&mut work, known.as_ref(), hint, now);
        }
        if is_event && work.parts.is_empty() {
            return Err((offset, Settled::Unrouted, kind));
        }
        Ok(work)
    }

    /// Takes up what store and commit map remember of a head.
    fn restore(&self, work: &mut Work, known: Option<&EventRecord>, hint: Option<Hint>, now: Instant) {
        let store_ms = self.shared.keeper.store_ms(now);
        let schedule = self.shared.schedules.schedule_for(work.subject.event_type().unwrap_or_default());
        if let Some(known) = known {
            work.restore(known, |due_ms| now + remaining(due_ms, store_ms, schedule));
        }
        if let Some(hint) = hint {
            let due = now + remaining(hint.due_ms.unwrap_or_default(), self.shared.clock.now_ms(), schedule);
            work.restore_attempts(hint.attempts, due, store_ms);
        }
    }

    /// One part per handler that the event goes to; a redriven event goes to the handlers that had given it up, alone.
    fn parts_of(&self, event: &Event) -> SmallVec<[Part; 1]> {
        let bindings = self.shared.registry.bindings();
        let fresh = |handler: usize| Part {
            name: Arc::clone(&self.names[handler]),
            handler: Some(handler),
            attempts: 0,
            state: PartState::Pending,
        };
        let record = event.record();
        let only =
            (dead::redrives(record) > 0).then(|| record.header(dead::HANDLER)).flatten().and_then(|names| std::str::from_utf8(names).ok());
        let routed = self.shared.registry.route(event.event_type(), record.topic());
        match only.filter(|names| !names.is_empty()) {
            None => routed.map(fresh).collect(),
            Some(names) => names
                .split(',')
                .map(|name| match bindings.iter().position(|binding| *binding.name == *name) {
                    Some(handler) => fresh(handler),
                    None => Part { name: name.into(), handler: None, attempts: 0, state: Part::gone(name) },
                })
                .collect(),
        }
    }

    pub(super) fn on_checked(&mut self, checked: Checked) {
        self.checking = 0;
        let known = match checked.result {
            Ok(known) if self.is_current(checked.epoch) => known,
            Err(NoAnswer::Bypassed) if self.is_current(checked.epoch) => vec![false; checked.lanes.len()],
            // Asked again under the next lease: another owner may have had the events in between (!).
            _ => {
                for id in checked.counted {
                    self.lanes[id].work.iter_mut().for_each(|work| work.uncount_start());
                }
                for id in checked.lanes {
                    self.make_ready(id);
                }
                return self.fenced(checked.epoch);
            }
        };
        self.mark = self.mark.max(checked.mark.unwrap_or(-1));
        let now = Instant::now();
        for (id, known) in checked.lanes.into_iter().zip(known) {
            let asked = self.shared.rules.ask_before_retries || self.lanes[id].work.as_ref().is_none_or(|work| !work.failed());
            if known && asked {
                self.settle(id, Settled::Duplicate);
            } else if self.must_count(id, now) {
                // It became due while the store took its time.
                self.make_ready(id);
            } else {
                self.route(id, now);
            }
        }
    }

    /// Sends a checked head where its verdict says.
    fn route(&mut self, id: LaneId, now: Instant) {
        let Some(work) = &self.lanes[id].work else { return };
        match work.verdict(now) {
            Verdict::Run => self.queue_runs(id, now),
            Verdict::Wait(due) => self.wait(id, due),
            Verdict::Dead => self.give_up(id),
            Verdict::Finished { .. } => self.finish(id),
            Verdict::Running => {}
        }
    }
}

/// What is left of a backoff that was written down, made believable.
pub(super) fn remaining(due_ms: u64, now_ms: u64, schedule: &Schedule) -> Duration {
    Duration::from_millis(clamp_due(due_ms, now_ms, schedule.max_delay()) - now_ms)
}
