//! `POST /events` with a publisher that does what the test says.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use worker::{
    engine::ports::PublishError,
    event::Catalog,
    health::{Health, Part, Reporter},
    http::{self, body::Bodies},
    publish::Publishing,
    telemetry::Metrics,
};

use crate::support::{Served, client, config, publisher::FakePublisher, serve};

struct Api {
    served: Served,
    publisher: Arc<FakePublisher>,
    brokers: Reporter,
    metrics: Metrics,
}

async fn api_with(publisher: Arc<FakePublisher>, sets: &[&str]) -> Api {
    let config = config(sets);
    let catalog = Arc::new(Catalog::embedded().unwrap());
    let metrics = Metrics::new("producer");
    let brokers = Health::new().part(Part::Brokers);
    brokers.ok();
    let publishing = Arc::new(Publishing::new(&config, catalog, publisher.clone(), metrics.clone()));
    let token = http::auth::Token::new(config.publish.api_token.expose());
    let served = serve(http::auth::guard(http::publish::router(publishing, brokers.clone(), Bodies::default()), token)).await;
    Api { served, publisher, brokers, metrics }
}

async fn api() -> Api {
    api_with(FakePublisher::new(), &[]).await
}

impl Api {
    async fn post(&self, query: &str, content_type: &str, body: impl Into<reqwest::Body>) -> (u16, Value) {
        let request = client().post(self.served.url(&format!("/events{query}"))).header("content-type", content_type).body(body);
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        assert_eq!(answer.headers().contains_key("retry-after"), status == 429, "Retry-After goes with 429");
        (status, serde_json::from_str(&answer.text().await.unwrap()).unwrap())
    }

    async fn post_lines(&self, query: &str, lines: &[String]) -> (u16, Value) {
        self.post(query, "application/x-ndjson", lines.join("\n")).await
    }

    fn users(&self) -> Vec<String> {
        self.publisher.queued().iter().map(|message| String::from_utf8(message.key.clone().unwrap().into()).unwrap()).collect()
    }
}

fn created(user: &str, task: u32) -> String {
    json!({"event_id": format!("{user}-{task}"), "event_type": "task.created", "user_id": user, "task_id": task, "data": {"title": "Call"}})
        .to_string()
}

#[tokio::test]
async fn one_event_is_stored_in_the_canonical_shape_keyed_by_its_user() {
    let api = api().await;
    let (status, body) = api.post("", "application/json", created("user-1", 7)).await;
    assert_eq!(status, 202);
    let stored = json!({"event_id": "user-1-7", "topic": "task-events", "partition": 0, "offset": 0});
    assert_eq!(body, json!({"accepted": 1, "events": [stored]}));
    let queued = api.publisher.queued();
    assert_eq!(queued[0].key.as_deref(), Some(&b"user-1"[..]));
    let value: Value = serde_json::from_slice(queued[0].value.as_ref().unwrap()).unwrap();
    assert_eq!((&value["event_id"], &value["event_version"]), (&json!("user-1-7"), &json!("1.0")));
    assert_eq!(
        (&value["data"]["title"], &value["data"]["user_id"], &value["data"]["task_id"]),
        (&json!("Call"), &json!("user-1"), &json!(7))
    );
    assert!(value["timestamp"].is_string() && value["source"].is_string());
}

#[tokio::test]
async fn the_answer_comes_only_after_the_brokers_acknowledgement() {
    let api = api_with(FakePublisher::holding(), &[]).await;
    let answer = api.post("", "application/json", created("u", 1));
    tokio::pin!(answer);
    tokio::select! {
        early = &mut answer => panic!("answered before the acknowledgement: {early:?}"),
        () = async { while api.publisher.queued().is_empty() { tokio::task::yield_now().await } } => {}
    }
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut answer).await.is_err());
    api.publisher.acknowledge(1);
    assert_eq!(answer.await.0, 202);
}

#[tokio::test]
async fn many_events_are_written_in_the_order_of_the_request() {
    let lines: Vec<_> = (0..50).map(|task| created(if task % 2 == 0 { "even" } else { "odd" }, task)).collect();
    for (content_type, body) in [("application/x-ndjson", lines.join("\n\n")), ("application/json", format!("[{}]", lines.join(",")))] {
        let api = api().await;
        let (status, answer) = api.post("", content_type, body).await;
        assert_eq!((status, &answer["accepted"]), (202, &json!(50)));
        let ids: Vec<_> = answer["events"].as_array().unwrap().iter().map(|event| event["event_id"].as_str().unwrap().to_owned()).collect();
        let expected: Vec<_> = (0..50).map(|task| format!("{}-{task}", if task % 2 == 0 { "even" } else { "odd" })).collect();
        assert_eq!(ids, expected);
        let offsets: Vec<_> = answer["events"].as_array().unwrap().iter().map(|event| event["offset"].as_i64().unwrap()).collect();
        assert_eq!(offsets, (0..50).collect::<Vec<_>>());
    }
}

