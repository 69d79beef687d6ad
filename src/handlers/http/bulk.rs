//! Many users' events in one request, as Dapr's bulk subscription sends them.
//!
//! A lane gives its next event only once the one before is settled, so a batch never holds two events of one user in one partition: order
//! is kept without looking.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use tokio::{
    sync::{Notify, oneshot},
    task::JoinSet,
    time::Instant,
};

use super::{
    answer::Answer,
    bulk_answer::{self, Verdicts},
    bulk_body,
    endpoint::Endpoint,
    post::{Posted, Poster},
    routes::{Bulk, Route},
};
use crate::{
    handler::Run,
    outcome::{Failure, HandlerResult},
};

/// Where no request of its line is under way, a batch that nothing has joined for this long is sent: whoever is still to come comes from the
/// store, which answers sooner.
const GAP: Duration = Duration::from_millis(2);

/// The events that may share a request: those of one topic to one endpoint.
type Key = (Arc<str>, Arc<Endpoint>);

/// An event as a batch takes it.
pub(super) struct Joining {
    /// The run that it is for.
    pub(super) run: Run,
    /// What the app reads: JSON, or bytes.
    pub(super) event: Bytes,
    /// And what that is.
    pub(super) content_type: &'static str,
}

/// One event of a batch.
struct Entry {
    joining: Joining,
    answer: oneshot::Sender<HandlerResult>,
}

/// Events of one key, on their way.
#[derive(Default)]
struct Line {
    /// Which batch waits.
    number: u64,
    waiting: Vec<Entry>,
    /// Requests that are not answered.
    under_way: usize,
    /// Told when an event joins, and when a request is answered.
    changed: Arc<Notify>,
}

#[derive(Default)]
struct State {
    lines: HashMap<Key, Line>,
    tasks: JoinSet<()>,
    /// Room of bodies that were answered: the next ones take it, where new room of that size would be the system's to clear first.
    rooms: Vec<BytesMut>,
}

/// What every batch is sent with.
struct Sender {
    poster: Arc<Poster>,
    state: Mutex<State>,
}

/// Collects events into batches and hands out the answers. Dropping it gives up what is under way.
pub(super) struct Batches {
    sender: Arc<Sender>,
    /// Longest wait, whatever a route says: a run's time limit covers its wait.
    patience: Duration,
}

impl Batches {
    /// `limit`: the handler's time limit, of which waiting may take half.
    pub(super) fn new(poster: Arc<Poster>, limit: Duration) -> Self {
        Self { sender: Arc::new(Sender { poster, state: Mutex::default() }), patience: limit / 2 }
    }

    /// Sends one event with others and answers with its own verdict. A run that is dropped before its batch is sent is not part of it.
    pub(super) async fn deliver(&self, route: &Arc<Route>, bulk: Bulk, endpoint: Arc<Endpoint>, joining: Joining) -> HandlerResult {
        let (answer, verdict) = oneshot::channel();
        let key = (Arc::clone(joining.run.event.record().topic()), endpoint);
        self.join(key, route, bulk, Entry { joining, answer });
        verdict.await.unwrap_or_else(|_| Err(Failure::transient("its batch was given up")))
    }

    fn join(&self, key: Key, route: &Arc<Route>, bulk: Bulk, entry: Entry) {
        let mut state = self.sender.state();
        while state.tasks.try_join_next().is_some() {}
        let State { lines, tasks, .. } = &mut *state;
        let line = lines.entry(key.clone()).or_default();
        line.waiting.push(entry);
        if line.waiting.len() >= bulk.events {
            let batch = line.begin();
            tasks.spawn(Arc::clone(&self.sender).send(key, Arc::clone(route), batch));
        } else if line.waiting.len() == 1 {
            let (number, end) = (line.number, Instant::now() + bulk.wait.min(self.patience));
            tasks.spawn(Arc::clone(&self.sender).send_when_due(key, Arc::clone(route), number, end));
        } else {
            line.changed.notify_one();
        }
    }
}

impl Drop for Batches {
    fn drop(&mut self) {
        self.sender.state().tasks.abort_all();
    }
}

impl Line {
    /// Takes the batch that waits, to be sent.
    fn begin(&mut self) -> Vec<Entry> {
        self.number += 1;
        self.under_way += 1;
        std::mem::take(&mut self.waiting)
    }
}

