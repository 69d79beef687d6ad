//! The broker: logs, the group's commits, and a coordinator that gives partitions to members and takes them away.

use std::{collections::BTreeMap, sync::Arc};

use tokio::{
    sync::{mpsc, oneshot},
    task::AbortHandle,
};
use worker::{
    engine::{
        member::member,
        ports::{Assignment, Commit, Committed, Gate, SourceEvent, weight},
    },
    event::record::{RecordBatch, RecordParts, TopicPartition},
};

use crate::{
    facts::Event,
    plan::{Plan, Produced, Shape},
    world::{Process, World, sleep_ms},
};

pub const TOPIC: &str = "task-events";
/// A member that is silent for this long is out.
const SESSION_MS: u64 = 10_000;

#[derive(Default)]
pub struct Log {
    pub records: BTreeMap<i64, RecordParts>,
    pub start: i64,
    pub end: i64,
}

/// One process in the group.
struct Member {
    process: Arc<Process>,
    source: mpsc::Sender<SourceEvent>,
    seen: u64,
    /// The group has given its partitions away, and it does not know yet.
    out: bool,
    feeds: BTreeMap<i32, AbortHandle>,
}

impl Member {
    /// Its client has found out that its partitions are another's.
    fn lose(&mut self, world: &World) {
        let lost: Vec<_> = self.feeds.keys().map(|partition| TopicPartition::new(TOPIC, *partition)).collect();
        self.feeds.values().for_each(AbortHandle::abort);
        self.feeds.clear();
        if !lost.is_empty() {
            world.note(&self.process.name, || format!("lost {lost:?}"));
            // An engine that has ended has nothing to lose.
            let _ended = self.source.try_send(SourceEvent::Lost(lost));
        }
    }
}

enum Owned {
    By(u64),
    Revoking(u64, oneshot::Receiver<()>),
}

pub struct Broker {
    pub logs: Vec<Log>,
    pub commits: BTreeMap<i32, Committed>,
    pub metadata_limit: usize,
    pub rotation: usize,
    members: BTreeMap<u64, Member>,
    owners: BTreeMap<i32, Owned>,
    joined: u64,
}

impl Broker {
    pub fn new(plan: &Plan) -> Self {
        Self {
            logs: (0..plan.partitions).map(|_| Log::default()).collect(),
            commits: BTreeMap::new(),
            metadata_limit: plan.metadata_limit,
            rotation: 0,
            members: BTreeMap::new(),
            owners: BTreeMap::new(),
            joined: 0,
        }
    }

    pub fn join(&mut self, process: &Arc<Process>, source: mpsc::Sender<SourceEvent>) -> u64 {
        self.joined += 1;
        let seen = process.world.now();
        self.members.insert(self.joined, Member { process: Arc::clone(process), source, seen, out: false, feeds: BTreeMap::new() });
        self.joined
    }

    /// A process says goodbye: its partitions are free at once.
    pub fn leave(&mut self, member: u64) {
        if let Some(member) = self.members.remove(&member) {
            member.feeds.values().for_each(AbortHandle::abort);
        }
        self.owners.retain(|_, owner| owner.member() != member);
    }

    /// Whether the group takes this member's commits: it is in the group, and its client still has the partitions.
    pub fn accepts(&self, member: u64, commits: &[Commit]) -> bool {
        let known = self.members.get(&member).is_some_and(|member| !member.out);
        known && commits.iter().all(|commit| self.owners.get(&commit.partition.partition).is_some_and(|owner| owner.member() == member))
    }

    /// Whether every partition is committed to its end.
    pub fn committed(&self) -> bool {
        self.logs.iter().enumerate().all(|(partition, log)| {
            let offset = self.commits.get(&(partition as i32)).map_or(0, |commit| commit.offset);
            log.records.range(offset..).next().is_none()
        })
    }

