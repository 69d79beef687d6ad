//! The producer's way in: one event from bytes to acknowledged, the same for HTTP, stdin and schedules.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    time::Instant,
};

use bytes::Bytes;
use chrono::{SubsecRound, Utc};
use futures_util::future::BoxFuture;
use tokio::sync::SetOnce;

use crate::{
    config::{Config, http::PublishValidate},
    engine::ports::{Acked, Message, PublishError, Publisher},
    event::{
        catalog::Catalog,
        prepare::{Examined, Options, examine, prepare},
        record::RawRecord,
    },
    telemetry::Metrics,
};

/// Longest event that is taken, in bytes; brokers take 1 MiB by default, with the envelope and headers on top.
pub const MAX_EVENT: usize = 1 << 20;

/// Checks events against the catalogue and writes them, with metrics.
pub struct Publishing {
    catalog: Arc<Catalog>,
    publisher: Arc<dyn Publisher>,
    app_id: String,
    validate: bool,
    state: Arc<State>,
}

/// What the role asks about, and every record on its way tells: one reference counted for each.
struct State {
    metrics: Metrics,
    in_flight: AtomicUsize,
    fatal: SetOnce<String>,
}

/// One more in flight, as long as it lives.
struct InFlight(Arc<State>);

impl InFlight {
    fn new(state: &Arc<State>) -> Self {
        state.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(state))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An event that was checked, and the record that it becomes.
#[derive(Debug, Clone)]
pub struct Ready {
    /// As sent, derived where it can be, else new.
    pub event_id: String,
    /// The record.
    pub message: Message,
}

/// A record as its readers will see it.
struct Unwritten<'a>(&'a Message);

impl RawRecord for Unwritten<'_> {
    fn offset(&self) -> i64 {
        -1
    }

    fn timestamp(&self) -> Option<i64> {
        None
    }

    fn key(&self) -> Option<&[u8]> {
        self.0.key.as_deref()
    }

    fn value(&self) -> Option<&[u8]> {
        self.0.value.as_deref()
    }

    fn headers(&self, each: &mut dyn FnMut(&str, Option<&[u8]>)) {
        for (name, value) in &self.0.headers {
            each(name, value.as_deref());
        }
    }
}

/// Why an event is not written: the caller's to mend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The first reason that applies: `undecodable`, `missing_user_id`, `unknown_type`, `schema`, `no_topic`, `oversize`.
    pub reason: &'static str,
    /// What exactly, without the payload.
    pub error: String,
}

impl Rejection {
    /// For an event of `length` bytes, more than [`MAX_EVENT`].
    pub fn oversize(length: u64) -> Self {
        Self { reason: "oversize", error: format!("{length} bytes; the limit is {MAX_EVENT}") }
    }
}

/// One event on its way: resolves with the brokers' acknowledgement. Queued at the first poll.
pub type Sending = BoxFuture<'static, Result<Acked, PublishError>>;

/// What became of one event of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    /// The brokers have it.
    Acked(Acked),
    /// The brokers do not have it, or did not say so.
    Failed(PublishError),
    /// It was not sent, because one before it found the queue full: a later event must not overtake it.
    Held,
}

impl Publishing {
    /// Writes through `publisher` what `catalog` takes, as `[publish]` says.
    pub fn new(config: &Config, catalog: Arc<Catalog>, publisher: Arc<dyn Publisher>, metrics: Metrics) -> Self {
        let validate = config.publish.validate == PublishValidate::Catalog;
        let state = Arc::new(State { metrics, in_flight: AtomicUsize::default(), fatal: SetOnce::default() });
        Self { catalog, publisher, app_id: config.app_id.clone(), validate, state }
    }

    /// Checks one event and makes its record: shape A, keyed by user_id, for `topic` or the catalogue's first topic of its type. `traceparent`: the
    /// caller's trace context, passed on in the record's header where the event carries none.
    ///
    /// # Errors
    /// Where it is no event, nobody's, of an unknown type or schema, or too long.
    pub fn prepare(&self, bytes: &[u8], topic: Option<&str>, traceparent: Option<&str>) -> Result<Ready, Rejection> {
        if bytes.len() > MAX_EVENT {
            return Err(Rejection::oversize(bytes.len() as u64));
        }
        // Milliseconds, as Kafka's own timestamps: not every reader takes nine decimals.
        let now = Utc::now().trunc_subsecs(3);
        let options = Options { topic, validate: self.validate, user_optional: false, now, source: &self.app_id };
        let prepared =
            prepare(&self.catalog, bytes, &options).map_err(|error| Rejection { reason: error.code(), error: error.to_string() })?;
        let traceparent = prepared.traceparent.as_deref().or(traceparent);
        let message = Message {
            topic: prepared.topic,
            key: prepared.user_id.map(|user| Bytes::from(user.into_string())),
            value: Some(prepared.value),
            headers: traceparent
                .map(|text| ("traceparent".to_owned(), Some(Bytes::copy_from_slice(text.as_bytes()))))
                .into_iter()
                .collect(),
            partition: None,
        };
        Ok(Ready { event_id: prepared.event_id, message })
    }

