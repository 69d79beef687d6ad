//! The oracle: what was produced, what ran, what was written, and which promise each of it keeps or breaks.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
};

use worker::{
    engine::ports::{EventRecord, HandlerRecord, HandlerState, Member},
    progress::Map,
};

use crate::{plan::Shape, store::Data, world::Process};

/// Which handlers want a type, by version of the configuration.
pub fn handlers(version: usize, event_type: &str) -> Vec<&'static str> {
    let mut names = vec!["alpha"];
    match version {
        0 if event_type != "task.created" => names.push("beta"),
        1 if event_type != "task.updated" => names.push("gamma"),
        _ => {}
    }
    names
}

/// One record of the source topic, and what became of it.
pub struct Event {
    pub partition: i32,
    pub offset: i64,
    pub lane: Vec<u8>,
    pub keyed: bool,
    pub user: String,
    pub shape: Shape,
    pub event_type: &'static str,
    pub redrives: u32,
    /// A redriven event goes to these alone.
    pub only: Option<Vec<String>>,
    pub member: Member,
    /// The log lost it before anybody was through with it.
    pub gone: bool,
    pub letters: Vec<String>,
    completed: BTreeMap<String, Completion>,
    failures: BTreeMap<String, u32>,
    pub runs: u32,
}

struct Completion {
    at: u64,
    by: Arc<Process>,
    freezes: u64,
    losses: u64,
}

/// A run under way.
struct Active {
    event: usize,
    handler: String,
    epoch: u64,
    process: Arc<Process>,
    freezes: u64,
    losses: u64,
    since: u64,
}

/// A handler's last failure of an event.
struct Failed {
    /// The process: without a lease an owner runs under the epoch of the one before.
    by: String,
    epoch: u64,
    version: usize,
    at: u64,
    /// What it has to wait.
    delay: u64,
}

/// After any of these a success may be forgotten.
const TROUBLES: &[&str] =
    &["freeze", "cut", "store down", "store slow", "store mute", "store late", "store clock", "flush", "failover", "shard lost"];

#[derive(Default)]
pub struct Facts {
    pub events: Vec<Event>,
    places: BTreeMap<(i32, i64), usize>,
    active: BTreeMap<u64, Active>,
    runs: u64,
    pub violations: Vec<String>,
    /// Runs of what had completed, and letters of what had one, by cause.
    pub duplicates: BTreeMap<&'static str, u64>,
    pub faults: BTreeMap<&'static str, u64>,
    pub reasons: BTreeMap<String, u64>,
    /// What happened, of all that has to.
    pub seen: BTreeMap<&'static str, u64>,
    pub grown: bool,
    last_failure: BTreeMap<(usize, String), Failed>,
}

/// What a run tells of itself when it starts.
pub struct Start<'a> {
    pub process: &'a Arc<Process>,
    pub place: (i32, i64),
    pub handler: &'a str,
    pub attempt: u32,
    pub epoch: u64,
}

impl Event {
    #[expect(clippy::too_many_arguments, reason = "a record has that many sides")]
    pub fn new(
        place: (i32, i64),
        key: Option<&[u8]>,
        user: String,
        shape: Shape,
        event_type: &'static str,
        redrives: u32,
        only: Option<Vec<String>>,
        member: Member,
    ) -> Self {
        Self {
            partition: place.0,
            offset: place.1,
            lane: key.map_or_else(|| user.clone().into_bytes(), <[u8]>::to_vec),
            keyed: key.is_some(),
            user,
            shape,
            event_type,
            redrives,
            only,
            member,
            gone: false,
            letters: Vec::new(),
            completed: BTreeMap::new(),
            failures: BTreeMap::new(),
            runs: 0,
        }
    }

    fn through(&self) -> bool {
        let done = |name: &str| self.completed.contains_key(name);
        match (&self.only, self.shape) {
            _ if self.gone || !self.letters.is_empty() => true,
            (_, Shape::Undecodable | Shape::UnknownType) => false,
            (Some(only), _) => only.iter().all(|name| done(name)),
            (None, _) => (0..2).any(|version| handlers(version, self.event_type).into_iter().all(done)),
        }
    }
}