fn bad_lines() -> Vec<String> {
    vec![
        created("a", 1),
        "{not json".to_owned(),
        String::new(),
        json!({"event_type": "task.created", "task_id": 1, "data": {"title": "x"}}).to_string(),
        json!({"event_type": "no.such", "user_id": "u"}).to_string(),
        json!({"event_type": "task.created", "user_id": "u", "task_id": 1, "data": {"title": ""}}).to_string(),
        created("b", 2),
    ]
}

#[tokio::test]
async fn a_request_with_a_bad_line_publishes_nothing_and_lists_each_with_line_and_reason() {
    let api = api().await;
    let (status, body) = api.post_lines("", &bad_lines()).await;
    assert_eq!(status, 400);
    let rejected: Vec<_> =
        body["rejected"].as_array().unwrap().iter().map(|one| (one["line"].clone(), one["index"].clone(), one["reason"].clone())).collect();
    let expected = [(2, 1, "undecodable"), (4, 2, "missing_user_id"), (5, 3, "unknown_type"), (6, 4, "schema")];
    assert_eq!(rejected, expected.map(|(line, index, reason)| (json!(line), json!(index), json!(reason))));
    assert_eq!((&body["accepted"], &body["events"]), (&json!(0), &json!([])));
    assert!(api.publisher.queued().is_empty());
}

#[tokio::test]
async fn with_partial_the_valid_ones_are_published_and_the_others_listed() {
    let api = api().await;
    let (status, body) = api.post_lines("?partial=true", &bad_lines()).await;
    assert_eq!((status, &body["accepted"], body["rejected"].as_array().unwrap().len()), (202, &json!(2), 4));
    assert_eq!(api.users(), ["a", "b"]);
}

#[tokio::test]
async fn with_partial_a_request_without_a_valid_event_is_still_400() {
    let api = api().await;
    assert_eq!(api.post("?partial=true", "application/json", "{}").await.0, 400);
}

#[tokio::test]
async fn a_body_without_an_event_is_400() {
    let api = api().await;
    for body in ["", "[]", "\n", "[{]"] {
        assert_eq!(api.post("", "application/json", body).await.0, 400, "{body:?}");
    }
}

#[tokio::test]
async fn a_named_topic_wins_over_the_catalogue_and_must_be_a_topics_name() {
    let api = api().await;
    let (status, body) = api.post("?topic=task-updates", "application/json", created("u", 1)).await;
    assert_eq!((status, &body["events"][0]["topic"]), (202, &json!("task-updates")));
    for bad in ["%20", "", "..", "a%2Fb"] {
        assert_eq!(api.post(&format!("?topic={bad}"), "application/json", created("u", 1)).await.0, 400, "{bad}");
    }
    api.publisher.answer([Some(PublishError::TopicMissing("nowhere".to_owned()))]);
    let (status, body) = api.post("?topic=nowhere", "application/json", created("u", 1)).await;
    assert_eq!((status, &body["failed"][0]["reason"]), (400, &json!("topic_missing")));
}

#[tokio::test]
async fn what_is_too_long_is_413() {
    let api = api().await;
    assert_eq!(api.post("", "application/json", vec![b' '; (4 << 20) + 1]).await.0, 413);
    let long =
        json!({"event_type": "task.created", "user_id": "u", "task_id": 1, "data": {"title": "x", "description": "y".repeat(1 << 20)}});
    let (status, body) = api.post("", "application/json", long.to_string()).await;
    assert_eq!((status, &body["rejected"][0]["reason"]), (413, &json!("oversize")));
    api.publisher.answer([Some(PublishError::TooLarge)]);
    assert_eq!(api.post("", "application/json", created("u", 1)).await.0, 413);
    assert!(api.publisher.queued().is_empty());
}

#[tokio::test]
async fn a_full_queue_is_429_and_no_later_event_overtakes_the_one_that_found_it_full() {
    let api = api().await;
    api.publisher.answer([None, Some(PublishError::QueueFull)]);
    let (status, body) = api.post_lines("", &[created("u", 1), created("u", 2), created("u", 3)]).await;
    assert_eq!((status, &body["accepted"], &body["events"][0]["event_id"]), (429, &json!(1), &json!("u-1")));
    let failed: Vec<_> = body["failed"].as_array().unwrap().iter().map(|one| (one["line"].clone(), one["event_id"].clone())).collect();
    assert_eq!(failed, [(json!(2), json!("u-2")), (json!(3), json!("u-3"))]);
    assert_eq!(api.publisher.queued().len(), 1);
}

