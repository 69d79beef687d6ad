//! Dapr's publish API over HTTP, row by row.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use worker::engine::ports::PublishError;

use crate::support::{
    publisher::FakePublisher,
    sidecar::{Sidecar, headers, key},
};

const ORDERS: &str = "/v1.0/publish/kafka-pubsub/task-events";

fn event() -> Value {
    json!({"event_type": "task.completed", "task_id": 7, "data": {"user_id": "user-1"}})
}

#[tokio::test]
async fn an_event_is_wrapped_in_a_cloudevent_keyed_by_the_user_inside_its_data_and_answered_with_204_and_nothing() {
    let sidecar = Sidecar::new().await;
    let answer = sidecar.post(ORDERS, event().to_string()).await;
    assert_eq!((answer.status, answer.text.as_str()), (204, ""));
    let record = sidecar.last();
    assert_eq!((&*record.topic, key(&record).as_deref(), record.partition), ("task-events", Some("user-1"), None));
    assert_eq!(headers(&record), [], "no header of the worker's own");
    let mut value = sidecar.last_value();
    let id = value["id"].take();
    assert_eq!(uuid::Uuid::parse_str(id.as_str().unwrap()).unwrap().get_version_num(), 4);
    let time: DateTime<Utc> = value["time"].take().as_str().unwrap().parse().unwrap();
    assert!((Utc::now() - time).abs() < chrono::Duration::seconds(60) && time.timestamp_subsec_nanos() == 0);
    let expected = json!({
        "data": event(), "datacontenttype": "application/json", "id": null, "pubsubname": "kafka-pubsub", "source": "todo-worker",
        "specversion": "1.0", "time": null, "topic": "task-events", "traceid": "", "traceparent": "", "tracestate": "",
        "type": "com.dapr.event.sent"
    });
    assert_eq!(value, expected);
}

#[tokio::test]
async fn put_is_as_good_as_post_and_slashes_too_many_do_not_matter() {
    let sidecar = Sidecar::new().await;
    for (method, path) in
        [("PUT", ORDERS), ("POST", "//v1.0///publish/kafka-pubsub//task-events/"), ("PUT", "/v1.0/publish/taskevents/task-events/")]
    {
        assert_eq!(sidecar.send(method, path, &[("content-type", "application/json")], event().to_string()).await.status, 204, "{path}");
    }
    assert_eq!(sidecar.send("GET", ORDERS, &[], "").await.status, 405);
    assert_eq!(sidecar.publisher.queued().len(), 3);
}

