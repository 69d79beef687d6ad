//! The `http` handler against an app on a socket.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use worker::{
    config::Config,
    event::{
        Catalog, Decoder, Event,
        record::{Record, RecordParts, TopicPartition},
    },
    handler::{Registry, Run},
    handlers,
    health::Health,
    outcome::{Failure, Handled, HandlerResult},
    telemetry::Metrics,
};

use crate::support::{
    app::{App, Got, reply},
    config,
};

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

pub fn flat() -> Value {
    json!({"event_id": "e-1", "event_type": "task.created", "user_id": "user-1", "task_id": 7, "data": {"title": "Call"}})
}

fn cloudevent() -> Value {
    json!({"specversion": "1.0", "type": "com.dapr.event.sent", "source": "todo", "id": "ce-1", "datacontenttype": "application/json",
           "topic": "task-events", "pubsubname": "kafka-pubsub", "traceparent": TRACE, "data": flat()})
}

fn event_on(topic: &str, value: &Value, headers: &[(&str, &str)]) -> Arc<Event> {
    let parts = RecordParts {
        offset: 42,
        timestamp: Some(1_767_088_800_000),
        key: Some(b"user-1".to_vec()),
        value: Some(value.to_string().into_bytes()),
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), Some(value.as_bytes().to_vec()))).collect(),
    };
    let record = Record::copy_of(&TopicPartition::new(topic, 3), &parts);
    let catalog = Arc::new(Catalog::embedded().unwrap());
    Arc::new(Decoder::new(catalog, true).decode(record).expect("a valid event"))
}

pub fn event(value: &Value) -> Arc<Event> {
    event_on("task-events", value, &[])
}

/// A configuration with one `http` handler.
pub fn with_handler(keys: &str) -> Config {
    config(&[&format!("handlers=[{{name = \"app\", kind = \"http\", {keys}}}]")])
}

pub async fn build(config: &Config) -> Registry {
    handlers::build(config, &Catalog::embedded().unwrap(), &Health::new(), &Metrics::new("consumer")).await.unwrap().registry()
}

async fn run_as(registry: &Registry, event: Arc<Event>, attempt: u32) -> HandlerResult {
    let run = Run { event, attempt, epoch: 1_700_000_000_123, cancelled: Arc::default() };
    registry.bindings()[0].handler.clone().handle_boxed(run).await
}

pub async fn run(registry: &Registry, event: Arc<Event>) -> HandlerResult {
    run_as(registry, event, 1).await
}

/// What the app gets for one event under these keys.
async fn delivered(keys: &str, event: Arc<Event>) -> Got {
    let app = App::start().await;
    let registry = build(&with_handler(&format!("url = {:?}, {keys}", app.served.url("/in?x=1")))).await;
    assert_eq!(run(&registry, event).await, Ok(Handled::Done));
    app.got().remove(0)
}

/// The verdict for one answer under these keys.
async fn verdict(keys: &str, status: u16, body: &str) -> HandlerResult {
    let app = App::start().await;
    app.reply([reply(status, body)]);
    let registry = build(&with_handler(&format!("url = {:?}, {keys}", app.served.url("/")))).await;
    run(&registry, event(&flat())).await
}

fn kind(result: &HandlerResult) -> &'static str {
    match result {
        Ok(Handled::Done) => "done",
        Ok(Handled::Dropped(_)) => "dropped",
        Err(Failure::Transient { .. }) => "transient",
        Err(Failure::Permanent { .. }) => "permanent",
    }
}

#[tokio::test]
async fn a_stored_cloudevent_is_sent_as_it_is_to_the_url_as_written() {
    let got = delivered("", event(&cloudevent())).await;
    assert_eq!((got.method.as_str(), got.path.as_str()), ("POST", "/in?x=1"));
    assert_eq!(got.header("content-type"), Some("application/cloudevents+json"));
    assert_eq!(got.json(), cloudevent());
}

#[tokio::test]
async fn an_event_that_is_no_cloudevent_is_sent_inside_one() {
    let got = delivered("", event(&flat())).await;
    assert_eq!(got.header("content-type"), Some("application/cloudevents+json"));
    let body = got.json();
    assert_eq!((&body["specversion"], &body["id"], &body["type"]), (&json!("1.0"), &json!("e-1"), &json!("task.created")));
    assert_eq!((&body["data"]["user_id"], &body["data"]["data"]["title"]), (&json!("user-1"), &json!("Call")));
}

#[tokio::test]
async fn body_event_sends_the_event_itself_at_the_top_level() {
    for stored in [flat(), cloudevent()] {
        let got = delivered("body = \"event\"", event(&stored)).await;
        assert_eq!(got.header("content-type"), Some("application/json"));
        let body = got.json();
        assert_eq!((&body["event_id"], &body["event_type"], &body["user_id"]), (&json!("e-1"), &json!("task.created"), &json!("user-1")));
        assert_eq!(body["data"]["title"], "Call");
        assert!(body["timestamp"].is_string(), "missing envelope fields are filled in: {body}");
    }
}

