//! What a dead letter says, whoever wrote it: this worker, a Dapr sidecar, or a program of its own making.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::{
    engine::{PREFIX, REDRIVES},
    event::{Catalog, Decoder, ids, record::Record, record::TopicPartition, time},
};

/// Who wrote a dead letter, which decides where its facts stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// This worker: the record untouched, with `x-dlq-` headers.
    Worker,
    /// A Dapr sidecar: the record untouched, with `__topic`, `__partition`, `__offset`, `__timestamp`, `__key`. It gives no reason.
    Dapr,
    /// A program that adds `dlq_metadata` to the event: `dlq.failed`.
    Failed,
    /// None of these.
    Bare,
}

impl Form {
    /// Its name in JSON.
    pub fn code(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Dapr => "dapr",
            Self::Failed => "dlq_failed",
            Self::Bare => "bare",
        }
    }
}

/// Where the original stands, or stood.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Pointer {
    /// Topic.
    pub topic: Arc<str>,
    /// Partition; -1: not known.
    pub partition: i32,
    /// Offset; -1: not known.
    pub offset: i64,
    /// The record's timestamp, milliseconds since 1970; `None`: not known.
    pub timestamp: Option<i64>,
}

/// One dead letter.
#[derive(Debug, Clone)]
pub struct Letter {
    /// As it stands in the DLQ.
    pub record: Record,
    /// Who wrote it.
    pub form: Form,
    /// The event's id, as sent or derived.
    pub event_id: String,
    /// Catalogue name where the type is known, else as sent, else `unknown`.
    pub event_type: String,
    /// "" where there is none.
    pub user_id: String,
    /// The `x-dlq-reason`; `unknown` where the writer gave none.
    pub reason: String,
    /// The last error; "" where the writer gave none.
    pub error: String,
    /// The handlers that gave it up; none: it never came to one.
    pub handlers: Vec<String>,
    /// Handler runs.
    pub attempts: Option<u64>,
    /// Runs after the first.
    pub retry_count: Option<u64>,
    /// When it was given up; the record's own time where the writer does not say.
    pub failed_at: Option<DateTime<Utc>>,
    /// When it failed first.
    pub first_failed_at: Option<DateTime<Utc>>,
    /// The original; `None`: the writer does not say.
    pub source: Option<Pointer>,
    /// How often it was sent back before it failed this time.
    pub redrives: u32,
}

impl Letter {
    /// One of this worker's headers as text, by its name without `x-dlq-`.
    pub fn header(&self, name: &str) -> Option<&str> {
        text(&self.record, &format!("{PREFIX}{name}"))
    }

    /// Whether the value stayed at the source because it was too big.
    pub fn is_stub(&self) -> bool {
        self.header("original-size").is_some()
    }

    /// `partition:offset` in the DLQ.
    pub fn position(&self) -> String {
        format!("{}:{}", self.record.partition().partition, self.record.offset())
    }
}

/// Reads dead letters, with a catalogue for those that do not name their event.
#[derive(Debug, Clone)]
pub struct Letters {
    decoder: Decoder,
}

impl Letters {
    /// By that catalogue.
    pub fn new(catalog: Arc<Catalog>) -> Self {
        Self { decoder: Decoder::new(catalog, false) }
    }

    /// What the record says. Never fails: what is missing is empty or `unknown`.
    pub fn read(&self, record: Record) -> Letter {
        let header = |name: &str| text(&record, &format!("{PREFIX}{name}"));
        if let Some(reason) = header("reason") {
            let number = |name: &str| header(name).and_then(|text| text.parse().ok());
            let stamp = |name: &str| header(name).and_then(time::parse);
            let owned = |name: &str| header(name).unwrap_or_default().to_owned();
            return Letter {
                form: Form::Worker,
                event_id: owned("event-id"),
                event_type: owned("event-type"),
                user_id: owned("user-id"),
                reason: reason.to_owned(),
                error: owned("error"),
                handlers: owned("handler").split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
                attempts: number("attempts"),
                retry_count: number("retry-count"),
                failed_at: stamp("failed-at").or_else(|| written_at(&record)),
                first_failed_at: stamp("first-failed-at"),
                source: pointer(&record, "x-dlq-source-"),
                redrives: header("redrives").and_then(|text| text.parse().ok()).unwrap_or_default(),
                record,
            };
        }
        self.read_foreign(record)
    }

