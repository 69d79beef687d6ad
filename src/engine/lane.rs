//! Lanes: one user's events in one partition, in offset order, one at a time.

use std::{collections::VecDeque, hash::BuildHasher as _};

use hashbrown::{DefaultHashBuilder, HashTable};
use slab::Slab;
use smallvec::SmallVec;

use super::{ports::Member, subject::Subject, work::Work};
use crate::event::record::Record;

/// A lane's place in its partition; stable while the lane holds an event.
pub(super) type LaneId = usize;

/// An event that is kept as its position only, to be read from the log again at its turn: 24 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stub {
    /// Where it stands; its complement where the record has no key.
    place: i64,
    /// What stood there when it was taken; another identity at its turn means another record.
    pub(super) id: [u8; 16],
}

impl Stub {
    fn new(record: &Record, id: [u8; 16]) -> Self {
        let offset = record.offset();
        Self { place: if record.key().is_some() { offset } else { !offset }, id }
    }

    /// Where it stands.
    pub(super) fn offset(&self) -> i64 {
        if self.keyed() { self.place } else { !self.place }
    }

    fn keyed(&self) -> bool {
        self.place >= 0
    }
}

/// Whose a lane's stubs are, by the hash that says where the ledger keeps them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum StubUser {
    /// There are no stubs.
    #[default]
    Nobody,
    /// All of one user.
    One(u64),
    /// Keys that are not the user_id.
    Several,
}

/// Where a lane's head stands on the path of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Waits for the next ledger check.
    Ready,
    /// Being read from the log again.
    Fetching,
    /// In a ledger check.
    Checking,
    /// Waits for permits, or runs.
    Running,
    /// Its record is being written before what comes next.
    Saving,
    /// In backoff.
    Waiting,
    /// Its dead letter is being published.
    Burying,
    /// Its verdict is being written to the ledger.
    Finishing,
}

/// Bytes of a key that are kept in the lane itself: a UUID fits.
const KEY: usize = 40;

/// One user's queue in one partition.
#[derive(Debug)]
pub(super) struct Lane {
    /// What finds it again, with its hash; `None`: a record without key and user has a lane of its own.
    key: Option<(u64, SmallVec<[u8; KEY]>)>,
    /// The head, once its turn has come; taken out of `next` or `queue`.
    pub(super) work: Option<Box<Work>>,
    /// The head of a lane that was empty: decoded while its bytes were at hand.
    pub(super) next: Option<Subject>,
    /// Events after the head, whole.
    pub(super) queue: VecDeque<Record>,
    /// Events after those, as stubs.
    pub(super) stubs: VecDeque<Stub>,
    stub_user: StubUser,
    /// Bytes of `next` and `queue`.
    pub(super) queued_bytes: usize,
    pub(super) stage: Stage,
    /// The backlog goes to the DLQ, in order.
    pub(super) overflowing: bool,
    /// Its head's record is queued to be written.
    pub(super) to_save: bool,
}

impl Lane {
    /// Lowest unsettled offset.
    pub(super) fn head(&self) -> Option<i64> {
        self.first().map(Record::offset).or_else(|| self.stubs.front().map(Stub::offset))
    }

    /// The head's record, where it is held whole.
    fn first(&self) -> Option<&Record> {
        self.work.as_ref().map(|work| &work.subject).or(self.next.as_ref()).map(Subject::record).or_else(|| self.queue.front())
    }

    /// Lowest unsettled offset of a record with a key: replay knows a lane by nothing else.
    pub(super) fn first_keyed(&self) -> Option<i64> {
        let keyed = |record: &&Record| record.key().is_some();
        let whole = self.first().filter(keyed).or_else(|| self.queue.iter().find(keyed)).map(Record::offset);
        whole.or_else(|| self.stubs.iter().find(|stub| stub.keyed()).map(Stub::offset))
    }

    /// Keeps an event as a stub, behind all others.
    pub(super) fn spill(&mut self, record: &Record, member: Member) {
        self.stub_user = match self.stub_user {
            StubUser::One(user) if user != member.user && !self.stubs.is_empty() => StubUser::Several,
            StubUser::Several if !self.stubs.is_empty() => StubUser::Several,
            _ => StubUser::One(member.user),
        };
        self.stubs.push_back(Stub::new(record, member.id));
    }

