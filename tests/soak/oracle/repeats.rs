//! What took place more often than once, and why.

use super::{Judgement, SOON, story};
use crate::{
    app::{Run, Verdict},
    events::{delays, kind},
    facts::{Facts, Letter, Place},
};

/// Settled to committed, likewise.
const COMMIT: u64 = 4_000_000;

/// Each effect once; again only for a cause.
pub fn effects(facts: &Facts, judgement: &mut Judgement) {
    for ((n, _), runs) in &facts.runs {
        let done: Vec<_> = runs.iter().filter(|run| matches!(run.verdict, Verdict::Done | Verdict::Dropped)).collect();
        for pair in done.windows(2) {
            match cause(facts, *n, pair[0], pair[1]) {
                Some(cause) => *judgement.repeated.entry(cause).or_default() += 1,
                None => judgement.wrong.push(format!("ran again without a cause: {}", story(facts, *n))),
            }
        }
    }
}

/// One letter for each dead event, wherever its copies stand; again only for a cause.
pub fn letters(facts: &Facts, judgement: &mut Judgement) {
    for (place, letters) in &facts.letters {
        for pair in letters.windows(2) {
            match letter_cause(facts, &pair[0], &pair[1]) {
                Some(cause) => *judgement.repeated_letters.entry(cause).or_default() += 1,
                None => judgement.wrong.push(format!("two letters of {place:?} without a cause: {pair:?}")),
            }
        }
    }
    for (n, places) in &facts.places {
        let lettered: Vec<_> = places.iter().filter_map(|place| facts.letters.get(place)).collect();
        for pair in lettered.windows(2) {
            match facts.flushed(pair[0][0].at.min(pair[1][0].at), pair[0][0].at.max(pair[1][0].at)) {
                Some(_) => *judgement.repeated_letters.entry("a copy, after FLUSHALL").or_default() += 1,
                None => judgement.wrong.push(format!("both copies are dead: {}", story(facts, *n))),
            }
        }
    }
}

/// Why an effect took place a second time.
fn cause(facts: &Facts, n: u64, first: &Run, second: &Run) -> Option<&'static str> {
    let places = &facts.places[&n];
    let apart = places.iter().any(|place| place.1 != places[0].1);
    let process = first.process;
    // One verdict is written down for all of an event's handlers, when the last of them has ended.
    let mine = facts.runs_of(n).filter(|run| run.process == process && run.epoch == first.epoch && run.start < second.start);
    let ended = mine.map(|run| run.end).max().unwrap_or(first.end);
    // It is written soon, or when Redis is there again.
    let store_away = facts.store_trouble(process, first.end, ended + SOON);
    let written = if store_away { second.start } else { ended + SOON };
    let commits_wait = facts.kafka_trouble(process, ended, ended + COMMIT) || facts.rebalancing(ended, ended + COMMIT);
    let committed = if store_away || commits_wait { second.start } else { ended + COMMIT };
    if facts.killed(process, first.start, written) {
        return Some("kill -9");
    }
    if facts.frozen(process, first.start, ended + SOON) {
        return Some("SIGSTOP past the session");
    }
    match facts.flushed(first.end.saturating_sub(SOON), second.start) {
        Some(_) if places.len() > 1 => return Some("a copy, after FLUSHALL"),
        Some(at) if at <= committed => return Some("FLUSHALL before the commit"),
        // What one handler had finished, while another was still to be asked again, was known to Redis alone.
        Some(at) if facts.concluded(n).is_none_or(|concluded| concluded > at) => return Some("FLUSHALL in the middle of an event"),
        _ => {}
    }
    if apart && first.end.abs_diff(second.start) < SOON {
        return Some("both copies at once, in two partitions");
    }
    if store_away && first.epoch != second.epoch {
        return Some("Redis away across a handover");
    }
    None
}

/// Why an event has a second letter. Which process wrote the first one is not known.
fn letter_cause(facts: &Facts, first: &Letter, second: &Letter) -> Option<&'static str> {
    if facts.crashes(first.at, first.at + SOON) > 0 {
        return Some("a crash, or Redis away");
    }
    if facts.flushed(first.at, second.at).is_some_and(|at| at <= first.at + COMMIT) {
        return Some("FLUSHALL before the commit");
    }
    // Written, and the acknowledgement lost.
    facts.any_trouble(first.at, first.at + SOON).then_some("Kafka away")
}

/// No event fails more often than its schedule allows, but for one run per crash.
pub fn attempts(facts: &Facts, judgement: &mut Judgement) {
    for ((n, handler), runs) in &facts.runs {
        let most = delays(kind(*n).0).len() + 1;
        if let Some(run) = runs.iter().find(|run| run.attempt > most as u64) {
            judgement.wrong.push(format!("{handler}: attempt {} of {most}: {}", run.attempt, story(facts, *n)));
        }
        let failed = runs.iter().filter(|run| !matches!(run.verdict, Verdict::Done | Verdict::Dropped)).count();
        let (Some(first), Some(last)) = (runs.first(), runs.last()) else { continue };
        let copies = match facts.flushed(first.start, last.end) {
            Some(_) => facts.places.get(n).map_or(1, Vec::len),
            None => 1,
        };
        let extra = failed.saturating_sub(most * copies);
        judgement.extra_runs += extra;
        if extra > facts.crashes(first.start, last.end) {
            judgement.wrong.push(format!("{handler}: {failed} failures, {most} runs allowed: {}", story(facts, *n)));
        }
    }
    let over = |(place, letter): (&Place, &Letter)| {
        let Ok(n) = facts.sources.get(place)?.event else { return None };
        (letter.attempts > delays(kind(n).0).len() as u64 + 1).then(|| format!("{place:?}: {letter:?}"))
    };
    judgement.wrong.extend(facts.letters.iter().filter_map(|(place, letters)| over((place, letters.first()?))));
}
