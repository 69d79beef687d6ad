//! `/metrics`, `/livez`, `/readyz`: what operators and orchestrators ask, on `http.listen`, in every role.

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};

use crate::{
    health::{Health, Report},
    telemetry::Metrics,
};

/// The content type of Prometheus' text format.
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Routes of the ops listener. They stay up during a drain: `/readyz` says 503 then, `/livez` 200.
pub fn router(health: Health, metrics: Metrics) -> Router {
    Router::new()
        .route("/livez", get(|State((health, _)): State<(Health, Metrics)>| async move { page(health.liveness()) }))
        .route("/readyz", get(|State((health, _)): State<(Health, Metrics)>| async move { page(health.readiness()) }))
        .route("/metrics", get(|State((_, metrics)): State<(Health, Metrics)>| async move { scrape(&metrics) }))
        .with_state((health, metrics))
}

fn page(report: Report) -> Response {
    let status = if report.ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, [(header::CACHE_CONTROL, "no-store")], Json(report)).into_response()
}

fn scrape(metrics: &Metrics) -> Response {
    match metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, PROMETHEUS_TEXT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
