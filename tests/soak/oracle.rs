//! The oracle: which promises were kept, and what every repeated run is owed to.
//!
//! Order is claimed per topic, partition and user. A partition added moves keys: a user's events before and after it stand in two
//! partitions, between which nobody promises an order; they are counted.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::{
    app::{Run, Verdict},
    crew::End,
    events::{Fate, TOPICS, delays, fate, handlers, id, kind},
    facts::{Facts, Letter, Place},
};

/// Settled to written down, while nothing is wrong, on a machine that others use too.
const SOON: u64 = 2_000_000;
/// Settled to committed, likewise.
const COMMIT: u64 = 4_000_000;

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
    order(facts, &mut judgement);
    partitions(facts, &mut judgement);
    repeats(facts, &mut judgement);
    attempts(facts, &mut judgement);
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

/// An event runs when everything before it in its lane is concluded, never sooner.
fn order(facts: &Facts, judgement: &mut Judgement) {
    let mut users: BTreeMap<(&str, &[u8]), BTreeSet<i32>> = BTreeMap::new();
    let mut lanes: BTreeMap<(&str, i32, &[u8]), Vec<Place>> = BTreeMap::new();
    for (place, source) in &facts.sources {
        users.entry((place.0, &source.key)).or_default().insert(place.1);
        lanes.entry((place.0, place.1, &source.key)).or_default().push(*place);
    }
    judgement.moved_users = users.values().filter(|partitions| partitions.len() > 1).count();
    // An event that stands in two partitions was run for either.
    let mut early: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for lane in lanes.values() {
        let (mut latest, mut seen) = ((0, *lane.first().unwrap()), BTreeSet::new());
        for place in lane {
            let ended = match facts.sources[place].event {
                Ok(n) if !seen.insert(n) => continue,
                Ok(n) => {
                    if first_start(facts, n).is_some_and(|start| start < latest.0) {
                        early.entry(n).or_default().push(format!("{} ran before {:?} was through", story(facts, n), latest.1));
                    }
                    facts.concluded(n)
                }
                Err(_) => facts.letters.get(place).and_then(|letters| letters.first()).map(|letter| letter.at),
            };
            latest = latest.max((ended.unwrap_or_default(), *place));
        }
    }
    for (n, words) in early {
        let lanes: BTreeSet<_> = facts.places[&n].iter().map(|place| place.1).collect();
        if words.len() >= lanes.len() {
            judgement.out_of_order.extend(words);
        }
    }
}

fn first_start(facts: &Facts, n: u64) -> Option<u64> {
    handlers(kind(n).0).iter().filter_map(|handler| runs(facts, n, handler).first()).map(|run| run.start).min()
}

fn runs<'a>(facts: &'a Facts, n: u64, handler: &'static str) -> &'a [Run] {
    facts.runs.get(&(n, handler)).map_or(&[], Vec::as_slice)
}

/// Nobody starts anything under an epoch that another one followed, and each epoch goes through a lane once, in order, one at a time.
fn partitions(facts: &Facts, judgement: &mut Judgement) {
    type Runs<'a> = Vec<(&'a Run, &'a [Place])>;
    let mut of: BTreeMap<(&str, i32), Runs<'_>> = BTreeMap::new();
    for ((n, _), runs) in &facts.runs {
        // One that stands in two partitions tells nothing about either.
        let Some(places) = facts.places.get(n) else { continue };
        if places.iter().all(|place| place.1 == places[0].1) {
            of.entry((places[0].0, places[0].1)).or_default().extend(runs.iter().map(|run| (run, places.as_slice())));
        }
    }
    for ((topic, partition), mut runs) in of {
        runs.sort_by_key(|(run, _)| run.start);
        let (mut newest, mut lanes): (u64, BTreeMap<&[u8], (&Run, i64)>) = (0, BTreeMap::new());
        for (run, places) in runs {
            if run.epoch < newest {
                match facts.frozen(run.process, run.start.saturating_sub(SOON), run.start) {
                    true => judgement.late_starts += 1,
                    false => judgement.wrong.push(format!("a zombie's run in {topic}:{partition}, after epoch {newest}: {run:?}")),
                }
                continue;
            }
            newest = run.epoch;
            let key: &[u8] = &facts.sources[&places[0]].key;
            // Of two copies either may be meant: the first one that is not behind the lane.
            let reached = lanes.get(key).map_or(0, |(_, at)| *at);
            let offset = places.iter().map(|place| place.2).find(|offset| *offset >= reached).unwrap_or(places[0].2);
            if let Some((before, at)) = lanes.insert(key, (run, offset)) {
                let backwards = offset < at && before.epoch == run.epoch;
                let overlap = offset != at && before.end > run.start && !overtaken(facts, before);
                if backwards || overlap {
                    judgement.out_of_order.push(format!("{topic}:{partition}:{offset} {run:?} after {at} {before:?}"));
                }
            }
        }
    }
}

/// A run that its process could not stop in time, because it slept or had lost Redis.
fn overtaken(facts: &Facts, run: &Run) -> bool {
    facts.frozen(run.process, run.start, run.end) || facts.store_trouble(run.process, run.start.saturating_sub(12_000_000), run.end)
}

/// Each effect once; again only for a cause.
fn repeats(facts: &Facts, judgement: &mut Judgement) {
    for ((n, _), runs) in &facts.runs {
        let done: Vec<_> = runs.iter().filter(|run| matches!(run.verdict, Verdict::Done | Verdict::Dropped)).collect();
        for pair in done.windows(2) {
            match cause(facts, *n, pair[0], pair[1]) {
                Some(cause) => *judgement.repeated.entry(cause).or_default() += 1,
                None => judgement.wrong.push(format!("ran again without a cause: {}", story(facts, *n))),
            }
        }
    }
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
    // The verdict was written down soon, or when Redis was there again.
    let written = if facts.store_trouble(process, first.end, first.end + SOON) { second.start } else { first.end + SOON };
    let committed = match facts.kafka_trouble(process, first.end, first.end + COMMIT) {
        _ if written == second.start => second.start,
        true => second.start,
        false => first.end + COMMIT,
    };
    if facts.killed(process, first.start, written) {
        return Some("kill -9");
    }
    if facts.frozen(process, first.start, first.end + SOON) {
        return Some("SIGSTOP past the session");
    }
    match facts.flushed(first.end.saturating_sub(SOON), second.start) {
        Some(_) if places.len() > 1 => return Some("a copy, after FLUSHALL"),
        Some(at) if at <= committed => return Some("FLUSHALL before the commit"),
        _ => {}
    }
    if apart && first.end.abs_diff(second.start) < SOON {
        return Some("both copies at once, in two partitions");
    }
    if written == second.start && first.epoch != second.epoch {
        return Some("Redis away across a handover");
    }
    None
}

fn letter_cause(facts: &Facts, first: &Letter, second: &Letter) -> Option<&'static str> {
    if facts.crashes(first.at.saturating_sub(SOON), second.at) > 0 {
        return Some("crash, or Redis away");
    }
    // Written, and the acknowledgement lost.
    facts.any_trouble(first.at, second.at).then_some("Kafka away")
}

/// No event fails more often than its schedule allows, but for one run per crash.
fn attempts(facts: &Facts, judgement: &mut Judgement) {
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
