//! `POST|PUT /v1.0/publish/{pubsub}/{topic}` and its bulk form.

use std::collections::BTreeMap;

use axum::{
    extract::{Path, Query, Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::{json, value::RawValue};

use super::{Api, answer};
use crate::{
    event::cloudevent::Trace,
    http::body::{Body, MAX_BODY},
    sidecar::{
        bulk::{self, Entry, Failure, event_bytes},
        error::ApiError,
        metadata::Metadata,
        pubsub,
    },
};

/// What the path names; a part that is missing is empty.
#[derive(Debug, Deserialize)]
pub(super) struct Place {
    #[serde(default)]
    pubsub: String,
    #[serde(default)]
    topic: String,
}

/// One entry of a bulk request's body.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sent<'a> {
    /// The sidecar reads names in any case, and the JavaScript SDK writes this one so.
    #[serde(default, alias = "entryID")]
    entry_id: String,
    #[serde(borrow)]
    event: Option<&'a RawValue>,
    #[serde(default)]
    content_type: String,
    metadata: Option<BTreeMap<String, String>>,
}

pub(super) type Parameters = Query<Vec<(String, String)>>;

pub(super) fn metadata(Query(parameters): &Parameters) -> Metadata {
    Metadata::of_query(parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())))
}

pub(super) async fn one(
    State(api): State<Api>,
    Path(place): Path<Place>,
    parameters: Parameters,
    headers: HeaderMap,
    request: Request,
) -> Response {
    let body = match read(&api, &place, request).await {
        Ok(body) => body,
        Err(error) => return answer::error(&error),
    };
    let request = pubsub::Request {
        pubsub: &place.pubsub,
        topic: &place.topic,
        content_type: text(&headers, header::CONTENT_TYPE.as_str()),
        data: &body.bytes,
        metadata: &metadata(&parameters),
        trace: trace(&headers),
    };
    match api.pubsub.publish(request).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => answer::error(&error),
    }
}

pub(super) async fn bulk(
    State(api): State<Api>,
    Path(place): Path<Place>,
    parameters: Parameters,
    headers: HeaderMap,
    request: Request,
) -> Response {
    let body = match read(&api, &place, request).await {
        Ok(body) => body,
        Err(error) => return answer::error(&error),
    };
    let metadata = metadata(&parameters);
    let request =
        |entries| bulk::Request { pubsub: &place.pubsub, topic: &place.topic, entries, metadata: &metadata, trace: trace(&headers) };
    let published = match entries(&place, &body.bytes) {
        Ok(entries) => api.pubsub.publish_bulk(request(entries)).await,
        Err(error) => Err(error.into()),
    };
    match published {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(Failure { error, entries }) if entries.is_empty() => answer::error(&error),
        Err(Failure { error, entries }) => {
            let failed: Vec<_> = entries.iter().map(|(id, why)| json!({"entryId": id, "error": why})).collect();
            answer::respond(error.status, &json!({"failedEntries": failed, "errorCode": error.code}))
        }
    }
}

async fn read(api: &Api, place: &Place, request: Request) -> Result<Body, ApiError> {
    let body = api.bodies.read(request, MAX_BODY).await;
    body.map_err(|error| ApiError::body(&place.pubsub, &place.topic, error.status().as_u16(), &error.to_string()))
}

fn entries<'a>(Place { pubsub, topic }: &Place, body: &'a [u8]) -> Result<Vec<Entry<'a>>, ApiError> {
    let sent: Vec<Sent<'a>> = serde_json::from_slice(body).map_err(|error| ApiError::bulk_request(pubsub, topic, &error.to_string()))?;
    let entry = |sent: Sent<'a>| {
        let data = event_bytes(sent.event.unwrap_or(RawValue::NULL), &sent.content_type)?;
        Ok(Entry { id: sent.entry_id, content_type: sent.content_type, data, metadata: sent.metadata.map(Metadata) })
    };
    let entries: Result<_, String> = sent.into_iter().map(entry).collect();
    entries.map_err(|why| ApiError::bulk_event(pubsub, topic, &why))
}

fn trace(headers: &HeaderMap) -> Trace<'_> {
    Trace { parent: text(headers, "traceparent"), state: text(headers, "tracestate") }
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> &'h str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}
