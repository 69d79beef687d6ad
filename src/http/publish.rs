//! `POST /events`: one event or many, answered after the brokers' acknowledgement and never with 2xx for what is not stored.
//!
//! | answer | when |
//! |---|---|
//! | 202 | all is stored: `{"accepted":n,"events":[{"event_id","topic","partition","offset"}]}` |
//! | 400 | some events are not valid, each listed in `rejected`; nothing is published. With `?partial=true` the valid ones are: 202, with `rejected`; 400 where none is. Also: no event in the body, or `?topic=` names none that exists |
//! | 401 | the token is missing or wrong (text) |
//! | 408 | the body did not arrive within 30 s |
//! | 413 | the body is longer than 4 MiB, or every rejected event is longer than 1 MiB, or one than its topic takes |
//! | 429 | the queue to the brokers is full; `Retry-After` says when to come back |
//! | 503 | Kafka is away, or did not acknowledge |
//!
//! Where a part of a request was stored before 429 or 503, `events` lists that part and `failed` the rest: send those again, with their `event_id`.

mod batch;

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Query, Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use serde::{Deserialize, Serialize};

use super::body::{Bodies, MAX_BODY};
use crate::{
    engine::ports::PublishError,
    health::Reporter,
    publish::{Publishing, Ready, Sent, is_topic_name},
};

/// When to come back after a 429: the queue drains in a fraction of it while the brokers answer.
pub(super) const RETRY_AFTER_SECONDS: &str = "1";

struct Events {
    publishing: Arc<Publishing>,
    brokers: Reporter,
    bodies: Bodies,
}

/// The route of `POST /events`. While `brokers` says that they are away, callers are told so at once, instead of when the client gives up.
pub fn router(publishing: Arc<Publishing>, brokers: Reporter, bodies: Bodies) -> Router {
    Router::new().route("/events", post(accept)).with_state(Arc::new(Events { publishing, brokers, bodies }))
}

/// The query of `POST /events`.
#[derive(Debug, Deserialize)]
struct Params {
    /// Publish the valid events although others are not.
    #[serde(default)]
    partial: bool,
    /// Instead of the catalogue's first topic for the type.
    topic: Option<String>,
}

/// The body of every answer but 401.
#[derive(Debug, Default, Serialize)]
struct Answer {
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    accepted: usize,
    events: Vec<Stored>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rejected: Vec<Rejected>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failed: Vec<Failed>,
}

#[derive(Debug, Serialize)]
struct Stored {
    event_id: String,
    topic: Arc<str>,
    partition: i32,
    offset: i64,
}

/// An event that is not valid. `index` counts events from 0, `line` lines of NDJSON from 1.
#[derive(Debug, Serialize)]
struct Rejected {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    reason: &'static str,
    error: String,
}

/// A valid event that is not stored, or not known to be.
#[derive(Debug, Serialize)]
struct Failed {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    event_id: String,
    topic: Arc<str>,
    reason: &'static str,
    error: String,
}

/// A valid event with its place in the request.
struct Valid {
    index: usize,
    line: Option<usize>,
    ready: Ready,
}

async fn accept(State(events): State<Arc<Events>>, Query(params): Query<Params>, headers: HeaderMap, request: Request) -> Response {
    if params.topic.as_deref().is_some_and(|topic| !is_topic_name(topic)) {
        return refusal(StatusCode::BAD_REQUEST, "`topic` is no topic name: 1 to 249 of a-z A-Z 0-9 . _ -");
    }
    let body = match events.bodies.read(request, MAX_BODY).await {
        Ok(body) => body,
        Err(error) => return refusal(error.status(), error.to_string()),
    };
    let (valid, rejected) = match check(&events.publishing, &params, &headers, &body.bytes) {
        Ok(checked) => checked,
        Err(error) => return refusal(StatusCode::BAD_REQUEST, error),
    };
    if !rejected.is_empty() && (!params.partial || valid.is_empty()) {
        return rejection(rejected, valid.len());
    }
    if !events.brokers.is_ok() {
        return refusal(StatusCode::SERVICE_UNAVAILABLE, "Kafka is away: nothing was published");
    }
    let messages: Vec<_> = valid.iter().map(|event| event.ready.message.clone()).collect();
    let sent = events.publishing.send_all(messages).await;
    outcome(valid, sent, rejected, params.topic.is_some())
}

