//! Kind `http`: one POST per event to an app, whose answer is the verdict.

pub mod answer;
pub mod client;
pub mod discover;

use std::sync::Arc;

use bytes::Bytes;
use chrono::Utc;
use reqwest::{
    Client, Url,
    header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER},
};

use self::{
    answer::{Answer, Table},
    discover::Routes,
};
use crate::{
    config::handlers::HttpBody,
    event::Event,
    handler::{Handler, Run},
    health::Reporter,
    outcome::{Failure, HandlerResult},
};

/// Longest answer whose `status` counts; apps answer with a few bytes.
const MAX_ANSWER: usize = 64 * 1024;

const CLOUDEVENT: HeaderValue = HeaderValue::from_static("application/cloudevents+json");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const ATTEMPT: HeaderName = HeaderName::from_static("x-worker-attempt");
const EPOCH: HeaderName = HeaderName::from_static("x-worker-epoch");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Where events go.
#[derive(Debug, Clone)]
pub enum Target {
    /// All to one URL, as written.
    Url(Url),
    /// Each to its topic's route.
    Routes(Routes),
}

/// Delivers events to an app and reads its answer.
///
/// Headers: `content-type`, `idempotency-key` (the event's id: the same for every run), `x-worker-attempt` (1 for the first run),
/// `x-worker-epoch` (fencing token), `traceparent` (of the record's header, else of the
/// CloudEvent) and `tracestate` where the event carries them. Redirects are not followed. A dropped run
/// closes its connection, so that the app can notice.
pub struct HttpHandler {
    http: Client,
    target: Target,
    body: HttpBody,
    table: Table,
    app: Reporter,
}

impl HttpHandler {
    /// A handler that posts to `target` with `http`, which it should have to itself. `app` is told whether the app is there.
    pub fn new(http: Client, target: Target, body: HttpBody, table: Table, app: Reporter) -> Self {
        Self { http, target, body, table, app }
    }

    /// Where this event goes; `None`: the app has no route for its topic.
    fn url(&self, event: &Event) -> Option<Url> {
        match &self.target {
            Target::Url(url) => Some(url.clone()),
            Target::Routes(routes) => routes.of(event.record().topic()).cloned(),
        }
    }

    fn body(&self, event: &Event) -> (HeaderValue, Bytes) {
        match (self.body, self.table) {
            (HttpBody::Event, _) => (JSON, event.to_published()),
            // Dapr passes the stored bytes on; a tombstone reads `null`.
            (HttpBody::Cloudevent, Table::Dapr) => (CLOUDEVENT, event.record().value_bytes().unwrap_or(Bytes::from_static(b"null"))),
            (HttpBody::Cloudevent, Table::Forgiving) => (CLOUDEVENT, event.to_cloudevent()),
        }
    }
}

impl Handler for HttpHandler {
    async fn handle(&self, run: Run) -> HandlerResult {
        let event = Arc::clone(&run.event);
        let url =
            self.url(&event).ok_or_else(|| Failure::permanent(format!("the app has no route for topic {}", event.record().topic())))?;
        let (content_type, body) = self.body(&event);
        let request = self.http.post(url).headers(headers(&run, content_type)).body(body);
        let mut response = match request.send().await {
            Ok(response) => response,
            Err(error) => {
                let reason = client::reason(&error);
                self.app.fail(reason.clone());
                return Err(Failure::transient(reason));
            }
        };
        self.app.ok();
        let status = response.status();
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::to_owned);
        // Read whatever the status, so that the connection can be used again.
        let body = match client::read_bounded(&mut response, MAX_ANSWER).await {
            Ok(body) => body.unwrap_or_default(),
            Err(error) if status.is_success() => {
                return Err(Failure::transient(format!("the answer broke off: {}", client::reason(&error))));
            }
            Err(_) => Vec::new(),
        };
        Answer { status: status.as_u16(), retry_after: retry_after.as_deref(), body: &body, now: Utc::now() }.verdict(self.table)
    }
}

fn headers(run: &Run, content_type: HeaderValue) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(6);
    headers.insert(CONTENT_TYPE, content_type);
    headers.insert(IDEMPOTENCY_KEY, header_text(run.idempotency_key()));
    headers.insert(ATTEMPT, run.attempt.into());
    headers.insert(EPOCH, run.epoch.into());
    if let Some(Ok(traceparent)) = run.event.traceparent().map(HeaderValue::try_from) {
        headers.insert(TRACEPARENT, traceparent);
        if let Some(Ok(tracestate)) = run.event.record().header("tracestate").map(HeaderValue::from_bytes) {
            headers.insert(TRACESTATE, tracestate);
        }
    }
    headers
}

/// Any text as a header's value: an id of graphic ASCII as it is, any other percent-encoded, since HTTP forbids it there.
fn header_text(text: &str) -> HeaderValue {
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'%';
    let allowed = text.bytes().all(|byte| byte.is_ascii_graphic());
    let encoded: String = match allowed {
        true => text.to_owned(),
        false => text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect(),
    };
    // Only graphic ASCII is left, which every header takes.
    HeaderValue::try_from(encoded).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::header_text;

    #[test]
    fn an_id_that_is_no_header_text_is_percent_encoded() {
        assert_eq!(header_text("550e8400-e29b"), "550e8400-e29b");
        assert_eq!(header_text("50%"), "50%");
        assert_eq!(header_text("a b\n%ü"), "a%20b%0A%25%C3%BC");
    }
}
