//! Dapr's gRPC API as it is on the wire: the messages here are written from the protocol's own files, apart from the worker's.

use std::collections::BTreeMap;

use prost::Message;
use serde_json::{Value, json};
use worker::engine::ports::PublishError;

use crate::support::{
    publisher::FakePublisher,
    sidecar::{Sidecar, headers, key},
};

#[derive(Clone, PartialEq, Message)]
struct Publish {
    #[prost(string, tag = "1")]
    pubsub_name: String,
    #[prost(string, tag = "2")]
    topic: String,
    #[prost(bytes = "vec", tag = "3")]
    data: Vec<u8>,
    #[prost(string, tag = "4")]
    data_content_type: String,
    #[prost(btree_map = "string, string", tag = "5")]
    metadata: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
struct Bulk {
    #[prost(string, tag = "1")]
    pubsub_name: String,
    #[prost(string, tag = "2")]
    topic: String,
    #[prost(message, repeated, tag = "3")]
    entries: Vec<BulkEntry>,
}

#[derive(Clone, PartialEq, Message)]
struct BulkEntry {
    #[prost(string, tag = "1")]
    entry_id: String,
    #[prost(bytes = "vec", tag = "2")]
    event: Vec<u8>,
    #[prost(string, tag = "3")]
    content_type: String,
}

#[derive(Clone, PartialEq, Message)]
struct StoreAndKey {
    #[prost(string, tag = "1")]
    store_name: String,
    #[prost(string, tag = "2")]
    key: String,
    #[prost(message, optional, tag = "3")]
    etag: Option<Text>,
}

#[derive(Clone, PartialEq, Message)]
struct Save {
    #[prost(string, tag = "1")]
    store_name: String,
    #[prost(message, repeated, tag = "2")]
    states: Vec<Item>,
}

#[derive(Clone, PartialEq, Message)]
struct Item {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
    #[prost(message, optional, tag = "3")]
    etag: Option<Text>,
}

/// A message whose first fields are strings or bytes: etags, `GetStateResponse`, `GetMetadataResponse`, ..
#[derive(Clone, PartialEq, Message)]
struct Text {
    #[prost(bytes = "vec", tag = "1")]
    first: Vec<u8>,
    #[prost(string, tag = "2")]
    second: String,
}

#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Detail>,
}

#[derive(Clone, PartialEq, Message)]
struct Detail {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct ErrorInfo {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    domain: String,
    #[prost(btree_map = "string, string", tag = "3")]
    metadata: BTreeMap<String, String>,
}

/// An answer: the message's bytes, or the status with its details.
type Answer = Result<Vec<u8>, (i32, RpcStatus)>;

fn framed(message: &impl Message) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    let mut frame = vec![0];
    frame.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
    frame.extend(bytes);
    frame
}

async fn send(sidecar: &Sidecar, call: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
    let client = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    let url = sidecar.grpc.url(&format!("/dapr.proto.runtime.v1.Dapr/{call}"));
    let mut request = client.post(url).header("content-type", "application/grpc").header("te", "trailers").body(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 200, "gRPC's errors are in its own headers");
    if let Some(status) = answer.headers().get("grpc-status") {
        let code = status.to_str().unwrap().parse().unwrap();
        let details = answer.headers().get("grpc-status-details-bin");
        let details = details.map(|text| base64(text.to_str().unwrap())).unwrap_or_default();
        return Err((code, RpcStatus::decode(&*details).unwrap()));
    }
    let body = answer.bytes().await.unwrap();
    let length = u32::from_be_bytes(body[1..5].try_into().unwrap()) as usize;
    assert_eq!((body[0], body.len()), (0, 5 + length));
    Ok(body[5..].to_vec())
}

async fn ask(sidecar: &Sidecar, call: &str, message: &impl Message) -> Answer {
    send(sidecar, call, &[], framed(message)).await
}

fn base64(text: &str) -> Vec<u8> {
    let value =
        |byte: u8| b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".iter().position(|known| *known == byte).unwrap();
    let digits: Vec<usize> = text.bytes().filter(|byte| *byte != b'=').map(value).collect();
    let bits: Vec<bool> = digits.iter().flat_map(|digit| (0..6).rev().map(move |bit| digit >> bit & 1 == 1)).collect();
    bits.chunks_exact(8).map(|bits| bits.iter().fold(0, |byte, bit| byte << 1 | u8::from(*bit))).collect()
}

fn info(status: &RpcStatus) -> ErrorInfo {
    let detail = status.details.iter().find(|detail| detail.type_url == "type.googleapis.com/google.rpc.ErrorInfo").expect("ErrorInfo");
    ErrorInfo::decode(&*detail.value).unwrap()
}

