//! The six shapes and what is no event, through the public surface.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    Catalog, Decoder, Event, Rejected, Version, cheap_user, ids,
    record::{Record, RecordParts, TopicPartition},
    time,
};
use crate::outcome::DeadReason;

pub(in crate::event) fn record(value: impl AsRef<[u8]>) -> Record {
    with_headers(value, &[])
}

fn with_headers(value: impl AsRef<[u8]>, headers: &[(&str, &str)]) -> Record {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), Some(value.as_bytes().to_vec()))).collect();
    let timestamp = Some(1_767_000_000_000);
    let parts = RecordParts { offset: 7, timestamp, key: None, value: Some(value.as_ref().to_vec()), headers };
    Record::copy_of(&TopicPartition::new("task-events", 3), &parts)
}

pub(in crate::event) fn decoder() -> Decoder {
    Decoder::new(Arc::new(Catalog::embedded().unwrap()), true)
}

fn decode(value: &str) -> Event {
    decoder().decode(record(value)).unwrap()
}

fn refused(value: impl AsRef<[u8]>) -> (DeadReason, String) {
    let rejected: Box<Rejected> = decoder().decode(record(value)).unwrap_err();
    assert_eq!(rejected.record.offset(), 7, "the record comes back");
    (rejected.reason, rejected.error)
}

fn parsed(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

const A: &str = r#"{"event_id":"550e8400-e29b-41d4-a716-446655440000","event_type":"task.created","event_version":"1.0",
 "timestamp":"2025-12-30T10:00:00Z","source":"todo-backend",
 "data":{"task_id":123,"user_id":"user_abc","title":"Buy groceries","description":"Milk, eggs, bread","created_at":"2025-12-30T10:00:00Z"},
 "metadata":{"correlation_id":"req_xyz","causation_id":"event_previous","user_id":"user_abc"}}"#;
const B: &str = r#"{"event_id":"660e8400-e29b-41d4-a716-446655440001","event_type":"task.completed","event_version":"1.0","task_id":123,"user_id":"user-456",
 "timestamp":"2025-12-29T10:00:00Z","payload":{"task_id":123,"completed_at":"2025-12-29T10:00:00Z","recurring_pattern":"DAILY"}}"#;
const C: &str = r#"{"event_id":"770e8400-e29b-41d4-a716-446655440002","event_type":"reminder.due","timestamp":"2025-12-31T09:00:00.123456","user_id":"user-456",
 "task_id":"880e8400-e29b-41d4-a716-446655440003","data":{"title":"Call the bank"}}"#;
const F: &str = r#"{"event_type":"task.completed","user_id":"user-456","task_id":123}"#;

fn cloudevent(inner: &str) -> String {
    format!(
        r#"{{"specversion":"1.0","type":"com.dapr.event.sent","source":"todo-service","id":"ce-1","time":"2025-12-29T11:00:00Z","datacontenttype":
 "application/json","topic":"task-events","pubsubname":"kafka-pubsub","traceparent":"","data":{inner}}}"#
    )
}

#[test]
fn shape_a_says_everything_itself() {
    let event = decode(A);
    assert_eq!(event.id(), "550e8400-e29b-41d4-a716-446655440000");
    assert!(!event.id_from_offset());
    assert_eq!((&**event.event_type(), event.user_id(), event.version()), ("task.created", "user_abc", Version::FIRST));
    assert_eq!(time::format(event.time()), "2025-12-30T10:00:00Z");
    assert_eq!((event.source().as_str(), event.task_id().as_deref()), ("todo-backend", Some("123")));
    assert_eq!((event.correlation_id().as_deref(), event.causation_id().as_deref()), (Some("req_xyz"), Some("event_previous")));
    assert_eq!(event.metadata()["user_id"], "user_abc");
    assert_eq!(parsed(&event.to_canonical()), parsed(A.as_bytes()));
    assert_eq!(parsed(&event.to_published()), parsed(A.as_bytes()));
}

#[test]
fn shape_b_keeps_its_data_in_payload() {
    let event = decode(B);
    assert_eq!(
        event.data(),
        json!({ "task_id": 123, "completed_at": "2025-12-29T10:00:00Z", "recurring_pattern": "DAILY", "user_id": "user-456" })
    );
    assert_eq!(event.source(), "unknown");
    let canonical = parsed(&event.to_canonical());
    assert_eq!(canonical["data"], event.data());
    assert_eq!(canonical.get("payload"), None);
    let mut published = parsed(B.as_bytes());
    published["source"] = json!("unknown");
    assert_eq!(parsed(&event.to_published()), published);
}

