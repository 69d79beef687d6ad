//! What a caller wants to publish, in any shape, to the record that is written: shape A, valid, keyed by its user.

use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use uuid::{NoContext, Timestamp, Uuid};

use super::{
    catalog::Catalog,
    complete::Facts,
    decode::{Read, check, read, shown, unknown_type},
    record::RawRecord,
    render::{Canonical, canonical},
    view::{self, View},
};
use crate::outcome::DeadReason;

/// How a value is prepared.
#[derive(Debug, Clone)]
pub struct Options<'a> {
    /// Where to, instead of the catalogue's first topic for the type.
    pub topic: Option<&'a str>,
    /// Whether type and schema are checked. A user_id is needed all the same.
    pub validate: bool,
    /// Whether an event without user_id may pass: the caller keys it by something else.
    pub user_optional: bool,
    /// The time of events that do not say when they happened.
    pub now: DateTime<Utc>,
    /// The source of events that do not name one.
    pub source: &'a str,
}

/// An event ready to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// As sent, derived where it can be, else new (UUIDv7).
    pub event_id: String,
    /// The catalogue's name, else as sent.
    pub event_type: Arc<str>,
    /// The key; `None` only with [`Options::user_optional`].
    pub user_id: Option<Box<str>>,
    /// Where to.
    pub topic: Arc<str>,
    /// Shape A, as JSON.
    pub value: Bytes,
    /// The W3C trace context that came with it, where a valid one did.
    pub traceparent: Option<String>,
}

/// Why a value cannot be published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct InputError {
    /// A closed set: `undecodable`, `missing_user_id`, `unknown_type`, `schema`, `no_topic`.
    pub code: &'static str,
    /// Path, rule and schema version, never the payload.
    pub message: String,
}

impl InputError {
    /// The metric label.
    pub fn code(&self) -> &'static str {
        self.code
    }

    fn of(reason: DeadReason, message: impl Into<String>) -> Self {
        Self { code: reason.code(), message: message.into() }
    }
}

/// Takes one event (JSON text in shape A, B, C, D or F) from a caller.
///
/// # Errors
/// The first that applies of undecodable, missing user, unknown type, schema, no topic.
pub fn prepare(catalog: &Catalog, text: &[u8], options: &Options<'_>) -> Result<Prepared, InputError> {
    let text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text);
    let text = std::str::from_utf8(text)
        .map_err(|error| InputError::of(DeadReason::Undecodable, format!("not UTF-8 at byte {}", error.valid_up_to())))?;
    view::open_text(text, None, |view| match view {
        Ok(view) => ready(catalog, view, options),
        Err(error) => Err(InputError::of(DeadReason::Undecodable, error)),
    })
}

/// Who a value belongs to that is written as it is, in whatever shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examined {
    /// The key; `None` only with [`Options::user_optional`].
    pub user_id: Option<Box<str>>,
}

/// Takes one record that is written as it is, by the rules of those who will read it.
///
/// Without validation it may be of any type, or, where its user is optional, anything at all.
///
/// # Errors
/// The first that applies of undecodable, missing user, unknown type, schema.
pub fn examine(catalog: &Catalog, record: &dyn RawRecord, options: &Options<'_>) -> Result<Examined, InputError> {
    let anything = !options.validate && options.user_optional;
    let examined = view::open(record, |view| {
        let view = view.map_err(|error| InputError::of(DeadReason::Undecodable, error))?;
        if options.validate {
            return judged(catalog, view, options).map(|(read, _)| Examined { user_id: read.user_id.map(Into::into) });
        }
        let user_id = view.user().map(Into::into);
        if user_id.is_none() && !options.user_optional {
            return Err(nobody());
        }
        Ok(Examined { user_id })
    });
    if anything { Ok(examined.unwrap_or(Examined { user_id: None })) } else { examined }
}

fn nobody() -> InputError {
    InputError::of(DeadReason::MissingUserId, "user_id: missing at the top, in data and in metadata")
}

/// Reads an event and judges it as the options say; answers also its time.
fn judged<'v>(catalog: &'v Catalog, view: &'v View<'_>, options: &Options<'_>) -> Result<(Read<'v>, DateTime<Utc>), InputError> {
    let Some(read) = read(catalog, view) else {
        return Err(InputError::of(DeadReason::Undecodable, "event_type: missing"));
    };
    if read.user_id.is_none() && !options.user_optional {
        return Err(nobody());
    }
    let time = read.sent_time.unwrap_or(options.now);
    if options.validate {
        let Some(kind) = read.kind else {
            return Err(InputError::of(DeadReason::UnknownType, unknown_type(catalog, &read.event_type())));
        };
        // Keyed by something else, an event may be nobody's: any user will do to check the rest of its data.
        let user_id = read.user_id.or(Some("-"));
        check(view, &read, kind, time, user_id).map_err(|error| InputError::of(DeadReason::Schema, error))?;
    }
    Ok((read, time))
}

