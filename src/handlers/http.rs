//! Kind `http`: one POST per event, or per batch of users' events, to an app whose answer is the verdict.

pub mod answer;
mod bulk;
mod bulk_answer;
mod bulk_body;
pub mod client;
mod content;
pub mod discover;
pub mod endpoint;
mod headers;
mod post;
mod reply;
mod request;
pub mod routes;
mod wire;

use std::{sync::Arc, time::Duration};

use reqwest::{Client, Url, header::HeaderValue};
use serde_json::Value;

use self::{
    answer::{Answer, Table},
    bulk::Batches,
    content::Content,
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
    content: Content,
}

impl HttpHandler {
    /// A handler that posts to `target`, with TLS by `http`, which it should have to itself. `app` is told whether the app is there.
    pub fn new(http: Client, target: Target, manner: Manner, app: Reporter) -> Self {
        let base = match &target {
            Target::Url(endpoint) => endpoint.url(),
            Target::Routes(url, _) => url,
        };
        let content = Content { body: manner.body, table: manner.table };
        let poster = Arc::new(Poster::new(base, http, manner.token, manner.table, app));
        Self { batches: Batches::new(Arc::clone(&poster), content, manner.timeout), poster, target, content }
    }

    /// The CloudEvent that rules are about, whatever the body is.
    fn subject(&self, event: &Event, route: &Route) -> Value {
        let mut text = Vec::new();
        Content { body: HttpBody::Cloudevent, ..self.content }.write(event, Some(route), &mut text);
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
}

impl Handler for HttpHandler {
    async fn handle(&self, run: Run) -> HandlerResult {
        let (endpoint, route) = match self.way(&run.event) {
            Ok(way) => way,
            Err(verdict) => return verdict,
        };
        if let Some((route, bulk)) = route.as_ref().and_then(|route| Some((route, route.bulk?))) {
            return self.batches.deliver(route, bulk, endpoint, run).await;
        }
        let mut request = self.poster.request(&endpoint);
        headers::write(&run, route.as_deref(), &mut request);
        let content_type = self.content.write(&run.event, route.as_deref(), &mut request.body);
        request.header("content-type", content_type.as_bytes());
        match self.poster.send(&endpoint, request).await {
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
