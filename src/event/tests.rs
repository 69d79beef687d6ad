//! The six shapes and what is no event, through the public surface.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    Catalog, Decoder, Event, Rejected, Version, cheap_user, ids,
    record::{Record, RecordParts, TopicPartition},
    time,
};
use crate::outcome::DeadReason;

pub(super) fn record(value: impl AsRef<[u8]>) -> Record {
    with_headers(value, &[])
}

fn with_headers(value: impl AsRef<[u8]>, headers: &[(&str, &str)]) -> Record {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), Some(value.as_bytes().to_vec()))).collect();
    let timestamp = Some(1_767_000_000_000);
    let parts = RecordParts { offset: 7, timestamp, key: None, value: Some(value.as_ref().to_vec()), headers };
    Record::copy_of(&TopicPartition::new("task-events", 3), &parts)
}

pub(super) fn decoder() -> Decoder {
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
        (&cloudevent(r#"{"user_id":"u"}"#), UnknownType, "event_type: `com.dapr.event.sent` is not in the catalogue"),
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

// === The catalogue ===

/// A catalogue whose type has had three versions.
pub(super) fn historic() -> Catalog {
    Catalog::load(&fixtures().join("catalog")).unwrap()
}

fn fixtures() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn shipped() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("topics")
}

/// A copy of the shipped catalogue, to be edited.
fn copied() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("events")).unwrap();
    for (name, text) in Catalog::embedded_files() {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

fn edit(dir: &tempfile::TempDir, file: &str, from: &str, to: &str) {
    let path = dir.path().join(file);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{file} has no {from}");
    std::fs::write(path, text.replacen(from, to, 1)).unwrap();
}

#[test]
fn the_embedded_catalogue_is_the_folder() {
    let mut files: Vec<_> = std::fs::read_dir(shipped().join("events")).unwrap().map(|file| file.unwrap().path()).collect();
    files.push(shipped().join("topics.yaml"));
    assert_eq!(files.len(), Catalog::embedded_files().len());
    for file in files {
        let name = file.strip_prefix(shipped()).unwrap().to_str().unwrap();
        let (_, text) = Catalog::embedded_files().iter().find(|(embedded, _)| *embedded == name).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), *text, "{name}");
    }
}

#[test]
fn the_catalogue_has_every_type_topic_and_alias_of_the_contract() {
    let catalog = Catalog::embedded().unwrap();
    let types = [
        ("dlq.failed", &["dlq", "task-events"][..]),
        ("notification.bounced", &["notifications"]),
        ("notification.delivered", &["notifications"]),
        ("notification.failed", &["notifications"]),
        ("points.awarded", &["user-events"]),
        ("recurring.spawned", &["task-events"]),
        ("recurring.triggered", &["task-events"]),
        ("reminder.cancelled", &["reminders"]),
        ("reminder.due", &["reminders"]),
        ("reminder.failed", &["reminders"]),
        ("reminder.scheduled", &["reminders"]),
        ("reminder.sent", &["reminders"]),
        ("schedule.ticked", &["task-events"]),
        ("security.alert", &["user-events"]),
        ("task.completed", &["task-events"]),
        ("task.created", &["task-events"]),
        ("task.deleted", &["task-events"]),
        ("task.updated", &["task-events"]),
        ("user.logged_in", &["user-events"]),
    ];
    assert_eq!(catalog.types().map(|kind| &*kind.name).collect::<Vec<_>>(), types.map(|(name, _)| name));
    for (name, topics) in types {
        assert_eq!(catalog.topics_for(name).iter().map(|topic| &**topic).collect::<Vec<_>>(), topics, "{name}");
    }
    assert_eq!(catalog.canonical("reminder.triggered").map(|name| &**name), Some("reminder.due"));
    assert_eq!(catalog.canonical("recurring.trigger.v1").map(|name| &**name), Some("recurring.triggered"));
    assert_eq!(catalog.canonical_pattern("reminder.triggered"), "reminder.due");
    assert_eq!(catalog.canonical_pattern("task.*"), "task.*");
    assert!(!catalog.knows("task.created.v1.v1") && !catalog.knows("task.created.vx") && !catalog.knows("task"));
    assert_eq!((catalog.topic("reminder-events"), catalog.topic("nowhere")), (Some("reminders"), None));
}

#[test]
fn each_example_is_valid_and_each_counterexample_is_refused_with_a_reason() {
    let decoder = decoder();
    for kind in decoder.catalog().types() {
        let event = |data: &Value| record(json!({ "event_type": &*kind.name, "user_id": "u", "data": data }).to_string());
        assert_eq!(decoder.decode(event(&kind.example)).unwrap().data(), kind.example, "{}", kind.name);
        assert!(kind.counterexamples.len() >= 3, "{}", kind.name);
        for counterexample in &kind.counterexamples {
            let error = kind.schema.check(&counterexample.data).unwrap_err();
            assert!(error.starts_with("data") && error.ends_with(&format!("({} 1.0)", kind.name)), "{error}");
        }
    }
}

