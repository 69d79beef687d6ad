//! The rebalance machine: what to do on each of the group's events, in every state. Pure: it speaks of partitions, not of clients.
//!
//! The group waits for one answer to each of its events. An assignment is answered at once and its offsets are looked up meanwhile;
//! a revocation is answered when the engine has drained, or has used up its time.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use crate::event::record::TopicPartition;

/// Names one round of looking up offsets.
pub type Lookup = u64;
/// Names one revocation.
pub type Revocation = u64;

/// What happens to the member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The group hands out partitions.
    Assign(Vec<TopicPartition>),
    /// The group wants partitions back.
    Revoke(Vec<TopicPartition>),
    /// The group has given these to others already.
    Lost(Vec<TopicPartition>),
    /// Start offsets are known.
    Found(Lookup),
    /// The engine has drained.
    Drained(Revocation),
    /// Time has passed.
    Tick(Instant),
    /// This one's position is gone from the log: look again where to start.
    Restart(TopicPartition),
    /// Everything is lost, whatever the group says: the client is beyond use.
    LoseAll,
}

/// What the Source has to do, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Tell the group that the assignment is taken.
    AcceptAssignment,
    /// Tell the group that the revoked partitions are let go.
    AcceptRevocation,
    /// Find out where to start.
    LookUp(Lookup, Vec<TopicPartition>),
    /// Open these (all of one lookup that are still wanted) and tell the engine.
    Open(Vec<TopicPartition>),
    /// Stop reading these and tell the engine to drain them.
    Drain(Revocation, Vec<TopicPartition>),
    /// Close these: nothing more is read or committed.
    Release(Vec<TopicPartition>),
    /// Tell the engine that these are lost.
    TellLost(Vec<TopicPartition>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Looking(Lookup),
    Open,
    Draining(Revocation),
}

/// Where each partition of this member stands.
#[derive(Debug)]
pub struct Machine {
    partitions: BTreeMap<TopicPartition, State>,
    revocations: BTreeMap<Revocation, Instant>,
    drain_for: std::time::Duration,
    now: Instant,
    names: u64,
}

impl Machine {
    /// A member without partitions, that gives the engine at most `drain_for` to drain.
    pub fn new(drain_for: std::time::Duration, now: Instant) -> Self {
        Self { partitions: BTreeMap::new(), revocations: BTreeMap::new(), drain_for, now, names: 0 }
    }

    /// Whether a revocation waits for the engine.
    pub fn draining(&self) -> bool {
        !self.revocations.is_empty()
    }

    /// Partitions that the engine has.
    #[cfg(test)]
    fn open(&self) -> impl Iterator<Item = &TopicPartition> {
        self.partitions.iter().filter(|(_, state)| !matches!(state, State::Looking(_))).map(|(partition, _)| partition)
    }

    /// Takes one event, whatever the state, and says what to do.
    pub fn on(&mut self, event: Event) -> Vec<Action> {
        match event {
            Event::Assign(partitions) => self.assign(partitions),
            Event::Revoke(partitions) => self.revoke(partitions),
            Event::Lost(partitions) => {
                let mut actions = self.lose(&partitions.into_iter().collect());
                actions.push(Action::AcceptRevocation);
                actions
            }
            Event::Found(lookup) => self.found(lookup),
            Event::Drained(revocation) => self.drained(revocation),
            Event::Tick(now) => self.tick(now),
            Event::Restart(partition) => self.restart(partition),
            Event::LoseAll => {
                let all = self.partitions.keys().cloned().collect();
                self.revocations.clear();
                self.lose(&all)
            }
        }
    }

    fn name(&mut self) -> u64 {
        self.names += 1;
        self.names
    }

    fn assign(&mut self, partitions: Vec<TopicPartition>) -> Vec<Action> {
        let lookup = self.name();
        let mut actions = vec![Action::AcceptAssignment];
        // Given again while it is still being drained: the drain must not go on into the new ownership.
        let again: BTreeSet<_> =
            partitions.iter().filter(|partition| matches!(self.partitions.get(*partition), Some(State::Draining(_)))).cloned().collect();
        actions.extend(self.lose(&again));
        let new: Vec<_> = partitions.into_iter().filter(|partition| !self.partitions.contains_key(partition)).collect();
        self.partitions.extend(new.iter().map(|partition| (partition.clone(), State::Looking(lookup))));
        if !new.is_empty() {
            actions.push(Action::LookUp(lookup, new));
        }
        actions
    }

