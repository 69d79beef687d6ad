//! `/v1.0/healthz`, `/v1.0/metadata`, and everything that is not offered.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, Query, Request, State},
    http::{StatusCode, Uri},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::json;

use super::{Api, answer};
use crate::{http::body::MAX_BODY, sidecar::about::About};

#[derive(Debug, Deserialize)]
pub(super) struct Probe {
    appid: Option<String>,
}

pub(super) async fn healthz(State(about): State<Arc<About>>, Query(probe): Query<Probe>) -> Response {
    let failing = about.failing();
    if !failing.is_empty() {
        return answer::plain(500, "ERR_HEALTH_NOT_READY", &format!("dapr is not ready: [{}]", failing.join(" ")));
    }
    if probe.appid.is_some_and(|asked| asked != about.app_id) {
        return answer::plain(500, "ERR_HEALTH_APPID_NOT_MATCH", "dapr app-id does not match");
    }
    StatusCode::NO_CONTENT.into_response()
}

pub(super) async fn outbound(State(about): State<Arc<About>>) -> Response {
    match about.outbound() {
        true => StatusCode::NO_CONTENT.into_response(),
        false => answer::plain(500, "ERR_OUTBOUND_HEALTH_NOT_READY", "dapr outbound is not ready"),
    }
}

pub(super) async fn metadata(State(api): State<Api>) -> Response {
    let about = &api.about;
    let components: Vec<_> = about
        .components()
        .iter()
        .map(|component| json!({"name": component.name, "type": component.kind, "version": "v1", "capabilities": component.capabilities}))
        .collect();
    let body = json!({
        "id": about.app_id,
        "runtimeVersion": about.version(),
        "components": components,
        "extended": about.attributes(),
        "actorRuntime": {"runtimeStatus": "DISABLED", "hostReady": false},
    });
    Json(body).into_response()
}

pub(super) async fn set(State(api): State<Api>, Path(key): Path<String>, request: Request) -> Response {
    let body = match api.bodies.read(request, MAX_BODY).await {
        Ok(body) => body,
        Err(error) => return answer::plain(error.status().as_u16(), "ERR_BODY_READ", &error.to_string()),
    };
    match api.about.set(&key, &String::from_utf8_lossy(&body.bytes)) {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(why) => answer::plain(400, "ERR_BAD_REQUEST", &why),
    }
}

pub(super) async fn not_offered(uri: Uri) -> Response {
    let message = format!("this worker does not offer {}; of Dapr's API it serves publish, state, metadata and healthz", uri.path());
    answer::plain(404, "ERR_API_UNIMPLEMENTED", &message)
}
