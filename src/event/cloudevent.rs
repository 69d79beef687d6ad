//! CloudEvents as a sidecar writes them: around what a caller publishes, or completed where the caller sends one. Pure.

use std::borrow::Cow;

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json, value::RawValue};

use super::fields::{Fields, raw};

/// The type of an event whose publisher gives none.
pub const DEFAULT_TYPE: &str = "com.dapr.event.sent";
/// The content type of a body that comes without one.
pub const DEFAULT_CONTENT_TYPE: &str = "text/plain";
/// The source of a CloudEvent whose sender names none.
const DEFAULT_SOURCE: &str = "Dapr";

/// W3C trace context; empty where there is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Trace<'a> {
    /// `traceparent`.
    pub parent: &'a str,
    /// `tracestate`.
    pub state: &'a str,
}

/// What a published value is sent with, besides itself.
#[derive(Debug, Clone, Copy)]
pub struct Sent<'a> {
    /// The pubsub that it was published to.
    pub pubsub: &'a str,
    /// The topic.
    pub topic: &'a str,
    /// The caller's trace context.
    pub trace: Trace<'a>,
    /// Not worth handling after this.
    pub expiration: Option<DateTime<Utc>>,
    /// The time of publishing.
    pub now: DateTime<Utc>,
}

/// Attributes of a new CloudEvent.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a> {
    /// `id`.
    pub id: &'a str,
    /// `source`.
    pub source: &'a str,
    /// `type`.
    pub event_type: &'a str,
    /// `subject`, where there is one.
    pub subject: Option<&'a str>,
    /// The body's content type, as it was sent; empty: none.
    pub content_type: &'a str,
}

/// Writes a new CloudEvent around `body`: JSON stays JSON, byte for byte, binary becomes `data_base64`, anything else a string.
pub fn wrap(body: &[u8], attributes: &Attributes<'_>, sent: &Sent<'_>) -> Bytes {
    let content_type = if attributes.content_type.is_empty() { DEFAULT_CONTENT_TYPE } else { attributes.content_type };
    let (name, data) = data(content_type, body);
    let mut event = Fields::default();
    event.set(name, data);
    event.set_value("datacontenttype", &json!(content_type));
    expire(&mut event, sent);
    event.set_value("id", &json!(attributes.id));
    event.set_value("pubsubname", &json!(sent.pubsub));
    event.set_value("source", &json!(attributes.source));
    event.set_value("specversion", &json!("1.0"));
    if let Some(subject) = attributes.subject {
        event.set_value("subject", &json!(subject));
    }
    event.set_value("time", &json!(time(sent)));
    event.set_value("topic", &json!(sent.topic));
    event.set_value("traceid", &json!(sent.trace.parent));
    event.set_value("traceparent", &json!(sent.trace.parent));
    event.set_value("tracestate", &json!(sent.trace.state));
    event.set_value("type", &json!(attributes.event_type));
    event.to_text().into()
}

/// Completes a CloudEvent that the caller sends. Topic and pubsub are always the ones that it was published to; an `id` is not invented.
///
/// # Errors
/// Where the body is no JSON object.
pub fn adopt(body: &[u8], sent: &Sent<'_>) -> Result<Bytes, String> {
    let body = std::str::from_utf8(body).map_err(|error| format!("not UTF-8 at byte {}", error.valid_up_to()))?;
    let mut event: Fields<'_> =
        serde_json::from_str(body).map_err(|error| format!("no JSON object, line {} column {}", error.line(), error.column()))?;
    if !event.has("time") {
        event.set_value("time", &json!(time(sent)));
    }
    if !event.has("traceid") {
        event.set_value("traceid", &json!(sent.trace.parent));
        event.set_value("traceparent", &json!(sent.trace.parent));
    }
    if !event.has("tracestate") {
        event.set_value("tracestate", &json!(sent.trace.state));
    }
    event.set_value("topic", &json!(sent.topic));
    event.set_value("pubsubname", &json!(sent.pubsub));
    for (name, value) in [("source", DEFAULT_SOURCE), ("type", DEFAULT_TYPE), ("specversion", "1.0")] {
        if event.get(name).is_none_or(|found| found.get() == "null") {
            event.set_value(name, &json!(value));
        }
    }
    expire(&mut event, sent);
    Ok(event.to_text().into())
}

/// Whether a body of this content type is a CloudEvent already.
pub fn is_cloudevent(content_type: &str) -> bool {
    essence(content_type) == "application/cloudevents+json"
}

/// Whether a body of this content type is JSON: this one alone, not `application/anything+json`.
pub fn is_json(content_type: &str) -> bool {
    essence(content_type) == "application/json"
}

/// Whether a body of this content type is bytes to be told in base64.
pub fn is_binary(content_type: &str) -> bool {
    essence(content_type) == "application/octet-stream"
}

/// Whether a body of this content type is text.
pub fn is_text(content_type: &str) -> bool {
    let essence = essence(content_type);
    essence.starts_with("text/") || essence == "application/xml"
}

fn essence(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn data<'a>(content_type: &str, body: &'a [u8]) -> (&'static str, Cow<'a, RawValue>) {
    let protobuf = ["application/cloudevents+protobuf", "application/x-protobuf"].contains(&&*essence(content_type));
    if is_binary(content_type) || protobuf {
        return ("data_base64", Cow::Owned(raw(&Value::String(BASE64_STANDARD.encode(body)))));
    }
    if is_json(content_type)
        && let Ok(json) = serde_json::from_slice::<&RawValue>(body)
    {
        return ("data", Cow::Borrowed(json));
    }
    ("data", Cow::Owned(raw(&Value::String(String::from_utf8_lossy(body).into_owned()))))
}

