//! Kind `http`: one POST per event, or per batch of users' events, to an app whose answer is the verdict.

pub mod answer;
mod bulk;
mod bulk_answer;
mod bulk_body;
pub mod client;
pub mod discover;
pub mod endpoint;
mod headers;
mod post;
pub mod routes;
mod wire;

use std::{sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use reqwest::{
    Client, Url,
    header::{CONTENT_TYPE, HeaderValue},
};
use serde_json::{Value, json};

use self::{
    answer::{Answer, Table},
    bulk::{Batches, Joining},
    endpoint::Endpoint,
    post::{Posted, Poster},
    routes::{Current, Route},
};
use crate::{
    config::handlers::HttpBody,
    event::Event,
    handler::{Handler, Run},
    health::Reporter,
    outcome::{Failure, Handled, HandlerResult},
};

const CLOUDEVENT: HeaderValue = HeaderValue::from_static("application/cloudevents+json");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Where events go.
#[derive(Debug, Clone)]
pub enum Target {
    /// All to one URL, as written.
    Url(Arc<Endpoint>),
    /// Each to its topic's route, at the app with this URL.
    Routes(Url, Current),
}

/// How an app is spoken to.
#[derive(Debug, Clone)]
pub struct Manner {
    /// What the body is.
    pub body: HttpBody,
    /// How answers are read.
    pub table: Table,
    /// Sent as `dapr-api-token`.
    pub token: Option<HeaderValue>,
    /// The handler's time limit.
    pub timeout: Duration,
}

/// Delivers events to an app and reads its answer.
///
/// Headers: `content-type`, `idempotency-key` (the event's id: the same for every run), `x-worker-attempt` (1 for the first run),
/// `x-worker-epoch` (fencing token), `traceparent` (of the record's header, else of the CloudEvent) and `tracestate` where the event
/// carries them; the record's own headers, `__topic`, `__partition`, `__offset`, `__timestamp` and `__key`. Redirects are not followed.
/// A dropped run closes its connection, so that the app can notice.
pub struct HttpHandler {
    poster: Arc<Poster>,
    batches: Batches,
    target: Target,
    body: HttpBody,
}

impl HttpHandler {
    /// A handler that posts to `target`, with TLS by `http`, which it should have to itself. `app` is told whether the app is there.
    pub fn new(http: Client, target: Target, manner: Manner, app: Reporter) -> Self {
        let base = match &target {
            Target::Url(endpoint) => endpoint.url(),
            Target::Routes(url, _) => url,
        };
        let poster = Arc::new(Poster::new(base, http, manner.token, manner.table, app));
        Self { batches: Batches::new(Arc::clone(&poster), manner.timeout), poster, target, body: manner.body }
    }

    /// What an app reads: the body's type and the body.
    fn content(&self, event: &Event, route: Option<&Route>) -> (HeaderValue, Bytes) {
        if let Some(route) = route.filter(|route| route.raw) {
            return (CLOUDEVENT, around_bytes(event, &route.pubsub));
        }
        match (self.body, self.poster.table()) {
            (HttpBody::Event, Table::Forgiving) => (JSON, event.to_published()),
            // Dapr passes the stored bytes on; a tombstone reads `null`.
            (_, Table::Dapr) => (CLOUDEVENT, event.record().value_bytes().unwrap_or(Bytes::from_static(b"null"))),
            (HttpBody::Cloudevent, Table::Forgiving) => (CLOUDEVENT, event.to_cloudevent()),
        }
    }

    /// The CloudEvent that rules are about, whatever the body is.
    fn subject(&self, event: &Event, route: &Route) -> Value {
        let text = match (route.raw, self.poster.table()) {
            (true, _) => around_bytes(event, &route.pubsub),
            (false, Table::Dapr) => event.record().value_bytes().unwrap_or_default(),
            (false, Table::Forgiving) => event.to_cloudevent(),
        };
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// The event's route and where it leads.
    fn way(&self, event: &Event) -> Result<(Arc<Endpoint>, Option<Arc<Route>>), HandlerResult> {
        let current = match &self.target {
            Target::Url(endpoint) => return Ok((Arc::clone(endpoint), None)),
            Target::Routes(_, current) => current.get(),
        };
        let topic = event.record().topic();
        // Its app no longer wants the topic: it stays until the worker has left it, or another worker has it.
        let route = current.of(topic).ok_or_else(|| Err(Failure::transient(format!("the app has no route for topic {topic}"))))?;
        match route.endpoint(|| self.subject(event, route)) {
            Ok(Some(endpoint)) => Ok((Arc::clone(endpoint), Some(Arc::clone(route)))),
            Ok(None) if route.dead_letters.is_some() => Err(Err(Failure::permanent("no rule of the app's takes this event"))),
            Ok(None) => Err(Ok(Handled::Dropped("no rule of the app's takes this event".to_owned()))),
            Err(error) => Err(Err(Failure::permanent(format!("rule {error}")))),
        }
    }

    /// The event as an entry of a batch.
    fn entry(&self, run: Run, route: &Route) -> Joining {
        let (content_type, event) = match route.raw {
            true => ("application/octet-stream", run.event.record().value_bytes().unwrap_or_default()),
            false => {
                let (content_type, bytes) = self.content(&run.event, Some(route));
                (if content_type == JSON { "application/json" } else { "application/cloudevents+json" }, bytes)
            }
        };
        Joining { run, event, content_type }
    }
}

impl Handler for HttpHandler {
    async fn handle(&self, run: Run) -> HandlerResult {
        let (endpoint, route) = match self.way(&run.event) {
            Ok(way) => way,
            Err(verdict) => return verdict,
        };
        if let Some((route, bulk)) = route.as_ref().and_then(|route| Some((route, route.bulk?))) {
            let entry = self.entry(run, route);
            return self.batches.deliver(route, bulk, endpoint, entry).await;
        }
        let route = route.as_deref();
        let (content_type, body) = self.content(&run.event, route);
        let mut headers = headers::headers(&run, route);
        headers.insert(CONTENT_TYPE, content_type);
        match self.poster.post(&endpoint, headers, body).await {
            Posted::Answered { status, retry_after, body, now } => {
                Answer { status, retry_after: retry_after.as_deref(), body: &body, now }.verdict(self.poster.table())
            }
            Posted::Failed(failure) => Err(failure),
        }
    }

    fn dead_letter_topic(&self, topic: &str) -> Option<Arc<str>> {
        match &self.target {
            Target::Url(_) => None,
            Target::Routes(_, current) => current.get().of(topic).and_then(|route| route.dead_letters.clone()),
        }
    }
}

/// A CloudEvent around opaque bytes. Its id is the event's, the same for every run, where Dapr invents one for each.
fn around_bytes(event: &Event, pubsub: &str) -> Bytes {
    let record = event.record();
    let header = |name: &str| record.header(name).and_then(|value| std::str::from_utf8(value).ok()).unwrap_or_default();
    let trace = event.traceparent().unwrap_or_default();
    let around = json!({
        "specversion": "1.0", "id": event.id(), "source": "Dapr", "type": "com.dapr.event.sent",
        "topic": &**record.topic(), "pubsubname": pubsub, "datacontenttype": "application/octet-stream",
        "traceid": trace, "traceparent": trace, "tracestate": header("tracestate"),
        "data_base64": BASE64_STANDARD.encode(record.value().unwrap_or_default()),
    });
    around.to_string().into()
}
