//! Dead letters as JSON: one shape for every form that they are written in.

use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Value, json};

use super::{Form, Letter, letter::without_metadata};

/// A time as the worker's headers have it.
pub fn stamp(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// What is known of a letter, without its key, headers and value.
pub fn summary(letter: &Letter) -> Map<String, Value> {
    let record = &letter.record;
    let Value::Object(map) = json!({
        "dlq": { "topic": record.topic(), "partition": record.partition().partition, "offset": record.offset(), "timestamp": record.timestamp() },
        "event_id": letter.event_id,
        "event_type": letter.event_type,
        "user_id": letter.user_id,
        "reason": letter.reason,
        "handlers": letter.handlers,
        "redrives": letter.redrives,
        "dlq_metadata": {
            "failed_at": letter.failed_at.map(stamp),
            "error": letter.error,
            "retry_count": letter.retry_count,
            "attempts": letter.attempts,
            "first_failed_at": letter.first_failed_at.map(stamp),
            "error_class": letter.header("error-class"),
            "schedule": letter.header("schedule"),
            "consumer_group": letter.header("consumer-group"),
            "worker": letter.header("worker"),
            "original_reason": letter.header("original-reason"),
            "original_size": letter.header("original-size").and_then(|size| size.parse::<u64>().ok()),
            "form": letter.form.code(),
        },
        "source": letter.source,
    }) else {
        return Map::new();
    };
    map
}

/// [`summary`], and every byte of the record: `key`, `value` and each header as text, or under `.._base64` where they are none.
pub fn whole(letter: &Letter) -> Map<String, Value> {
    let mut map = summary(letter);
    put_bytes(&mut map, "key", letter.record.key());
    put_bytes(&mut map, "value", letter.record.value());
    map.insert("headers".to_owned(), headers(letter));
    map
}

/// [`summary`], with headers and key, and the value read as JSON: `event`.
pub fn readable(letter: &Letter) -> Map<String, Value> {
    let mut map = summary(letter);
    put_bytes(&mut map, "key", letter.record.key());
    map.insert("headers".to_owned(), headers(letter));
    match event(letter) {
        Some(event) => drop(map.insert("event".to_owned(), event)),
        None => put_bytes(&mut map, "value", letter.record.value()),
    }
    map
}

/// The event as JSON, without a foreign `dlq_metadata`; `None`: the value is no JSON.
pub fn event(letter: &Letter) -> Option<Value> {
    let value = letter.record.value()?;
    match letter.form {
        Form::Failed => without_metadata(value),
        _ => serde_json::from_slice(value).ok(),
    }
}

fn headers(letter: &Letter) -> Value {
    let headers = letter.record.headers().map(|(name, value)| {
        let mut header = Map::new();
        header.insert("name".to_owned(), name.into());
        put_bytes(&mut header, "value", value);
        Value::Object(header)
    });
    headers.collect()
}

/// Bytes as text, as base64 under another name, or null.
pub fn put_bytes(map: &mut Map<String, Value>, name: &str, bytes: Option<&[u8]>) {
    let (name, value) = match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => (name.to_owned(), Value::Null),
        Some((_, Ok(text))) => (name.to_owned(), text.into()),
        Some((bytes, Err(_))) => (format!("{name}_base64"), BASE64_STANDARD.encode(bytes).into()),
    };
    map.insert(name, value);
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::{super::letter::tests::letter, *};
    use crate::{
        dlq::Letters,
        event::{
            Catalog,
            record::{Record, RecordParts, TopicPartition},
        },
    };

    #[test]
    fn an_export_keeps_every_byte() {
        let parts = RecordParts {
            key: Some(vec![0xff, 0]),
            value: Some(b"{\"n\": 10000000000000000000000}".to_vec()),
            headers: vec![
                ("a".to_owned(), Some(vec![0xfe])),
                ("a".to_owned(), None),
                ("x-dlq-reason".to_owned(), Some(b"schema".to_vec())),
            ],
            ..RecordParts::default()
        };
        let catalog = Catalog::open(std::path::Path::new("topics"), true).unwrap();
        let line = whole(&Letters::new(catalog.into()).read(Record::copy_of(&TopicPartition::new("dlq", 0), &parts)));
        assert_eq!((&line["key_base64"], line.get("key")), (&"/wA=".into(), None));
        assert_eq!(line["value"], "{\"n\": 10000000000000000000000}");
        assert_eq!(line["headers"][0], json!({ "name": "a", "value_base64": "/g==" }));
        assert_eq!(line["headers"][1], json!({ "name": "a", "value": null }));
    }

    #[test]
    fn every_form_is_shown_in_one_shape() {
        let failed = r#"{"event_type":"task.created","user_id":"u1","data":{"task_id":1},"dlq_metadata":{"failed_at":"2025-12-30T10:35:00Z","error":"refused","retry_count":3}}"#;
        let ours = [
            ("x-dlq-reason", "exhausted"),
            ("x-dlq-error", "refused"),
            ("x-dlq-retry-count", "3"),
            ("x-dlq-failed-at", "2025-12-30T10:35:00Z"),
        ];
        let event = r#"{"event_type":"task.created","user_id":"u1","data":{"task_id":1}}"#;
        let (theirs, ours) = (readable(&letter(failed, &[])), readable(&letter(event, &ours)));
        for field in ["failed_at", "error", "retry_count"] {
            assert_eq!(theirs["dlq_metadata"][field], ours["dlq_metadata"][field], "{field}");
        }
        assert_eq!(theirs["event"], ours["event"]);
    }
}
