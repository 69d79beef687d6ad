//! The oracle: which promises were kept, and what every repeated run is owed to.
//!
//! Order is claimed per topic, partition and user. A partition added moves keys: a user's events before and after it stand in two
//! partitions, between which nobody promises an order; they are counted.

mod order;
mod repeats;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};

use crate::{
    app::Run,
    crew::End,
    events::{Fate, TOPICS, fate, handlers, id, kind},
    facts::{Facts, Letter},
};

/// Settled to written down, while nothing is wrong, on a machine that others use too.
const SOON: u64 = 2_000_000;
/// What came of it.
#[derive(Debug, Default)]
pub struct Judgement {
    pub events: usize,
    pub copies: usize,
    pub poison: usize,
    pub runs: usize,
    pub done: usize,
    pub dead: BTreeMap<String, usize>,
    pub moved_users: usize,
    pub lost: Vec<String>,
    pub out_of_order: Vec<String>,
    /// Starts under an epoch that another one had followed: asleep between the check and the sending.
    pub late_starts: usize,
    /// Repeated effects, by cause.
    pub repeated: BTreeMap<&'static str, usize>,
    /// Letters that stand there twice, by cause.
    pub repeated_letters: BTreeMap<&'static str, usize>,
    /// Failed runs beyond the schedule, each with a crash of its own.
    pub extra_runs: usize,
    /// Whatever else nobody promised.
    pub wrong: Vec<String>,
}

impl Judgement {
    /// Every promise that was broken.
    pub fn violations(&self) -> impl Iterator<Item = &String> {
        self.lost.iter().chain(&self.out_of_order).chain(&self.wrong)
    }
}

/// Judges everything.
pub fn judge(seed: u64, facts: &Facts) -> Judgement {
    let mut judgement = Judgement { events: facts.places.len(), runs: facts.runs.values().map(Vec::len).sum(), ..Judgement::default() };
    judgement.copies = facts.places.values().map(|places| places.len() - 1).sum();
    judgement.poison = facts.sources.values().filter(|source| source.event.is_err()).count();
    accepted(seed, facts, &mut judgement);
    fates(seed, facts, &mut judgement);
    order::lanes(facts, &mut judgement);
    order::epochs(facts, &mut judgement);
    repeats::effects(facts, &mut judgement);
    repeats::letters(facts, &mut judgement);
    repeats::attempts(facts, &mut judgement);
    processes(facts, &mut judgement);
    judgement
}

/// What was answered with 202 stands where the answer said; nobody runs what is nowhere.
fn accepted(seed: u64, facts: &Facts, judgement: &mut Judgement) {
    let numbers: HashMap<_, _> = facts.places.keys().map(|n| (id(seed, *n), *n)).collect();
    for event in &facts.accepted {
        let topic = TOPICS.iter().find(|(topic, _)| *topic == event.topic).map_or("?", |(topic, _)| topic);
        let stored = facts.sources.get(&(topic, event.partition, event.offset)).map(|source| source.event);
        if stored.is_none() || stored.and_then(Result::ok) != numbers.get(&event.event_id).copied() {
            judgement.lost.push(format!("{event:?} was accepted, and is not there"));
        }
    }
    for (n, handler) in facts.runs.keys() {
        if !facts.places.contains_key(n) || !handlers(kind(*n).0).contains(handler) {
            judgement.wrong.push(format!("{handler} was asked about {n}, which is not its own"));
        }
    }
    for place in facts.letters.keys().filter(|place| !facts.sources.contains_key(*place)) {
        judgement.wrong.push(format!("a letter of {place:?}, which is nowhere"));
    }
}

/// Each event came to the end that it had to come to.
fn fates(seed: u64, facts: &Facts, judgement: &mut Judgement) {
    for (place, source) in &facts.sources {
        if let Err(reason) = source.event {
            match facts.letters.get(place).and_then(|letters| letters.first()) {
                None => judgement.lost.push(format!("{place:?}, which is {reason}, has no letter")),
                Some(letter) if letter.reason != reason => judgement.wrong.push(format!("{place:?} is {reason}: {letter:?}")),
                Some(_) => {}
            }
        }
    }
    for &n in facts.places.keys() {
        let fates: Vec<_> = handlers(kind(n).0).iter().map(|handler| fate(seed, n, handler)).collect();
        let fatal = fates.contains(&Fate::Permanent) || fates.contains(&Fate::Exhausted);
        match facts.letters_of(n).next() {
            None if facts.concluded(n).is_none() => judgement.lost.push(format!("{}: {fates:?}", story(facts, n))),
            None if fatal => judgement.wrong.push(format!("not dead: {}: {fates:?}", story(facts, n))),
            Some(letter) if !fatal && !dead_by_sleep(facts, n, letter) => {
                judgement.wrong.push(format!("dead: {}: {fates:?}", story(facts, n)));
            }
            _ => {}
        }
    }
    for letter in facts.letters.values().filter_map(|letters| letters.first()) {
        *judgement.dead.entry(letter.reason.clone()).or_default() += 1;
    }
    judgement.done = facts.places.len() - facts.places.keys().filter(|n| facts.letters_of(**n).next().is_some()).count();
}

/// A process that slept over its handler's time limit counted a failure which the app knows nothing of.
fn dead_by_sleep(facts: &Facts, n: u64, letter: &Letter) -> bool {
    letter.reason == "exhausted" && handlers(kind(n).0).iter().any(|handler| runs(facts, n, handler).iter().any(|run| facts.unheard(run)))
}

fn runs<'a>(facts: &'a Facts, n: u64, handler: &'static str) -> &'a [Run] {
    facts.runs.get(&(n, handler)).map_or(&[], Vec::as_slice)
}

/// Nobody ended who was not told to, and who was ended well.
fn processes(facts: &Facts, judgement: &mut Judgement) {
    for (number, life) in facts.lives.iter().enumerate() {
        match life.ended {
            Some((_, End::Killed | End::Told(Some(0)))) => {}
            // Left behind at the deadline: said, and allowed where something kept it from ending.
            Some((at, End::Told(Some(4)))) if facts.any_trouble(at.saturating_sub(40_000_000), at) => {}
            other => judgement.wrong.push(format!("process {number}, consumer {}, ended so: {other:?}", life.place)),
        }
    }
}

/// All that is known of an event.
pub fn story(facts: &Facts, n: u64) -> String {
    let mut lines = vec![format!("event {n}, {}, at {:?}", kind(n).0, facts.places.get(&n).map_or(&[][..], Vec::as_slice))];
    for handler in handlers(kind(n).0) {
        lines.extend(runs(facts, n, handler).iter().map(|run| format!("    {run:?}")));
    }
    lines.extend(facts.letters_of(n).map(|letter| format!("    {letter:?}")));
    lines.join("\n")
}