/// Splits the body into events and checks each.
fn check(publishing: &Publishing, params: &Params, headers: &HeaderMap, body: &Bytes) -> Result<(Vec<Valid>, Vec<Rejected>), String> {
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let content_type = text(header::CONTENT_TYPE).unwrap_or_default();
    let traceparent = text(header::HeaderName::from_static("traceparent"));
    let (mut valid, mut rejected) = (Vec::new(), Vec::new());
    for item in batch::split(content_type, body)? {
        match publishing.prepare(item.bytes, params.topic.as_deref(), traceparent) {
            Ok(ready) => valid.push(Valid { index: item.index, line: item.line, ready }),
            Err(why) => rejected.push(Rejected { index: item.index, line: item.line, reason: why.reason, error: why.error }),
        }
    }
    Ok((valid, rejected))
}

/// Nothing was published, because of what the request holds.
fn rejection(rejected: Vec<Rejected>, valid: usize) -> Response {
    let status = match rejected.iter().all(|event| event.reason == "oversize") {
        true => StatusCode::PAYLOAD_TOO_LARGE,
        false => StatusCode::BAD_REQUEST,
    };
    let error = format!("{} of {} events rejected; nothing was published", rejected.len(), rejected.len() + valid);
    answer(status, Answer { error: Some(error), rejected, ..Answer::default() })
}

/// What the brokers said to each event. `named`: the caller named the topic, so that a missing one is the caller's to mend.
fn outcome(valid: Vec<Valid>, sent: Vec<Sent>, rejected: Vec<Rejected>, named: bool) -> Response {
    let mut body = Answer { rejected, ..Answer::default() };
    let mut status = StatusCode::ACCEPTED;
    for (event, sent) in valid.into_iter().zip(sent) {
        let Ready { event_id, message } = event.ready;
        let topic = message.topic;
        let failure = match sent {
            Sent::Acked(at) => {
                body.events.push(Stored { event_id, topic, partition: at.partition, offset: at.offset });
                continue;
            }
            Sent::Held => PublishError::QueueFull,
            Sent::Failed(failure) => failure,
        };
        status = worse(status, &failure, named);
        body.failed.push(Failed {
            index: event.index,
            line: event.line,
            event_id,
            topic,
            reason: failure.code(),
            error: failure.to_string(),
        });
    }
    body.accepted = body.events.len();
    if let Some(first) = body.failed.first() {
        let total = body.failed.len() + body.events.len();
        body.error = Some(format!("{} of {total} events not stored: {}", body.failed.len(), first.error));
    }
    answer(status, body)
}

/// The status for a request of which this failed too: a broker that is away outweighs a full queue, which outweighs one event's own fault.
fn worse(status: StatusCode, failure: &PublishError, named: bool) -> StatusCode {
    let this = match failure {
        PublishError::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        PublishError::TopicMissing(_) if named => StatusCode::BAD_REQUEST,
        PublishError::QueueFull => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    let weight = |status| match status {
        StatusCode::ACCEPTED => 0,
        StatusCode::PAYLOAD_TOO_LARGE | StatusCode::BAD_REQUEST => 1,
        StatusCode::TOO_MANY_REQUESTS => 2,
        _ => 3,
    };
    if weight(this) > weight(status) { this } else { status }
}

fn refusal(status: StatusCode, error: impl Into<String>) -> Response {
    answer(status, Answer { error: Some(error.into()), ..Answer::default() })
}

fn answer(status: StatusCode, body: Answer) -> Response {
    let mut response = (status, Json(body)).into_response();
    if status == StatusCode::TOO_MANY_REQUESTS {
        response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static(RETRY_AFTER_SECONDS));
    }
    response
}