    /// The ledger's names of `stubs`, all or none.
    pub(super) fn members(&self, stubs: &[Stub]) -> Vec<Member> {
        match self.stub_user {
            StubUser::One(user) => stubs.iter().map(|stub| Member { id: stub.id, user }).collect(),
            StubUser::Nobody | StubUser::Several => Vec::new(),
        }
    }

    /// Timestamp of the head where it is held whole.
    pub(super) fn timestamp(&self) -> Option<i64> {
        self.first().and_then(Record::timestamp)
    }

    /// Bytes held, for the memory budget.
    pub(super) fn footprint(&self) -> usize {
        self.work.as_ref().map_or(0, |work| work.subject.record().footprint()) + self.queued_bytes + self.stubs.len() * size_of::<Stub>()
    }

    /// Events held, the head included.
    pub(super) fn len(&self) -> usize {
        usize::from(self.work.is_some()) + usize::from(self.next.is_some()) + self.queue.len() + self.stubs.len()
    }
}

/// Queues of lanes that are gone, kept for the next ones: nearly every event of a quiet user makes a lane.
const SPARE: usize = 512;
/// A queue that grew beyond this is not kept.
const SPARE_EVENTS: usize = 16;

/// Every lane of a partition that holds an event.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    lanes: Slab<Lane>,
    /// By key; seeded, so that nobody can choose keys that fall into one place.
    by_key: HashTable<LaneId>,
    hasher: DefaultHashBuilder,
    spare: Vec<VecDeque<Record>>,
}

impl Lanes {
    /// The lane of `key`, made where it is missing; `None`: a new lane of its own.
    pub(super) fn of(&mut self, key: Option<&[u8]>) -> LaneId {
        let hashed = key.map(|key| (self.hasher.hash_one(key), key));
        let Self { lanes, by_key, .. } = self;
        let found =
            hashed.and_then(|(hash, key)| by_key.find(hash, |&id| lanes[id].key.as_ref().is_some_and(|(_, known)| **known == *key)));
        if let Some(&id) = found {
            return id;
        }
        let id = self.lanes.insert(Lane {
            key: hashed.map(|(hash, key)| (hash, SmallVec::from_slice(key))),
            work: None,
            next: None,
            queue: self.spare.pop().unwrap_or_default(),
            stubs: VecDeque::new(),
            stub_user: StubUser::Nobody,
            queued_bytes: 0,
            stage: Stage::Ready,
            overflowing: false,
            to_save: false,
        });
        if let Some((hash, _)) = hashed {
            let lanes = &self.lanes;
            self.by_key.insert_unique(hash, id, |&id| lanes[id].key.as_ref().map_or(0, |(hash, _)| *hash));
        }
        id
    }

    /// Forgets a lane that holds nothing.
    pub(super) fn remove(&mut self, id: LaneId) {
        let Lane { key, queue, .. } = self.lanes.remove(id);
        if let Some(place) = key.and_then(|(hash, _)| self.by_key.find_entry(hash, |&found| found == id).ok()) {
            place.remove();
        }
        if self.spare.len() < SPARE && queue.is_empty() && (1..=SPARE_EVENTS).contains(&queue.capacity()) {
            self.spare.push(queue);
        }
    }

    /// The lane, where it still holds something.
    pub(super) fn get(&self, id: LaneId) -> Option<&Lane> {
        self.lanes.get(id)
    }

    /// As [`Lanes::get`], to be changed.
    pub(super) fn get_mut(&mut self, id: LaneId) -> Option<&mut Lane> {
        self.lanes.get_mut(id)
    }

    /// How many hold something.
    pub(super) fn len(&self) -> usize {
        self.lanes.len()
    }

    /// Every lane.
    pub(super) fn iter(&self) -> impl Iterator<Item = (LaneId, &Lane)> {
        self.lanes.iter()
    }
}

impl std::ops::Index<LaneId> for Lanes {
    type Output = Lane;

    fn index(&self, id: LaneId) -> &Lane {
        &self.lanes[id]
    }
}

impl std::ops::IndexMut<LaneId> for Lanes {
    fn index_mut(&mut self, id: LaneId) -> &mut Lane {
        &mut self.lanes[id]
    }
}