#[tokio::test]
async fn strict_dapr_sends_the_stored_bytes_whatever_they_are() {
    let got = delivered("strict_dapr = true", event(&flat())).await;
    assert_eq!(got.header("content-type"), Some("application/cloudevents+json"));
    assert_eq!(got.body, flat().to_string().as_bytes());
}

#[tokio::test]
async fn each_run_carries_the_same_idempotency_key_its_attempt_its_epoch_and_the_trace() {
    let app = App::start().await;
    let registry = build(&with_handler(&format!("url = {:?}", app.served.url("/")))).await;
    let traced = event_on("task-events", &flat(), &[("traceparent", TRACE), ("tracestate", "a=1")]);
    for attempt in [1, 2] {
        run_as(&registry, Arc::clone(&traced), attempt).await.unwrap();
    }
    run(&registry, event(&flat())).await.unwrap();
    let got = app.got();
    for (index, attempt) in [(0, "1"), (1, "2")] {
        assert_eq!(got[index].header("idempotency-key"), Some("e-1"));
        assert_eq!(got[index].header("x-worker-attempt"), Some(attempt));
        assert_eq!(got[index].header("x-worker-epoch"), Some("1700000000123"));
        assert_eq!(got[index].header("traceparent"), Some(TRACE));
        assert_eq!(got[index].header("tracestate"), Some("a=1"));
    }
    assert_eq!(got[2].header("traceparent"), None);
}