#[test]
fn shape_c_has_no_version_and_a_naive_time() {
    let event = decode(C);
    assert_eq!(time::format(event.time()), "2025-12-31T09:00:00.123456Z");
    assert_eq!(event.task_id().as_deref(), Some("880e8400-e29b-41d4-a716-446655440003"));
    assert_eq!(event.data()["task_id"], "880e8400-e29b-41d4-a716-446655440003");
    assert_eq!(event.data()["title"], "Call the bank");
}

#[test]
fn shape_d_is_unwrapped_and_the_inner_event_wins() {
    for (inner, id) in [(A, "550e8400-e29b-41d4-a716-446655440000"), (F, "ce-1")] {
        let outer = cloudevent(inner);
        let event = decode(&outer);
        assert_eq!(event.id(), id);
        assert_eq!(event.to_cloudevent(), outer.as_bytes(), "the stored bytes");
        assert_eq!(event.traceparent(), None);
    }
    let event = decode(&cloudevent(A));
    assert_eq!(event.source(), "todo-backend");
    assert_eq!(parsed(&event.to_published()), parsed(A.as_bytes()));
    let event = decode(&cloudevent(F));
    assert_eq!((event.source().as_str(), time::format(event.time()).as_str()), ("todo-service", "2025-12-29T11:00:00Z"));
}

#[test]
fn a_cloudevents_type_can_be_the_event_type_with_bare_data() {
    let event = decode(
        r#"{"specversion":"1.0","type":"task.completed","source":"s","id":"ce-2","time":"2025-12-29T11:00:00+01:00","expiration":"2025-12-29T12:00:00Z",
            "traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01","correlationid":"req","data":{"task_id":1,"user_id":"u"}}"#,
    );
    assert_eq!((event.id(), &**event.event_type()), ("ce-2", "task.completed"));
    assert_eq!(event.data()["completed_at"], "2025-12-29T10:00:00Z");
    assert_eq!(event.expires().map(time::format).as_deref(), Some("2025-12-29T12:00:00Z"));
    assert_eq!(event.traceparent().as_deref(), Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
    let canonical = parsed(&event.to_published());
    assert_eq!((&canonical["event_type"], &canonical["metadata"]["correlation_id"]), (&json!("task.completed"), &json!("req")));
}