    fn read_foreign(&self, record: Record) -> Letter {
        let source = pointer(&record, "__");
        let metadata = if source.is_none() { dlq_metadata(&record) } else { None };
        let form = match (&source, &metadata) {
            (Some(_), _) => Form::Dapr,
            (None, Some(_)) => Form::Failed,
            (None, None) => Form::Bare,
        };
        let (id, from_offset, event_type, user) = match self.decoder.decode(record.clone()) {
            Ok(event) => {
                (event.id().to_owned(), event.id_from_offset(), Some(event.event_type().to_string()), Some(event.user_id().to_owned()))
            }
            Err(rejected) => (
                rejected.id.into_string(),
                rejected.id_from_offset,
                rejected.event_type.map(|name| name.to_string()),
                rejected.user_id.map(|user| user.into_string()),
            ),
        };
        // The event's own position, not that of the letter, is what the id was made of.
        let id = match &source {
            Some(source) if from_offset => {
                ids::of_position(&TopicPartition::new(Arc::clone(&source.topic), source.partition), source.offset).to_string()
            }
            _ => id,
        };
        let of = |name: &str| metadata.as_ref().and_then(|metadata| metadata.get(name));
        let failed_at = of("failed_at").and_then(Value::as_str).and_then(time::parse).or_else(|| written_at(&record));
        Letter {
            form,
            event_id: id,
            event_type: event_type.unwrap_or_else(|| "unknown".to_owned()),
            user_id: user.unwrap_or_default(),
            // Existing programs write these on exhaustion, and on nothing else.
            reason: if form == Form::Failed { "exhausted" } else { "unknown" }.to_owned(),
            error: of("error").map(|error| error.as_str().map_or_else(|| error.to_string(), str::to_owned)).unwrap_or_default(),
            handlers: Vec::new(),
            attempts: of("retry_count").and_then(Value::as_u64).map(|retries| retries + 1),
            retry_count: of("retry_count").and_then(Value::as_u64),
            failed_at,
            first_failed_at: None,
            source,
            // Ours on the record that a sidecar gave up: what was sent back to it is not sent back without end either.
            redrives: text(&record, REDRIVES).and_then(|text| text.parse().ok()).unwrap_or_default(),
            record,
        }
    }
}

/// The event of a `dlq.failed` record without its `dlq_metadata`, which may stand at the top or in `data`; `None`: it is none.
pub(super) fn without_metadata(value: &[u8]) -> Option<Value> {
    let mut event: Value = serde_json::from_slice(value).ok()?;
    let holder = holder_of(&mut event)?;
    // `shift_remove` keeps the order of what stays.
    holder.shift_remove("dlq_metadata");
    Some(event)
}

fn holder_of(event: &mut Value) -> Option<&mut serde_json::Map<String, Value>> {
    let mut path = String::new();
    for _ in 0..3 {
        if event.pointer(&format!("{path}/dlq_metadata")).is_some_and(Value::is_object) {
            return event.pointer_mut(&path)?.as_object_mut();
        }
        path += "/data";
    }
    None
}

fn dlq_metadata(record: &Record) -> Option<Value> {
    let mut event: Value = serde_json::from_slice(record.value()?).ok()?;
    holder_of(&mut event)?.get("dlq_metadata").cloned()
}

fn text<'a>(record: &'a Record, name: &str) -> Option<&'a str> {
    record.header(name).and_then(|value| std::str::from_utf8(value).ok())
}

fn written_at(record: &Record) -> Option<DateTime<Utc>> {
    record.timestamp().and_then(DateTime::from_timestamp_millis)
}