#[tokio::test]
async fn the_content_type_decides_the_shape_of_the_data() {
    let sidecar = Sidecar::start(FakePublisher::new(), &["publish.key=request", "publish.validate=off"]).await;
    let path = format!("{ORDERS}?metadata.partitionKey=k");
    for (content_type, body, name, expected) in [
        (Some("application/json; charset=utf-8"), r#"{"a":1}"#, "data", json!({"a": 1})),
        (Some("application/json"), "{oops", "data", json!("{oops")),
        (Some("application/vnd.todo+json"), "{}", "data", json!("{}")),
        (Some("text/plain"), "hello", "data", json!("hello")),
        (Some("application/octet-stream"), "hello", "data_base64", json!("aGVsbG8=")),
        (None, "hello", "data", json!("hello")),
    ] {
        let content: Vec<_> = content_type.map(|value| ("content-type", value)).into_iter().collect();
        assert_eq!(sidecar.send("POST", &path, &content, body).await.status, 204, "{content_type:?}");
        let value = sidecar.last_value();
        assert_eq!((&value[name], &value["datacontenttype"]), (&expected, &json!(content_type.unwrap_or("text/plain"))));
    }
}

#[tokio::test]
async fn a_json_event_without_a_content_type_is_a_string_and_still_an_event() {
    let sidecar = Sidecar::new().await;
    assert_eq!(sidecar.send("POST", ORDERS, &[], event().to_string()).await.status, 204);
    assert_eq!(
        (sidecar.last_value()["data"].as_str(), key(&sidecar.last()).as_deref()),
        (Some(event().to_string().as_str()), Some("user-1"))
    );
}

#[tokio::test]
async fn a_cloudevent_of_the_callers_own_is_passed_through() {
    let sidecar = Sidecar::new().await;
    let own = json!({"id": "own", "type": "task.completed", "topic": "elsewhere", "custom": 1, "data": {"task_id": 1, "user_id": "u"}});
    let content = [("content-type", "application/cloudevents+json; charset=utf-8")];
    let answer = sidecar.send("POST", &format!("{ORDERS}?metadata.cloudevent.id=other"), &content, own.to_string()).await;
    assert_eq!(answer.status, 204, "{}", answer.text);
    let value = sidecar.last_value();
    assert_eq!(
        (&value["id"], &value["topic"], &value["custom"], &value["source"]),
        (&json!("own"), &json!("task-events"), &json!(1), &json!("Dapr"))
    );
    let answer = sidecar.send("POST", ORDERS, &content, "{oops").await;
    assert_eq!(
        (answer.status, answer.code().as_str(), &answer.json()["message"]),
        (500, "ERR_PUBSUB_CLOUD_EVENTS_SER", &json!("cannot create cloudevent"))
    );
}

#[tokio::test]
async fn every_metadata_parameter_becomes_a_header_and_nothing_else_does() {
    let sidecar = Sidecar::new().await;
    let path = format!(
        "{ORDERS}?metadata.partitionKey=pk&metadata.ttlInSeconds=60&metadata.rawPayload=false&metadata.a%20b=gr%C3%BC%C3%9F&other=1&Metadata.x=1&metadata.a%20b=second"
    );
    assert_eq!(sidecar.post(&path, event().to_string()).await.status, 204);
    let expected = [("a b", "grüß"), ("partitionKey", "pk"), ("rawPayload", "false"), ("ttlInSeconds", "60")];
    assert_eq!(headers(&sidecar.last()), expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

#[tokio::test]
async fn the_user_is_the_key_whatever_the_request_asks_for_unless_configured() {
    for (set, query, expected) in [
        ("publish.key=user_id", "metadata.partitionKey=pk", (Some("user-1"), None)),
        ("publish.key=user_id", "metadata.partitionNumber=2", (Some("user-1"), None)),
        ("publish.key=request", "", (Some("user-1"), None)),
        ("publish.key=request", "metadata.partitionKey=pk", (Some("pk"), None)),
        ("publish.key=request", "metadata.__key=pk", (Some("pk"), None)),
        ("publish.key=request", "metadata.partitionKey=pk&metadata.__key=other", (Some("pk"), None)),
        ("publish.key=request", "metadata.partitionNumber=2", (Some("user-1"), Some(2))),
        ("publish.key=request", "metadata.partitionNumber=2&metadata.partitionKey=pk", (Some("pk"), Some(2))),
    ] {
        let sidecar = Sidecar::start(FakePublisher::new(), &[set]).await;
        assert_eq!(sidecar.post(&format!("{ORDERS}?{query}"), event().to_string()).await.status, 204, "{set} {query}");
        let record = sidecar.last();
        assert_eq!((key(&record).as_deref(), record.partition), expected, "{set} {query}");
    }
}

#[tokio::test]
async fn a_partition_that_is_none_is_refused() {
    let sidecar = Sidecar::new().await;
    for number in ["-1", "x", ""] {
        let answer = sidecar.post(&format!("{ORDERS}?metadata.partitionNumber={number}"), event().to_string()).await;
        assert_eq!((answer.status, answer.code().as_str()), (500, "ERR_PUBSUB_PUBLISH_MESSAGE"), "{number}");
    }
    assert!(sidecar.publisher.queued().is_empty());
}

#[tokio::test]
async fn an_event_without_a_user_is_400_and_says_so_with_and_without_validation() {
    let nobody = json!({"event_type": "task.completed", "task_id": 7}).to_string();
    for validate in ["catalog", "off"] {
        let sidecar = Sidecar::start(FakePublisher::new(), &[&format!("publish.validate={validate}")]).await;
        for query in ["", "?metadata.rawPayload=true", "?metadata.partitionKey=pk"] {
            let answer = sidecar.post(&format!("{ORDERS}{query}"), nobody.clone()).await;
            assert_eq!((answer.status, answer.code().as_str()), (400, "ERR_PUBSUB_EVENTS_SER"), "{validate} {query}");
            assert!(answer.json()["message"].as_str().unwrap().contains("user_id: missing"), "{}", answer.text);
            assert_eq!(answer.detail("ErrorInfo").unwrap()["metadata"]["rejected"], "missing_user_id");
        }
        assert!(sidecar.publisher.queued().is_empty());
    }
}

#[tokio::test]
async fn with_the_requests_key_an_event_may_be_nobodys() {
    let sidecar = Sidecar::start(FakePublisher::new(), &["publish.key=request"]).await;
    let nobody = json!({"event_type": "task.completed", "task_id": 7}).to_string();
    assert_eq!(sidecar.post(ORDERS, nobody.clone()).await.status, 400);
    assert_eq!(sidecar.post(&format!("{ORDERS}?metadata.partitionKey=pk"), nobody).await.status, 204);
    assert_eq!(key(&sidecar.last()).as_deref(), Some("pk"));
}

#[tokio::test]
async fn the_catalogue_decides_what_is_an_event_unless_validation_is_off() {
    let rows = [
        (json!({"event_type": "task.made", "data": {"user_id": "u"}}), "unknown_type", "task.made"),
        (json!({"anything": 1, "user_id": "u"}), "unknown_type", "missing in the data"),
        (json!({"event_type": "task.created", "user_id": "u", "task_id": 1, "data": {"title": ""}}), "schema", "data.title"),
    ];
    let (strict, off) = (Sidecar::new().await, Sidecar::start(FakePublisher::new(), &["publish.validate=off"]).await);
    for (event, reason, told) in rows {
        let answer = strict.post(ORDERS, event.to_string()).await;
        assert_eq!((answer.status, &answer.detail("ErrorInfo").unwrap()["metadata"]["rejected"]), (400, &json!(reason)));
        assert!(answer.text.contains(told), "{}", answer.text);
        assert_eq!(off.post("/v1.0/publish/kafka-pubsub/anything", event.to_string()).await.status, 204);
    }
    assert!(strict.publisher.queued().is_empty());
    let typed = strict.post(&format!("{ORDERS}?metadata.cloudevent.type=task.completed"), r#"{"task_id":1,"user_id":"u"}"#).await;
    assert_eq!(typed.status, 204, "bare data with its type beside it: {}", typed.text);
}

#[tokio::test]
async fn a_raw_payload_is_written_untouched() {
    let sidecar = Sidecar::new().await;
    let body = "{ \"event_type\":\"task.completed\",\n\"user_id\":\"u\",\"task_id\":1.0e0, \"task_id\":1 }";
    for value in ["true", "1", "T"] {
        assert_eq!(sidecar.post(&format!("{ORDERS}?metadata.rawPayload={value}"), body).await.status, 204);
        let record = sidecar.last();
        assert_eq!((record.value.as_deref(), key(&record).as_deref()), (Some(body.as_bytes()), Some("u")));
        assert_eq!(headers(&record), [("rawPayload".to_owned(), value.to_owned())]);
    }
    let answer = sidecar.post(&format!("{ORDERS}?metadata.rawPayload=yes"), body).await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "ERR_PUBSUB_REQUEST_METADATA"));
    assert!(answer.text.contains("must be a valid boolean: actual is 'yes'"), "{}", answer.text);
}

#[tokio::test]
async fn a_raw_null_is_a_tombstone_for_a_key_that_the_request_names() {
    let sidecar = Sidecar::start(FakePublisher::new(), &["publish.key=request", "publish.validate=off"]).await;
    assert_eq!(sidecar.post(&format!("{ORDERS}?metadata.rawPayload=true&metadata.partitionKey=k"), "null").await.status, 204);
    assert_eq!((sidecar.last().value, key(&sidecar.last()).as_deref()), (None, Some("k")));
    assert_eq!(Sidecar::new().await.post(&format!("{ORDERS}?metadata.rawPayload=true"), "null").await.status, 400);
}

#[tokio::test]
async fn a_time_to_live_becomes_an_expiration_whatever_its_case() {
    let sidecar = Sidecar::new().await;
    for query in ["metadata.ttlInSeconds=60", "metadata.TTLINSECONDS=60", "metadata.ttl=1m"] {
        assert_eq!(sidecar.post(&format!("{ORDERS}?{query}"), event().to_string()).await.status, 204);
        let value = sidecar.last_value();
        let (time, expiration): (DateTime<Utc>, DateTime<Utc>) =
            (value["time"].as_str().unwrap().parse().unwrap(), value["expiration"].as_str().unwrap().parse().unwrap());
        assert_eq!(expiration - time, chrono::Duration::seconds(60), "{query}");
    }
    assert_eq!(sidecar.post(&format!("{ORDERS}?metadata.ttlInSeconds=soon"), event().to_string()).await.status, 204);
    assert_eq!(sidecar.last_value().get("expiration"), None);
}

#[tokio::test]
async fn attributes_of_the_cloudevent_can_be_given_whatever_their_case() {
    let sidecar = Sidecar::new().await;
    let path = format!(
        "{ORDERS}?metadata.cloudevent.id=i&metadata.CloudEvent.Source=s&metadata.cloudevent.type=t&metadata.cloudevent.subject=su&metadata.cloudevent.traceid=x&metadata.cloudevent.tracestate=ts"
    );
    assert_eq!(sidecar.post(&path, event().to_string()).await.status, 204);
    let value = sidecar.last_value();
    for (name, expected) in
        [("id", "i"), ("source", "s"), ("type", "t"), ("subject", "su"), ("traceid", "x"), ("traceparent", "x"), ("tracestate", "ts")]
    {
        assert_eq!(value[name], expected, "{name}");
    }
    let path = format!(
        "{ORDERS}?metadata.cloudevent.traceid=x&metadata.cloudevent.traceparent=p&metadata.cloudevent.topic=no&metadata.cloudevent.time=no"
    );
    assert_eq!(sidecar.post(&path, event().to_string()).await.status, 204);
    let value = sidecar.last_value();
    assert_eq!((&value["traceid"], &value["traceparent"], &value["topic"]), (&json!("p"), &json!("p"), &json!("task-events")));
    assert_ne!(value["time"], "no");
}

#[tokio::test]
async fn the_callers_trace_context_goes_with_the_event() {
    let sidecar = Sidecar::new().await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let traced = [("content-type", "application/json"), ("traceparent", trace), ("tracestate", "a=1")];
    assert_eq!(sidecar.send("POST", ORDERS, &traced, event().to_string()).await.status, 204);
    let value = sidecar.last_value();
    assert_eq!((&value["traceid"], &value["traceparent"], &value["tracestate"]), (&json!(trace), &json!(trace), &json!("a=1")));
    assert_eq!(headers(&sidecar.last()), []);
    let raw = event().to_string();
    assert_eq!(sidecar.send("POST", &format!("{ORDERS}?metadata.rawPayload=true"), &traced, raw).await.status, 204);
    let expected = [("rawPayload", "true"), ("traceid", trace), ("traceparent", trace), ("tracestate", "a=1")];
    assert_eq!(headers(&sidecar.last()), expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let malformed = [("content-type", "application/json"), ("traceparent", "nonsense"), ("tracestate", "a=1")];
    assert_eq!(sidecar.send("POST", ORDERS, &malformed, event().to_string()).await.status, 204);
    assert_eq!((&sidecar.last_value()["traceparent"], &sidecar.last_value()["tracestate"]), (&json!(""), &json!("")));
}

#[tokio::test]
async fn errors_have_the_code_message_and_details_of_the_contract() {
    let sidecar = Sidecar::new().await;
    for (path, status, code, message, resource) in [
        ("/v1.0/publish/nowhere/task-events", 404, "ERR_PUBSUB_NOT_FOUND", "pubsub nowhere is not found", None),
        ("/v1.0/publish/kafka-pubsub", 404, "ERR_TOPIC_NAME_EMPTY", "topic is empty in pubsub kafka-pubsub", Some("kafka-pubsub")),
        ("/v1.0/publish/kafka-pubsub/", 404, "ERR_TOPIC_NAME_EMPTY", "topic is empty in pubsub kafka-pubsub", Some("kafka-pubsub")),
        ("/v1.0/publish/", 404, "ERR_PUBSUB_EMPTY", "pubsub name is empty", Some("")),
        (
            "/v1.0/publish/kafka-pubsub/a/b",
            400,
            "ERR_PUBSUB_PUBLISH_MESSAGE",
            "error when publishing to topic a/b in pubsub kafka-pubsub: no topic's name: 1 to 249 of a-z A-Z 0-9 . _ -",
            Some("kafka-pubsub"),
        ),
        (
            "/v1.0/publish/kafka-pubsub/task-events?metadata.valueSchemaType=Avro",
            400,
            "ERR_PUBSUB_REQUEST_METADATA",
            "failed deserializing metadata. Error: valueSchemaType: this worker writes JSON and knows no schema registry",
            Some("kafka-pubsub"),
        ),
    ] {
        let answer = sidecar.post(path, event().to_string()).await;
        assert_eq!((answer.status, answer.code().as_str(), answer.json()["message"].as_str().unwrap()), (status, code, message), "{path}");
        assert_eq!(answer.headers["content-type"], "application/json");
        let info = answer.detail("ErrorInfo").unwrap();
        assert!(info["domain"] == "dapr.io" && info["reason"].as_str().unwrap().starts_with("DAPR_PUBSUB_"), "{info:?}");
        let found = answer.detail("ResourceInfo");
        assert_eq!(found.as_ref().map(|detail| detail["resource_name"].as_str().unwrap()), resource);
        if let Some(detail) = found {
            assert_eq!(
                (&detail["resource_type"], &detail["owner"], &detail["description"]),
                (&json!("pubsub"), &json!(""), &json!(message))
            );
        }
    }
    assert!(sidecar.publisher.queued().is_empty());
}

#[tokio::test]
async fn any_pubsub_is_taken_where_none_is_configured() {
    let sidecar = Sidecar::start(FakePublisher::new(), &["publish.pubsubs=[]"]).await;
    assert_eq!(sidecar.post("/v1.0/publish/whatever/task-events", event().to_string()).await.status, 204);
    assert_eq!(sidecar.last_value()["pubsubname"], "whatever");
}

#[tokio::test]
async fn what_the_brokers_do_not_store_is_never_answered_with_2xx() {
    for (error, status, code) in [
        (PublishError::QueueFull, 429, "ERR_PUBSUB_PUBLISH_MESSAGE"),
        (PublishError::Unreachable("timed out".to_owned()), 503, "ERR_PUBSUB_PUBLISH_MESSAGE"),
        (PublishError::Fatal("fenced".to_owned()), 503, "ERR_PUBSUB_PUBLISH_MESSAGE"),
        (PublishError::TopicMissing("task-events".to_owned()), 500, "ERR_PUBSUB_PUBLISH_MESSAGE"),
        (PublishError::Refused("policy".to_owned()), 500, "ERR_PUBSUB_PUBLISH_MESSAGE"),
        (PublishError::Forbidden("task-events".to_owned()), 403, "ERR_PUBSUB_FORBIDDEN"),
        (PublishError::TooLarge, 413, "ERR_PUBSUB_PUBLISH_MESSAGE"),
    ] {
        let sidecar = Sidecar::new().await;
        sidecar.publisher.answer([Some(error.clone())]);
        let answer = sidecar.post(ORDERS, event().to_string()).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{error}");
        assert_eq!(answer.headers.contains_key("retry-after"), status == 429);
        let message = format!("error when publishing to topic task-events in pubsub kafka-pubsub: {error}");
        assert_eq!(answer.json()["message"], message.as_str());
        assert_eq!(answer.detail("ErrorInfo").unwrap()["metadata"]["topic"], "task-events");
    }
}

#[tokio::test]
async fn while_kafka_is_known_to_be_away_callers_are_told_at_once() {
    let sidecar = Sidecar::start(FakePublisher::holding(), &[]).await;
    sidecar.brokers.fail("no broker answers");
    let answer = sidecar.post(ORDERS, event().to_string()).await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "ERR_PUBSUB_PUBLISH_MESSAGE"));
    assert!(sidecar.publisher.queued().is_empty());
}

#[tokio::test]
async fn the_answer_waits_for_the_brokers_acknowledgement() {
    let sidecar = Sidecar::start(FakePublisher::holding(), &[]).await;
    let answer = sidecar.post(ORDERS, event().to_string());
    tokio::pin!(answer);
    tokio::select! {
        early = &mut answer => panic!("answered before the acknowledgement: {early:?}"),
        () = async { while sidecar.publisher.queued().is_empty() { tokio::task::yield_now().await } } => {}
    }
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut answer).await.is_err());
    sidecar.publisher.acknowledge(1);
    assert_eq!(answer.await.status, 204);
}

