//! Events back to bytes: canonical, as published, as a CloudEvent.

use std::{borrow::Cow, ops::Range};

use bytes::Bytes;
use serde_json::{Value, json};

use super::{
    Event,
    catalog::{EventType, Version},
    complete::{self, Facts},
    excerpt,
    fields::{Fields, raw, written},
    plain, time,
    view::{self, Shape, View},
};

/// Room for what a CloudEvent says besides its data.
const AROUND: usize = 384;

/// What an event that names no source came from.
pub(super) const UNKNOWN_SOURCE: &str = "unknown";

/// What the canonical shape says besides the data.
pub(super) struct Canonical<'a> {
    pub(super) id: &'a str,
    pub(super) event_type: &'a str,
    pub(super) source: &'a str,
    pub(super) facts: Facts<'a>,
}

/// What rendering need not look for in the record again.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// Where the source stands in a value that is just what [`Event::to_published`] has to say; empty: it is not.
    source: Range<u32>,
    /// Event or CloudEvent may carry a trace context.
    traced: bool,
}

impl Seen {
    /// Nothing: all is looked for.
    pub(super) const NOTHING: Self = Self { source: 0..0, traced: true };

    /// Of a value that is an event of that type, in that version.
    pub(super) fn of(view: &View<'_>, value: Option<&[u8]>, kind: &EventType, version: Version) -> Self {
        let head = &view.head;
        let whole = head.event_id.text().is_some()
            && !head.event_version.is_missing()
            && !head.timestamp.is_missing()
            && view.own_user().is_some()
            && view.data().is_some()
            && !kind.is_past(version);
        // A CloudEvent around it, or a byte order mark, is no part of it.
        let alone = view.shape == Shape::Event && value.is_some_and(|value| value.len() == view.text.len());
        let source = head.source.text().filter(|_| whole && alone).and_then(|source| excerpt::place(source, view.text.as_bytes()));
        Self { source: source.unwrap_or(0..0), traced: view.either(|head| &head.traceparent).is_some() }
    }
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
        header.map(str::to_owned).or_else(|| if self.seen.traced { self.look(traceparent).flatten() } else { None })
    }

    /// The canonical shape (A) as JSON, at the catalogue's version, unknown fields kept.
    pub fn to_canonical(&self) -> Bytes {
        self.look(|view| self.canonical(view)).unwrap_or_else(|| self.bytes())
    }

    /// The shape that it was published in, a CloudEvent unwrapped, as JSON; required envelope fields that were missing are filled in, and
    /// data of an older version is the catalogue's. Bare data in a CloudEvent is told as [`Event::to_canonical`].
    pub fn to_published(&self) -> Bytes {
        if self.published_source().is_some() {
            return self.bytes();
        }
        self.look(|view| self.published(view)).unwrap_or_else(|| self.bytes())
    }

    /// Appends [`Event::to_published`].
    pub(crate) fn write_published(&self, out: &mut Vec<u8>) {
        if self.is_stored_as_published() {
            out.extend_from_slice(self.record.value().unwrap_or_default());
        } else {
            out.extend_from_slice(&self.to_published());
        }
    }

    /// Whether the stored value is JSON from its first byte to its last, and just what [`Event::to_published`] has to say.
    pub(crate) fn is_stored_as_published(&self) -> bool {
        self.published_source().is_some()
    }

    /// A CloudEvent as JSON: the stored bytes where they are one, else one around [`Event::to_published`].
    pub fn to_cloudevent(&self) -> Bytes {
        let mut out = Vec::with_capacity(self.record.value().map_or(0, <[u8]>::len) + AROUND);
        self.write_cloudevent(&mut out);
        out.into()
    }

    /// Appends [`Event::to_cloudevent`].
    pub(crate) fn write_cloudevent(&self, out: &mut Vec<u8>) {
        if let Some(source) = self.published_source() {
            return self.around(source, self.record.value().unwrap_or_default(), out);
        }
        let written = self.look(|view| match view.structured {
            true => out.extend_from_slice(&self.bytes()),
            false => self.around(view.source().unwrap_or(UNKNOWN_SOURCE), &self.published(view), out),
        });
        if written.is_none() {
            out.extend_from_slice(&self.bytes());
        }
    }

    /// Whether the stored value is itself a CloudEvent.
    pub fn is_cloudevent(&self) -> bool {
        self.look(|view| view.structured).unwrap_or_default()
    }

    /// Takes the record apart again. It was decoded once, so the `None` is never seen.
    fn look<R>(&self, then: impl FnOnce(&View<'_>) -> R) -> Option<R> {
        view::open(&self.record, |view| view.ok().map(then))
    }

    fn bytes(&self) -> Bytes {
        self.record.value_bytes().unwrap_or_default()
    }

    fn facts(&self) -> Facts<'_> {
        Facts { kind: Some(&self.kind), version: self.version, time: self.time, user_id: Some(self.user_id()) }
    }

    fn canonical(&self, view: &View<'_>) -> Bytes {
        let source = view.source().unwrap_or(UNKNOWN_SOURCE);
        canonical(view, &Canonical { id: self.id(), event_type: &self.kind.name, source, facts: self.facts() })
    }

    fn published(&self, view: &View<'_>) -> Bytes {
        let event = if view.shape == Shape::Event { serde_json::from_str::<Fields<'_>>(view.text).ok() } else { None };
        let Some(mut event) = event else { return self.canonical(view) };
        let past = self.kind.is_past(self.version);
        if view.head.event_id.text().is_none() {
            event.set_value("event_id", &json!(self.id()));
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
            event.set_value("user_id", &json!(self.user_id()));
        }
        if (past || view.data().is_none())
            && let Some(data) = complete::fields(view, self.facts())
        {
            let place = if view.head.data.is_none() && view.head.payload.is_some() { "payload" } else { "data" };
            event.set(place, Cow::Owned(data.to_raw()));
        }
        event.to_text().into()
    }

    /// Who published it, where the stored value is what was published.
    fn published_source(&self) -> Option<&str> {
        excerpt::part(self.record.value()?, &self.seen.source).filter(|source| !source.is_empty())
    }

    /// Appends a CloudEvent whose data is `inner`, which is JSON.
    fn around(&self, source: &str, inner: &[u8], out: &mut Vec<u8>) {
        out.reserve(inner.len() + AROUND);
        let mut put = |name: &str, text: &str| {
            out.extend_from_slice(name.as_bytes());
            plain::quote(text, out);
        };
        put("{\"specversion\":\"1.0\",\"id\":", self.id());
        put(",\"type\":", &self.kind.name);
        put(",\"source\":", source);
        put(",\"time\":", &time::format(self.time));
        if let Some(traceparent) = self.traceparent() {
            put(",\"traceparent\":", &traceparent);
        }
        // What was read as JSON already is not read once more to be written.
        out.extend_from_slice(b",\"datacontenttype\":\"application/json\",\"data\":");
        out.extend_from_slice(inner);
        out.push(b'}');
    }
}