#[test]
fn topics_are_what_the_contract_says_in_each_profile() {
    let catalog = Catalog::embedded().unwrap();
    let spec = |profile: &str| -> Vec<(String, i32, u64, i32, String)> {
        let row = |spec: super::catalog::TopicSpec| {
            let insync = spec.config["min.insync.replicas"].clone();
            (spec.name.to_string(), spec.partitions, spec.retention.as_secs() / 86_400, spec.replication, insync)
        };
        catalog.topic_specs(profile).unwrap().into_iter().map(row).collect()
    };
    let names = [
        ("dlq", 3, 30),
        ("notifications", 3, 7),
        ("reminders", 3, 1),
        ("task-events", 12, 7),
        ("task-updates", 12, 1),
        ("user-events", 5, 30),
    ];
    assert_eq!(spec("local"), names.map(|(name, count, days)| (name.to_owned(), count, days, 1, "1".to_owned())));
    assert_eq!(spec("production"), names.map(|(name, count, days)| (name.to_owned(), count, days, 3, "2".to_owned())));
    assert_eq!(spec("cloud")[3], ("task-events".to_owned(), 12, 30, 3, "2".to_owned()));
    assert_eq!(catalog.topic_specs("nowhere"), None);
    let tasks = catalog.topic_specs("local").unwrap().swap_remove(3);
    assert_eq!(tasks.config["retention.ms"], "604800000");
    assert!(tasks.types.iter().any(|kind| &**kind == "task.created"));
}

#[test]
fn a_consumer_of_everything_does_not_eat_its_own_dead_letters() {
    let catalog = Catalog::embedded().unwrap();
    let needed = |patterns: &[&str]| catalog.topics_needed(patterns.iter().copied()).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(needed(&["*"]), ["notifications", "reminders", "task-events", "user-events"]);
    assert_eq!(needed(&["task.*", "reminder.triggered"]), ["reminders", "task-events"]);
    assert_eq!(needed(&["dlq.failed"]), ["dlq", "task-events"]);
    assert!(needed(&["no.such"]).is_empty());
}

#[test]
fn a_naming_scheme_gives_each_type_a_topic_of_its_own() {
    let dir = copied();
    edit(&dir, "topics.yaml", "naming: topic", "naming: evolution-todo");
    let catalog = Catalog::load(dir.path()).unwrap();
    assert_eq!(&*catalog.topics_for("task.created")[0], "evolution-todo.tasks.created");
    assert_eq!(catalog.topics_needed(["reminder.due"]).iter().map(|name| &**name).collect::<Vec<_>>(), ["evolution-todo.reminders.due"]);
    let specs = catalog.topic_specs("local").unwrap();
    let created = specs.iter().find(|spec| &*spec.name == "evolution-todo.tasks.created").unwrap();
    assert_eq!((created.partitions, created.types.len()), (12, 1));
    assert!(specs.iter().any(|spec| &*spec.name == "dlq"), "dead letters keep their topic");
    edit(&dir, "topics.yaml", "naming: evolution-todo", "naming: type");
    assert_eq!(&*Catalog::load(dir.path()).unwrap().topics_for("reminder.triggered")[0], "reminder.due");
}