#[tokio::test]
async fn http_2_is_spoken_on_the_same_port() {
    let sidecar = Sidecar::new().await;
    let client = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    let request = client.post(sidecar.served.url(ORDERS)).header("content-type", "application/json").body(event().to_string());
    let answer = request.send().await.unwrap();
    assert_eq!((answer.version(), answer.status().as_u16()), (reqwest::Version::HTTP_2, 204));
    assert_eq!(sidecar.post(ORDERS, event().to_string()).await.status, 204);
}

#[tokio::test]
async fn what_is_too_long_is_413() {
    let sidecar = Sidecar::new().await;
    let answer = sidecar.post(ORDERS, vec![b' '; (4 << 20) + 1]).await;
    assert_eq!((answer.status, answer.code().as_str()), (413, "ERR_PUBSUB_PUBLISH_MESSAGE"));
    let long = json!({"event_type": "task.completed", "task_id": 1, "user_id": "u", "more": "y".repeat(1 << 20)});
    let answer = sidecar.post(ORDERS, long.to_string()).await;
    assert_eq!((answer.status, &answer.detail("ErrorInfo").unwrap()["metadata"]["rejected"]), (413, &json!("oversize")));
}

#[tokio::test]
async fn a_token_is_wanted_for_everything_but_the_probes() {
    let sidecar = Sidecar::start(FakePublisher::new(), &["publish.api_token=hunter2"]).await;
    let body = || event().to_string();
    let answer = sidecar.post(ORDERS, body()).await;
    assert_eq!((answer.status, answer.text.as_str()), (401, "invalid api token"));
    for (header, value, status) in
        [("dapr-api-token", "hunter2", 204), ("authorization", "Bearer hunter2", 204), ("dapr-api-token", "hunter", 401)]
    {
        assert_eq!(sidecar.send("POST", ORDERS, &[("content-type", "application/json"), (header, value)], body()).await.status, status);
    }
    assert_eq!(sidecar.get("/v1.0/metadata").await.status, 401);
    for path in ["/v1.0/healthz", "/v1.0/healthz/outbound", "//v1.0/healthz/"] {
        assert_eq!(sidecar.get(path).await.status, 204, "{path}");
    }
}