#[tokio::test]
async fn an_event_that_is_not_acknowledged_is_never_answered_with_2xx() {
    for (error, expected) in [
        (PublishError::Unreachable("timed out".to_owned()), 503),
        (PublishError::TopicMissing("task-events".to_owned()), 503),
        (PublishError::Forbidden("task-events".to_owned()), 503),
        (PublishError::Refused("policy".to_owned()), 503),
        (PublishError::QueueFull, 429),
    ] {
        let api = api().await;
        api.publisher.answer([None, Some(error.clone())]);
        let (status, body) = api.post_lines("?partial=true", &[created("u", 1), created("u", 2)]).await;
        assert_eq!((status, &body["accepted"]), (expected, &json!(1)), "{error}");
        assert_eq!((&body["failed"][0]["event_id"], &body["failed"][0]["reason"]), (&json!("u-2"), &json!(error.code())));
    }
}

#[tokio::test]
async fn while_kafka_is_known_to_be_away_callers_are_told_at_once() {
    let api = api_with(FakePublisher::holding(), &[]).await;
    api.brokers.fail("no broker answers");
    assert_eq!(api.post("", "application/json", created("u", 1)).await.0, 503);
    assert!(api.publisher.queued().is_empty());
}

#[tokio::test]
async fn a_token_is_wanted_in_either_header_where_one_is_set() {
    let api = api_with(FakePublisher::new(), &["publish.api_token=hunter2"]).await;
    let url = api.served.url("/events");
    for (header, value, expected) in [
        ("x-none", "", 401),
        ("dapr-api-token", "hunter", 401),
        ("dapr-api-token", "hunter2", 202),
        ("authorization", "Bearer hunter2", 202),
        ("authorization", "bearer hunter2", 202),
        ("authorization", "Basic hunter2", 401),
        ("authorization", "hunter2", 401),
    ] {
        let answer = client().post(&url).header(header, value).body(created("u", 1)).send().await.unwrap();
        assert_eq!(answer.status(), expected, "{header}: {value}");
        if expected == 401 {
            assert_eq!(answer.text().await.unwrap(), "invalid api token");
        }
    }
    assert_eq!(api.publisher.queued().len(), 3);
}

#[tokio::test]
async fn publishes_are_counted_by_topic_and_result_and_an_unknown_topic_gets_no_label_of_its_own() {
    let api = api().await;
    api.post("", "application/json", created("u", 1)).await;
    api.publisher.answer([Some(PublishError::TopicMissing("made-up".to_owned()))]);
    api.post("?topic=made-up", "application/json", created("u", 1)).await;
    let text = api.metrics.render().unwrap();
    assert!(text.contains(r#"worker_published_total{result="ok",topic="task-events"} 1"#), "{text}");
    assert!(text.contains(r#"worker_published_total{result="topic_missing",topic="other"} 1"#), "{text}");
    assert!(text.contains(r#"worker_publish_duration_seconds_count{result="ok",topic="task-events"} 1"#), "{text}");
    assert!(!text.contains("made-up"), "{text}");
}

#[tokio::test]
async fn the_callers_trace_context_goes_with_the_record() {
    let api = api().await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    client().post(api.served.url("/events")).header("traceparent", trace).body(created("u", 1)).send().await.unwrap();
    let queued = api.publisher.queued();
    assert_eq!(queued[0].headers, [("traceparent".to_owned(), Some(trace.into()))]);
}

#[tokio::test]
async fn without_validation_any_type_goes_to_a_named_topic_but_a_user_is_needed_all_the_same() {
    let api = api_with(FakePublisher::new(), &["publish.validate=off"]).await;
    let own = json!({"event_type": "own.thing", "user_id": "u", "data": {}}).to_string();
    assert_eq!(api.post("?topic=own", "application/json", own.clone()).await.0, 202);
    let (status, body) = api.post("", "application/json", own).await;
    assert_eq!((status, &body["rejected"][0]["reason"]), (400, &json!("no_topic")));
    let nobody = json!({"event_type": "own.thing", "data": {}}).to_string();
    let (status, body) = api.post("?topic=own", "application/json", nobody).await;
    assert_eq!((status, &body["rejected"][0]["reason"]), (400, &json!("missing_user_id")));
}