fn ready(catalog: &Catalog, view: &View<'_>, options: &Options<'_>) -> Result<Prepared, InputError> {
    let (read, time) = judged(catalog, view, options)?;
    let event_type = read.event_type();
    let topic = match options.topic {
        Some(topic) => topic.into(),
        None => catalog.topics_for(&event_type).into_iter().next().ok_or_else(|| InputError {
            code: "no_topic",
            message: format!("event_type: the catalogue has no topic for {}, so name one", shown(&event_type)),
        })?,
    };
    let event_id = read.id.as_deref().map_or_else(|| new_id(options.now), str::to_owned);
    let facts = Facts { kind: read.kind.map(|kind| &**kind), version: read.version, time, user_id: read.user_id };
    let source = view.source().unwrap_or(options.source);
    let value = canonical(view, &Canonical { id: &event_id, event_type: &event_type, source, facts });
    let traceparent = super::render::traceparent(view);
    Ok(Prepared { event_id, event_type, user_id: read.user_id.map(Into::into), topic, value, traceparent })
}

/// A new event's id: UUIDv7, so that ids sort by time.
pub fn new_id(now: DateTime<Utc>) -> String {
    let seconds = u64::try_from(now.timestamp()).unwrap_or_default();
    Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, now.timestamp_subsec_nanos())).to_string()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use chrono::DateTime;
    use serde_json::{Value, json};

    use super::{InputError, Options, Prepared, examine, prepare};
    use crate::event::{Catalog, ids, record::RecordParts};

    fn options() -> Options<'static> {
        let now = DateTime::from_timestamp(1_767_000_000, 0).unwrap();
        Options { topic: None, validate: true, user_optional: false, now, source: "todo-worker" }
    }

    fn ready(text: &str, options: &Options<'_>) -> Result<Prepared, InputError> {
        prepare(&Catalog::embedded().unwrap(), text.as_bytes(), options)
    }

    fn written(prepared: &Prepared) -> Value {
        serde_json::from_slice(&prepared.value).unwrap()
    }

    #[test]
    fn a_minimal_event_is_written_in_full() {
        let prepared = ready(r#"{"event_type":"task.completed","user_id":"user-456","task_id":123}"#, &options()).unwrap();
        assert_eq!(
            (&*prepared.event_type, prepared.user_id.as_deref(), &*prepared.topic),
            ("task.completed", Some("user-456"), "task-events")
        );
        assert_eq!(uuid::Uuid::parse_str(&prepared.event_id).unwrap().get_version_num(), 7);
        let time = "2025-12-29T09:20:00Z";
        let expected = json!({
            "event_id": prepared.event_id, "event_type": "task.completed", "event_version": "1.0", "timestamp": time, "source": "todo-worker",
            "data": { "task_id": 123, "user_id": "user-456", "completed_at": time }
        });
        assert_eq!(written(&prepared), expected);
    }

    #[test]
    fn an_id_is_derived_where_type_task_and_time_are_given() {
        let text = r#"{"event_type":"reminder.triggered","user_id":"u","task_id":5,"timestamp":"2025-12-31T09:00:00"}"#;
        let prepared = ready(text, &options()).unwrap();
        assert_eq!(prepared.event_id, ids::of_event("reminder.due", "5", "2025-12-31T09:00:00Z").to_string());
        assert_eq!(&*prepared.topic, "reminders");
    }

    #[test]
    fn unknown_fields_and_metadata_are_passed_on() {
        let text = r#"{"event_type":"task.deleted","user_id":"u","task_id":5,"tenant":{"id":1.50},"metadata":{"correlation_id":"c"},"data":{"why":null}}"#;
        let prepared = ready(text, &options()).unwrap();
        let text = std::str::from_utf8(&prepared.value).unwrap();
        assert!(
            text.contains(r#""tenant":{"id":1.50}"#)
                && text.contains(r#""metadata":{"correlation_id":"c"}"#)
                && text.contains(r#""why":null"#)
        );
    }

    #[test]
    fn a_cloudevent_is_written_as_its_event_with_its_trace_context() {
        let text = r#"{"specversion":"1.0","type":"task.completed","source":"app","id":"ce","traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01","data":{"task_id":1,"user_id":"u"}}"#;
        let prepared = ready(text, &options()).unwrap();
        assert_eq!((prepared.event_id.as_str(), &written(&prepared)["source"]), ("ce", &json!("app")));
        assert_eq!(prepared.traceparent.as_deref(), Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
    }

    #[test]
    fn errors_name_the_rule_and_never_the_payload() {
        let secret = "s3cret".repeat(40);
        for (text, code, message) in [
            ("{oops", "undecodable", "not JSON, line 1 column 2".to_owned()),
            ("[{}]", "undecodable", "an array: one record is one event".to_owned()),
            (r#"{"user_id":"u"}"#, "undecodable", "event_type: missing".to_owned()),
            (r#"{"event_type":"task.created"}"#, "missing_user_id", "user_id: missing at the top, in data and in metadata".to_owned()),
            (r#"{"event_type":"task.made","user_id":"u"}"#, "unknown_type", "event_type: `task.made` is not in the catalogue".to_owned()),
            (
                &format!(r#"{{"event_type":"task.created","user_id":"u","task_id":1,"data":{{"title":"{secret}"}}}}"#),
                "schema",
                "data.title: longer than 200 characters (task.created 1.0)".to_owned(),
            ),
        ] {
            assert_eq!(ready(text, &options()), Err(InputError { code, message }), "{text}");
        }
    }

    #[test]
    fn a_value_that_is_written_as_it_is_is_judged_by_the_same_rules() {
        let catalog = Catalog::embedded().unwrap();
        let record = |text: &str, headers: &[(&str, &str)]| RecordParts {
            value: Some(text.into()),
            headers: headers.iter().map(|(name, value)| ((*name).to_owned(), Some((*value).into()))).collect(),
            ..RecordParts::default()
        };
        let judge = |text: &str, options: &Options<'_>| examine(&catalog, &record(text, &[]), options).map(|examined| examined.user_id);
        let user = Ok(Some("u".into()));
        let wrapped = r#"{"specversion":"1.0","type":"com.dapr.event.sent","data":{"event_type":"task.completed","task_id":1,"data":{"user_id":"u"}}}"#;
        assert_eq!(judge(wrapped, &options()), user);
        assert_eq!(judge(r#"{"specversion":"1.0","type":"task.completed","data":{"task_id":1,"user_id":"u"}}"#, &options()), user);
        let untyped = r#"{"specversion":"1.0","type":"com.dapr.event.sent","data":{"task_id":1,"user_id":"u"}}"#;
        let error = judge(untyped, &options()).unwrap_err();
        assert!(error.code == "unknown_type" && error.message.contains("missing in the data"), "{error}");
        let binary = record(r#"{"task_id":1}"#, &[("ce_type", "task.completed"), ("ce_id", "1"), ("ce_userid", "u")]);
        assert_eq!(examine(&catalog, &binary, &options()).map(|examined| examined.user_id), user);
        let off = Options { validate: false, ..options() };
        assert_eq!(judge(untyped, &off), user);
        assert_eq!(judge(r#"{"price":1,"user_id":"u"}"#, &off), user);
        assert_eq!(judge(r#"{"price":1}"#, &off).unwrap_err().code(), "missing_user_id");
        assert_eq!(judge("oops", &off).unwrap_err().code(), "undecodable");
        let keyed = Options { user_optional: true, ..off };
        assert_eq!((judge("oops", &keyed), judge("{}", &keyed)), (Ok(None), Ok(None)));
        assert_eq!(judge("oops", &Options { validate: true, ..keyed }).unwrap_err().code(), "undecodable");
    }

    #[test]
    fn without_validation_a_user_and_a_topic_are_still_needed() {
        let off = Options { validate: false, ..options() };
        let unknown = r#"{"event_type":"shop.sold","user_id":"u","price":9007199254740993}"#;
        assert_eq!(ready(unknown, &off).unwrap_err().code(), "no_topic");
        let prepared = ready(unknown, &Options { topic: Some("shop"), ..off.clone() }).unwrap();
        assert_eq!((&*prepared.topic, &written(&prepared)["price"]), ("shop", &json!(9_007_199_254_740_993_i64)));
        assert_eq!(ready(r#"{"event_type":"shop.sold"}"#, &off).unwrap_err().code(), "missing_user_id");
        let keyed = Options { user_optional: true, ..options() };
        let prepared = ready(r#"{"event_type":"task.completed","task_id":1}"#, &keyed).unwrap();
        assert_eq!((prepared.user_id.as_deref(), written(&prepared)["data"].get("user_id")), (None, None));
    }
}
