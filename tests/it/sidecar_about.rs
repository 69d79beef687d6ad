//! Dapr's health and metadata endpoints.

use serde_json::json;
use worker::health::{Health, Part};

use crate::support::{publisher::FakePublisher, sidecar::Sidecar};

#[tokio::test]
async fn healthz_is_204_while_the_process_is_ready_and_names_what_is_not() {
    let sidecar = Sidecar::new().await;
    let answer = sidecar.get("/v1.0/healthz").await;
    assert_eq!((answer.status, answer.text.as_str()), (204, ""));
    assert_eq!(sidecar.get("/v1.0/healthz?appid=todo-worker").await.status, 204);
    let other = sidecar.get("/v1.0/healthz?appid=other").await;
    assert_eq!((other.status, other.code().as_str()), (500, "ERR_HEALTH_APPID_NOT_MATCH"));
    sidecar.brokers.fail("no broker answers");
    let answer = sidecar.get("/v1.0/healthz").await;
    assert_eq!(
        (answer.status, answer.json()),
        (500, json!({"errorCode": "ERR_HEALTH_NOT_READY", "message": "dapr is not ready: [brokers]"}))
    );
    sidecar.brokers.ok();
    sidecar.health.drain();
    assert!(sidecar.get("/v1.0/healthz").await.text.contains("[draining]"));
}

#[tokio::test]
async fn outbound_is_204_from_the_first_answer_of_a_broker_on_so_that_clients_start_while_kafka_is_away() {
    let sidecar = Sidecar::new().await;
    sidecar.brokers.fail("no broker answers");
    assert_eq!(sidecar.get("/v1.0/healthz/outbound").await.status, 204);
    assert!(!Health::new().part(Part::Brokers).was_ok());
}

#[tokio::test]
async fn metadata_names_the_app_its_version_and_what_is_offered() {
    let sidecar = Sidecar::start(FakePublisher::new(), &["state.stores=[\"statestore\"]"]).await;
    let answer = sidecar.get("/v1.0/metadata").await;
    let body = answer.json();
    assert_eq!((answer.status, &body["id"], &body["runtimeVersion"]), (200, &json!("todo-worker"), &json!(env!("CARGO_PKG_VERSION"))));
    let components: Vec<_> =
        body["components"].as_array().unwrap().iter().map(|one| (one["name"].as_str().unwrap(), one["type"].as_str().unwrap())).collect();
    assert_eq!(components, [("kafka-pubsub", "pubsub.kafka"), ("taskevents", "pubsub.kafka"), ("statestore", "state.redis")]);
    assert_eq!(body["extended"]["daprRuntimeVersion"], env!("CARGO_PKG_VERSION"));
}

#[tokio::test]
async fn an_attribute_that_is_put_is_shown_and_their_number_is_bounded() {
    let sidecar = Sidecar::new().await;
    assert_eq!(sidecar.send("PUT", "/v1.0/metadata/cliPID", &[], "42").await.status, 204);
    assert_eq!(sidecar.get("/v1.0/metadata").await.json()["extended"]["cliPID"], "42");
    assert_eq!(sidecar.send("PUT", "/v1.0/metadata/long", &[], "x".repeat(5000)).await.status, 400);
    for n in 1..64 {
        assert_eq!(sidecar.send("PUT", &format!("/v1.0/metadata/a{n}"), &[], "1").await.status, 204);
    }
    assert_eq!(sidecar.send("PUT", "/v1.0/metadata/one-more", &[], "1").await.status, 400);
    assert_eq!(sidecar.send("PUT", "/v1.0/metadata/a1", &[], "2").await.status, 204);
}

#[tokio::test]
async fn what_is_not_offered_says_so() {
    let sidecar = Sidecar::new().await;
    for (method, path) in
        [("POST", "/v1.0/invoke/app/method/x"), ("POST", "/v1.0/shutdown"), ("GET", "/v1.0/secrets/a/b"), ("POST", "/v1.0-alpha1/lock/a")]
    {
        let answer = sidecar.send(method, path, &[], "").await;
        assert_eq!((answer.status, answer.code().as_str()), (404, "ERR_API_UNIMPLEMENTED"), "{path}");
        assert!(answer.text.contains(path), "{}", answer.text);
    }
}
