//! `/v1.0/state/{store}`: save, and by key get and delete; `/bulk` reads many.

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::{Path, Query, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use super::{
    Api, answer,
    publish::{Parameters, metadata},
};
use crate::{
    http::body::{Body, MAX_BODY},
    sidecar::{
        error::{ApiError, GrpcCode},
        metadata::Metadata,
        state::{Change, Concurrency},
    },
    store::state::Read,
};

/// One item of a save.
#[derive(Debug, Deserialize)]
struct Item<'a> {
    #[serde(default)]
    key: String,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
    etag: Option<String>,
    metadata: Option<BTreeMap<String, String>>,
    #[serde(default)]
    options: Options,
}

#[derive(Debug, Default, Deserialize)]
struct Options {
    #[serde(default)]
    concurrency: String,
    #[serde(default)]
    consistency: String,
}

#[derive(Debug, Deserialize)]
struct Keys {
    #[serde(default)]
    keys: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Deletion {
    #[serde(flatten)]
    options: Options,
}

pub(super) async fn get(State(api): State<Api>, Path((store, key)): Path<(String, String)>) -> Response {
    match api.states.get(&store, &key).await {
        Ok(None) => StatusCode::NO_CONTENT.into_response(),
        Ok(Some(stored)) => {
            let mut response = ([(header::CONTENT_TYPE, "application/json")], stored.data).into_response();
            if let Some(etag) = stored.etag.and_then(|etag| HeaderValue::try_from(etag).ok()) {
                response.headers_mut().insert(header::ETAG, etag);
            }
            response
        }
        Err(error) => answer::error(&error),
    }
}

pub(super) async fn save(State(api): State<Api>, Path(store): Path<String>, parameters: Parameters, request: Request) -> Response {
    let done = async {
        let body = read(&api, request).await?;
        let items: Vec<Item<'_>> = serde_json::from_slice(&body.bytes).map_err(|error| malformed(&error.to_string()))?;
        let request = metadata(&parameters);
        let changes = items.into_iter().map(|item| change(item, &request)).collect::<Result<_, _>>()?;
        api.states.save(&store, changes).await
    };
    nothing(done.await)
}

pub(super) async fn delete(
    State(api): State<Api>,
    Path((store, key)): Path<(String, String)>,
    Query(deletion): Query<Deletion>,
    headers: HeaderMap,
) -> Response {
    let etag = headers.get(header::IF_MATCH).and_then(|etag| etag.to_str().ok()).unwrap_or_default();
    let done = async {
        concurrency(&deletion.options)?;
        api.states.delete(&store, &key, etag).await
    };
    nothing(done.await)
}

/// POST to a key: only `bulk` is one, and reads many.
pub(super) async fn bulk(State(api): State<Api>, Path((store, key)): Path<(String, String)>, request: Request) -> Response {
    if key != "bulk" {
        return super::about::not_offered(request.uri().clone()).await;
    }
    let done = async {
        let body = read(&api, request).await?;
        let asked: Keys = serde_json::from_slice(&body.bytes).map_err(|error| malformed(&error.to_string()))?;
        let read = api.states.get_many(&store, &asked.keys).await?;
        Ok(asked.keys.iter().zip(read).map(|(key, read)| item(key, read)).collect::<Vec<_>>())
    };
    match done.await {
        Ok(items) => Json(items).into_response(),
        Err(error) => answer::error(&error),
    }
}

fn item(key: &str, read: Read) -> Value {
    match read {
        Ok(None) => json!({"key": key}),
        Ok(Some(stored)) => {
            // What was saved over gRPC need not be JSON.
            let text = || Value::String(String::from_utf8_lossy(&stored.data).into_owned());
            let data = serde_json::from_slice(&stored.data).unwrap_or_else(|_| text());
            let mut item = json!({"key": key, "data": data});
            if let Some(etag) = stored.etag {
                item["etag"] = Value::String(etag);
            }
            item
        }
        Err(why) => json!({"key": key, "error": why}),
    }
}

fn change(item: Item<'_>, request: &Metadata) -> Result<Change, ApiError> {
    let value = item.value.unwrap_or(RawValue::NULL);
    Ok(Change {
        key: item.key,
        value: Bytes::copy_from_slice(value.get().as_bytes()),
        etag: item.etag.unwrap_or_default(),
        concurrency: concurrency(&item.options)?,
        metadata: request.or(&Metadata(item.metadata.unwrap_or_default())),
    })
}

fn concurrency(options: &Options) -> Result<Concurrency, ApiError> {
    if !["", "eventual", "strong"].contains(&options.consistency.as_str()) {
        return Err(malformed(&format!("unrecognized consistency model '{}'", options.consistency)));
    }
    match options.concurrency.as_str() {
        "" => Ok(Concurrency::Unspecified),
        "first-write" => Ok(Concurrency::FirstWrite),
        "last-write" => Ok(Concurrency::LastWrite),
        other => Err(malformed(&format!("unrecognized concurrency model '{other}'"))),
    }
}

async fn read(api: &Api, request: Request) -> Result<Body, ApiError> {
    let body = api.bodies.read(request, MAX_BODY).await;
    body.map_err(|error| {
        let message = error.to_string();
        ApiError { status: error.status().as_u16(), ..malformed(&message) }
    })
}

fn malformed(message: &str) -> ApiError {
    ApiError::plain(400, GrpcCode::InvalidArgument, "ERR_MALFORMED_REQUEST", message.to_owned())
}

fn nothing(done: Result<(), ApiError>) -> Response {
    match done {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => answer::error(&error),
    }
}