fn expire(event: &mut Fields<'_>, sent: &Sent<'_>) {
    if let Some(expiration) = sent.expiration {
        event.set_value("expiration", &json!(expiration.to_rfc3339_opts(SecondsFormat::Secs, true)));
    }
}

fn time(sent: &Sent<'_>) -> String {
    sent.now.to_rfc3339_opts(SecondsFormat::Secs, true)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::from_slice;

    use super::*;

    fn sent() -> Sent<'static> {
        let now = DateTime::from_timestamp(1_767_000_000, 123_000_000).unwrap();
        Sent { pubsub: "kafka-pubsub", topic: "task-events", trace: Trace::default(), expiration: None, now }
    }

    fn wrapped(content_type: &str, body: &[u8]) -> Value {
        let attributes = Attributes { id: "1", source: "todo-api", event_type: DEFAULT_TYPE, subject: None, content_type };
        from_slice(&wrap(body, &attributes, &sent())).unwrap()
    }

    #[test]
    fn a_new_cloudevent_has_every_attribute_that_a_sidecar_writes() {
        let expected = json!({
            "data": {"a": 1}, "datacontenttype": "application/json; charset=utf-8", "id": "1", "pubsubname": "kafka-pubsub",
            "source": "todo-api", "specversion": "1.0", "time": "2025-12-29T09:20:00Z", "topic": "task-events",
            "traceid": "", "traceparent": "", "tracestate": "", "type": "com.dapr.event.sent"
        });
        assert_eq!(wrapped("application/json; charset=utf-8", br#"{"a":1}"#), expected);
    }

    #[test]
    fn the_content_type_decides_what_becomes_of_the_body() {
        let json = br#"{"a":1}"#;
        for (content_type, body, name, expected, written) in [
            ("application/json", &json[..], "data", json!({"a": 1}), "application/json"),
            ("Application/JSON;charset=utf-8", json, "data", json!({"a": 1}), "Application/JSON;charset=utf-8"),
            ("application/json", b"{oops", "data", json!("{oops"), "application/json"),
            ("application/vnd.todo+json", json, "data", json!(r#"{"a":1}"#), "application/vnd.todo+json"),
            ("", json, "data", json!(r#"{"a":1}"#), "text/plain"),
            ("text/plain", "grüß".as_bytes(), "data", json!("grüß"), "text/plain"),
            ("application/xml", b"<a/>", "data", json!("<a/>"), "application/xml"),
            ("application/octet-stream", &[0, 255], "data_base64", json!("AP8="), "application/octet-stream"),
            ("application/x-protobuf", &[8, 1], "data_base64", json!("CAE="), "application/x-protobuf"),
            ("text/plain", &[b'a', 255], "data", json!("a\u{fffd}"), "text/plain"),
        ] {
            let event = wrapped(content_type, body);
            assert_eq!((&event[name], &event["datacontenttype"]), (&expected, &json!(written)), "{content_type}");
        }
    }

    #[test]
    fn numbers_that_no_double_holds_stay_as_they_were_sent() {
        let attributes = Attributes { id: "1", source: "a", event_type: "t", subject: Some("s"), content_type: "application/json" };
        let text = wrap(br#"{"n":12345678901234567890123, "x" : 1.50}"#, &attributes, &sent());
        let text = String::from_utf8(text.into()).unwrap();
        assert!(text.contains(r#""data":{"n":12345678901234567890123, "x" : 1.50}"#) && text.contains(r#""subject":"s""#), "{text}");
    }

    #[test]
    fn a_cloudevent_of_the_callers_own_is_completed_and_keeps_what_it_says() {
        let own =
            br#"{"id":"own","specversion":"1.0","type":"task.completed","source":null,"topic":"x","custom":{"a":1.0},"data":{"b":2}}"#;
        let trace = Trace { parent: "00-a-b-01", state: "s=1" };
        let expiration = DateTime::from_timestamp(1_767_000_060, 0);
        let event: Value = from_slice(&adopt(own, &Sent { trace, expiration, ..sent() }).unwrap()).unwrap();
        let expected = json!({
            "id": "own", "specversion": "1.0", "type": "task.completed", "source": "Dapr", "topic": "task-events", "custom": {"a": 1.0},
            "data": {"b": 2}, "time": "2025-12-29T09:20:00Z", "traceid": "00-a-b-01", "traceparent": "00-a-b-01", "tracestate": "s=1",
            "pubsubname": "kafka-pubsub", "expiration": "2025-12-29T09:21:00Z"
        });
        assert_eq!(event, expected);
    }

    #[test]
    fn no_id_is_invented_and_a_trace_is_kept() {
        let event: Value =
            from_slice(&adopt(br#"{"traceid":"t","traceparent":"p","time":"2020-01-01T00:00:00Z"}"#, &sent()).unwrap()).unwrap();
        assert_eq!((event.get("id"), &event["traceid"], &event["traceparent"]), (None, &json!("t"), &json!("p")));
        assert_eq!(
            (&event["type"], &event["source"], &event["time"]),
            (&json!(DEFAULT_TYPE), &json!("Dapr"), &json!("2020-01-01T00:00:00Z"))
        );
    }

    #[test]
    fn what_is_no_object_cannot_be_a_cloudevent() {
        for body in [&b"{oops"[..], b"[1]", b"null", b"", &[255]] {
            assert!(adopt(body, &sent()).is_err());
        }
    }
}
