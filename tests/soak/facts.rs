//! What happened, put in order: records, runs, letters, processes and faults, each by what the oracle asks about.

use std::collections::{BTreeMap, HashMap};

use crate::{
    app::{Run, TIMEOUT, Verdict},
    chaos::{Incident, touches_kafka, touches_store},
    crew::{End, Life},
    events::{TOPICS, handlers, kind, number, poison_reason},
    load::Accepted,
    plan::{Fault, WORKERS},
    support::kafka::Record,
};

/// Topic, partition, offset.
pub type Place = (&'static str, i32, i64);

/// A record of a source topic.
pub struct Source {
    pub key: Vec<u8>,
    /// `Err`: other programs wrote it, and it must be dead for this reason.
    pub event: Result<u64, &'static str>,
}

/// A dead letter.
#[derive(Debug, Clone)]
pub struct Letter {
    /// Microseconds since 1970, to the millisecond: when it was given to the client that wrote it.
    pub at: u64,
    pub reason: String,
    pub attempts: u64,
}

/// All that the oracle judges.
pub struct Facts {
    pub sources: BTreeMap<Place, Source>,
    pub accepted: Vec<Accepted>,
    /// Where each event stands: once, or more often.
    pub places: HashMap<u64, Vec<Place>>,
    pub letters: BTreeMap<Place, Vec<Letter>>,
    /// By event and handler, in order of their starts.
    pub runs: BTreeMap<(u64, &'static str), Vec<Run>>,
    pub lives: Vec<Life>,
    pub incidents: Vec<Incident>,
}

/// How far a fault reaches beyond its own time: what was under way needs that long to be asked for again.
const REACH: u64 = 3_000_000;
/// A member that is gone is waited for so long, and for its successor's join.
const SESSION: u64 = 12_000_000;

impl Facts {
    pub fn new(
        logs: Vec<(&'static str, Vec<Record>)>,
        letters: &[Record],
        runs: Vec<Run>,
        accepted: Vec<Accepted>,
        lives: Vec<Life>,
        incidents: Vec<Incident>,
    ) -> Self {
        let mut facts = Self {
            sources: BTreeMap::new(),
            accepted,
            places: HashMap::new(),
            letters: BTreeMap::new(),
            runs: BTreeMap::new(),
            lives,
            incidents,
        };
        for (topic, records) in logs {
            for record in records {
                let place = (topic, record.partition, record.offset);
                let value = record.value.unwrap_or_default();
                let event = number(&value).ok_or_else(|| poison_reason(&value));
                if let Ok(n) = event {
                    facts.places.entry(n).or_default().push(place);
                }
                facts.sources.insert(place, Source { key: record.key.unwrap_or_default().to_vec(), event });
            }
        }
        for letter in letters {
            let header = |name: &str| letter.header(name).unwrap_or_default();
            let topic = TOPICS.iter().find(|(topic, _)| *topic == header("x-dlq-source-topic")).map_or("?", |(topic, _)| topic);
            let number = |name: &str| header(name).parse().unwrap_or(-1_i64);
            let place = (topic, number("x-dlq-source-partition") as i32, number("x-dlq-source-offset"));
            let at = letter.timestamp.unwrap_or_default() as u64 * 1000;
            let known = Letter { at, reason: header("x-dlq-reason").to_owned(), attempts: number("x-dlq-attempts") as u64 };
            facts.letters.entry(place).or_default().push(known);
        }
        facts.letters.values_mut().for_each(|letters| letters.sort_by_key(|letter| letter.at));
        for run in runs {
            facts.runs.entry((run.n, run.handler)).or_default().push(run);
        }
        facts.runs.values_mut().for_each(|runs| runs.sort_by_key(|run| run.start));
        facts
    }

    /// Every letter of an event, wherever it stands.
    pub fn letters_of(&self, n: u64) -> impl Iterator<Item = &Letter> {
        self.places.get(&n).into_iter().flatten().filter_map(|place| self.letters.get(place)).flatten()
    }

    /// Every run of an event, by whatever handler.
    pub fn runs_of(&self, n: u64) -> impl Iterator<Item = &Run> {
        handlers(kind(n).0).iter().filter_map(move |handler| self.runs.get(&(n, *handler))).flatten()
    }

    /// When nothing more had to be done about an event; `None`: never.
    pub fn concluded(&self, n: u64) -> Option<u64> {
        let letter = self.letters_of(n).map(|letter| letter.at).min();
        letter.or_else(|| {
            let done = |handler: &&'static str| {
                let mut runs = self.runs.get(&(n, *handler))?.iter();
                runs.find(|run| matches!(run.verdict, Verdict::Done | Verdict::Dropped)).map(|run| run.end)
            };
            handlers(kind(n).0).iter().map(done).collect::<Option<Vec<_>>>()?.into_iter().max()
        })
    }

    /// Which consumer a process was; [`WORKERS`] and more: none.
    fn place_of(&self, process: usize) -> usize {
        self.lives.get(process).map_or(WORKERS, |life| life.place)
    }

    /// Whether a process was asleep at any moment from `from` to `to`.
    pub fn frozen(&self, process: usize, from: u64, to: u64) -> bool {
        let place = self.place_of(process);
        self.during(from, to).any(|incident| matches!(incident.fault, Fault::Freeze(of, _) if of == place))
    }

    /// Whether a process was killed between these times, or ended with a run in its hands.
    pub fn killed(&self, process: usize, from: u64, to: u64) -> bool {
        self.lives.get(process).and_then(|life| life.ended).is_some_and(|(at, end)| {
            (from..=to).contains(&at) && (matches!(end, End::Killed | End::ByItself(_)) || end == End::Told(Some(4)))
        })
    }

    /// Whether Redis was out of this process' reach, slow, or lost.
    pub fn store_trouble(&self, process: usize, from: u64, to: u64) -> bool {
        let place = self.place_of(process);
        self.during(from, to).any(|incident| touches_store(incident.fault, place))
    }

    /// Whether Kafka was out of this process' reach, or slow.
    pub fn kafka_trouble(&self, process: usize, from: u64, to: u64) -> bool {
        let place = self.place_of(process);
        self.during(from, to).any(|incident| touches_kafka(incident.fault, place))
    }

    /// The first time that Redis forgot everything, from `from` to `to`.
    pub fn flushed(&self, from: u64, to: u64) -> Option<u64> {
        let flushes = self.incidents.iter().filter(|incident| incident.fault == Fault::Flush);
        flushes.filter(|flush| flush.from <= to && flush.to >= from).map(|flush| flush.from).min()
    }

    /// Whether a member came, went, slept or was cut off so shortly before that the group may have waited for it: meanwhile nobody's
    /// commit is answered.
    pub fn rebalancing(&self, from: u64, to: u64) -> bool {
        let moves = |fault| {
            matches!(fault, Fault::Kill(..) | Fault::Freeze(..) | Fault::Roll(_)) || (0..WORKERS).any(|place| touches_kafka(fault, place))
        };
        self.during(from.saturating_sub(SESSION), to).any(|incident| moves(incident.fault))
    }

    /// Faults that can cost a run, from `from` to `to`.
    pub fn crashes(&self, from: u64, to: u64) -> usize {
        let costs = |fault| {
            matches!(fault, Fault::Kill(..) | Fault::Freeze(..) | Fault::Flush) || (0..WORKERS).any(|place| touches_store(fault, place))
        };
        self.during(from, to).filter(|incident| costs(incident.fault)).count()
    }

    /// Whether anything at all was wrong.
    pub fn any_trouble(&self, from: u64, to: u64) -> bool {
        self.during(from, to).next().is_some()
    }

    /// Faults whose time, and what they reach, meets this one.
    fn during(&self, from: u64, to: u64) -> impl Iterator<Item = &Incident> {
        self.incidents.iter().filter(move |incident| incident.from <= to && incident.to + REACH >= from)
    }

    /// The longest time in which nobody ran anything, in microseconds.
    pub fn longest_silence(&self) -> u64 {
        let mut starts: Vec<_> = self.runs.values().flatten().map(|run| run.start).collect();
        starts.sort_unstable();
        starts.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }

    /// Whether the app answered, and the process may not have heard it in time.
    pub fn unheard(&self, run: &Run) -> bool {
        self.frozen(run.process, run.start, run.end + TIMEOUT.as_micros() as u64)
    }
}
