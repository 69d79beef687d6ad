//! A chain in a topic: every record under the chain's name as its key, so in one partition, in order.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use chrono::Utc;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::{
    audit::chain::{Body, Chain},
    engine::ports::Message,
    handlers::outlet::Outlet,
    outcome::Failure,
};

/// Records that are sent at once.
const BATCH: usize = 256;

/// Appends to a chain in a topic. A record that is not acknowledged may be there or not, so the chain ends there: the next one's first record
/// says up to where it is to be believed, and the record is written again.
pub(super) struct TopicJournal {
    topic: Arc<str>,
    name: String,
    outlet: Outlet,
    waiting: Mutex<Vec<Pending>>,
    /// The chain up to its last acknowledged record, and whether it can be gone on with.
    chain: tokio::sync::Mutex<State>,
}

struct Pending {
    body: Body,
    written: oneshot::Sender<Result<(), Failure>>,
}

struct State {
    chain: Chain,
    whole: bool,
    /// Chains that were begun since, and of which nothing was acknowledged.
    void: Vec<Arc<str>>,
}

impl TopicJournal {
    /// `name`: how the chain's name begins.
    pub(super) fn new(topic: &str, name: &str, outlet: Outlet) -> Self {
        let chain = tokio::sync::Mutex::new(State { chain: Chain::new(""), whole: false, void: Vec::new() });
        Self { topic: topic.into(), name: name.to_owned(), outlet, waiting: Mutex::default(), chain }
    }

    /// Writes one record, acknowledged when this answers. Whoever is first writes for all that wait.
    pub(super) async fn append(&self, body: Body) -> Result<(), Failure> {
        let (written, mut answer) = oneshot::channel();
        self.waiting().push(Pending { body, written });
        loop {
            let mut state = tokio::select! {
                biased;
                answer = &mut answer => return answer.unwrap_or_else(|_| Err(Failure::transient("whoever wrote it was stopped"))),
                state = self.chain.lock() => state,
            };
            let batch: Vec<_> = {
                let mut waiting = self.waiting();
                let count = waiting.len().min(BATCH);
                waiting.drain(..count).collect()
            };
            if !batch.is_empty() {
                self.write(&mut state, batch).await;
            }
        }
    }

    async fn write(&self, state: &mut State, batch: Vec<Pending>) {
        let now = Utc::now();
        let mut chain = state.chain.clone();
        let mut messages = Vec::with_capacity(batch.len() + 1);
        if !state.whole {
            let after = (chain.seq > 0).then(|| json!({ "chain": &*chain.name, "seq": chain.seq, "hash": chain.hash }));
            let open = Body::Open(json!({ "version": 1, "after": after.unwrap_or(Value::Null), "void": state.void }));
            chain = Chain::new(format!("{}-{}", self.name, Uuid::now_v7().simple()));
            messages.push(self.message(&mut chain, now, &open));
            state.void.push(Arc::clone(&chain.name));
        }
        messages.extend(batch.iter().map(|pending| self.message(&mut chain, now, &pending.body)));
        // Whoever stops this here leaves a chain that nobody goes on with.
        state.whole = false;
        let sent = join_all(messages.into_iter().map(|message| self.outlet.send(message))).await;
        let failed = sent.into_iter().find_map(Result::err);
        if failed.is_none() {
            *state = State { chain, whole: true, void: Vec::new() };
        }
        for pending in batch {
            let _nobody_waits = pending.written.send(failed.clone().map_or(Ok(()), Err));
        }
    }

    fn message(&self, chain: &mut Chain, now: chrono::DateTime<Utc>, body: &Body) -> Message {
        let line = chain.append(now, body);
        let key = Bytes::copy_from_slice(chain.name.as_bytes());
        let value = Bytes::copy_from_slice(line.trim_end().as_bytes());
        Message { topic: Arc::clone(&self.topic), key: Some(key), value: Some(value), headers: Vec::new(), partition: None }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Vec<Pending>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
