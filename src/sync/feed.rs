//! The newest events by user, and who listens to them.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::mpsc, time::Instant};

use super::position::Position;
use crate::telemetry::Metrics;

/// Events that wait for one client; one that is slower is let go, and takes up again where it was.
const WAITING: usize = 64;
/// Clients of one user at once.
const OF_ONE_USER: usize = 32;
/// What an event costs besides its bytes.
const OVERHEAD: usize = 200;

/// One event as clients get it.
#[derive(Debug)]
pub struct Update {
    /// Where it stands.
    pub partition: i32,
    /// Where it stands.
    pub offset: i64,
    /// Its type.
    pub event_type: Arc<str>,
    /// The event as JSON, in one line.
    pub data: Bytes,
}

/// What a feed keeps.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How long an event is kept.
    pub history: Duration,
    /// Bytes of all that are kept.
    pub memory: u64,
    /// Clients at once.
    pub connections: usize,
}

/// Why a client cannot listen now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The topic has not been read up to its end yet.
    NotReady,
    /// There are as many clients as there may be.
    Full,
    /// This user has as many.
    TooMany,
    /// The position lies beyond what was read: another worker is ahead, or the topic was made anew.
    Ahead,
}

/// The newest events of one topic, by user.
///
/// An event is given to the clients of its own user and to nobody else. What is kept is complete from each partition's floor on; a client whose position lies
/// below it cannot take up again.
#[derive(Clone)]
pub struct Feed(Arc<Inner>);

struct Inner {
    limits: Limits,
    metrics: Metrics,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ready: bool,
    /// Up to where each partition was read.
    read: Position,
    /// From where on all events of each partition are kept.
    floors: BTreeMap<i32, i64>,
    /// Everything that is kept, oldest first.
    kept: VecDeque<(Instant, Arc<str>, u64)>,
    bytes: u64,
    users: HashMap<Arc<str>, User>,
    connections: usize,
    last_number: u64,
}

#[derive(Default)]
struct User {
    kept: VecDeque<Arc<Update>>,
    listeners: Vec<(u64, mpsc::Sender<Arc<Update>>)>,
}

impl Feed {
    /// A feed that nothing was read for yet.
    pub fn new(limits: Limits, metrics: Metrics) -> Self {
        Self(Arc::new(Inner { limits, metrics, state: Mutex::default() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets everything, and lets every client go: the topic is read anew, in each partition from that offset on.
    pub fn begin(&self, floors: BTreeMap<i32, i64>) {
        let mut state = self.state();
        let (connections, last_number) = (state.connections, state.last_number);
        let mut read = Position::default();
        floors.iter().for_each(|(partition, floor)| read.advance(*partition, *floor));
        *state = State { floors, read, connections, last_number, ..State::default() };
    }

    /// The topic was read up to where its end was at the beginning.
    pub fn ready(&self) {
        self.state().ready = true;
    }

    /// Takes an event in, in the order of its partition; `None`: a record that is none.
    pub fn push(&self, partition: i32, offset: i64, event: Option<(Arc<str>, Update)>) {
        let now = Instant::now();
        let mut state = self.state();
        state.floors.entry(partition).or_insert(offset);
        state.read.advance(partition, offset + 1);
        if let Some((name, update)) = event {
            let (size, update) = ((update.data.len() + name.len() + OVERHEAD) as u64, Arc::new(update));
            let user = state.users.entry(Arc::clone(&name)).or_default();
            user.listeners.retain(|(_, listener)| {
                let taken = listener.try_send(Arc::clone(&update)).is_ok();
                if taken {
                    self.0.metrics.sync_events.inc()
                } else {
                    self.0.metrics.sync_slow_clients.inc()
                }
                taken
            });
            user.kept.push_back(update);
            state.kept.push_back((now, name, size));
            state.bytes += size;
        }
        state.forget(&self.0.limits, now);
    }

    /// Listens to a user's events, from a position on or from now on.
    ///
    /// # Errors
    /// Where that cannot be now; a position that is too old is no error, but [`Subscription::is_reset`].
    pub fn subscribe(&self, user_id: &str, from: Option<Position>) -> Result<Subscription, Refused> {
        let mut state = self.state();
        if !state.ready {
            return Err(Refused::NotReady);
        }
        if state.connections >= self.0.limits.connections {
            return Err(Refused::Full);
        }
        if from.as_ref().is_some_and(|from| from.iter().any(|(partition, next)| next > state.read.next(partition))) {
            return Err(Refused::Ahead);
        }
        let is_reset = from.as_ref().is_some_and(|from| state.floors.iter().any(|(partition, floor)| from.next(*partition) < *floor));
        let position = from.filter(|_| !is_reset).unwrap_or_else(|| state.read.clone());
        let number = state.last_number + 1;
        let name: Arc<str> = user_id.into();
        let user = state.users.entry(Arc::clone(&name)).or_default();
        if user.listeners.len() >= OF_ONE_USER {
            return Err(Refused::TooMany);
        }
        let (listener, updates) = mpsc::channel(WAITING);
        user.listeners.push((number, listener));
        let replay = user.kept.iter().filter(|update| update.offset >= position.next(update.partition)).cloned().collect();
        state.last_number = number;
        state.connections += 1;
        self.0.metrics.sync_connections.inc();
        Ok(Subscription { feed: self.clone(), user_id: name, number, position, replay, updates, is_reset })
    }
}

impl State {
    /// Drops what is too old or too much, and raises the floors above it.
    fn forget(&mut self, limits: &Limits, now: Instant) {
        while let Some((at, name, size)) = self.kept.front() {
            if self.bytes <= limits.memory && now.duration_since(*at) <= limits.history {
                break;
            }
            self.bytes -= size;
            if let Some(user) = self.users.get_mut(name) {
                if let Some(update) = user.kept.pop_front() {
                    self.floors.insert(update.partition, update.offset + 1);
                }
                if user.kept.is_empty() && user.listeners.is_empty() {
                    self.users.remove(name);
                }
            }
            self.kept.pop_front();
        }
    }
}

/// One client's ear. Dropped, it is closed.
pub struct Subscription {
    feed: Feed,
    user_id: Arc<str>,
    number: u64,
    position: Position,
    replay: VecDeque<Arc<Update>>,
    updates: mpsc::Receiver<Arc<Update>>,
    is_reset: bool,
}

impl Subscription {
    /// Whether the position that was asked for cannot be taken up: events lie between that are not kept any more.
    pub fn is_reset(&self) -> bool {
        self.is_reset
    }

    /// Up to where this client has everything.
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// The next event; `None`: this client was too slow, or the topic is read anew. Safe to be dropped and asked again.
    pub async fn next(&mut self) -> Option<Arc<Update>> {
        let update = match self.replay.pop_front() {
            Some(update) => update,
            None => self.updates.recv().await?,
        };
        self.position.advance(update.partition, update.offset + 1);
        Some(update)
    }

    /// Goes on to where the topic was read, where nothing waits for this client: it then has all there is for it.
    pub fn catch_up(&mut self) {
        let state = self.feed.state();
        // Under the same lock as every event is given out: none comes between the look and the step.
        if self.replay.is_empty() && self.updates.is_empty() && !self.updates.is_closed() {
            self.position = state.read.clone();
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut state = self.feed.state();
        state.connections -= 1;
        self.feed.0.metrics.sync_connections.dec();
        let Some(user) = state.users.get_mut(&self.user_id) else { return };
        user.listeners.retain(|(number, _)| *number != self.number);
        if user.kept.is_empty() && user.listeners.is_empty() {
            state.users.remove(&self.user_id);
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests;