#[test]
fn a_cloudevent_with_json_in_a_string_or_in_base64_is_read_all_the_same() {
    let quoted = cloudevent(&Value::String(B.to_owned()).to_string());
    assert_eq!(decode(&quoted).id(), "660e8400-e29b-41d4-a716-446655440001");
    // {"event_type":"task.completed","user_id":"user-456","task_id":123}
    let base64 = "eyJldmVudF90eXBlIjoidGFzay5jb21wbGV0ZWQiLCJ1c2VyX2lkIjoidXNlci00NTYiLCJ0YXNrX2lkIjoxMjN9";
    let binary = format!(r#"{{"specversion":"1.0","type":"com.dapr.event.sent","source":"s","id":"ce-3","data_base64":"{base64}"}}"#);
    let event = decode(&binary);
    assert_eq!((event.id(), event.user_id()), ("ce-3", "user-456"));
    assert_eq!(event.data()["task_id"], 123);
}

#[test]
fn shape_e_has_its_envelope_in_headers() {
    let headers = [
        ("ce_specversion", "1.0"),
        ("ce_type", "reminder.due"),
        ("ce_source", "planner"),
        ("ce_id", "ce-4"),
        ("ce_time", "2025-12-31T09:00:00Z"),
        ("ce_expirytime", "2026-01-01T00:00:00Z"),
        ("content-type", "application/json"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ];
    let event = decoder().decode(with_headers(r#"{"task_id":5,"user_id":"u"}"#, &headers)).unwrap();
    assert_eq!((event.id(), &**event.event_type(), event.user_id(), event.source().as_str()), ("ce-4", "reminder.due", "u", "planner"));
    assert!(event.expires().is_some() && event.traceparent().is_some());
    assert_eq!(parsed(&event.to_published()), parsed(&event.to_canonical()), "as A");
    let outer = parsed(&event.to_cloudevent());
    assert_eq!((&outer["id"], &outer["type"], &outer["data"]["data"]["task_id"]), (&json!("ce-4"), &json!("reminder.due"), &json!(5)));
}

#[test]
fn shape_f_is_filled_in() {
    let event = decode(F);
    assert!(event.id_from_offset());
    assert_eq!(event.id(), ids::of_position(event.record().partition(), 7).to_string());
    assert_eq!(event.time().timestamp_millis(), 1_767_000_000_000);
    let time = time::format(event.time());
    assert_eq!(event.data(), json!({ "task_id": 123, "user_id": "user-456", "completed_at": time }));
    let published = parsed(&event.to_published());
    assert_eq!((&published["task_id"], &published["user_id"]), (&json!(123), &json!("user-456")));
    for field in ["event_id", "event_type", "event_version", "timestamp", "source", "data"] {
        assert!(published.get(field).is_some(), "{field}");
    }
    let outer = parsed(&event.to_cloudevent());
    assert_eq!((&outer["id"], &outer["type"], &outer["data"]), (&json!(event.id()), &json!("task.completed"), &published));
}

#[test]
fn an_id_is_derived_from_the_event_where_it_can_be() {
    let event = decode(r#"{"event_type":"task.completed.v1","user_id":"u","task_id":123,"timestamp":"2025-12-29T11:00:00+01:00"}"#);
    assert!(!event.id_from_offset());
    assert_eq!(event.id(), ids::of_event("task.completed", "123", "2025-12-29T10:00:00Z").to_string());
}

#[test]
fn a_user_at_the_top_wins_over_data_and_data_over_metadata() {
    let find = |top: &str, data: &str, metadata: &str| {
        let text = format!(r#"{{"event_type":"task.completed",{top}"data":{{"task_id":1{data}}},"metadata":{{{metadata}}}}}"#);
        (
            decoder().decode(record(&text)).map(|event| (event.user_id().to_owned(), event.data()["user_id"].clone())),
            cheap_user(&record(&text)),
        )
    };
    let (event, user) = find(r#""user_id":"top","#, r#","user_id":"data""#, r#""user_id":"meta""#);
    assert_eq!((event.unwrap().0, user.as_deref()), ("top".to_owned(), Some("top")));
    let (event, _) = find(r#""user_id":null,"#, r#","user_id":"data""#, r#""user_id":"meta""#);
    assert_eq!(event.unwrap().0, "data");
    let (event, user) = find(r#""user_id":"","#, "", r#""user_id":"meta""#);
    assert_eq!((event.unwrap(), user.as_deref()), (("meta".to_owned(), json!("meta")), Some("meta")));
    let (event, user) = find("", "", "");
    assert_eq!((event.unwrap_err().reason, user), (DeadReason::MissingUserId, None));
}

#[test]
fn the_first_reason_that_applies_is_the_one_given() {
    use DeadReason::{MissingUserId, Schema, Undecodable, UnknownType};
    for (value, reason, error) in [
        ("{", Undecodable, "JSON that ends too early, line 1 column 1"),
        ("[]", Undecodable, "an array: one record is one event"),
        ("\"text\"", Undecodable, "a JSON value that is no object"),
        ("hello", Undecodable, "not JSON"),
        ("", Undecodable, "an empty value"),
        (r#"{"user_id":"u"}"#, Undecodable, "neither event_type nor a CloudEvents type"),
        (r#"{"event_type":"","user_id":"u"}"#, Undecodable, "neither event_type nor a CloudEvents type"),
        (r#"{"event_type":"no.such"}"#, MissingUserId, "user_id: missing at the top, in data and in metadata"),
        (r#"{"event_type":"no.such","user_id":"u"}"#, UnknownType, "event_type: `no.such` is not in the catalogue"),
        (
            r#"{"event_type":"TaskCraeted","user_id":"u"}"#,
            UnknownType,
            "event_type: `TaskCraeted` is not in the catalogue; did you mean `task.created`?",
        ),
        (
            &cloudevent(r#"{"user_id":"u"}"#),
            UnknownType,
            "event_type: missing in the data, and the CloudEvent's type is only `com.dapr.event.sent`",
        ),
        (r#"{"event_type":"task.created","user_id":"u","task_id":1}"#, Schema, "data.title: missing (task.created 1.0)"),
        (
            r#"{"event_type":"task.completed","user_id":"u","task_id":1,"timestamp":"soon"}"#,
            Schema,
            "timestamp: no RFC 3339 time (task.completed 1.0)",
        ),
        (
            r#"{"event_type":"task.completed","user_id":"u","task_id":1,"event_version":"new"}"#,
            Schema,
            "event_version: no version like 1.0 (task.completed 1.0)",
        ),
        (
            r#"{"event_type":"task.completed","user_id":"u","task_id":"not-a-uuid"}"#,
            Schema,
            "data.task_id: a string that is none of: an integer, a UUID (task.completed 1.0)",
        ),
        (
            r#"{"event_type":"task.completed","user_id":"u","data":"x"}"#,
            Schema,
            "data: a string where an object is needed (task.completed 1.0)",
        ),
    ] {
        assert_eq!(refused(value), (reason, error.to_owned()), "{value}");
    }
    let long = format!(r#"{{"event_type":"task.created","user_id":"u","task_id":1,"data":{{"title":"{}"}}}}"#, "é".repeat(201));
    assert_eq!(refused(&long).1, "data.title: longer than 200 characters (task.created 1.0)");
}

#[test]
fn a_tombstone_is_undecodable() {
    let parts = RecordParts { offset: 7, ..RecordParts::default() };
    let rejected = decoder().decode(Record::copy_of(&TopicPartition::new("t", 0), &parts)).unwrap_err();
    assert_eq!((rejected.reason, rejected.error.as_str()), (DeadReason::Undecodable, "no value (a tombstone)"));
    assert!(rejected.id_from_offset);
}

#[test]
fn hostile_bytes_are_refused_or_read_and_never_panic() {
    let mut marked = b"\xEF\xBB\xBF".to_vec();
    marked.extend_from_slice(F.as_bytes());
    assert!(decoder().decode(record(&marked)).is_ok(), "a byte order mark");
    assert_eq!(refused(b"\xFF\xFE{\x00}\x00").1, "not UTF-8 at byte 0");
    let deep = format!(
        r#"{{"event_type":"task.completed","user_id":"u","task_id":1,"data":{{"x":{}1{}}}}}"#,
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    let (reason, error) = refused(&deep);
    assert_eq!((reason, error.starts_with("JSON nested deeper than 127 levels")), (DeadReason::Undecodable, true), "{error}");
    let huge = format!(r#"{{"event_type":"task.completed","user_id":"u","task_id":1,"data":{{"note":"{}"}}}}"#, "x".repeat(10_000_000));
    assert_eq!(decode(&huge).data()["note"].as_str().map(str::len), Some(10_000_000));
    let (reason, error) = refused(r#"{"event_type":"task.completed","user_id":"u","task_id":1,"data":{"n":1e999}}"#);
    assert_eq!((reason, error.starts_with("a number beyond what a double holds")), (DeadReason::Undecodable, true));
    let (reason, _) = refused(r#"{"event_type":"task.completed","user_id":"u","task_id":1,"data":{"s":"\ud800"}}"#);
    assert_eq!(reason, DeadReason::Undecodable, "a lone surrogate");
    assert_eq!(
        decode(r#"{"event_type":"task.deleted","event_type":"task.completed","user_id":"a","user_id":"b","task_id":1}"#).user_id(),
        "b"
    );
}

#[test]
fn numbers_beyond_64_bits_pass_through_unchanged() {
    let text = r#"{"event_id":"e","event_type":"task.completed","user_id":"u","task_id":123456789012345678901234567890,"x":98765432109876543210.5,"data":{"n":123456789012345678901234567890}}"#;
    let event = decode(text);
    for bytes in [event.to_canonical(), event.to_published(), event.to_cloudevent()] {
        let written = String::from_utf8(bytes.to_vec()).unwrap();
        assert!(written.contains(r#""n":123456789012345678901234567890"#), "{written}");
        assert!(written.contains(r#""task_id":123456789012345678901234567890"#), "{written}");
        assert!(written.contains(r#""x":98765432109876543210.5"#), "{written}");
    }
}

#[test]
fn an_alias_and_a_major_version_route_as_the_type_itself() {
    let event = decode(r#"{"event_type":"reminder.triggered","user_id":"u","task_id":1}"#);
    assert_eq!(&**event.event_type(), "reminder.due");
    let event = decode(r#"{"event_type":"task.completed.v1","user_id":"u","task_id":1}"#);
    assert_eq!((&**event.event_type(), event.version()), ("task.completed", Version::FIRST));
    assert_eq!(parsed(&event.to_canonical())["event_type"], "task.completed");
}

#[test]
fn a_newer_version_is_handled_as_the_newest_known_if_it_validates() {
    let event = decode(r#"{"event_type":"task.completed","event_version":"1.7","user_id":"u","task_id":1,"data":{"mood":"good"}}"#);
    assert_eq!(event.version(), Version { major: 1, minor: 7 });
    assert_eq!(event.data()["mood"], "good");
    assert_eq!(parsed(&event.to_canonical())["event_version"], "1.7");
    let lenient = Decoder::new(Arc::new(Catalog::embedded().unwrap()), false);
    let bad = r#"{"event_type":"task.created","event_version":"2.0","user_id":"u","task_id":1,"data":{"title":7}}"#;
    assert_eq!(lenient.decode(record(bad)).unwrap_err().reason, DeadReason::Schema);
    assert!(lenient.decode(record(bad.replace("2.0", "1.0"))).is_ok(), "validation is off");
}

#[test]
fn dead_letters_of_other_programs_are_events_too() {
    let event = decode(
        r#"{"event_id":"e","event_type":"dlq.failed","user_id":"u","task_id":1,"data":{"title":"x"},
            "dlq_metadata":{"failed_at":"2025-12-30T10:35:00","error":"refused","retry_count":3}}"#,
    );
    assert_eq!(event.data()["dlq_metadata"]["retry_count"], 3);
}

#[test]
fn null_is_absent_for_what_may_be_absent_and_wrong_for_the_rest() {
    assert!(
        decoder()
            .decode(record(
                r#"{"event_type":"task.created","user_id":"u","task_id":1,"data":{"title":"x","priority":null,"tags":null,"due_date":null}}"#
            ))
            .is_ok()
    );
    let (_, error) = refused(r#"{"event_type":"task.created","user_id":"u","task_id":1,"data":{"title":null}}"#);
    assert_eq!(error, "data.title: null where a string is needed (task.created 1.0)");
}

// === Fixtures ===

pub(in crate::event) fn fixtures() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

#[test]
fn every_example_of_the_contract_decodes_validates_and_round_trips() {
    let decoder = decoder();
    let mut count = 0;
    for file in std::fs::read_dir(fixtures().join("events")).unwrap() {
        let path = file.unwrap().path();
        let event = decoder.decode(record(std::fs::read(&path).unwrap())).unwrap();
        let again = decoder.decode(record(event.to_canonical())).unwrap();
        assert_eq!(
            (again.id(), again.user_id(), again.data(), again.time()),
            (event.id(), event.user_id(), event.data(), event.time()),
            "{path:?}"
        );
        assert_eq!(again.to_canonical(), event.to_canonical());
        let published = decoder.decode(record(event.to_published())).unwrap();
        assert_eq!((published.id(), published.data()), (event.id(), event.data()), "{path:?}");
        count += 1;
    }
    assert_eq!(count, 8);
}

#[test]
fn data_that_names_another_user_stays_an_event_of_the_one_at_the_top() {
    let event = decode(r#"{"event_id":"e","event_type":"task.completed","user_id":"a","task_id":1,"data":{"user_id":"b"}}"#);
    let again = decode(std::str::from_utf8(&event.to_canonical()).unwrap());
    assert_eq!((event.user_id(), again.user_id(), again.data()), ("a", "a", event.data()));
}

#[test]
fn a_type_that_the_catalogue_lacks_can_be_delivered_as_it_came() {
    let decoder = decoder().delivering_unknown(true);
    let text = r#"{"event_id":"1","event_type":"order.placed","timestamp":"yesterday","user_id":"u","task_id":5,"data":{"total":9.50}}"#;
    for _again in 0..2 {
        let event = decoder.decode(record(text)).unwrap();
        assert_eq!((event.id(), &**event.event_type(), event.user_id(), event.kind().unlisted), ("1", "order.placed", "u", true));
        assert_eq!(event.data(), json!({"total": 9.50, "task_id": 5, "user_id": "u"}));
        assert_eq!(event.version(), Version::FIRST);
    }
    // Inside a sidecar's CloudEvent nothing may name a type but the CloudEvent itself.
    let event = decoder.decode(record(cloudevent(r#"{"order":1,"user_id":"u"}"#))).unwrap();
    assert_eq!((&**event.event_type(), event.id()), ("com.dapr.event.sent", "ce-1"));
    // Whose it is must be known all the same, and what the catalogue knows is checked as ever.
    let reason = |text: &str| decoder.decode(record(text)).unwrap_err().reason;
    assert_eq!(reason(r#"{"event_type":"order.placed","order":1}"#), DeadReason::MissingUserId);
    assert_eq!(reason(r#"{"event_type":"task.created","user_id":"u","task_id":1}"#), DeadReason::Schema);
    assert_eq!(reason("no event"), DeadReason::Undecodable);
    // More types than are kept are no trouble.
    for n in 0..2000 {
        let event = decoder.decode(record(format!("{{\"event_type\":\"made.up{n}\",\"user_id\":\"u\"}}"))).unwrap();
        assert_eq!(**event.event_type(), *format!("made.up{n}"));
    }
}