    fn batch(&self, partition: i32, from: i64, most: usize) -> Vec<RecordParts> {
        self.logs[partition as usize].records.range(from..).take(most).map(|(_, record)| record.clone()).collect()
    }
}

impl Owned {
    fn member(&self) -> u64 {
        match self {
            Self::By(member) | Self::Revoking(member, _) => *member,
        }
    }
}

/// Appends one record; answers where it stands.
pub fn produce(world: &World, number: usize, spec: &Produced, before: Option<(String, Vec<u8>)>) -> (String, Vec<u8>) {
    let user = format!("u{}", spec.user);
    let (id, key) = match (spec.shape, before) {
        (Shape::Twin, Some(before)) => before,
        (Shape::OddKey, _) => (format!("e{number}"), format!("odd-{user}").into_bytes()),
        _ => (format!("e{number}"), user.clone().into_bytes()),
    };
    // A twin is its forerunner's event; everything else is its own.
    let user = if spec.shape == Shape::Twin { String::from_utf8(key.clone()).unwrap().trim_start_matches("odd-").to_owned() } else { user };
    let event_type = if spec.shape == Shape::UnknownType { "task.exploded" } else { spec.event_type };
    let value = match spec.shape {
        Shape::Undecodable => b"{no".to_vec(),
        _ => format!(r#"{{"event_id":"{id}","event_type":"{event_type}","user_id":"{user}","data":{{"task_id":1}}}}"#).into_bytes(),
    };
    let partition = {
        let count = world.broker().logs.len();
        (key.iter().map(|byte| usize::from(*byte)).sum::<usize>() % count) as i32
    };
    let record_key = (spec.shape != Shape::Keyless).then(|| key.clone());
    append(world, partition, spec, record_key, value, &user, &id, None);
    (id, key)
}

#[expect(clippy::too_many_arguments, reason = "a record has that many sides")]
pub fn append(
    world: &World,
    partition: i32,
    spec: &Produced,
    key: Option<Vec<u8>>,
    value: Vec<u8>,
    user: &str,
    id: &str,
    only: Option<Vec<String>>,
) {
    let redrives = u32::from(only.is_some());
    let mut headers = Vec::new();
    if let Some(only) = &only {
        headers.push((worker::engine::REDRIVES.to_owned(), Some(b"1".to_vec())));
        headers.push((worker::engine::HANDLER.to_owned(), Some(only.join(",").into_bytes())));
    }
    let mut broker = world.broker();
    let log = &mut broker.logs[partition as usize];
    let offset = log.end + spec.gap;
    log.end = offset + 1;
    let event = Event::new(
        (partition, offset),
        key.as_deref(),
        user.to_owned(),
        spec.shape,
        spec.event_type,
        redrives,
        only,
        member(TOPIC, user, id, redrives, None),
    );
    let timestamp = Some(1_767_225_600_000 + world.now() as i64);
    log.records.insert(offset, RecordParts { offset, timestamp, key, value: Some(value), headers });
    drop(broker);
    world.note("topic", || format!("p{partition} {offset} {user} {id} {} {:?}", spec.event_type, spec.shape));
    world.facts().produced(event);
    world.produced.notify_waiters();
}

/// One step of the coordinator.
pub fn coordinate(world: &Arc<World>) {
    let now = world.now();
    let mut broker = world.broker();
    let broker = &mut *broker;
    see_members(world, broker, now);
    finish_revocations(broker);
    let live: Vec<u64> = broker.members.iter().filter(|(_, member)| !member.out).map(|(id, _)| *id).collect();
    if live.is_empty() {
        return;
    }
    for partition in 0..broker.logs.len() as i32 {
        let target = live[(partition as usize + broker.rotation) % live.len()];
        match broker.owners.get(&partition) {
            None if broker.members[&target].process.reachable() => assign(world, broker, partition, target),
            Some(Owned::By(owner)) if *owner != target => {
                let owner = *owner;
                let member = &broker.members[&owner];
                if !member.process.reachable() {
                    continue;
                }
                let (drained, answer) = oneshot::channel();
                let partitions = vec![TopicPartition::new(TOPIC, partition)];
                world.note(&member.process.name, || format!("p{partition} revoked"));
                if member.source.try_send(SourceEvent::Revoked { partitions, drained }).is_ok() {
                    broker.owners.insert(partition, Owned::Revoking(owner, answer));
                }
            }
            _ => {}
        }
    }
}

fn see_members(world: &World, broker: &mut Broker, now: u64) {
    let mut gone = Vec::new();
    for (id, member) in &mut broker.members {
        if member.process.reachable() {
            member.seen = now;
            if member.out {
                member.out = false;
                member.lose(world);
            }
        } else if now - member.seen > SESSION_MS && !member.out {
            member.out = true;
            world.note(&member.process.name, || "out of the group".to_owned());
            broker.owners.retain(|_, owner| owner.member() != *id);
            if !member.process.alive() {
                gone.push(*id);
            } else if world.plan.notices && !member.process.frozen() {
                member.lose(world);
            }
        } else if member.out && !member.process.alive() {
            gone.push(*id);
        }
    }
    for id in gone {
        broker.leave(id);
    }
}

fn finish_revocations(broker: &mut Broker) {
    let mut free = Vec::new();
    for (partition, owner) in &mut broker.owners {
        if let Owned::Revoking(member, answer) = owner
            && !matches!(answer.try_recv(), Err(oneshot::error::TryRecvError::Empty))
        {
            free.push((*partition, *member));
        }
    }
    for (partition, member) in free {
        broker.owners.remove(&partition);
        if let Some(feed) = broker.members.get_mut(&member).and_then(|member| member.feeds.remove(&partition)) {
            feed.abort();
        }
    }
}

fn assign(world: &Arc<World>, broker: &mut Broker, partition: i32, target: u64) {
    let committed = broker.commits.get(&partition).cloned();
    let start = committed.as_ref().map_or(broker.logs[partition as usize].start, |committed| committed.offset);
    let log_start = broker.logs[partition as usize].start.max(start);
    let (sender, inbox) = mpsc::channel(2);
    let gate = Arc::new(Gate::default());
    let Some(member) = broker.members.get_mut(&target) else { return };
    let assignment =
        Assignment { partition: TopicPartition::new(TOPIC, partition), start, log_start, committed, inbox, gate: Arc::clone(&gate) };
    world.note(&member.process.name, || format!("p{partition} assigned from {start}"));
    if member.source.try_send(SourceEvent::Assigned(vec![assignment])).is_ok() {
        let feed = tokio::spawn(feed(Arc::clone(&member.process), partition, start, sender, gate));
        member.feeds.insert(partition, feed.abort_handle());
        broker.owners.insert(partition, Owned::By(target));
    }
}

/// The Source's part: reads the log while the gate lets it.
async fn feed(process: Arc<Process>, partition: i32, start: i64, inbox: mpsc::Sender<Box<dyn RecordBatch>>, gate: Arc<Gate>) {
    let world = Arc::clone(&process.world);
    let mut next = start;
    let mut open = true;
    loop {
        process.pass().await;
        open = gate.open(open);
        if !open || process.cut() {
            sleep_ms(50).await;
            continue;
        }
        sleep_ms(world.plan.fetch_ms).await;
        let most = if world.plan.fetch_ms > 0 { 1 } else { world.rng().usize(1..=8) };
        let batch = world.broker().batch(partition, next, most);
        gate.set_log_end(world.broker().logs[partition as usize].end);
        let Some(last) = batch.last() else {
            world.produced.notified().await;
            sleep_ms(1).await;
            continue;
        };
        next = last.offset + 1;
        gate.add(batch.iter().map(|record| weight(record)).sum());
        if inbox.send(Box::new(batch)).await.is_err() {
            return;
        }
    }
}
