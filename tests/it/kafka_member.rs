//! A member of a group with the smallest engine there is: it keeps what it is given, and drains when told to.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot};
use worker::{
    config::{Config, Sources},
    engine::ports::{Committed, Gate, Message, Publisher, SourceEvent, weight},
    event::record::{RecordBatch, TopicPartition},
    kafka::source::{Source, SourceHandle},
};

/// Longest wait for anything.
pub const SOON: Duration = Duration::from_secs(30);

/// The default configuration with these `path=value` on top.
pub fn config(brokers: &str, group: &str, sets: &[&str]) -> Config {
    let mut all = vec![format!("kafka.brokers=\"{brokers}\""), format!("kafka.group_id=\"{group}\"")];
    all.extend(sets.iter().map(|set| (*set).to_owned()));
    Config::load(&Sources { sets: all, ..Sources::default() }).unwrap().config
}

/// What one member has seen of one partition.
#[derive(Debug, Default, Clone)]
pub struct Seen {
    /// Offsets in the order in which they came, over all its assignments.
    pub offsets: Vec<i64>,
    /// Values in the same order.
    pub values: Vec<Vec<u8>>,
    /// When the last one came.
    pub last: Option<Instant>,
}

/// What the engine was told, in words.
#[derive(Debug, Default)]
pub struct State {
    pub seen: BTreeMap<i32, Seen>,
    pub owned: BTreeMap<i32, (i64, Option<Committed>, Arc<Gate>)>,
    pub told: Vec<String>,
    /// Answers to revocations that are held back.
    pub held: Vec<oneshot::Sender<()>>,
    /// Give every byte back as soon as it was seen.
    pub give_back: bool,
    /// Hold answers to revocations back.
    pub hold_drains: bool,
    /// Budget of each new partition.
    pub budget: Option<usize>,
}

/// A group member with its engine.
pub struct Peer {
    pub source: SourceHandle,
    pub state: Arc<Mutex<State>>,
}

impl Peer {
    pub fn start(config: &Config, topics: &[&str]) -> Self {
        Self::start_with(config, topics, State { give_back: true, ..State::default() })
    }

    pub fn start_with(config: &Config, topics: &[&str], state: State) -> Self {
        let (events, told) = mpsc::channel(16);
        let source = Source::start(config, topics.iter().map(|&topic| topic.to_owned()).collect(), events).unwrap();
        let state = Arc::new(Mutex::new(state));
        tokio::spawn(engine(told, Arc::clone(&state)));
        Self { source, state }
    }

    pub fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().unwrap())
    }

    pub fn owned(&self) -> Vec<i32> {
        self.with(|state| state.owned.keys().copied().collect())
    }

    pub fn count(&self, partition: i32) -> usize {
        self.with(|state| state.seen.get(&partition).map_or(0, |seen| seen.offsets.len()))
    }

    pub fn total(&self) -> usize {
        self.with(|state| state.seen.values().map(|seen| seen.offsets.len()).sum())
    }
}

async fn engine(mut told: mpsc::Receiver<SourceEvent>, state: Arc<Mutex<State>>) {
    while let Some(event) = told.recv().await {
        match event {
            SourceEvent::Assigned(assignments) => {
                for assignment in assignments {
                    let partition = assignment.partition.partition;
                    {
                        let mut state = state.lock().unwrap();
                        if let Some(budget) = state.budget {
                            assignment.gate.set_budget(budget);
                        }
                        state.told.push(format!("assigned {partition}"));
                        state.owned.insert(partition, (assignment.start, assignment.committed.clone(), Arc::clone(&assignment.gate)));
                    }
                    tokio::spawn(partition_task(partition, assignment.inbox, assignment.gate, Arc::clone(&state)));
                }
            }
            SourceEvent::Revoked { partitions, drained } => {
                let mut state = state.lock().unwrap();
                for partition in &partitions {
                    state.told.push(format!("revoked {}", partition.partition));
                    state.owned.remove(&partition.partition);
                }
                if state.hold_drains {
                    state.held.push(drained);
                } else {
                    let _ = drained.send(());
                }
            }
            SourceEvent::Lost(partitions) => {
                let mut state = state.lock().unwrap();
                for partition in &partitions {
                    state.told.push(format!("lost {}", partition.partition));
                    state.owned.remove(&partition.partition);
                }
            }
            SourceEvent::Fatal(words) => state.lock().unwrap().told.push(format!("fatal {words}")),
        }
    }
    state.lock().unwrap().told.push("end".to_owned());
}

async fn partition_task(partition: i32, mut inbox: mpsc::Receiver<Box<dyn RecordBatch>>, gate: Arc<Gate>, state: Arc<Mutex<State>>) {
    while let Some(batch) = inbox.recv().await {
        let mut state = state.lock().unwrap();
        let seen = state.seen.entry(partition).or_default();
        let mut bytes = 0;
        batch.for_each(&mut |record| {
            bytes += weight(record);
            seen.offsets.push(record.offset());
            seen.values.push(record.value().unwrap_or_default().to_vec());
        });
        seen.last = Some(Instant::now());
        if state.give_back {
            gate.subtract(bytes);
        }
    }
    state.lock().unwrap().told.push(format!("closed {partition}"));
}

/// Waits until `done`, at most [`SOON`].
pub async fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < SOON, "not within {SOON:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// One record for one partition.
pub fn message(topic: &str, partition: i32, value: impl Into<Vec<u8>>) -> Message {
    Message {
        topic: topic.into(),
        key: Some(bytes::Bytes::from_static(b"user")),
        value: Some(value.into().into()),
        headers: Vec::new(),
        partition: Some(partition),
    }
}

/// Publishes `count` numbered records to each of `partitions`, and waits for all acknowledgements.
pub async fn fill(publisher: &dyn Publisher, topic: &str, partitions: std::ops::Range<i32>, count: usize) {
    let mut all = Vec::new();
    for number in 0..count {
        for partition in partitions.clone() {
            all.push(publisher.publish(message(topic, partition, number.to_string())));
        }
    }
    for answer in futures_util::future::join_all(all).await {
        answer.unwrap();
    }
}

/// The partition's name.
pub fn place(topic: &str, partition: i32) -> TopicPartition {
    TopicPartition::new(topic, partition)
}
