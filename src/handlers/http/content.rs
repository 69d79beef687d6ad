//! What an app reads of an event: the body, and what that is.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{json, value::RawValue};

use super::{answer::Table, routes::Route};
use crate::{config::handlers::HttpBody, event::Event};

const CLOUDEVENT: &str = "application/cloudevents+json";
const JSON: &str = "application/json";
const OPAQUE: &str = "application/octet-stream";

/// How events are shown to an app.
#[derive(Debug, Clone, Copy)]
pub(super) struct Content {
    pub(super) body: HttpBody,
    pub(super) table: Table,
}

impl Content {
    /// Appends the body of an event that is sent alone; answers its type.
    pub(super) fn write(self, event: &Event, route: Option<&Route>, out: &mut Vec<u8>) -> &'static str {
        if let Some(route) = route.filter(|route| route.raw) {
            around_bytes(event, &route.pubsub, out);
            return CLOUDEVENT;
        }
        match (self.body, self.table) {
            (HttpBody::Event, Table::Forgiving) => {
                event.write_published(out);
                JSON
            }
            // Dapr passes the stored bytes on; a tombstone reads `null`.
            (_, Table::Dapr) => {
                out.extend_from_slice(event.record().value().unwrap_or(b"null"));
                CLOUDEVENT
            }
            (HttpBody::Cloudevent, Table::Forgiving) => {
                event.write_cloudevent(out);
                CLOUDEVENT
            }
        }
    }

    /// Appends the same as a JSON value in a batch: what is opaque, and what is no JSON after all, as base64, as Dapr does it.
    pub(super) fn write_entry(self, event: &Event, route: &Route, out: &mut Vec<u8>) -> &'static str {
        if route.raw {
            write_base64(event.record().value().unwrap_or_default(), out);
            return OPAQUE;
        }
        let start = out.len();
        let content_type = self.write(event, Some(route), out);
        let surely_json = self.table == Table::Forgiving && event.is_stored_as_published();
        if !surely_json && serde_json::from_slice::<&RawValue>(&out[start..]).is_err() {
            let bytes = out.split_off(start);
            write_base64(&bytes, out);
        }
        content_type
    }
}

fn write_base64(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    out.extend_from_slice(BASE64_STANDARD.encode(bytes).as_bytes());
    out.push(b'"');
}

/// A CloudEvent around opaque bytes. Its id is the event's, the same for every run, where Dapr invents one for each.
fn around_bytes(event: &Event, pubsub: &str, out: &mut Vec<u8>) {
    let record = event.record();
    let header = |name: &str| record.header(name).and_then(|value| std::str::from_utf8(value).ok()).unwrap_or_default();
    let trace = event.traceparent().unwrap_or_default();
    let around = json!({
        "specversion": "1.0", "id": event.id(), "source": "Dapr", "type": "com.dapr.event.sent",
        "topic": &**record.topic(), "pubsubname": pubsub, "datacontenttype": "application/octet-stream",
        "traceid": trace, "traceparent": trace, "tracestate": header("tracestate"),
        "data_base64": BASE64_STANDARD.encode(record.value().unwrap_or_default()),
    });
    out.extend_from_slice(around.to_string().as_bytes());
}