/// `<prefix>topic`, `partition`, `offset` and `timestamp`.
fn pointer(record: &Record, prefix: &str) -> Option<Pointer> {
    let number = |name: &str| text(record, &format!("{prefix}{name}")).and_then(|text| text.parse::<i64>().ok());
    Some(Pointer {
        topic: text(record, &format!("{prefix}topic")).filter(|topic| !topic.is_empty())?.into(),
        partition: number("partition").and_then(|number| number.try_into().ok()).unwrap_or(-1),
        offset: number("offset").unwrap_or(-1),
        timestamp: number("timestamp").filter(|ms| *ms >= 0),
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
pub(super) mod tests {
    use std::path::Path;

    use super::*;
    use crate::event::record::RecordParts;

    pub(crate) fn letter(value: &str, headers: &[(&str, &str)]) -> Letter {
        let parts = RecordParts {
            offset: 7,
            timestamp: Some(1_767_091_000_000),
            key: Some(b"user_abc".to_vec()),
            value: Some(value.as_bytes().to_vec()),
            headers: headers.iter().map(|(name, value)| ((*name).to_owned(), Some(value.as_bytes().to_vec()))).collect(),
        };
        let catalog = Arc::new(Catalog::open(Path::new("topics"), true).unwrap());
        Letters::new(catalog).read(Record::copy_of(&TopicPartition::new("dlq", 1), &parts))
    }

    #[test]
    fn a_letter_of_this_worker_is_told_by_its_headers_alone() {
        let letter = letter(
            "no json",
            &[
                ("x-dlq-reason", "exhausted"),
                ("x-dlq-error", "refused"),
                ("x-dlq-event-id", "e1"),
                ("x-dlq-event-type", "task.created"),
                ("x-dlq-handler", "a,b"),
                ("x-dlq-attempts", "4"),
                ("x-dlq-retry-count", "3"),
                ("x-dlq-failed-at", "2025-12-30T10:35:00.000Z"),
                ("x-dlq-source-topic", "task-events"),
                ("x-dlq-source-partition", "3"),
                ("x-dlq-source-offset", "99"),
                ("x-dlq-source-timestamp", "-1"),
                ("x-dlq-redrives", "2"),
            ],
        );
        assert_eq!((letter.form, letter.reason.as_str(), letter.redrives), (Form::Worker, "exhausted", 2));
        assert_eq!((letter.attempts, letter.retry_count, letter.handlers), (Some(4), Some(3), vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(letter.source, Some(Pointer { topic: "task-events".into(), partition: 3, offset: 99, timestamp: None }));
        assert_eq!(time::format(letter.failed_at.unwrap()), "2025-12-30T10:35:00Z");
    }

    #[test]
    fn a_sidecars_letter_tells_its_origin_and_the_event_tells_the_rest() {
        let value =
            r#"{"specversion":"1.0","id":"c1","source":"app","type":"task.created","data":{"user_id":"u1","task_id":1,"title":"x"}}"#;
        let headers = [("__topic", "task-events"), ("__partition", "2"), ("__offset", "41"), ("__timestamp", "5"), ("__key", "u1")];
        let letter = letter(value, &headers);
        assert_eq!((letter.form, letter.reason.as_str()), (Form::Dapr, "unknown"));
        assert_eq!((letter.event_id.as_str(), letter.event_type.as_str(), letter.user_id.as_str()), ("c1", "task.created", "u1"));
        assert_eq!(letter.source, Some(Pointer { topic: "task-events".into(), partition: 2, offset: 41, timestamp: Some(5) }));

        let back = super::tests::letter(value, &[&headers[..], &[("x-dlq-redrives", "2")]].concat());
        assert_eq!((back.form, back.redrives), (Form::Dapr, 2), "sent back to a sidecar, and given up again");
        let nameless = super::tests::letter("?", &headers);
        let derived = ids::of_position(&TopicPartition::new("task-events", 2), 41).to_string();
        assert_eq!(nameless.event_id, derived, "the id that the worker gives the original");
    }

    #[test]
    fn an_event_with_dlq_metadata_tells_when_and_why() {
        for value in [
            r#"{"event_type":"task.created","user_id":"u1","data":{"task_id":1},"dlq_metadata":{"failed_at":"2025-12-30T10:35:00Z","error":"refused","retry_count":3}}"#,
            r#"{"event_type":"task.created","user_id":"u1","data":{"task_id":1,"dlq_metadata":{"failed_at":"2025-12-30T10:35:00Z","error":"refused","retry_count":3}}}"#,
        ] {
            let letter = letter(value, &[]);
            assert_eq!((letter.form, letter.reason.as_str(), letter.error.as_str()), (Form::Failed, "exhausted", "refused"));
            assert_eq!((letter.retry_count, letter.attempts, letter.source), (Some(3), Some(4), None));
            let event = without_metadata(value.as_bytes()).unwrap();
            assert_eq!(event.to_string(), r#"{"event_type":"task.created","user_id":"u1","data":{"task_id":1}}"#);
        }
        assert_eq!(letter("?", &[]).form, Form::Bare);
    }
}