    /// Checks one record that is written as it is, by the rules of those who will read it; answers whose it is.
    ///
    /// # Errors
    /// As [`Publishing::prepare`], but for the topic. `user_optional`: it is keyed by something else.
    pub fn examine(&self, message: &Message, user_optional: bool) -> Result<Examined, Rejection> {
        let length = message.value.as_ref().map_or(0, Bytes::len);
        if length > MAX_EVENT {
            return Err(Rejection::oversize(length as u64));
        }
        let options = Options { topic: None, validate: self.validate, user_optional, now: Utc::now(), source: &self.app_id };
        examine(&self.catalog, &Unwritten(message), &options).map_err(|error| Rejection { reason: error.code(), error: error.to_string() })
    }

    /// Writes one record, counted in the metrics when the answer is in.
    pub fn send(&self, message: Message) -> Sending {
        let publisher = Arc::clone(&self.publisher);
        let known = self.catalog.topic(&message.topic).is_some();
        let in_flight = InFlight::new(&self.state);
        Box::pin(async move {
            let topic = Arc::clone(&message.topic);
            let begun = Instant::now();
            let answer = publisher.publish(message).await;
            let result = answer.as_ref().map_or_else(PublishError::code, |_| "ok");
            // A caller can name any topic, and Prometheus keeps each label for ever: only topics that exist get one.
            let topic = if known || answer.is_ok() { &*topic } else { "other" };
            let metrics = &in_flight.0.metrics;
            metrics.published.with_label_values(&[topic, result]).inc();
            metrics.publish_duration.with_label_values(&[topic, result]).observe(begun.elapsed().as_secs_f64());
            if let Err(PublishError::Fatal(error)) = &answer {
                let _already_known = in_flight.0.fatal.set(error.clone());
            }
            answer
        })
    }

    /// Where it counts.
    pub fn metrics(&self) -> &Metrics {
        &self.state.metrics
    }

    /// Records written and not answered yet.
    pub fn in_flight(&self) -> usize {
        self.state.in_flight.load(Ordering::Relaxed)
    }

    /// Resolves, with what the client said, once it is beyond repair: nothing will be published any more, and the process must end.
    pub async fn fatal(&self) -> String {
        self.state.fatal.wait().await.clone()
    }

    /// Writes records in order and waits for every answer. From the first that finds the queue full, the rest is held back.
    pub async fn send_all(&self, messages: Vec<Message>) -> Vec<Sent> {
        enum Under {
            Way(Sending),
            Answered(Sent),
        }
        let mut full = false;
        let mut under_way = Vec::new();
        for message in messages {
            if full {
                under_way.push(Under::Answered(Sent::Held));
                continue;
            }
            let mut sending = self.send(message);
            under_way.push(match poll_once(&mut sending).await {
                Poll::Pending => Under::Way(sending),
                Poll::Ready(answer) => {
                    full = answer == Err(PublishError::QueueFull);
                    Under::Answered(answer.into())
                }
            });
        }
        let mut sent = Vec::with_capacity(under_way.len());
        for one in under_way {
            sent.push(match one {
                Under::Way(sending) => sending.await.into(),
                Under::Answered(sent) => sent,
            });
        }
        sent
    }
}

impl From<Result<Acked, PublishError>> for Sent {
    fn from(answer: Result<Acked, PublishError>) -> Self {
        answer.map_or_else(Self::Failed, Self::Acked)
    }
}

/// Whether a topic may have this name: Kafka's rule.
pub fn is_topic_name(name: &str) -> bool {
    let legal = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
    legal && (1..=249).contains(&name.len()) && name != "." && name != ".."
}

/// Polls a future once: a record is queued, in order, before the next one is looked at.
pub async fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut *future).poll(cx))).await
}