fn event(user: &str) -> Vec<u8> {
    json!({"event_type": "task.completed", "task_id": 7, "data": {"user_id": user}}).to_string().into_bytes()
}

fn publish() -> Publish {
    Publish { pubsub_name: "kafka-pubsub".to_owned(), topic: "task-events".to_owned(), data: event("user-1"), ..Publish::default() }
}

#[tokio::test]
async fn a_published_event_is_wrapped_and_keyed_as_over_http() {
    let sidecar = Sidecar::new().await;
    let metadata = BTreeMap::from([("ttlInSeconds".to_owned(), "60".to_owned()), ("a".to_owned(), "b".to_owned())]);
    let request = Publish { data_content_type: "application/json".to_owned(), metadata, ..publish() };
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    assert_eq!(send(&sidecar, "PublishEvent", &[("traceparent", trace)], framed(&request)).await, Ok(Vec::new()));
    let value = sidecar.last_value();
    assert_eq!((key(&sidecar.last()).as_deref(), &value["data"]["task_id"]), (Some("user-1"), &json!(7)));
    assert_eq!((&value["datacontenttype"], &value["traceparent"]), (&json!("application/json"), &json!(trace)));
    assert!(value["expiration"].is_string());
    assert_eq!(headers(&sidecar.last()), [("a".to_owned(), "b".to_owned()), ("ttlInSeconds".to_owned(), "60".to_owned())]);
}

#[tokio::test]
async fn without_a_content_type_the_data_is_a_string_and_still_an_event() {
    let sidecar = Sidecar::new().await;
    assert_eq!(ask(&sidecar, "PublishEvent", &publish()).await, Ok(Vec::new()));
    let value = sidecar.last_value();
    assert_eq!((&value["datacontenttype"], value["data"].as_str().unwrap().as_bytes()), (&json!("text/plain"), &event("user-1")[..]));
    assert_eq!(key(&sidecar.last()).as_deref(), Some("user-1"));
}

#[tokio::test]
async fn errors_carry_the_code_and_the_details_of_the_contract() {
    let sidecar = Sidecar::new().await;
    for (request, code, reason, message) in [
        (Publish { pubsub_name: "x".to_owned(), ..publish() }, 3, "DAPR_PUBSUB_NOT_FOUND", "pubsub x is not found"),
        (Publish { topic: String::new(), ..publish() }, 3, "DAPR_PUBSUB_TOPIC_NAME_EMPTY", "topic is empty in pubsub kafka-pubsub"),
        (Publish { data: b"{}".to_vec(), ..publish() }, 3, "DAPR_PUBSUB_MARSHAL_EVENTS", "user_id: missing"),
    ] {
        let (status, details) = ask(&sidecar, "PublishEvent", &request).await.unwrap_err();
        assert_eq!((status, details.code), (code, code), "{details:?}");
        assert!(details.message.contains(message), "{details:?}");
        assert_eq!((info(&details).reason.as_str(), info(&details).domain.as_str()), (reason, "dapr.io"));
    }
    for (error, code) in [
        (PublishError::Unreachable("timed out".to_owned()), 14),
        (PublishError::QueueFull, 8),
        (PublishError::Refused("policy".to_owned()), 13),
        (PublishError::Forbidden("task-events".to_owned()), 7),
        (PublishError::TooLarge, 3),
    ] {
        sidecar.publisher.answer([Some(error.clone())]);
        let (status, details) = ask(&sidecar, "PublishEvent", &publish()).await.unwrap_err();
        assert_eq!((status, info(&details).metadata["topic"].as_str()), (code, "task-events"), "{error}");
    }
}

#[tokio::test]
async fn a_bulk_request_is_answered_only_where_all_of_it_is_stored() {
    for call in ["BulkPublishEvent", "BulkPublishEventAlpha1"] {
        let sidecar = Sidecar::new().await;
        let entry =
            |id: &str, user: &str| BulkEntry { entry_id: id.to_owned(), event: event(user), content_type: "application/json".to_owned() };
        let (pubsub_name, topic) = ("kafka-pubsub".to_owned(), "task-events".to_owned());
        let request = Bulk { pubsub_name, topic, entries: vec![entry("1", "a"), entry("2", "b"), entry("3", "c")] };
        assert_eq!(ask(&sidecar, call, &request).await, Ok(Vec::new()), "no failed entry");
        assert_eq!(sidecar.publisher.queued().iter().filter_map(key).collect::<Vec<_>>(), ["a", "b", "c"]);
        sidecar.publisher.answer([None, Some(PublishError::Unreachable("timed out".to_owned())), None]);
        let (status, details) = ask(&sidecar, call, &request).await.unwrap_err();
        assert_eq!((status, info(&details).metadata["failedEntries"].as_str()), (14, "2"));
    }
}

