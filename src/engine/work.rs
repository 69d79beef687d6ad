//! The event at a lane's head while it is worked on: which handlers have finished it, which come again, what follows. Pure.

use std::{sync::Arc, time::Duration};

use smallvec::SmallVec;
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use super::{
    Rules,
    at_work::Claim,
    limits::Admission,
    meters::TypeId,
    ports::{EventRecord, HandlerRecord, HandlerState, Member},
    subject::Subject,
};
use crate::{
    outcome::{DeadReason, Failure, Handled, Outcome},
    retry::{Next, Schedule},
};

/// Runs begun and never answered, after which an event is taken for what kills the process.
pub(super) const CRASH_LOOP_STARTS: u32 = 5;

/// Where one handler stands with the head.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum PartState {
    /// Has not run since the event's turn came.
    Pending,
    /// Waits for a permit, or runs.
    Running,
    /// Finished.
    Done,
    /// Finished without an effect.
    Dropped,
    /// Runs again.
    Retry {
        /// When.
        due: Instant,
    },
    /// Will not run again.
    Dead {
        /// Why.
        reason: DeadReason,
        /// The handler's last words.
        error: String,
    },
}

/// One handler's part in the head.
#[derive(Debug, Clone)]
pub(super) struct Part {
    /// The handler's name.
    pub(super) name: Arc<str>,
    /// Its place in the registry; `None`: this configuration lacks it.
    pub(super) handler: Option<usize>,
    /// Failures so far.
    pub(super) attempts: u32,
    pub(super) state: PartState,
}

impl Part {
    /// Whether it never runs again.
    pub(super) fn finished(&self) -> bool {
        matches!(self.state, PartState::Done | PartState::Dropped | PartState::Dead { .. })
    }

    /// The state of a part whose handler this configuration lacks.
    pub(super) fn gone(name: &str) -> PartState {
        PartState::Dead { reason: DeadReason::HandlerGone, error: format!("handler {name} is no longer configured") }
    }
}

/// How a run ended, and what decides what follows.
pub(super) struct Answer<'a> {
    pub(super) outcome: Outcome,
    pub(super) schedule: &'a Schedule,
    pub(super) now: Instant,
    /// The store's clock at `now`.
    pub(super) store_ms: u64,
}

/// What follows from where the handlers stand.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    /// Somebody still runs.
    Running,
    /// Somebody has to run now.
    Run,
    /// Nobody before this time.
    Wait(Instant),
    /// All finished, at least one dead: to the DLQ.
    Dead,
    /// All finished.
    Finished {
        /// Whether any had an effect.
        effect: bool,
    },
}

/// The event at a lane's head.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) offset: i64,
    pub(super) kind: TypeId,
    pub(super) subject: Subject,
    pub(super) member: Member,
    /// Nearly always one.
    pub(super) parts: SmallVec<[Part; 1]>,
    /// Runs begun and not answered, as the store counts them.
    pub(super) starts: u32,
    pub(super) rules: Rules,
    /// The last of them is this owner's own.
    pub(super) counted: bool,
    /// On the store's clock; 0: has not failed.
    pub(super) first_failed_ms: u64,
    /// The store holds a record of it.
    pub(super) recorded: bool,
    /// Held by an event whose last run was never answered: no other such event collects a strike for what this one does.
    pub(super) alone: Option<OwnedSemaphorePermit>,
    /// Entered in the process' set of ids at work.
    pub(super) at_work: Option<Claim>,
    /// When its turn came, for `max_hold_age`.
    pub(super) since: Instant,
    /// The lane was told to give up on it.
    pub(super) overflowed: bool,
    /// Its dead letter is under way, or waits for its settlement: counted by the breaker.
    pub(super) admission: Option<Admission>,
}

impl Work {
    /// What follows now.
    pub(super) fn verdict(&self, now: Instant) -> Verdict {
        if matches!(self.subject, Subject::Rejected(_)) || self.crash_looped() {
            return if self.parts.iter().any(|part| part.state == PartState::Running) { Verdict::Running } else { Verdict::Dead };
        }
        let (mut running, mut run, mut dead, mut effect, mut due) = (false, false, false, false, None::<Instant>);
        for part in &self.parts {
            match &part.state {
                PartState::Running => running = true,
                PartState::Pending => run = true,
                PartState::Retry { due: at } if *at <= now => run = true,
                PartState::Retry { due: at } => due = Some(due.map_or(*at, |due| due.min(*at))),
                PartState::Done => effect = true,
                PartState::Dropped => {}
                PartState::Dead { .. } => dead = true,
            }
        }
        match (running, run, due, dead) {
            (true, ..) => Verdict::Running,
            _ if effect && !self.rules.all_handlers => Verdict::Finished { effect },
            // A user's backlog is given up; what has finished has finished.
            _ if self.overflowed && (run || due.is_some()) => Verdict::Dead,
            (_, true, ..) => Verdict::Run,
            (_, _, Some(due), _) => Verdict::Wait(due),
            (.., true) => Verdict::Dead,
            _ => Verdict::Finished { effect },
        }
    }

    /// Five runs begun, none answered: it keeps killing the process (F54).
    pub(super) fn crash_looped(&self) -> bool {
        self.unanswered() >= CRASH_LOOP_STARTS
    }

    /// Runs that earlier owners began and never had an answer to.
    pub(super) fn unanswered(&self) -> u32 {
        self.starts - u32::from(self.counted)
    }

    /// Notes that the store counts the start that comes now.
    pub(super) fn count_start(&mut self) {
        if !self.counted {
            self.starts += 1;
            self.counted = true;
        }
        self.recorded = true;
    }

