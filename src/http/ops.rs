//! `/metrics`, `/stats`, `/livez`, `/readyz`: what operators and orchestrators ask, on `http.listen`, in every role.

use std::time::Duration;

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::json;

use crate::{
    handlers::stats::Stats,
    health::{Health, Report},
    telemetry::Metrics,
};

/// The content type of Prometheus' text format.
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Longest wait of a scrape for gauges that come from the store.
const REFRESH: Duration = Duration::from_secs(1);

/// Routes of the ops listener. They stay up during a drain: `/readyz` says 503 then, `/livez` 200.
pub fn router(health: Health, metrics: Metrics, stats: Stats) -> Router {
    Router::new()
        .route("/livez", get(|State(ops): State<Ops>| async move { page(ops.health.liveness()) }))
        .route("/readyz", get(|State(ops): State<Ops>| async move { page(ops.health.readiness()) }))
        .route("/metrics", get(|State(ops): State<Ops>| async move { scrape(&ops).await }))
        .route("/stats", get(|State(ops): State<Ops>| async move { figures(&ops.stats).await }))
        .with_state(Ops { health, metrics, stats })
}

#[derive(Clone)]
struct Ops {
    health: Health,
    metrics: Metrics,
    stats: Stats,
}

async fn figures(stats: &Stats) -> Response {
    let (status, body) = match stats.read().await {
        Ok(body) => (StatusCode::OK, body),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, json!({ "error": error })),
    };
    (status, [(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

fn page(report: Report) -> Response {
    let status = if report.ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, [(header::CACHE_CONTROL, "no-store")], Json(report)).into_response()
}

async fn scrape(ops: &Ops) -> Response {
    // A store that is slow leaves its gauges as they were: a scrape does not wait for it.
    let _late = tokio::time::timeout(REFRESH, ops.stats.refresh()).await;
    match ops.metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, PROMETHEUS_TEXT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
