//! Events back to bytes: canonical, as published, as a CloudEvent.

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::{Value, json, value::RawValue};

use super::{
    Event,
    catalog::{EventType, Version},
    complete::{self, Facts},
    fields::{Fields, raw, written},
    time,
    view::{self, Shape, View},
};

/// What an event that names no source came from.
pub(super) const UNKNOWN_SOURCE: &str = "unknown";

/// What the canonical shape says besides the data.
pub(super) struct Canonical<'a> {
    pub(super) id: &'a str,
    pub(super) event_type: &'a str,
    pub(super) source: &'a str,
    pub(super) facts: Facts<'a>,
}

impl Event {
    /// The data at the catalogue's version, with task_id, user_id and times filled in where they stand elsewhere. An object, unless the
    /// producer sent something else and validation is off.
    pub fn data(&self) -> Value {
        self.look(|view| complete::value(view, self.facts())).unwrap_or_default()
    }

    /// Who published it; `unknown` where it does not say.
    pub fn source(&self) -> String {
        self.look(|view| view.source().map(str::to_owned)).flatten().unwrap_or_else(|| UNKNOWN_SOURCE.to_owned())
    }

    /// Which task, integer or UUID, as text.
    pub fn task_id(&self) -> Option<String> {
        self.look(|view| view.task().map(Cow::into_owned)).flatten()
    }

    /// `metadata.correlation_id`, or the CloudEvents extension `correlationid`.
    pub fn correlation_id(&self) -> Option<String> {
        self.look(|view| of_metadata(view, "correlation_id").or_else(|| view.either(|head| &head.correlationid).map(str::to_owned)))
            .flatten()
    }

    /// `metadata.causation_id`, or the CloudEvents extension `causationid`: the id of the event that caused this one.
    pub fn causation_id(&self) -> Option<String> {
        self.look(|view| of_metadata(view, "causation_id").or_else(|| view.either(|head| &head.causationid).map(str::to_owned))).flatten()
    }

    /// The metadata as it was sent; null where there is none.
    pub fn metadata(&self) -> Value {
        self.look(|view| view.metadata().and_then(|text| serde_json::from_str(text).ok())).flatten().unwrap_or_default()
    }

    /// W3C trace context: the record's header, else the envelope's attribute. Empty and malformed ones are none.
    pub fn traceparent(&self) -> Option<String> {
        let header =
            self.record.header("traceparent").and_then(|value| std::str::from_utf8(value).ok()).filter(|text| is_traceparent(text));
        header.map(str::to_owned).or_else(|| self.look(traceparent).flatten())
    }

    /// The canonical shape (A) as JSON, at the catalogue's version, unknown fields kept.
    pub fn to_canonical(&self) -> Bytes {
        self.look(|view| self.canonical(view)).unwrap_or_else(|| self.bytes())
    }

    /// The shape that it was published in, a CloudEvent unwrapped, as JSON; required envelope fields that were missing are filled in, and
    /// data of an older version is the catalogue's. Bare data in a CloudEvent is told as [`Event::to_canonical`].
    pub fn to_published(&self) -> Bytes {
        self.look(|view| self.published(view)).unwrap_or_else(|| self.bytes())
    }

    /// A CloudEvent as JSON: the stored bytes where they are one, else one around [`Event::to_published`].
    pub fn to_cloudevent(&self) -> Bytes {
        self.look(|view| if view.structured { self.bytes() } else { self.around(view) }).unwrap_or_else(|| self.bytes())
    }

    /// Whether the stored value is itself a CloudEvent.
    pub fn is_cloudevent(&self) -> bool {
        self.look(|view| view.structured).unwrap_or_default()
    }

    /// Takes the record apart again. It was decoded once, so the `None` is never seen.
    fn look<R>(&self, then: impl FnOnce(&View<'_>) -> R) -> Option<R> {
        view::open(&self.record, |view| view.ok().map(|view| then(&view)))
    }

    fn bytes(&self) -> Bytes {
        self.record.value_bytes().unwrap_or_default()
    }

    fn facts(&self) -> Facts<'_> {
        Facts { kind: Some(&self.kind), version: self.version, time: self.time, user_id: Some(&self.user_id) }
    }

    fn canonical(&self, view: &View<'_>) -> Bytes {
        let source = view.source().unwrap_or(UNKNOWN_SOURCE);
        canonical(view, &Canonical { id: &self.id, event_type: &self.kind.name, source, facts: self.facts() })
    }

