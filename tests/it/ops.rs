//! `/livez`, `/readyz`, `/metrics` over a socket.

use std::sync::Arc;

use axum::{Router, routing::get};
use futures_util::future::{BoxFuture, FutureExt, ready};
use serde_json::Value;
use tokio::sync::oneshot;
use worker::{
    engine::ports::StoreError,
    handlers::stats::{Page, Stats},
    health::{Health, Part},
    http::ops,
    telemetry::Metrics,
};

use crate::support::{client, serve};

async fn get_json(url: String) -> (u16, Value) {
    let answer = client().get(url).send().await.unwrap();
    (answer.status().as_u16(), serde_json::from_str(&answer.text().await.unwrap()).unwrap())
}

#[tokio::test]
async fn readyz_names_the_failing_part_and_livez_stays_200() {
    let health = Health::new();
    let store = health.part(Part::Store);
    health.part(Part::Group).ok();
    let served = serve(ops::router(health, Metrics::new("consumer"), Stats::default())).await;

    let (status, body) = get_json(served.url("/readyz")).await;
    assert_eq!((status, &body["failing"]), (503, &serde_json::json!(["store"])));

    store.ok();
    let (status, body) = get_json(served.url("/readyz")).await;
    assert_eq!((status, &body["status"], &body["failing"]), (200, &"ok".into(), &serde_json::json!([])));

    store.fail("connection refused");
    let (status, body) = get_json(served.url("/readyz")).await;
    assert_eq!((status, &body["parts"][0]["detail"]), (503, &"connection refused".into()));
    assert_eq!(get_json(served.url("/livez")).await.0, 200);
}

#[tokio::test]
async fn a_draining_process_answers_503_to_readyz_and_200_to_livez() {
    let health = Health::new();
    health.part(Part::Brokers).ok();
    let served = serve(ops::router(health.clone(), Metrics::new("producer"), Stats::default())).await;
    assert_eq!(get_json(served.url("/readyz")).await.0, 200);
    health.drain();
    let (status, body) = get_json(served.url("/readyz")).await;
    assert_eq!((status, &body["status"]), (503, &"draining".into()));
    assert_eq!(get_json(served.url("/livez")).await.0, 200);
}

#[tokio::test]
async fn metrics_are_prometheus_text_with_the_role_in_the_build() {
    let served = serve(ops::router(Health::new(), Metrics::new("producer"), Stats::default())).await;
    let answer = client().get(served.url("/metrics")).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let text = answer.text().await.unwrap();
    assert!(text.lines().any(|line| line.starts_with("worker_build_info{") && line.contains(r#"role="producer""#)), "{text}");
}

#[tokio::test]
async fn a_listener_that_stops_finishes_the_request_in_flight_and_takes_no_other() {
    let (release, released) = oneshot::channel::<()>();
    let (begun, begins) = oneshot::channel::<()>();
    let hands = std::sync::Mutex::new(Some((begun, released)));
    let hands = std::sync::Arc::new(hands);
    let handler = move || {
        let (begun, released) = hands.lock().unwrap().take().unwrap();
        async move {
            begun.send(()).unwrap();
            released.await.unwrap();
            "finished"
        }
    };
    let mut served = serve(Router::new().route("/", get(handler))).await;
    let url = served.url("/");
    let request = tokio::spawn(async move { client().get(url).send().await.unwrap().text().await.unwrap() });
    begins.await.unwrap();
    served.stop.cancel();
    assert!(client().get(served.url("/")).send().await.is_err(), "no new connection is taken");
    release.send(()).unwrap();
    assert_eq!(request.await.unwrap(), "finished");
    (&mut served.server).await.unwrap().unwrap();
}

/// A handler's figures, or none while its store is away.
struct Figures(bool);

impl Page for Figures {
    fn read(&self) -> BoxFuture<'_, Result<Value, StoreError>> {
        let away = StoreError::Unavailable("redis cache:6379: no answer within 1s 500ms".to_owned());
        ready(if self.0 { Ok(serde_json::json!({ "kind": "points" })) } else { Err(away) }).boxed()
    }
}

#[tokio::test]
async fn stats_tell_each_handlers_figures_and_503_while_its_store_is_away() {
    let tell = async |figures: Figures| {
        let stats = Stats::default();
        let served = serve(ops::router(Health::new(), Metrics::new("consumer"), stats.clone())).await;
        assert_eq!(get_json(served.url("/stats")).await, (200, serde_json::json!({ "handlers": {} })), "before there are handlers");
        stats.open(vec![("points".into(), Arc::new(figures) as Arc<dyn Page>)]);
        get_json(served.url("/stats")).await
    };
    assert_eq!(tell(Figures(true)).await, (200, serde_json::json!({ "handlers": { "points": { "kind": "points" } } })));
    assert_eq!(tell(Figures(false)).await, (503, serde_json::json!({ "error": "redis cache:6379: no answer within 1s 500ms" })));
}