// === Bulk ===

fn entry(id: &str, user: &str) -> Value {
    json!({"entryId": id, "contentType": "application/json", "event": {"event_type": "task.completed", "task_id": 1, "user_id": user}})
}

const BULK: &str = "/v1.0/publish/bulk/kafka-pubsub/task-events";

#[tokio::test]
async fn a_bulk_request_is_wrapped_entry_by_entry_in_order_on_both_paths() {
    for (method, path) in [("POST", BULK), ("PUT", "/v1.0-alpha1/publish/bulk/kafka-pubsub/task-events")] {
        let sidecar = Sidecar::new().await;
        let entries: Vec<_> = (0..20).map(|n| entry(&n.to_string(), &format!("user-{n}"))).collect();
        let answer = sidecar.send(method, path, &[("content-type", "application/json")], json!(entries).to_string()).await;
        assert_eq!((answer.status, answer.text.as_str()), (204, ""), "{path}");
        let queued = sidecar.publisher.queued();
        assert_eq!(queued.iter().filter_map(key).collect::<Vec<_>>(), (0..20).map(|n| format!("user-{n}")).collect::<Vec<_>>());
        let ids: std::collections::BTreeSet<_> = queued
            .iter()
            .map(|record| serde_json::from_slice::<Value>(record.value.as_ref().unwrap()).unwrap()["id"].to_string())
            .collect();
        assert_eq!(ids.len(), 20, "each a CloudEvent of its own");
    }
    assert_eq!(Sidecar::new().await.post(BULK, "[]").await.status, 204);
}