#[test]
fn a_type_a_field_and_a_topic_are_each_added_by_one_file() {
    let dir = copied();
    let text = std::fs::read_to_string(dir.path().join("events/reminder.cancelled.yaml")).unwrap();
    std::fs::write(dir.path().join("events/task.archived.yaml"), text.replace("reminder.cancelled", "task.archived")).unwrap();
    edit(&dir, "events/task.created.yaml", "    tags:", "    color: { type: string, enum: [red, blue] }\n    tags:");
    edit(&dir, "topics.yaml", "  user-events:", "  archive: { description: Old tasks., partitions: 1, retention: 90d }\n  user-events:");
    let catalog = Arc::new(Catalog::load(dir.path()).unwrap());
    assert!(catalog.topic_specs("local").unwrap().iter().any(|spec| &*spec.name == "archive"));
    let decoder = Decoder::new(catalog, true);
    assert!(decoder.decode(record(r#"{"event_type":"task.archived","user_id":"u","task_id":1}"#)).is_ok());
    let colored = |color: &str| {
        record(format!(r#"{{"event_type":"task.created","user_id":"u","task_id":1,"data":{{"title":"x","color":"{color}"}}}}"#))
    };
    assert!(decoder.decode(colored("red")).is_ok());
    assert_eq!(decoder.decode(colored("mauve")).unwrap_err().error, "data.color: a string that is none of red, blue (task.created 1.0)");
}

#[test]
fn every_problem_of_a_catalogue_is_told_with_file_line_field_and_fix() {
    let dir = copied();
    edit(&dir, "events/task.created.yaml", "topics: [task-events]", "topics: [task-evnets]");
    edit(&dir, "events/task.updated.yaml", "version: \"1.0\"", "version: one");
    edit(&dir, "events/task.deleted.yaml", "domain: tasks\n", "");
    edit(&dir, "events/reminder.due.yaml", "  reminder_type: due_soon", "  reminder_type: whenever");
    edit(&dir, "events/user.logged_in.yaml", "carrier_pigeon", "email");
    edit(&dir, "topics.yaml", "retention: 7d", "retention: a week");
    let error = Catalog::load(dir.path()).unwrap_err();
    let told: Vec<String> =
        error.problems.iter().map(|problem| problem.to_string().replace(&format!("{}/", dir.path().display()), "")).collect();
    let expected = [
        "topics.yaml:22: topics.task-events.retention: `a week` is no duration; write it like 7d or 12h",
        "events/reminder.due.yaml:16: example: not valid: data.reminder_type: a string that is none of overdue, due_soon, recurring (reminder.due 1.0); mend the example or the schema",
        "events/task.deleted.yaml:1: missing field `domain`; add it",
        "events/task.updated.yaml:2: version: `one` is no version; write it like \"1.0\"",
        "events/user.logged_in.yaml:22: counterexamples: `no such login method` is valid; mend it or the schema",
        "events/task.created.yaml:5: topics: topic `task-evnets` is not in topics.yaml; add it there, or name one that is",
    ];
    assert_eq!(told, expected);
    let missing = Catalog::load(&dir.path().join("nowhere")).unwrap_err();
    assert!(missing.problems[0].file.ends_with("nowhere/topics.yaml") && missing.to_string().contains("catalog.dir"), "{missing}");
}

#[test]
fn two_types_cannot_share_a_name() {
    let dir = copied();
    edit(&dir, "events/reminder.due.yaml", "aliases: [reminder.triggered]", "aliases: [task.created]");
    let error = Catalog::load(dir.path()).unwrap_err().to_string();
    assert!(error.contains("`task.created` is also a name of"), "{error}");
}

#[test]
fn the_embedded_catalogue_stands_in_for_a_missing_default_folder_only() {
    let missing = fixtures().join("nowhere");
    assert_eq!(Catalog::open(&missing, true).unwrap().origin().to_string(), "embedded in the binary");
    assert!(Catalog::open(&missing, false).is_err());
    let dir = shipped();
    assert_eq!(Catalog::open(&dir, true).unwrap().origin(), &super::catalog::Origin::Folder(dir));
}

// === Versions ===

#[test]
fn every_past_version_arrives_at_the_current_one() {
    let decoder = Decoder::new(Arc::new(historic()), true);
    let send = |version: &str, data: Value| {
        let event = json!({ "event_id": "e", "event_type": "task.created", "event_version": version, "timestamp": "2025-12-30T10:00:00Z", "data": data });
        decoder.decode(record(event.to_string()))
    };
    let event =
        send("1.0", json!({ "task_id": 1, "user_id": "u", "name": "Call", "estimate": "5", "due_date": "2026-01-01", "legacy": true }))
            .unwrap();
    assert_eq!(event.version(), Version::FIRST);
    let current = json!({
        "task_id": 1, "user_id": "u", "estimate": 5, "title": "Call", "urgency": "low", "schedule": { "due": "2026-01-01" },
        "created_at": "2025-12-30T10:00:00Z"
    });
    assert_eq!(event.data(), current);
    let published = parsed(&event.to_published());
    assert_eq!((&published["data"], &published["event_version"]), (&current, &json!("2.0")));
    assert_eq!(parsed(&event.to_canonical())["event_version"], "2.0");
    let event = send("1.1", json!({ "task_id": 1, "user_id": "u", "title": "Call", "urgency": "HIGH" })).unwrap();
    assert_eq!(event.data()["urgency"], "high");
    let rejected = send("2.0", json!({ "task_id": 1, "user_id": "u", "title": "Call", "urgency": "HIGH" })).unwrap_err();
    assert_eq!(rejected.reason, DeadReason::Schema, "the steps are not for the current version");
}

#[test]
fn a_program_can_bring_functions_of_its_own_for_upcasts() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("events")).unwrap();
    for file in ["topics.yaml", "events/task.created.yaml"] {
        std::fs::copy(fixtures().join("catalog").join(file), dir.path().join(file)).unwrap();
    }
    edit(&dir, "events/task.created.yaml", "call: integer", "call: hours_to_minutes");
    let error = Catalog::load(dir.path()).unwrap_err().to_string();
    assert!(error.contains("no function `hours_to_minutes`") && error.contains("call one of lowercase"), "{error}");
    fn minutes(hours: Value) -> Value {
        hours.as_str().and_then(|hours| hours.parse::<i64>().ok()).map_or(hours, |hours| json!(hours * 60))
    }
    let catalog = Catalog::load_with(dir.path(), &[("hours_to_minutes", minutes)]).unwrap();
    let old = r#"{"event_type":"task.created","user_id":"u","task_id":1,"data":{"name":"x","estimate":"2"}}"#;
    assert_eq!(Decoder::new(Arc::new(catalog), true).decode(record(old)).unwrap().data()["estimate"], 120);
}

// === Fixtures ===

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