/// Writes shape A.
pub(super) fn canonical(view: &View<'_>, event: &Canonical<'_>) -> Bytes {
    let facts = event.facts;
    let version = facts.kind.map_or(facts.version, |kind| shown_version(kind, facts.version));
    // Most events come as they are to be read: of those nothing is looked at twice.
    if view.outer.is_none()
        && view.head.is_canonical()
        && complete::is_complete(view, facts)
        && let Some(data) = view.data()
    {
        return in_order(event, version, data, view.metadata());
    }
    let mut out = Fields::default();
    out.set_value("event_id", &json!(event.id));
    out.set_value("event_type", &json!(event.event_type));
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

/// Shape A of these parts, of which data and metadata are JSON.
fn in_order(event: &Canonical<'_>, version: Version, data: &str, metadata: Option<&str>) -> Bytes {
    let mut out = Vec::with_capacity(data.len() + metadata.map_or(0, str::len) + AROUND);
    let mut put = |name: &str, text: &str| {
        out.extend_from_slice(name.as_bytes());
        plain::quote(text, &mut out);
    };
    put("{\"event_id\":", event.id);
    put(",\"event_type\":", event.event_type);
    put(",\"event_version\":", &version.to_string());
    put(",\"timestamp\":", &time::format(event.facts.time));
    put(",\"source\":", event.source);
    for (name, part) in [(",\"data\":", Some(data)), (",\"metadata\":", metadata)] {
        if let Some(part) = part {
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(part.as_bytes());
        }
    }
    out.push(b'}');
    out.into()
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