    /// Takes back a count that the store has not answered for.
    pub(super) fn uncount_start(&mut self) {
        self.starts -= u32::from(std::mem::take(&mut self.counted));
    }

    /// Whether any handler has failed it.
    pub(super) fn failed(&self) -> bool {
        self.first_failed_ms != 0
    }

    /// Most failures of any handler: what the commit map remembers.
    pub(super) fn attempts(&self) -> u32 {
        self.parts.iter().map(|part| part.attempts).max().unwrap_or_default()
    }

    /// Notes how a run of `part` ended; answers the delay of the retry that follows, if one does.
    pub(super) fn answered(&mut self, part: usize, answer: Answer<'_>, rng: &mut fastrand::Rng) -> Option<Duration> {
        let delay = self.note_outcome(part, answer, rng);
        // A run of another handler that still goes on has not answered for the start.
        if self.parts.iter().all(|part| part.state != PartState::Running) {
            self.starts = 0;
            self.counted = false;
            self.alone = None;
        }
        delay
    }

    fn note_outcome(&mut self, part: usize, answer: Answer<'_>, rng: &mut fastrand::Rng) -> Option<Duration> {
        let Answer { outcome, schedule, now, store_ms } = answer;
        let part = &mut self.parts[part];
        let failure = match outcome.into_result() {
            Ok(Handled::Done) => {
                part.state = PartState::Done;
                return None;
            }
            Ok(Handled::Dropped(_)) => {
                part.state = PartState::Dropped;
                return None;
            }
            Err(failure) => failure,
        };
        part.attempts += 1;
        if self.first_failed_ms == 0 {
            self.first_failed_ms = store_ms.max(1);
        }
        let (reason, error) = match failure {
            Failure::Permanent { error } => (DeadReason::Permanent, error),
            Failure::Transient { error, after } => match schedule.next(part.attempts, after, rng) {
                Next::Delay(delay) => {
                    part.state = PartState::Retry { due: now + delay };
                    return Some(delay);
                }
                Next::Exhausted => (DeadReason::Exhausted, error),
            },
        };
        part.state = PartState::Dead { reason, error };
        None
    }

    /// What the store has to remember of it. `store_ms`: the store's clock at `now`.
    pub(super) fn to_record(&self, now: Instant, store_ms: u64) -> EventRecord {
        let mut handlers = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            let mut due_ms = 0;
            let state = match &part.state {
                PartState::Pending | PartState::Running => continue,
                PartState::Done => HandlerState::Done,
                PartState::Dropped => HandlerState::Dropped,
                PartState::Retry { due } => {
                    due_ms = store_ms + millis(due.saturating_duration_since(now));
                    HandlerState::Retry
                }
                PartState::Dead { reason, error } => HandlerState::Dead { reason: *reason, error: error.clone() },
            };
            handlers.push(HandlerRecord { handler: part.name.to_string(), attempts: part.attempts, due_ms, state });
        }
        EventRecord { id: self.member.id, starts: self.starts, first_failed_ms: self.first_failed_ms, handlers }
    }

    /// Takes up what the store remembers, where that is more than is known here. `due`: when a written due time comes, clamped.
    pub(super) fn restore(&mut self, record: &EventRecord, due: impl Fn(u64) -> Instant) {
        let rules = self.rules;
        self.recorded = true;
        self.starts = self.starts.max(record.starts);
        if self.first_failed_ms == 0 {
            self.first_failed_ms = record.first_failed_ms;
        }
        for known in &record.handlers {
            let state = match &known.state {
                HandlerState::Done => PartState::Done,
                HandlerState::Dropped => PartState::Dropped,
                HandlerState::Retry => PartState::Retry { due: due(known.due_ms) },
                HandlerState::Dead { .. } if !rules.recorded_dead_stays => PartState::Retry { due: due(known.due_ms) },
                HandlerState::Dead { reason, error } => PartState::Dead { reason: *reason, error: error.clone() },
            };
            let found = self.parts.iter_mut().find(|part| *part.name == *known.handler);
            let runs = found.as_ref().is_some_and(|part| part.handler.is_some());
            // What finished is finished, whoever is configured now; what did not finish has nobody to run it.
            let state = match state {
                PartState::Retry { .. } if !runs && rules.handler_gone => Part::gone(&known.handler),
                state => state,
            };
            match found {
                Some(part) if part.finished() || part.attempts > known.attempts || part.state == PartState::Running => {}
                Some(part) => {
                    part.attempts = known.attempts;
                    part.state = state;
                }
                None if !rules.handler_gone => {}
                None => self.parts.push(Part { name: known.handler.as_str().into(), handler: None, attempts: known.attempts, state }),
            }
        }
    }

    /// Takes up failures that only the commit map remembers: the store was lost, or lost its latest words.
    pub(super) fn restore_attempts(&mut self, attempts: u32, due: Instant, store_ms: u64) {
        if attempts <= self.attempts() {
            return;
        }
        let behind = self.parts.iter().filter(|part| matches!(part.state, PartState::Retry { .. })).map(|part| part.attempts).max();
        for part in &mut self.parts {
            let unfinished = matches!(part.state, PartState::Pending | PartState::Retry { .. });
            if unfinished && behind.is_none_or(|most| part.attempts == most) {
                part.attempts = attempts;
                part.state = PartState::Retry { due };
            }
        }
        if self.first_failed_ms == 0 {
            self.first_failed_ms = store_ms.max(1);
        }
    }
}

/// Whole milliseconds, for the store.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
