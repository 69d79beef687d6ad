//! Errors as Dapr's HTTP API writes them.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};

use crate::{http::publish::RETRY_AFTER_SECONDS, sidecar::error::ApiError};

/// `{"errorCode", "message", "details"}`.
pub(super) fn error(error: &ApiError) -> Response {
    let mut details = Vec::new();
    if let Some((kind, name)) = &error.resource {
        details.push(json!({
            "@type": "type.googleapis.com/google.rpc.ResourceInfo",
            "resource_type": kind, "resource_name": name, "owner": "", "description": error.message,
        }));
    }
    let metadata: Map<String, Value> = error.metadata.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    details.push(json!({
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "domain": "dapr.io", "reason": error.reason, "metadata": metadata,
    }));
    respond(error.status, &json!({"errorCode": error.code, "message": error.message, "details": details}))
}

/// `{"errorCode", "message"}`.
pub(super) fn plain(status: u16, code: &str, message: &str) -> Response {
    respond(status, &json!({"errorCode": code, "message": message}))
}

/// JSON with this status; 429 says when to come back.
pub(super) fn respond(status: u16, body: &Value) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, Json(body)).into_response();
    if status == StatusCode::TOO_MANY_REQUESTS {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
    }
    response
}