    fn revoke(&mut self, partitions: Vec<TopicPartition>) -> Vec<Action> {
        let revocation = self.name();
        let mut drain = Vec::new();
        for partition in partitions {
            match self.partitions.get_mut(&partition) {
                // The engine never heard of it.
                Some(State::Looking(_)) => {
                    self.partitions.remove(&partition);
                }
                Some(state @ State::Open) => {
                    *state = State::Draining(revocation);
                    drain.push(partition);
                }
                Some(State::Draining(_)) | None => {}
            }
        }
        if drain.is_empty() {
            return vec![Action::AcceptRevocation];
        }
        self.revocations.insert(revocation, self.now + self.drain_for);
        vec![Action::Drain(revocation, drain)]
    }

    fn lose(&mut self, partitions: &BTreeSet<TopicPartition>) -> Vec<Action> {
        let mut told = Vec::new();
        for partition in partitions {
            match self.partitions.remove(partition) {
                Some(State::Open | State::Draining(_)) => told.push(partition.clone()),
                Some(State::Looking(_)) | None => {}
            }
        }
        if told.is_empty() { Vec::new() } else { vec![Action::Release(told.clone()), Action::TellLost(told)] }
    }

    /// Only what the engine has and nobody asked back.
    fn restart(&mut self, partition: TopicPartition) -> Vec<Action> {
        if self.partitions.get(&partition) != Some(&State::Open) {
            return Vec::new();
        }
        let mut actions = self.lose(&BTreeSet::from([partition.clone()]));
        let lookup = self.name();
        self.partitions.insert(partition.clone(), State::Looking(lookup));
        actions.push(Action::LookUp(lookup, vec![partition]));
        actions
    }

    fn found(&mut self, lookup: Lookup) -> Vec<Action> {
        let mut open = Vec::new();
        for (partition, state) in &mut self.partitions {
            if *state == State::Looking(lookup) {
                *state = State::Open;
                open.push(partition.clone());
            }
        }
        if open.is_empty() { Vec::new() } else { vec![Action::Open(open)] }
    }

    /// What a revocation still has; some of it may have been lost meanwhile.
    fn take(&mut self, revocation: Revocation) -> Vec<TopicPartition> {
        let taken: Vec<_> = self
            .partitions
            .iter()
            .filter(|(_, state)| **state == State::Draining(revocation))
            .map(|(partition, _)| partition.clone())
            .collect();
        for partition in &taken {
            self.partitions.remove(partition);
        }
        taken
    }

    fn drained(&mut self, revocation: Revocation) -> Vec<Action> {
        if self.revocations.remove(&revocation).is_none() {
            return Vec::new();
        }
        let gone = self.take(revocation);
        let mut actions = Vec::new();
        if !gone.is_empty() {
            actions.push(Action::Release(gone));
        }
        actions.push(Action::AcceptRevocation);
        actions
    }