#[tokio::test]
async fn a_token_is_wanted_in_the_metadata_where_one_is_set() {
    let sidecar = Sidecar::start(FakePublisher::new(), &["publish.api_token=hunter2"]).await;
    for (headers, expected) in [(&[][..], Some(16)), (&[("dapr-api-token", "hunter")], Some(16)), (&[("dapr-api-token", "hunter2")], None)]
    {
        let answer = send(&sidecar, "PublishEvent", headers, framed(&publish())).await;
        assert_eq!(answer.err().map(|(status, _)| status), expected, "{headers:?}");
    }
    assert_eq!(sidecar.publisher.queued().len(), 1);
}

#[tokio::test]
async fn messages_that_are_too_long_or_no_messages_are_refused_and_calls_that_are_not_offered_say_so() {
    let sidecar = Sidecar::new().await;
    let long = Publish { data: vec![b' '; 4 << 20], ..publish() };
    assert_eq!(ask(&sidecar, "PublishEvent", &long).await.unwrap_err().0, 8);
    let whole = Publish { data: vec![b' '; (4 << 20) - 100], ..publish() };
    assert_eq!(ask(&sidecar, "PublishEvent", &whole).await.unwrap_err().0, 3, "read whole, and then longer than an event may be");
    assert_eq!(send(&sidecar, "PublishEvent", &[], vec![0, 0, 0, 0, 3, 255, 255, 255]).await.unwrap_err().0, 13);
    assert_eq!(ask(&sidecar, "InvokeService", &publish()).await.unwrap_err().0, 12);
    assert!(sidecar.publisher.queued().is_empty());
}

#[tokio::test]
async fn metadata_is_told_and_set() {
    let sidecar = Sidecar::new().await;
    let answer = Text::decode(&*ask(&sidecar, "GetMetadata", &Text::default()).await.unwrap());
    // Field 2 is no string there: only the id is read.
    assert!(answer.is_ok_and(|text| text.first == b"todo-worker"));
    let set = Text { first: b"key".to_vec(), second: "value".to_owned() };
    assert_eq!(ask(&sidecar, "SetMetadata", &set).await, Ok(Vec::new()));
    assert_eq!(sidecar.get("/v1.0/metadata").await.json()["extended"]["key"], "value");
}

#[tokio::test]
async fn state_is_the_same_over_grpc_and_http() {
    let sidecar = Sidecar::start(FakePublisher::new(), &["state.stores=[\"statestore\"]"]).await;
    let name = || "statestore".to_owned();
    let text = |text: &str| Some(Text { first: text.into(), second: String::new() });
    let place = |etag| StoreAndKey { store_name: name(), key: "k".to_owned(), etag };
    let item = |etag| Item { key: "k".to_owned(), value: br#"{"processed":true}"#.to_vec(), etag };
    let save = |etag| Save { store_name: name(), states: vec![item(etag)] };
    assert_eq!(ask(&sidecar, "GetState", &place(None)).await, Ok(Vec::new()), "nothing there");
    assert_eq!(ask(&sidecar, "SaveState", &save(None)).await, Ok(Vec::new()));
    let read = Text::decode(&*ask(&sidecar, "GetState", &place(None)).await.unwrap()).unwrap();
    assert_eq!((&*read.first, read.second.as_str()), (&br#"{"processed":true}"#[..], "1"));
    assert_eq!(sidecar.get("/v1.0/state/statestore/k").await.json(), json!({"processed": true}));

    let (status, details) = ask(&sidecar, "SaveState", &save(text("7"))).await.unwrap_err();
    assert_eq!((status, info(&details).reason.as_str()), (10, "ERR_STATE_SAVE"));
    assert_eq!(ask(&sidecar, "SaveState", &save(text("x"))).await.unwrap_err().0, 3);
    assert_eq!(ask(&sidecar, "DeleteState", &place(text("7"))).await.unwrap_err().0, 10);

    let keys = StoreAndKey { store_name: name(), key: "k".to_owned(), etag: None };
    let bulk = ask(&sidecar, "GetBulkState", &keys).await.unwrap();
    let item = BulkEntry::decode(&*Text::decode(&*bulk).unwrap().first).unwrap();
    assert_eq!((item.entry_id.as_str(), serde_json::from_slice::<Value>(&item.event).unwrap()), ("k", json!({"processed": true})));
    assert_eq!(ask(&sidecar, "DeleteState", &place(text("1"))).await, Ok(Vec::new()));
    assert_eq!(sidecar.get("/v1.0/state/statestore/k").await.status, 204);
    let other = StoreAndKey { store_name: "other".to_owned(), ..place(None) };
    let (status, details) = ask(&sidecar, "GetState", &other).await.unwrap_err();
    assert_eq!((status, info(&details).reason.as_str()), (3, "DAPR_STATE_NOT_FOUND"));
}