impl Sender {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for others to join that batch, and sends it unless it filled up meanwhile. While requests are under way their answers bring what
    /// comes next, and so a larger batch; otherwise nobody is to come that is not about to.
    async fn send_when_due(self: Arc<Self>, key: Key, route: Arc<Route>, number: u64, end: Instant) {
        let mut told = true;
        let batch = loop {
            let (changed, until) = {
                let mut state = self.state();
                let Some(line) = state.lines.get_mut(&key) else { return };
                if line.number != number {
                    // It filled up. What was told here was for whoever waits now.
                    line.changed.notify_one();
                    return;
                }
                if !told {
                    break line.begin();
                }
                let quiet = Instant::now() + GAP;
                (Arc::clone(&line.changed), if line.under_way == 0 { end.min(quiet) } else { end })
            };
            told = tokio::time::timeout_at(until, changed.notified()).await.is_ok();
        };
        self.send(key, route, batch).await;
    }

    /// Posts a batch and hands out its verdicts. Where the app refuses it as a whole, each entry is posted alone: one bad event is not its
    /// neighbours' fault.
    async fn send(self: Arc<Self>, key: Key, route: Arc<Route>, mut entries: Vec<Entry>) {
        let _under_way = UnderWay { sender: &self, key: &key };
        // Nobody waits for these any more: their events come again.
        entries.retain(|entry| !entry.answer.is_closed());
        if entries.is_empty() {
            return;
        }
        match self.post(&key, &route, &entries).await {
            Verdicts::Refused(failure) if entries.len() > 1 => {
                tracing::debug!(
                    kafka.topic = &*key.0,
                    events = entries.len(),
                    error = failure.error(),
                    "batch refused; each of its events goes alone"
                );
                for entry in entries.into_iter().filter(|entry| !entry.answer.is_closed()) {
                    let verdicts = self.post(&key, &route, std::slice::from_ref(&entry)).await;
                    hand_out(verdicts, vec![entry]);
                }
            }
            verdicts => hand_out(verdicts, entries),
        }
    }

    async fn post(&self, (topic, endpoint): &Key, route: &Route, entries: &[Entry]) -> Verdicts {
        let mut room = self.state().rooms.pop().unwrap_or_default();
        let body = bulk_body::write(&mut room, topic, route, entries.iter().map(|entry| &entry.joining));
        let headers = headers(&route.pubsub, entries.iter().map(|entry| entry.joining.run.epoch).max());
        let posted = self.poster.post(endpoint, headers, body).await;
        self.state().rooms.push(room);
        match posted {
            Posted::Answered { status, retry_after, body, now } => {
                let answer = Answer { status, retry_after: retry_after.as_deref(), body: &body, now };
                bulk_answer::verdicts(&answer, self.poster.table(), entries.len())
            }
            Posted::Failed(failure) => Verdicts::Each(vec![Err(failure); entries.len()]),
        }
    }
}

/// A request of a line that is not answered yet.
struct UnderWay<'a> {
    sender: &'a Sender,
    key: &'a Key,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if let Some(line) = self.sender.state().lines.get_mut(self.key) {
            line.under_way -= 1;
            line.changed.notify_one();
        }
    }
}

fn hand_out(verdicts: Verdicts, entries: Vec<Entry>) {
    let verdicts = match verdicts {
        Verdicts::Each(verdicts) => verdicts,
        Verdicts::Refused(failure) => vec![Err(failure); entries.len()],
    };
    for (entry, verdict) in entries.into_iter().zip(verdicts) {
        // A run that was dropped meanwhile comes again.
        let _dropped = entry.answer.send(verdict);
    }
}

/// `epoch`: one number for all entries, the highest owner's, which is what a fence compares with.
fn headers(pubsub: &str, epoch: Option<u64>) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(CONTENT_TYPE, super::JSON);
    if let Some(pubsub) = HeaderValue::try_from(pubsub).ok().filter(|pubsub| !pubsub.is_empty()) {
        headers.insert("pubsubname", pubsub);
    }
    if let Some(epoch) = epoch {
        headers.insert("x-worker-epoch", epoch.into());
    }
    headers
}