    fn tick(&mut self, now: Instant) -> Vec<Action> {
        self.now = now;
        let late: Vec<_> = self.revocations.iter().filter(|(_, deadline)| **deadline <= now).map(|(name, _)| *name).collect();
        let mut actions = Vec::new();
        for revocation in late {
            self.revocations.remove(&revocation);
            let gone = self.take(revocation);
            if !gone.is_empty() {
                actions.extend([Action::Release(gone.clone()), Action::TellLost(gone)]);
            }
            actions.push(Action::AcceptRevocation);
        }
        actions
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn partitions(numbers: &[i32]) -> Vec<TopicPartition> {
        numbers.iter().map(|number| TopicPartition::new("t", *number)).collect()
    }

    fn machine() -> (Machine, Instant) {
        let now = Instant::now();
        (Machine::new(Duration::from_secs(30), now), now)
    }

    #[test]
    fn a_revocation_is_answered_only_when_the_engine_has_drained() {
        let (mut machine, _) = machine();
        let actions = machine.on(Event::Assign(partitions(&[0, 1])));
        assert_eq!(actions, [Action::AcceptAssignment, Action::LookUp(1, partitions(&[0, 1]))]);
        assert_eq!(machine.on(Event::Found(1)), [Action::Open(partitions(&[0, 1]))]);
        assert_eq!(machine.on(Event::Revoke(partitions(&[1]))), [Action::Drain(2, partitions(&[1]))]);
        assert_eq!(machine.on(Event::Drained(2)), [Action::Release(partitions(&[1])), Action::AcceptRevocation]);
        assert_eq!(machine.open().count(), 1);
    }

    #[test]
    fn an_engine_that_does_not_drain_in_time_loses_the_partitions() {
        let (mut machine, now) = machine();
        machine.on(Event::Assign(partitions(&[0])));
        machine.on(Event::Found(1));
        machine.on(Event::Revoke(partitions(&[0])));
        assert_eq!(machine.on(Event::Tick(now + Duration::from_secs(29))), []);
        assert_eq!(
            machine.on(Event::Tick(now + Duration::from_secs(30))),
            [Action::Release(partitions(&[0])), Action::TellLost(partitions(&[0])), Action::AcceptRevocation]
        );
        assert_eq!(machine.on(Event::Drained(2)), [], "an answer that comes too late is no second answer to the group");
    }

    #[test]
    fn a_partition_taken_back_before_its_offset_was_known_never_reaches_the_engine() {
        let (mut machine, _) = machine();
        machine.on(Event::Assign(partitions(&[0, 1])));
        assert_eq!(machine.on(Event::Revoke(partitions(&[0]))), [Action::AcceptRevocation]);
        assert_eq!(machine.on(Event::Found(1)), [Action::Open(partitions(&[1]))]);
    }

    /// What the engine and the group see, for any order of events (F93).
    #[derive(Default)]
    struct Witness {
        asked: usize,
        answered: usize,
        told: BTreeSet<TopicPartition>,
        reading: BTreeSet<TopicPartition>,
    }

    impl Witness {
        fn see(&mut self, actions: Vec<Action>) {
            for action in actions {
                match action {
                    Action::AcceptAssignment | Action::AcceptRevocation => self.answered += 1,
                    Action::LookUp(..) => {}
                    Action::Open(opened) => {
                        for partition in opened {
                            assert!(self.told.insert(partition.clone()), "{partition} given twice");
                            self.reading.insert(partition);
                        }
                    }
                    Action::Drain(_, drained) => drained.iter().for_each(|partition| assert!(self.told.contains(partition))),
                    Action::Release(released) => {
                        for partition in released {
                            assert!(self.reading.remove(&partition), "{partition} released twice");
                            self.told.remove(&partition);
                        }
                    }
                    Action::TellLost(lost) => lost.iter().for_each(|partition| assert!(!self.reading.contains(partition))),
                }
            }
        }
    }

    fn any_event() -> impl Strategy<Value = (u8, Vec<i32>, u64)> {
        (0..8u8, prop::collection::vec(0..4i32, 0..4), 0..12u64)
    }

    proptest! {
        /// F93: any sequence, empty lists and repeats included.
        #[test]
        fn every_event_is_taken_in_every_state_and_the_group_is_answered_once_for_each(script in prop::collection::vec(any_event(), 0..40)) {
            let (mut machine, mut now) = machine();
            let mut witness = Witness::default();
            for (kind, mut numbers, name) in script {
                numbers.sort_unstable();
                numbers.dedup();
                let list = partitions(&numbers);
                let event = match kind {
                    0 => Event::Assign(list),
                    1 => Event::Revoke(list),
                    2 => Event::Lost(list),
                    3 => Event::Found(name),
                    4 => Event::Drained(name),
                    5 => {
                        now += Duration::from_secs(7);
                        Event::Tick(now)
                    }
                    6 => Event::Restart(TopicPartition::new("t", i32::try_from(name % 4).unwrap())),
                    _ => Event::Found(machine.names),
                };
                if matches!(event, Event::Assign(_) | Event::Revoke(_) | Event::Lost(_)) {
                    witness.asked += 1;
                }
                witness.see(machine.on(event));
                prop_assert!(witness.answered <= witness.asked);
            }
            now += Duration::from_secs(60);
            witness.see(machine.on(Event::Tick(now)));
            prop_assert_eq!(witness.answered, witness.asked, "no question of the group stays unanswered");
            let open: BTreeSet<_> = machine.open().cloned().collect();
            prop_assert_eq!(&open, &witness.told);
        }
    }
}