    fn published(&self, view: &View<'_>) -> Bytes {
        let event = if view.shape == Shape::Event { serde_json::from_str::<Fields<'_>>(view.text).ok() } else { None };
        let Some(mut event) = event else { return self.canonical(view) };
        let past = self.kind.is_past(self.version);
        if view.head.event_id.text().is_none() {
            event.set_value("event_id", &json!(self.id));
        }
        if view.head.event_version.is_missing() || past {
            event.set_value("event_version", &json!(shown_version(&self.kind, self.version).to_string()));
        }
        if view.head.timestamp.is_missing() {
            event.set_value("timestamp", &json!(time::format(self.time)));
        }
        if view.head.source.text().is_none() {
            event.set_value("source", &json!(view.source().unwrap_or(UNKNOWN_SOURCE)));
        }
        if view.own_user().is_none() {
            event.set_value("user_id", &json!(self.user_id));
        }
        if (past || view.data().is_none())
            && let Some(data) = complete::fields(view, self.facts())
        {
            let place = if view.head.data.is_none() && view.head.payload.is_some() { "payload" } else { "data" };
            event.set(place, Cow::Owned(data.to_raw()));
        }
        event.to_text().into()
    }

    fn around(&self, view: &View<'_>) -> Bytes {
        let mut event = Fields::default();
        event.set_value("specversion", &json!("1.0"));
        event.set_value("id", &json!(self.id));
        event.set_value("type", &json!(&*self.kind.name));
        event.set_value("source", &json!(view.source().unwrap_or(UNKNOWN_SOURCE)));
        event.set_value("time", &json!(time::format(self.time)));
        event.set_value("datacontenttype", &json!("application/json"));
        if let Some(traceparent) = self.traceparent() {
            event.set_value("traceparent", &json!(traceparent));
        }
        let inner = self.published(view);
        let inner = String::from_utf8(inner.into()).ok().and_then(|text| RawValue::from_string(text).ok());
        event.set("data", Cow::Owned(inner.unwrap_or_default()));
        event.to_text().into()
    }
}

/// Writes shape A.
pub(super) fn canonical(view: &View<'_>, event: &Canonical<'_>) -> Bytes {
    let facts = event.facts;
    let mut out = Fields::default();
    out.set_value("event_id", &json!(event.id));
    out.set_value("event_type", &json!(event.event_type));
    let version = facts.kind.map_or(facts.version, |kind| shown_version(kind, facts.version));
    out.set_value("event_version", &json!(version.to_string()));
    out.set_value("timestamp", &json!(time::format(facts.time)));
    out.set_value("source", &json!(event.source));
    let data = complete::fields(view, facts);
    let same = |name: &str, value: &str| data.as_ref().and_then(|data| data.get(name)).is_some_and(|found| found.get() == value);
    let sent_data = || view.data().map(|text| written(text).to_owned()).unwrap_or_default();
    out.set("data", Cow::Owned(data.as_ref().map_or_else(sent_data, Fields::to_raw)));
    metadata(view, &mut out);
    if view.shape == Shape::Event
        && let Ok(mut sent) = serde_json::from_str::<Fields<'_>>(view.text)
    {
        // Else the user that does not count would stand at the top, where it counts.
        sent.dedup();
        // What became data is not repeated; everything that means nothing here is passed on.
        let lifted = |name: &str| {
            ["task_id", "user_id"].contains(&name) || facts.kind.is_some_and(|kind| kind.lift.iter().any(|lifted| lifted == name))
        };
        let used = |name: &str, value: &str| match name {
            "event_id" | "event_type" | "event_version" | "timestamp" | "source" | "data" | "metadata" => true,
            "payload" => view.head.data.is_none(),
            name => lifted(name) && same(name, value),
        };
        for (name, value) in sent.iter().filter(|(name, value)| !used(name, value.get())) {
            out.push(name, Cow::Owned(value.to_owned()));
        }
    }
    // Data may name another user than the event's own, which stood at the top and goes on standing there.
    if let Some(user) = facts.user_id
        && !same("user_id", raw(&user.into()).get())
    {
        out.set_value("user_id", &json!(user));
    }
    out.to_text().into()
}

/// The metadata as sent, or what a CloudEvent says of it.
fn metadata(view: &View<'_>, out: &mut Fields<'_>) {
    if let Some(sent) = view.metadata() {
        return out.set("metadata", Cow::Owned(written(sent).to_owned()));
    }
    let mut made = serde_json::Map::new();
    for (name, value) in
        [("correlation_id", view.either(|head| &head.correlationid)), ("causation_id", view.either(|head| &head.causationid))]
    {
        if let Some(value) = value {
            made.insert(name.to_owned(), json!(value));
        }
    }
    if !made.is_empty() {
        out.set("metadata", Cow::Owned(raw(&Value::Object(made))));
    }
}

/// The version that the rendered data has: the catalogue's, or a newer one as it was sent.
fn shown_version(kind: &EventType, sent: Version) -> Version {
    sent.max(kind.version)
}

fn of_metadata(view: &View<'_>, name: &str) -> Option<String> {
    let metadata = Fields::of(view.metadata()?)?;
    serde_json::from_str::<String>(metadata.get(name)?.get()).ok().filter(|text| !text.is_empty())
}

/// The trace context of the event, else of the CloudEvent around it.
pub(super) fn traceparent(view: &View<'_>) -> Option<String> {
    view.either(|head| &head.traceparent).filter(|text| is_traceparent(text)).map(str::to_owned)
}

/// Whether this is `00-<32 hex>-<16 hex>-<2 hex>`, neither id all zeros, as W3C Trace Context says; later versions may go on after a dash.
pub fn is_traceparent(text: &str) -> bool {
    let mut parts = text.splitn(5, '-');
    let mut hex = |len: usize| {
        parts.next().filter(|part| part.len() == len && part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)))
    };
    let (Some(version), Some(trace), Some(span), Some(_)) = (hex(2), hex(32), hex(16), hex(2)) else { return false };
    let more = parts.next().is_some();
    version != "ff" && !(version == "00" && more) && trace.bytes().any(|byte| byte != b'0') && span.bytes().any(|byte| byte != b'0')
}