#[tokio::test]
async fn answers_mean_what_the_table_says() {
    for (status, body, expected) in [
        (200, "", "done"),
        (204, "", "done"),
        (201, r#"{"status":"created"}"#, "done"),
        (200, r#"{"status":"success"}"#, "done"),
        (200, r#"{"status":"retry"}"#, "transient"),
        (200, r#"{"status":"Drop"}"#, "dropped"),
        (400, "", "permanent"),
        (410, "", "permanent"),
        (413, "", "permanent"),
        (415, "", "permanent"),
        (422, r#"{"detail":[]}"#, "permanent"),
        (401, "", "transient"),
        (404, "", "transient"),
        (408, "", "transient"),
        (429, "", "transient"),
        (500, r#"{"status":"SUCCESS"}"#, "transient"),
        (503, "", "transient"),
    ] {
        assert_eq!(kind(&verdict("", status, body).await), expected, "{status} {body}");
    }
}

#[tokio::test]
async fn with_strict_dapr_answers_mean_what_daprs_table_says() {
    for (status, body, expected) in [
        (200, "", "done"),
        (200, r#"{"status":"SUCCESS"}"#, "done"),
        (200, r#"{"status":"ok"}"#, "transient"),
        (200, r#"{"status":"RETRY"}"#, "transient"),
        (200, r#"{"status":"DROP"}"#, "permanent"),
        (404, "", "permanent"),
        (422, "", "transient"),
        (500, "", "transient"),
    ] {
        assert_eq!(kind(&verdict("strict_dapr = true", status, body).await), expected, "{status} {body}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let app = App::start().await;
    app.reply([(302, vec![("location", app.served.url("/elsewhere"))], String::new())]);
    let registry = build(&with_handler(&format!("url = {:?}", app.served.url("/here")))).await;
    assert_eq!(kind(&run(&registry, event(&flat())).await), "transient");
    assert_eq!(app.got().len(), 1);
}

#[tokio::test]
async fn retry_after_is_handed_to_the_engine() {
    let app = App::start().await;
    app.reply([(503, vec![("retry-after", "7".to_owned())], String::new())]);
    let registry = build(&with_handler(&format!("url = {:?}", app.served.url("/")))).await;
    let Err(Failure::Transient { after, .. }) = run(&registry, event(&flat())).await else { panic!("503 is transient") };
    assert_eq!(after, Some(Duration::from_secs(7)));
}

#[tokio::test]
async fn a_long_answer_is_not_read_to_its_end_and_counts_as_one_without_a_status() {
    let long = format!("{{\"padding\":\"{}\",\"status\":\"RETRY\"}}", "x".repeat(1 << 20));
    assert_eq!(kind(&verdict("", 200, &long).await), "done");
}

#[tokio::test]
async fn an_app_that_is_away_is_a_transient_failure_and_shown_by_the_health_page_until_it_answers() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let config = with_handler(&format!("url = \"http://user:hunter2@{address}/\""));
    let health = Health::new();
    let registry = handlers::build(&config, &Catalog::embedded().unwrap(), &health, &Metrics::new("consumer")).await.unwrap().registry();
    let failure = run(&registry, event(&flat())).await.unwrap_err();
    assert!(matches!(failure, Failure::Transient { after: None, .. }));
    assert!(failure.error().contains("cannot connect") && !failure.error().contains("hunter2"), "{}", failure.error());
    let report = health.readiness();
    assert!(report.ok, "an app that is away is no reason to take the worker out");
    assert_eq!((report.parts[0].name.as_str(), report.parts[0].ok), ("app:app", false));
}

#[tokio::test]
async fn connections_are_kept_alive_over_many_events() {
    use axum::{Router, extract::ConnectInfo, routing::post};
    let seen = Arc::new(std::sync::Mutex::new(std::collections::BTreeSet::new()));
    let ports = Arc::clone(&seen);
    let router = Router::new().route(
        "/",
        post(move |ConnectInfo(peer): ConnectInfo<std::net::SocketAddr>| {
            ports.lock().unwrap().insert(peer.port());
            async { "{}" }
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let server =
        tokio::spawn(async move { axum::serve(listener, router.into_make_service_with_connect_info::<std::net::SocketAddr>()).await });
    let registry = build(&with_handler(&format!("url = {url:?}"))).await;
    for _ in 0..20 {
        run(&registry, event(&flat())).await.unwrap();
    }
    assert_eq!(seen.lock().unwrap().len(), 1);
    server.abort();
}

const SUBSCRIPTIONS: &str = r#"[{"pubsubname":"kafka-pubsub","topic":"task-events","route":"/events/tasks"},
                                {"pubsubname":"kafka-pubsub","topic":"reminders","routes":{"default":"reminders"}}]"#;

#[tokio::test]
async fn discovered_routes_decide_the_topics_and_where_each_goes() {
    let app = App::start().await;
    app.reply([reply(200, SUBSCRIPTIONS)]);
    let registry = build(&with_handler(&format!("discover = {:?}", app.served.url("")))).await;
    assert_eq!(registry.bindings()[0].topics, ["reminders", "task-events"]);
    assert_eq!(registry.route("task.created", "task-events").count(), 1);
    assert_eq!(registry.route("task.created", "user-events").count(), 0);
    run(&registry, event(&flat())).await.unwrap();
    run(&registry, event_on("reminders", &flat(), &[])).await.unwrap();
    let got: Vec<_> = app.got().iter().map(|got| format!("{} {}", got.method, got.path)).collect();
    assert_eq!(got, ["GET /dapr/subscribe", "POST /events/tasks", "POST /reminders"]);
}

#[tokio::test]
async fn an_app_that_takes_only_post_is_asked_by_post() {
    for status in [404, 405] {
        let app = App::start().await;
        app.reply([reply(status, ""), reply(200, SUBSCRIPTIONS)]);
        let registry = build(&with_handler(&format!("discover = {:?}", app.served.url("")))).await;
        assert_eq!(registry.bindings()[0].topics.len(), 2);
        let got: Vec<_> = app.got().iter().map(|got| format!("{} {}", got.method, got.path)).collect();
        assert_eq!(got, ["GET /dapr/subscribe", "POST /dapr/subscribe"]);
    }
}

#[tokio::test]
async fn an_app_that_is_not_up_yet_or_asks_for_what_is_not_offered_is_asked_again() {
    let app = App::start().await;
    let rules = r#"[{"topic":"t","routes":{"rules":[{"match":"event.type = 'a'","path":"/a"}]}}]"#;
    app.reply([reply(503, ""), reply(200, rules), reply(200, SUBSCRIPTIONS)]);
    let registry = build(&with_handler(&format!("discover = {:?}", app.served.url("")))).await;
    assert_eq!(registry.bindings()[0].topics.len(), 2);
    assert_eq!(app.got().len(), 3);
}

#[tokio::test]
async fn patterns_are_resolved_through_the_catalogues_aliases() {
    let registry =
        build(&config(&[r#"handlers=[{name = "l", kind = "log", events = ["reminder.triggered", "task.*"], concurrency = 3}]"#])).await;
    let binding = &registry.bindings()[0];
    assert!(binding.wants("reminder.due", "reminders") && binding.wants("task.created", "task-events"));
    assert!(!binding.wants("reminder.sent", "reminders"));
    assert_eq!(binding.concurrency, 3);
    let topics = handlers::topics(&registry, &Catalog::embedded().unwrap());
    let topics: Vec<_> = topics.iter().map(|topic| &**topic).collect();
    assert!(topics.contains(&"task-events") && topics.contains(&"reminders") && !topics.contains(&"user-events"), "{topics:?}");
    assert_eq!(run(&registry, event(&flat())).await, Ok(Handled::Done));
}
