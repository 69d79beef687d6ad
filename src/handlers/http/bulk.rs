//! Many users' events in one request, as Dapr's bulk subscription sends them.
//!
//! A lane gives its next event only once the one before is settled, so a batch never holds two events of one user in one partition: order
//! is kept without looking.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, oneshot},
    task::JoinSet,
    time::Instant,
};

use super::{
    answer::Answer,
    bulk_answer::{self, Verdicts},
    bulk_body,
    content::Content,
    endpoint::Endpoint,
    headers,
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

/// Which events may share a request: those of one topic to one endpoint.
struct Way {
    topic: Arc<str>,
    endpoint: Arc<Endpoint>,
}

/// One event of a batch.
struct Entry {
    run: Run,
    answer: oneshot::Sender<HandlerResult>,
}

/// Events of one way, on it.
struct Line {
    way: Arc<Way>,
    /// Which batch waits.
    number: u64,
    waiting: Vec<Entry>,
    /// When the last of them came.
    joined: Instant,
    /// Requests that are not answered.
    under_way: usize,
    /// Told when a batch is sent because it is full, and when a request is answered.
    changed: Arc<Notify>,
}

/// A line's place; a line stays.
type LineId = usize;

#[derive(Default)]
struct State {
    /// Few: an app's routes.
    lines: Vec<Line>,
    tasks: JoinSet<()>,
}

/// What every batch is sent with.
struct Sender {
    poster: Arc<Poster>,
    content: Content,
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
    pub(super) fn new(poster: Arc<Poster>, content: Content, limit: Duration) -> Self {
        Self { sender: Arc::new(Sender { poster, content, state: Mutex::default() }), patience: limit / 2 }
    }

    /// Sends one event with others and answers with its own verdict. A run that is dropped before its batch is sent is not part of it.
    pub(super) async fn deliver(&self, route: &Arc<Route>, bulk: Bulk, endpoint: Arc<Endpoint>, run: Run) -> HandlerResult {
        let (answer, verdict) = oneshot::channel();
        self.join(endpoint, route, bulk, Entry { run, answer });
        verdict.await.unwrap_or_else(|_| Err(Failure::transient("its batch was given up")))
    }

    fn join(&self, endpoint: Arc<Endpoint>, route: &Arc<Route>, bulk: Bulk, entry: Entry) {
        let now = Instant::now();
        let mut state = self.sender.state();
        let id = state.line(entry.run.event.record().topic(), endpoint, now);
        let State { lines, tasks } = &mut *state;
        let line = &mut lines[id];
        line.joined = now;
        line.waiting.push(entry);
        let (full, first) = (line.waiting.len() >= bulk.events, line.waiting.len() == 1);
        if !full && !first {
            return;
        }
        while tasks.try_join_next().is_some() {}
        let (sender, route) = (Arc::clone(&self.sender), Arc::clone(route));
        if full {
            line.changed.notify_one();
            tasks.spawn(sender.send(id, Arc::clone(&line.way), route, line.begin()));
        } else {
            let end = now + bulk.wait.min(self.patience);
            tasks.spawn(sender.send_when_due(id, route, line.number, end));
        }
    }
}

impl Drop for Batches {
    fn drop(&mut self) {
        self.sender.state().tasks.abort_all();
    }
}

impl State {
    /// The line of that topic and endpoint.
    fn line(&mut self, topic: &Arc<str>, endpoint: Arc<Endpoint>, now: Instant) -> LineId {
        let same = |line: &Line| (Arc::ptr_eq(&line.way.endpoint, &endpoint) || line.way.endpoint == endpoint) && line.way.topic == *topic;
        self.lines.iter().position(same).unwrap_or_else(|| {
            let way = Arc::new(Way { topic: Arc::clone(topic), endpoint });
            self.lines.push(Line { way, number: 0, waiting: Vec::new(), joined: now, under_way: 0, changed: Arc::default() });
            self.lines.len() - 1
        })
    }
}

impl Line {
    /// Takes the batch that waits, to be sent.
    fn begin(&mut self) -> Vec<Entry> {
        self.number += 1;
        self.under_way += 1;
        let room = self.waiting.capacity();
        std::mem::replace(&mut self.waiting, Vec::with_capacity(room))
    }
}

impl Sender {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for others to join that batch, and sends it unless it filled up meanwhile. While requests are under way their answers bring what
    /// comes next, and so a larger batch; otherwise nobody is to come that is not about to.
    async fn send_when_due(self: Arc<Self>, id: LineId, route: Arc<Route>, number: u64, end: Instant) {
        let mut quiet_since = None;
        let (way, batch) = loop {
            let (changed, until) = {
                let mut state = self.state();
                let line = &mut state.lines[id];
                if line.number != number {
                    // It filled up. What was told here was for whoever waits now.
                    line.changed.notify_one();
                    return;
                }
                let now = Instant::now();
                let since = if line.under_way == 0 { Some(*quiet_since.get_or_insert(now)) } else { None };
                quiet_since = since;
                let until = since.map_or(end, |since| end.min(since.max(line.joined) + GAP));
                if until <= now {
                    break (Arc::clone(&line.way), line.begin());
                }
                (Arc::clone(&line.changed), until)
            };
            let _told = tokio::time::timeout_at(until, changed.notified()).await;
        };
        self.send(id, way, route, batch).await;
    }

    /// Posts a batch and hands out its verdicts. Where the app refuses it as a whole, each entry is posted alone: one bad event is not its
    /// neighbours' fault.
    async fn send(self: Arc<Self>, id: LineId, way: Arc<Way>, route: Arc<Route>, mut entries: Vec<Entry>) {
        let _under_way = UnderWay { sender: &self, line: id };
        // Nobody waits for these any more: their events come again.
        entries.retain(|entry| !entry.answer.is_closed());
        if entries.is_empty() {
            return;
        }
        match self.post(&way, &route, &entries).await {
            Verdicts::Refused(failure) if entries.len() > 1 => {
                tracing::debug!(
                    kafka.topic = &*way.topic,
                    events = entries.len(),
                    error = failure.error(),
                    "batch refused; each of its events goes alone"
                );
                for entry in entries.into_iter().filter(|entry| !entry.answer.is_closed()) {
                    let verdicts = self.post(&way, &route, std::slice::from_ref(&entry)).await;
                    hand_out(verdicts, vec![entry]);
                }
            }
            verdicts => hand_out(verdicts, entries),
        }
    }

    async fn post(&self, Way { topic, endpoint }: &Way, route: &Route, entries: &[Entry]) -> Verdicts {
        let mut request = self.poster.request(endpoint);
        request.header("content-type", b"application/json");
        request.header("accept", b"*/*");
        if !route.pubsub.is_empty() {
            request.header("pubsubname", &headers::header_text(route.pubsub.as_bytes()));
        }
        // One number for all entries, the highest owner's, which is what a fence compares with.
        if let Some(epoch) = entries.iter().map(|entry| entry.run.epoch).max() {
            request.number("x-worker-epoch", epoch);
        }
        bulk_body::write(&mut request.body, topic, route, self.content, entries.iter().map(|entry| &entry.run));
        let posted = self.poster.send(endpoint, request).await;
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
    line: LineId,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut state = self.sender.state();
        let line = &mut state.lines[self.line];
        line.under_way -= 1;
        line.changed.notify_one();
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
