//! The oracle itself: it must see what is wrong.

use std::time::Duration;

use bytes::Bytes;

use super::{Judgement, judge};
use crate::{
    app::{Run, Verdict},
    chaos::Incident,
    crew::{End, Life},
    events::{Fate, fate, handlers, id, kind, line},
    facts::Facts,
    load::Accepted,
    plan::Fault,
    support::kafka::Record,
};

const SEED: u64 = 3;
const SECOND: u64 = 1_000_000;

/// A history of one topic, one partition and one user, all of whose events are `task.created` and succeed.
struct History {
    numbers: Vec<u64>,
    log: Vec<Record>,
    letters: Vec<Record>,
    runs: Vec<Run>,
    accepted: Vec<Accepted>,
    lives: Vec<Life>,
    incidents: Vec<Incident>,
}

fn record(offset: usize, value: String) -> Record {
    let (key, value) = (Some(Bytes::from("user-1")), Some(Bytes::from(value)));
    Record { partition: 0, offset: offset as i64, timestamp: Some(0), key, value, headers: Vec::new() }
}

fn run(n: u64, second: u64) -> Run {
    let start = second * SECOND;
    Run { process: 0, handler: "app", n, start, end: start + 1000, attempt: 1, epoch: 7, verdict: Verdict::Done }
}

impl History {
    /// Three events, each run once, ten seconds apart, by a process that was told to end.
    fn new() -> Self {
        let numbers: Vec<u64> =
            (0..1000).filter(|n| kind(*n).0 == "task.created" && fate(SEED, *n, "app") == Fate::Done(0)).take(3).collect();
        assert_eq!(handlers("task.created"), ["app"]);
        let accepted = |(offset, n): (usize, &u64)| Accepted {
            event_id: id(SEED, *n),
            topic: "task-events".to_owned(),
            partition: 0,
            offset: offset as i64,
        };
        Self {
            log: numbers.iter().enumerate().map(|(offset, n)| record(offset, line(SEED, *n))).collect(),
            letters: Vec::new(),
            runs: (10..).step_by(10).zip(&numbers).map(|(second, n)| run(*n, second)).collect(),
            accepted: numbers.iter().enumerate().map(accepted).collect(),
            lives: vec![Life { place: 0, ended: Some((1000 * SECOND, End::Told(Some(0)))) }],
            incidents: Vec::new(),
            numbers,
        }
    }

    fn judge(self) -> Judgement {
        let logs = vec![("task-events", self.log)];
        judge(SEED, &Facts::new(logs, &self.letters, self.runs, self.accepted, self.lives, self.incidents))
    }

    fn incident(&mut self, fault: Fault, second: u64) {
        self.incidents.push(Incident { fault, from: second * SECOND, to: second * SECOND });
    }
}

fn broken(judgement: &Judgement) -> Vec<&String> {
    judgement.violations().collect()
}

#[test]
fn a_history_without_fault_breaks_nothing() {
    let judgement = History::new().judge();
    assert!(broken(&judgement).is_empty(), "{judgement:?}");
    assert_eq!((judgement.events, judgement.done, judgement.runs), (3, 3, 3));
}

#[test]
fn an_event_that_nobody_finished_is_lost() {
    let mut history = History::new();
    history.runs[1].verdict = Verdict::Failed;
    assert_eq!(history.judge().lost.len(), 1);
    let mut history = History::new();
    history.runs.pop();
    assert_eq!(history.judge().lost.len(), 1);
}

#[test]
fn an_accepted_event_that_is_not_in_the_log_is_lost() {
    let mut history = History::new();
    history.log.pop();
    history.runs.pop();
    assert_eq!(history.judge().lost.len(), 1);
}

#[test]
fn a_foreign_record_without_a_letter_is_lost() {
    let mut history = History::new();
    history.log.push(record(3, "{".to_owned()));
    assert_eq!(history.judge().lost.len(), 1);
}

#[test]
fn an_event_that_ran_before_the_one_before_it_was_through_is_out_of_order() {
    let mut history = History::new();
    history.runs[1].start = 5 * SECOND;
    assert!(!history.judge().out_of_order.is_empty());
    // At the same time, although each ended after the other.
    let mut history = History::new();
    history.runs[0].end = history.runs[1].start + 1;
    assert!(!history.judge().out_of_order.is_empty());
}

#[test]
fn a_run_under_an_epoch_that_another_had_followed_is_a_zombies_unless_it_was_sent_before_a_sleep() {
    let of = |sleep: bool| {
        let mut history = History::new();
        history.runs[1].epoch = 8;
        if sleep {
            history.incident(Fault::Freeze(0, Duration::ZERO), 29);
        }
        history.judge()
    };
    assert_eq!((broken(&of(false)).len(), of(false).late_starts), (1, 0));
    assert_eq!((broken(&of(true)).len(), of(true).late_starts), (0, 1));
}

#[test]
fn a_repeated_effect_needs_a_cause_near_it() {
    let repeated = |fault: Option<(Fault, u64)>, killed: Option<u64>| {
        let mut history = History::new();
        let again = Run { epoch: 8, process: 1, ..run(history.numbers[2], 60) };
        history.runs.push(again);
        history.lives.push(history.lives[0].clone());
        if let Some(second) = killed {
            history.lives[0].ended = Some((second * SECOND, End::Killed));
        }
        if let Some((fault, second)) = fault {
            history.incident(fault, second);
        }
        history.judge()
    };
    let sound = |judgement: Judgement| broken(&judgement).is_empty();
    assert!(!sound(repeated(None, None)));
    // The third event ended at 30 s.
    assert!(sound(repeated(None, Some(31))));
    assert!(!sound(repeated(None, Some(45))), "long written down");
    assert!(sound(repeated(Some((Fault::Flush, 31)), None)));
    assert!(!sound(repeated(Some((Fault::Flush, 50)), None)), "long committed");
    assert!(sound(repeated(Some((Fault::Freeze(0, Duration::ZERO), 30)), None)));
    assert!(!sound(repeated(Some((Fault::Freeze(1, Duration::ZERO), 30)), None)), "another one slept");
    assert!(!sound(repeated(Some((Fault::Roll(0), 31)), None)));
}

#[test]
fn failures_beyond_the_schedule_need_a_crash_each() {
    let failing = |failures: usize, crashes: u64| {
        let mut history = History::new();
        let n = history.numbers[2];
        let last = history.runs.pop().unwrap();
        let of = |at: usize| Run { verdict: Verdict::Failed, attempt: at.min(4) as u64, ..run(n, 30 + at as u64) };
        history.runs.extend((1..=failures).map(of));
        history.runs.push(Run { start: 50 * SECOND, end: 50 * SECOND + 1000, attempt: 4, ..last });
        for crash in 0..crashes {
            history.incident(Fault::Kill(1, Duration::ZERO), 31 + crash);
        }
        history.judge()
    };
    assert!(broken(&failing(4, 0)).is_empty());
    assert!(!broken(&failing(6, 1)).is_empty());
    assert!(broken(&failing(6, 2)).is_empty());
}

#[test]
fn a_process_that_ends_by_itself_or_badly_is_said() {
    for end in [End::ByItself(Some(0)), End::Told(Some(5)), End::Told(None)] {
        let mut history = History::new();
        history.lives[0].ended = Some((1000 * SECOND, end));
        assert_eq!(broken(&history.judge()).len(), 1);
    }
}
