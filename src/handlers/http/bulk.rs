//! Many users' events in one request, as Dapr's bulk subscription sends them.
//!
//! A lane gives its next event only once the one before is settled, so a batch never holds two events of one user in one partition: order
//! is kept without looking.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use reqwest::Url;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::{
    sync::{Notify, oneshot},
    task::JoinSet,
    time::Instant,
};

use super::{
    bulk_answer::{self, Verdicts},
    post::{Posted, Poster},
    routes::{Bulk, Route},
};
use crate::{
    handler::Run,
    outcome::{Failure, HandlerResult},
};

/// A batch that nothing has joined for this long is sent: whoever is still to come waits for it.
const GAP: Duration = Duration::from_millis(20);

/// Which batch an event joins.
type Key = (Arc<str>, Url);

/// One event of a batch.
struct Entry {
    run: Run,
    event: Box<RawValue>,
    metadata: serde_json::Map<String, serde_json::Value>,
    content_type: &'static str,
    answer: oneshot::Sender<HandlerResult>,
}

/// A batch that more can join.
struct Open {
    number: u64,
    pubsub: String,
    entries: Vec<Entry>,
    joined: Arc<Notify>,
}

#[derive(Default)]
struct State {
    open: HashMap<Key, Open>,
    numbers: u64,
    tasks: JoinSet<()>,
}

/// Collects events into batches and hands out the answers. Dropping it gives up what is under way.
pub(super) struct Batches {
    poster: Arc<Poster>,
    /// Longest wait, whatever a route says: a run's time limit covers its wait.
    patience: Duration,
    state: Arc<Mutex<State>>,
}

/// An event as a batch takes it.
pub(super) struct Joining {
    pub(super) run: Run,
    pub(super) event: Box<RawValue>,
    pub(super) metadata: serde_json::Map<String, serde_json::Value>,
    pub(super) content_type: &'static str,
}

impl Batches {
    /// `limit`: the handler's time limit, of which waiting may take half.
    pub(super) fn new(poster: Arc<Poster>, limit: Duration) -> Self {
        Self { poster, patience: limit / 2, state: Arc::default() }
    }

    /// Sends one event with others and answers with its own verdict. A run that is dropped before its batch is sent is not part of it.
    pub(super) async fn deliver(&self, route: &Route, bulk: Bulk, url: Url, joining: Joining) -> HandlerResult {
        let (answer, verdict) = oneshot::channel();
        let Joining { run, event, metadata, content_type } = joining;
        let key = (Arc::clone(run.event.record().topic()), url);
        let entry = Entry { run, event, metadata, content_type, answer };
        self.join(key, &route.pubsub, bulk, entry);
        verdict.await.unwrap_or_else(|_| Err(Failure::transient("its batch was given up")))
    }

    fn join(&self, key: Key, pubsub: &str, bulk: Bulk, entry: Entry) {
        let mut state = lock(&self.state);
        while state.tasks.try_join_next().is_some() {}
        if !state.open.contains_key(&key) {
            state.numbers += 1;
            let (number, joined) = (state.numbers, Arc::new(Notify::new()));
            let open = Open { number, pubsub: pubsub.to_owned(), entries: Vec::new(), joined: Arc::clone(&joined) };
            state.open.insert(key.clone(), open);
            let (poster, shared, key) = (Arc::clone(&self.poster), Arc::clone(&self.state), key.clone());
            let wait = bulk.wait.min(self.patience);
            state.tasks.spawn(async move {
                wait_for_others(&joined, wait).await;
                if let Some(open) = close(&shared, &key, number) {
                    send(&poster, &key, open).await;
                }
            });
        }
        let Some(open) = state.open.get_mut(&key) else { return };
        open.entries.push(entry);
        open.joined.notify_one();
        if open.entries.len() >= bulk.events
            && let Some(open) = state.open.remove(&key)
        {
            let poster = Arc::clone(&self.poster);
            state.tasks.spawn(async move { send(&poster, &key, open).await });
        }
    }
}

impl Drop for Batches {
    fn drop(&mut self) {
        lock(&self.state).tasks.abort_all();
    }
}