#[tokio::test]
async fn a_bulk_events_form_follows_its_content_type() {
    let sidecar = Sidecar::start(FakePublisher::new(), &["publish.key=request", "publish.validate=off"]).await;
    let path = format!("{BULK}?metadata.partitionKey=k");
    for (content_type, event, name, expected) in [
        ("application/json", json!("text"), "data", json!("text")),
        ("text/plain", json!("text"), "data", json!("text")),
        ("application/xml", json!("<a/>"), "data", json!("<a/>")),
        ("application/octet-stream", json!("AP8="), "data_base64", json!("AP8=")),
        ("application/cloudevents+json", json!({"type": "t", "data": 1}), "data", json!(1)),
    ] {
        let body = json!([{"entryId": "1", "event": event, "contentType": content_type}]).to_string();
        assert_eq!(sidecar.post(&path, body).await.status, 204, "{content_type}");
        assert_eq!(sidecar.last_value()[name], expected, "{content_type}");
    }
    for (content_type, event) in
        [("text/plain", json!({})), ("application/octet-stream", json!("%")), ("", json!({})), ("image/png", json!("AA=="))]
    {
        let body = json!([{"entryId": "1", "event": event, "contentType": content_type}]).to_string();
        let answer = sidecar.post(&path, body).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "ERR_PUBSUB_EVENTS_SER"), "{content_type}");
    }
}