impl Facts {
    pub fn produced(&mut self, event: Event) -> usize {
        self.places.insert((event.partition, event.offset), self.events.len());
        self.events.push(event);
        self.events.len() - 1
    }

    pub fn at(&self, place: (i32, i64)) -> Option<usize> {
        self.places.get(&place).copied()
    }

    /// Whether the event needs nothing more: handled, dead-lettered, or gone; or a copy of it is.
    pub fn concluded(&self, index: usize) -> bool {
        let event = &self.events[index];
        event.through() || self.events.iter().any(|other| other.member == event.member && other.through())
    }

    pub fn fault(&mut self, name: &'static str) {
        *self.faults.entry(name).or_default() += 1;
    }

    fn had(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.faults.contains_key(name))
    }

    /// Whether none of these has happened.
    pub fn calm(&self, names: &[&str]) -> bool {
        !self.had(names)
    }

    /// A handler that the store has as unfinished with an event that is about to be called finished.
    pub fn forgets(&self, partition: i32, member: &Member, records: &BTreeMap<i64, (EventRecord, u64)>) -> Option<String> {
        let mut same = self.events.iter().filter(|event| event.member == *member);
        let event = same.next().filter(|event| event.partition == partition && !event.gone && same.next().is_none())?;
        let (record, _) = records.get(&event.offset).filter(|(record, _)| record.id == member.id)?;
        let open = |known: &&HandlerRecord| {
            matches!(known.state, HandlerState::Retry | HandlerState::Dead { .. }) && !event.completed.contains_key(&known.handler)
        };
        let forgotten = record.handlers.iter().find(open).filter(|_| event.letters.is_empty())?;
        Some(format!("{} of p{partition} is called finished, but {} is not through", event.offset, forgotten.handler))
    }

    /// A handler begins: may it?
    pub fn start(&mut self, start: &Start<'_>, store: &Data) -> Result<u64, String> {
        let Start { process, place, handler, attempt, epoch } = *start;
        let Some(index) = self.at(place) else { return Err(format!("a run of an unknown record {place:?}")) };
        let trusting = process.world.plan.bypass_after_ms.is_none();
        if trusting {
            self.judge_store(index, start, store)?;
            self.judge_order(index, start, store)?;
        }
        self.judge_time(index, start, store)?;
        if let Some(done) = self.events[index].completed.get(handler) {
            let (at, died_at) = (done.at, done.by.died_at());
            let cause = match () {
                () if !trusting => "bypass",
                () if store.losses > done.losses => "store lost",
                () if done.by.freezes() > done.freezes => "freeze",
                () if done.by.stopping.load(Ordering::Relaxed) => "shutdown deadline",
                () if !done.by.alive() => "crash",
                () if self.events.iter().filter(|other| other.member == self.events[index].member).count() > 1 => {
                    "copy in another partition"
                }
                () if self.had(&["store down", "store slow", "store mute", "store late"]) => "store outage",
                () => return Err(format!("{handler} runs {place:?} again without a cause")),
            };
            // What has finished is written down within moments, also where another handler of the event goes on.
            if cause == "crash" && died_at.is_some_and(|died_at| at + 200 < died_at) && self.calm(TROUBLES) {
                return Err(format!("{handler} runs {place:?} again, {} ms after its success", process.world.now() - at));
            }
            *self.duplicates.entry(cause).or_default() += 1;
        }
        self.note_run(index, start, store);
        self.events[index].runs += 1;
        self.runs += 1;
        let active = Active {
            event: index,
            handler: handler.to_owned(),
            epoch,
            process: Arc::clone(process),
            freezes: process.freezes(),
            losses: store.losses,
            since: process.world.now(),
        };
        self.active.insert(self.runs, active);
        let _ = attempt;
        Ok(self.runs)
    }

    /// What this run shows of what has to be shown.
    fn note_run(&mut self, index: usize, start: &Start<'_>, store: &Data) {
        let Start { process, place, handler, attempt, epoch } = *start;
        let event = &self.events[index];
        let part = store.parts.get(&place.0);
        let mut seen = Vec::new();
        if event.shape == Shape::OddKey {
            seen.push("run under a key that is not the user");
        }
        if event.shape == Shape::Keyless {
            seen.push("run without a key");
        }
        if place.0 >= process.world.plan.partitions {
            seen.push("run in an added partition");
        }
        if part.and_then(|part| part.lease.as_ref()).is_none_or(|row| row.epoch != epoch || row.owner.is_empty()) {
            seen.push("run without a lease");
        }
        if event.redrives > 0 {
            seen.push("redriven run");
        }
        let failed = self.last_failure.get(&(index, handler.to_owned()));
        if attempt > 1 && failed.is_some_and(|failed| failed.version != process.version) {
            seen.push("retry under another configuration");
        }
        if attempt > 1 && part.is_none_or(|part| !part.records.contains_key(&place.1)) {
            seen.push("attempts from the commit map alone");
        }
        if process.world.plan.clocks_ms[process.slot] != 0 && attempt > 1 && failed.is_some_and(|failed| failed.epoch != epoch) {
            seen.push("retry taken over by another clock");
        }
        for what in seen {
            *self.seen.entry(what).or_default() += 1;
        }
    }

    /// What the store knows allows the run.
    fn judge_store(&self, index: usize, start: &Start<'_>, store: &Data) -> Result<(), String> {
        let Start { process, place, handler, attempt, epoch } = *start;
        let event = &self.events[index];
        let part = store.parts.get(&place.0);
        let lost = store.losses > 0;
        let now = store.now(process.world.now());
        let row = part.and_then(|part| part.lease.as_ref());
        match row {
            Some(row) if !row.owner.is_empty() && (row.epoch == epoch || lost) => {
                if !lost && store.skew_ms == 0 && (row.released || row.end <= now) {
                    return Err(format!("{place:?} runs after the end of its lease"));
                }
            }
            _ if lost => {}
            row => return Err(format!("{place:?} runs under epoch {epoch}, the lease is {:?}", row.map(|row| (&row.owner, row.epoch)))),
        }
        let copies = self.events.iter().filter(|other| other.member == event.member && other.partition != event.partition).count();
        if copies == 0 && store.is_done(&event.member) {
            return Err(format!("{place:?} runs though the ledger knows it"));
        }
        let record =
            part.and_then(|part| part.records.get(&place.1)).map(|(record, _)| record).filter(|record| record.id == event.member.id);
        self.judge_record(index, start, record, lost)?;
        if let Some(row) = row.filter(|row| row.epoch == epoch && row.losses == store.losses)
            && !row.clean
            && row.found_mark.is_some_and(|mark| mark >= place.1)
            && record.is_none_or(|record| record.starts == 0)
        {
            return Err(format!("{place:?} may have killed the owner before, and its start was not counted"));
        }
        if !lost && part.is_none_or(|part| part.marks.values().all(|mark| *mark < place.1)) {
            return Err(format!("{place:?} runs above the mark"));
        }
        let _ = (handler, attempt);
        Ok(())
    }

    fn judge_record(&self, index: usize, start: &Start<'_>, record: Option<&EventRecord>, lost: bool) -> Result<(), String> {
        let Start { place, handler, attempt, .. } = *start;
        let known = record.and_then(|record| record.handlers.iter().find(|known| known.handler == handler));
        match known {
            Some(known) if known.state != HandlerState::Retry => {
                Err(format!("{handler} runs {place:?}, which the store has as {:?}", known.state))
            }
            Some(known) if known.attempts >= attempt => {
                Err(format!("{handler} runs {place:?} as attempt {attempt} after {} failures", known.attempts))
            }
            Some(known) if known.attempts + 1 == attempt => Ok(()),
            _ if attempt == 1 || lost => Ok(()),
            // Another owner's failure, which the commit map told of before the store heard of it.
            _ if self.last_failure.get(&(index, handler.to_owned())).is_none_or(|failed| failed.epoch != start.epoch)
                && self.events[index].failures.values().any(|failures| failures + 1 >= attempt) =>
            {
                Ok(())
            }
            _ => {
                let failures = self.events[index].failures.get(handler);
                Err(format!(
                    "{handler} runs {place:?} as attempt {attempt}, of which the store knows nothing; it failed {failures:?} times"
                ))
            }
        }
    }

    /// One event of a lane at a time, in order.
    fn judge_order(&self, index: usize, start: &Start<'_>, store: &Data) -> Result<(), String> {
        let Start { process, place, handler, epoch, .. } = *start;
        let event = &self.events[index];
        let lost = store.losses > 0;
        for (other, earlier) in self.events.iter().enumerate().filter(|(_, other)| other.partition == place.0 && other.lane == event.lane) {
            if earlier.offset < place.1 && !self.concluded(other) {
                return Err(format!("{place:?} runs before {} is through", earlier.offset));
            }
            if earlier.offset > place.1 && earlier.runs > 0 && !lost {
                return Err(format!("{handler} runs {place:?} after {}", earlier.offset));
            }
        }
        let expired = store.parts.get(&place.0).and_then(|part| part.lease.as_ref()).is_some_and(|row| row.expired);
        for active in self.active.values().filter(|active| active.process.alive()) {
            let other = &self.events[active.event];
            if other.partition != place.0 || other.lane != event.lane {
                continue;
            }
            if active.epoch == epoch {
                if other.offset != place.1 || active.handler == handler {
                    return Err(format!("{place:?} runs while {} of its lane does", other.offset));
                }
            } else if !expired && !lost && active.process.freezes() == active.freezes {
                return Err(format!("{place:?} runs in {} while {} runs in {}", process.name, other.offset, active.process.name));
            }
        }
        Ok(())
    }

    /// No retry comes before its time.
    fn judge_time(&self, index: usize, start: &Start<'_>, _store: &Data) -> Result<(), String> {
        let Start { process, place, handler, epoch, .. } = *start;
        match self.last_failure.get(&(index, handler.to_owned())) {
            Some(failed)
                if failed.by == process.name && failed.epoch == epoch && process.world.now() < failed.at + failed.delay * 9 / 10 =>
            {
                let after = process.world.now() - failed.at;
                Err(format!("{handler} runs {place:?} {after} ms after a failure that asked for {}", failed.delay))
            }
            _ => Ok(()),
        }
    }

    /// A run is over, one way or another; `done`: its effect took place.
    pub fn end(&mut self, run: u64, handler: &str, done: Option<bool>, delay: Option<u64>) {
        let Some(active) = self.active.remove(&run) else { return };
        let now = active.process.world.now();
        let event = &mut self.events[active.event];
        match done {
            Some(true) => {
                let freezes = active.freezes;
                event.completed.entry(handler.to_owned()).or_insert(Completion {
                    at: now,
                    by: active.process,
                    freezes,
                    losses: active.losses,
                });
            }
            Some(false) => {
                *event.failures.entry(handler.to_owned()).or_default() += 1;
                let by = active.process.name.clone();
                let failed = Failed { by, epoch: active.epoch, version: active.process.version, at: now, delay: delay.unwrap_or_default() };
                self.last_failure.insert((active.event, handler.to_owned()), failed);
            }
            None => {}
        }
    }

    /// A run is given up before it has answered and before its time limit: only where its lease is another's, or its process ends.
    pub fn cancelled(&self, run: u64, store: &Data) -> Result<(), String> {
        let Some(active) = self.active.get(&run) else { return Ok(()) };
        let (process, event) = (&active.process, &self.events[active.event]);
        let world = &process.world;
        let ends = !process.alive() || process.frozen() || process.stopping.load(Ordering::Relaxed);
        let timed_out = world.now() >= active.since + world.plan.handler_timeout_ms;
        let ours = store.parts.get(&event.partition).and_then(|part| part.lease.as_ref());
        let ours = ours.is_some_and(|row| row.epoch == active.epoch && !row.owner.is_empty() && !row.released);
        if ends || timed_out || !ours || store.losses > 0 {
            return Ok(());
        }
        Err(format!("{} gives up {} of p{} under a lease that is nobody else's", active.handler, event.offset, event.partition))
    }

    /// A letter is about to be written.
    pub fn letter(&mut self, process: &Process, place: (i32, i64), reason: &str, innocent: bool, store: &Data) -> Result<(), String> {
        let Some(index) = self.at(place) else { return Err(format!("a letter of an unknown record {place:?}")) };
        let event = &self.events[index];
        let rejected = matches!(event.shape, Shape::Undecodable | Shape::UnknownType);
        if !rejected && store.losses == 0 && process.world.plan.bypass_after_ms.is_none() {
            let record = store.parts.get(&place.0).and_then(|part| part.records.get(&place.1)).map(|(record, _)| record);
            if record.is_none_or(|record| record.id != event.member.id) {
                return Err(format!("{place:?} goes to the dlq before the store knows why"));
            }
            if store.is_done(&event.member) && self.events.iter().filter(|other| other.member == event.member).count() == 1 {
                return Err(format!("{place:?} goes to the dlq though the ledger knows it"));
            }
        }
        // Four strikes at least have to come from kills that were not its own.
        let kills: u64 = self.faults.iter().filter(|(name, _)| !["poison", "redrive"].contains(*name)).map(|(_, count)| count).sum();
        if reason == "crash_loop" && innocent && kills < 4 {
            return Err(format!("{place:?} is blamed for crashes that were not its fault"));
        }
        Ok(())
    }

    /// A letter stands in the DLQ.
    pub fn buried(&mut self, place: (i32, i64), reason: &str, muted: bool) -> Result<(), String> {
        let Some(index) = self.at(place) else { return Ok(()) };
        *self.reasons.entry(reason.to_owned()).or_default() += 1;
        let again = !self.events[index].letters.is_empty();
        self.events[index].letters.push(reason.to_owned());
        let _ = muted;
        if again {
            let cause = match () {
                () if self.had(&["dlq mute"]) => "letter unacknowledged",
                () if self.had(&["kill", "poison", "freeze", "roll", "rebalance", "cut", "dlq down"]) => {
                    "letter across a crash or handover"
                }
                () if self.had(&["flush", "failover", "shard lost", "store down", "store mute", "store late", "store slow"]) => {
                    "letter, store lost"
                }
                () => return Err(format!("{place:?} is in the dlq twice")),
            };
            *self.duplicates.entry(cause).or_default() += 1;
        }
        Ok(())
    }

    /// The group stores a commit: does it pass anything?
    pub fn committed(&self, partition: i32, offset: i64, metadata: &str) -> Result<(), String> {
        let map = Map::decode(offset, metadata).map_err(|error| format!("p{partition} commits what is no map: {error}"))?;
        let mut blocked = BTreeSet::new();
        let mut events: Vec<(usize, &Event)> = self.events.iter().enumerate().filter(|(_, event)| event.partition == partition).collect();
        events.sort_by_key(|(_, event)| event.offset);
        for (index, event) in events {
            let settled = match &map {
                _ if event.offset < offset => true,
                None => false,
                Some(map) if event.offset > map.frontier => false,
                Some(map) => {
                    if event.keyed && map.heads.iter().any(|head| head.offset == event.offset) {
                        blocked.insert(event.lane.clone());
                    }
                    event.keyed && !blocked.contains(&event.lane) && !map.heads.iter().any(|head| head.offset == event.offset)
                }
            };
            if settled && !self.concluded(index) {
                return Err(format!("a commit of p{partition} at {offset} passes {}, which nobody is through with: {map:?}", event.offset));
            }
        }
        Ok(())
    }

    /// Copies that were recognised: none of their handlers ran.
    pub fn recognised(&self) -> u64 {
        let copies = self.events.iter().enumerate().filter(|(index, event)| {
            event.shape == Shape::Twin && event.runs == 0 && event.letters.is_empty() && !event.gone && self.concluded(*index)
        });
        copies.count() as u64
    }

    /// How often each handler may fail one event.
    pub fn judge_attempts(&self, crashes: u64, most: u32) -> Result<(), String> {
        for event in &self.events {
            for (handler, failures) in &event.failures {
                if u64::from(*failures) > u64::from(most) + crashes {
                    return Err(format!("{handler} failed {} of p{} {failures} times", event.offset, event.partition));
                }
            }
        }
        Ok(())
    }
}