/// Takes a batch off the list; `None`: it filled up in the meantime and is sent already, and the one in its place is not this task's.
fn close(state: &Mutex<State>, key: &Key, number: u64) -> Option<Open> {
    let mut state = lock(state);
    if state.open.get(key)?.number == number { state.open.remove(key) } else { None }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Until nothing has joined for [`GAP`], or the first has waited for as long as it may.
async fn wait_for_others(joined: &Notify, wait: Duration) {
    let end = Instant::now() + wait;
    loop {
        let quiet = (Instant::now() + GAP).min(end);
        if tokio::time::timeout_at(quiet, joined.notified()).await.is_err() || Instant::now() >= end {
            return;
        }
    }
}

/// Posts a batch and hands out its verdicts. Where the app refuses it as a whole, each entry is posted alone: one bad event is not its
/// neighbours' fault.
async fn send(poster: &Poster, key: &Key, open: Open) {
    let Open { pubsub, mut entries, .. } = open;
    // Nobody waits for these any more: their events come again.
    entries.retain(|entry| !entry.answer.is_closed());
    if entries.is_empty() {
        return;
    }
    match post(poster, key, &pubsub, &entries).await {
        Verdicts::Refused(failure) if entries.len() > 1 => {
            tracing::debug!(
                kafka.topic = &*key.0,
                events = entries.len(),
                error = failure.error(),
                "batch refused; each of its events goes alone"
            );
            for entry in entries.into_iter().filter(|entry| !entry.answer.is_closed()) {
                let verdicts = post(poster, key, &pubsub, std::slice::from_ref(&entry)).await;
                hand_out(verdicts, vec![entry]);
            }
        }
        verdicts => hand_out(verdicts, entries),
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

async fn post(poster: &Poster, key: &Key, pubsub: &str, entries: &[Entry]) -> Verdicts {
    let body = serde_json::to_vec(&body(&key.0, pubsub, entries)).unwrap_or_default();
    match poster.post(key.1.clone(), bulk_headers(pubsub, entries), body.into()).await {
        Posted::Answered { status, retry_after, body, now } => {
            let answer = super::answer::Answer { status, retry_after: retry_after.as_deref(), body: &body, now };
            bulk_answer::verdicts(&answer, poster.table(), entries.len())
        }
        Posted::Failed(failure) => Verdicts::Each(vec![Err(failure); entries.len()]),
    }
}

fn bulk_headers(pubsub: &str, entries: &[Entry]) -> reqwest::header::HeaderMap {
    let mut headers = reqwest::header::HeaderMap::new();
    headers.insert("content-type", super::JSON);
    if let Ok(pubsub) = reqwest::header::HeaderValue::try_from(pubsub)
        && !pubsub.is_empty()
    {
        headers.insert("pubsubname", pubsub);
    }
    // One number for all: the highest owner's, which is what a fence compares with.
    if let Some(epoch) = entries.iter().map(|entry| entry.run.epoch).max() {
        headers.insert("x-worker-epoch", epoch.into());
    }
    headers
}

#[derive(Serialize)]
struct Body<'a> {
    id: String,
    r#type: &'static str,
    topic: &'a str,
    pubsubname: &'a str,
    metadata: serde_json::Value,
    entries: Vec<BodyEntry<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BodyEntry<'a> {
    entry_id: String,
    event: &'a RawValue,
    metadata: &'a serde_json::Map<String, serde_json::Value>,
    content_type: &'static str,
}

fn body<'a>(topic: &'a str, pubsub: &'a str, entries: &'a [Entry]) -> Body<'a> {
    let entry = |(index, entry): (usize, &'a Entry)| BodyEntry {
        entry_id: index.to_string(),
        event: &entry.event,
        metadata: &entry.metadata,
        content_type: entry.content_type,
    };
    Body {
        id: uuid::Uuid::new_v4().to_string(),
        r#type: "com.dapr.event.sent.bulk",
        topic,
        pubsubname: pubsub,
        metadata: serde_json::json!({ "pubsubName": pubsub }),
        entries: entries.iter().enumerate().map(entry).collect(),
    }
}