#[tokio::test]
async fn a_bulk_request_that_cannot_be_read_writes_nothing() {
    let sidecar = Sidecar::new().await;
    let (one, two) = (entry("1", "u"), entry("2", "u"));
    let mut nameless = entry("", "u");
    nameless.as_object_mut().unwrap().remove("entryId");
    for body in [json!({}), json!([one, one]), json!([two, nameless]), json!("x")] {
        let answer = sidecar.post(BULK, body.to_string()).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "ERR_PUBSUB_EVENTS_SER"), "{body}");
    }
    assert!(sidecar.publisher.queued().is_empty());
}

#[tokio::test]
async fn of_a_bulk_request_each_entry_that_is_not_stored_is_listed() {
    let sidecar = Sidecar::new().await;
    sidecar.publisher.answer([None, Some(PublishError::Unreachable("timed out".to_owned())), None]);
    let bad = json!({"entryId": "bad", "contentType": "application/json", "event": {"event_type": "task.completed", "task_id": 1}});
    let body = json!([entry("1", "a"), bad, entry("2", "b"), entry("3", "c")]);
    let answer = sidecar.post(BULK, body.to_string()).await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "ERR_PUBSUB_PUBLISH_MESSAGE"));
    let failed: Vec<_> = answer.json()["failedEntries"].as_array().unwrap().clone();
    assert_eq!(failed.iter().map(|entry| entry["entryId"].as_str().unwrap()).collect::<Vec<_>>(), ["bad", "2"]);
    assert!(
        failed[0]["error"].as_str().unwrap().contains("user_id: missing") && failed[1]["error"].as_str().unwrap().contains("timed out")
    );
    assert_eq!(sidecar.publisher.queued().iter().filter_map(key).collect::<Vec<_>>(), ["a", "b", "c"]);
}

#[tokio::test]
async fn a_full_queue_ends_a_bulk_request_so_that_nothing_is_overtaken() {
    let sidecar = Sidecar::new().await;
    sidecar.publisher.answer([None, Some(PublishError::QueueFull)]);
    let answer = sidecar.post(BULK, json!([entry("1", "u"), entry("2", "u"), entry("3", "u")]).to_string()).await;
    assert_eq!((answer.status, answer.json()["failedEntries"].as_array().unwrap().len()), (429, 2));
    assert!(answer.headers.contains_key("retry-after"));
    assert_eq!(sidecar.publisher.queued().len(), 1);
}

#[tokio::test]
async fn a_bulk_entrys_metadata_shapes_its_cloudevent_and_the_requests_wins_as_headers() {
    let sidecar = Sidecar::start(FakePublisher::new(), &["publish.key=request"]).await;
    let mut own = entry("1", "u");
    own["metadata"] = json!({"cloudevent.id": "own", "partitionKey": "entry", "a": "entry"});
    let path = format!("{BULK}?metadata.partitionKey=request&metadata.cloudevent.id=request&metadata.cloudevent.subject=s");
    assert_eq!(sidecar.post(&path, json!([own, entry("2", "u")]).to_string()).await.status, 204);
    let queued = sidecar.publisher.queued();
    let values: Vec<Value> = queued.iter().map(|record| serde_json::from_slice(record.value.as_ref().unwrap()).unwrap()).collect();
    assert_eq!((&values[0]["id"], &values[0]["subject"]), (&json!("own"), &json!("s")));
    assert_eq!(
        (values[1]["id"] == "request", values[1].get("subject")),
        (false, None),
        "an entry without metadata takes none for its envelope"
    );
    assert_eq!((key(&queued[0]).as_deref(), key(&queued[1]).as_deref()), (Some("request"), Some("request")));
    assert!(
        headers(&queued[0]).contains(&("a".to_owned(), "entry".to_owned()))
            && headers(&queued[0]).contains(&("cloudevent.id".to_owned(), "request".to_owned()))
    );
}

#[tokio::test]
async fn in_bulk_raw_payload_is_read_from_the_query_alone() {
    let sidecar = Sidecar::new().await;
    let mut one = entry("1", "u");
    one["metadata"] = json!({"rawPayload": "true"});
    assert_eq!(sidecar.post(BULK, json!([one]).to_string()).await.status, 204);
    assert_eq!(sidecar.last_value()["specversion"], "1.0");
    assert_eq!(sidecar.post(&format!("{BULK}?metadata.rawPayload=true"), json!([entry("1", "u")]).to_string()).await.status, 204);
    assert_eq!(sidecar.last_value(), entry("1", "u")["event"]);
}
