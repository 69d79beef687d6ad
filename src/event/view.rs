//! A value in any of the six shapes, looked at: which parts of it are envelope, which are data.
//!
//! An [`Event`](super::Event) keeps only what the engine needs to order and route it; whatever else a handler asks for is read from the
//! record again through the same eyes.

use std::borrow::Cow;

use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::{DateTime, Utc};
use serde_json::value::RawValue;

use super::{
    envelope::{Head, Leaf, Scalar, Written, is_json},
    plain,
    record::RawRecord,
    time,
};

/// What the value turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// An event with its envelope (A, B, C, F), alone or inside a CloudEvent.
    Event,
    /// Bare data; the CloudEvent around it, or the headers beside it, are the envelope.
    Data,
}

/// A value taken apart. Borrows from it.
#[derive(Debug)]
pub(super) struct View<'a> {
    pub(super) shape: Shape,
    /// Whether the stored value is itself a structured CloudEvent.
    pub(super) structured: bool,
    /// Attributes of the CloudEvent, structured or binary.
    pub(super) outer: Option<Box<Head<'a>>>,
    /// The event's own envelope; empty but for `data` where the data is bare.
    pub(super) head: Head<'a>,
    /// The text that `head` was read from.
    pub(super) text: &'a str,
    data: Leaf<'a>,
    metadata: Leaf<'a>,
}

/// Takes a record's value apart and hands it over; the error says why it is no event, without the payload.
pub(super) fn open<R>(record: &dyn RawRecord, then: impl FnOnce(Result<&View<'_>, String>) -> R) -> R {
    match text_of(record.value()) {
        Ok(text) => open_text(text, attributes(record), then),
        Err(error) => then(Err(error)),
    }
}

/// As [`open`], from a text and the attributes of a binary CloudEvent beside it.
pub(super) fn open_text<'a, R>(text: &'a str, binary: Option<Head<'a>>, then: impl FnOnce(Result<&View<'_>, String>) -> R) -> R {
    // Views and heads are half a kilobyte and more: they are filled in place and shown, not handed on.
    let mut view = View::of(text, false);
    if let Err(error) = read_head(text, &mut view.head) {
        return then(Err(error));
    }
    if !view.head.is_cloudevent() {
        return match binary {
            Some(outer) => view.show_in(Box::new(outer), then),
            None => view.show(then),
        };
    }
    let outer = Box::new(std::mem::take(&mut view.head));
    match inner_text(&outer) {
        Some(Inner::Raw(inner)) => open_inner(inner, outer, then),
        // The text is the caller's only for as long as the hand-over lasts: hence the closure.
        Some(Inner::Text(inner)) => open_inner(&inner, outer, then),
        None => {
            (view.shape, view.structured, view.outer) = (Shape::Data, true, Some(outer));
            view.show(then)
        }
    }
}

fn open_inner<'a, R>(text: &'a str, outer: Box<Head<'a>>, then: impl FnOnce(Result<&View<'_>, String>) -> R) -> R {
    let mut view = View::of(text, true);
    if view.head.read(text).is_err() {
        // A list, a number, a string: it stays as it is, and the schema says what was wanted. What cannot be read at all is found below.
        view.head = Head::default();
    }
    view.show_in(outer, then)
}

impl<'a> View<'a> {
    /// Of a text of which nothing is known yet.
    fn of(text: &'a str, structured: bool) -> Self {
        Self { shape: Shape::Event, structured, outer: None, head: Head::default(), text, data: Leaf::default(), metadata: Leaf::default() }
    }

    /// Shows it with a CloudEvent around it: the inner event where there is one, else bare data.
    fn show_in<R>(&mut self, outer: Box<Head<'a>>, then: impl FnOnce(Result<&View<'_>, String>) -> R) -> R {
        self.outer = Some(outer);
        if self.head.event_type.text().is_none() {
            let data = match serde_json::from_str::<&RawValue>(self.text) {
                Ok(data) => data.get(),
                Err(error) => return then(Err(told(&error))),
            };
            let written = plain::Reader::of(data).written().unwrap_or((data, None));
            self.head = Head { data: Written::unless_null(written), ..Head::default() };
            self.shape = Shape::Data;
        }
        self.show(then)
    }

    fn show<R>(&mut self, then: impl FnOnce(Result<&View<'_>, String>) -> R) -> R {
        match self.look_into() {
            Ok(()) => then(Ok(self)),
            Err(error) => then(Err(told(&error))),
        }
    }

    /// Reads what matters of data and metadata, and makes sure of the rest.
    fn look_into(&mut self) -> serde_json::Result<()> {
        let outer = self.outer.iter().flat_map(|outer| [&outer.payload, &outer.metadata]);
        // Where there is `data`, nobody reads the `payload` beside it.
        let (data, unread) = match &self.head.data {
            Some(data) => (Some(data), &self.head.payload),
            None => (self.head.payload.as_ref(), &None),
        };
        for unread in outer.chain([unread]).flatten() {
            unread.check()?;
        }
        data.map_or(Ok(()), |data| self.data.read(data))?;
        self.head.metadata.as_ref().map_or(Ok(()), |metadata| self.metadata.read(metadata))
    }

    /// The type as it was sent.
    pub(super) fn event_type(&self) -> Option<&str> {
        self.head.event_type.text().or_else(|| self.either(|head| &head.kind))
    }

    /// The id as it was sent: the event's, else the CloudEvent's.
    pub(super) fn event_id(&self) -> Option<Cow<'_, str>> {
        let outer = || self.outer.as_ref().and_then(|outer| outer.event_id.name().or_else(|| outer.id.name()));
        self.head.event_id.name().or_else(outer)
    }

    /// Whose event it is: the first of the top, the data, the metadata, the CloudEvent around it.
    pub(super) fn user(&self) -> Option<&str> {
        self.own_user().or_else(|| self.outer.as_ref().and_then(|outer| outer.user_id.text().or_else(|| outer.userid.text())))
    }

    /// As [`View::user`], without the CloudEvent around it.
    pub(super) fn own_user(&self) -> Option<&str> {
        [&self.head.user_id, &self.data.user_id, &self.metadata.user_id].into_iter().find_map(Scalar::text)
    }

    /// Which task: an integer or a string, of the top or the data.
    pub(super) fn task(&self) -> Option<Cow<'_, str>> {
        self.head.task_id.name().or_else(|| self.data.task_id.name())
    }

    /// The timestamp as sent, where one was: parsed, or not to be parsed.
    pub(super) fn time(&self) -> Option<Result<DateTime<Utc>, ()>> {
        let sent = [Some(&self.head.timestamp), self.outer.as_ref().map(|outer| &outer.time)];
        let sent = sent.into_iter().flatten().find(|sent| !sent.is_missing())?;
        Some(sent.text().and_then(time::parse).ok_or(()))
    }

    /// When it is no longer worth handling. A malformed time is none.
    pub(super) fn expires(&self) -> Option<DateTime<Utc>> {
        self.outer.as_deref().into_iter().chain([&self.head]).find_map(|head| head.expires.text().and_then(time::parse))
    }

    /// Who published it.
    pub(super) fn source(&self) -> Option<&str> {
        self.either(|head| &head.source)
    }

    /// An attribute of the event, else of the CloudEvent around it.
    pub(super) fn either<'s>(&'s self, pick: impl Fn(&'s Head<'a>) -> &'s Scalar<'a>) -> Option<&'s str> {
        pick(&self.head).text().or_else(|| self.outer.as_ref().and_then(|outer| pick(outer).text()))
    }

    /// The event's data as it was sent, as JSON: `data`, else `payload`.
    pub(super) fn data(&self) -> Option<&'a str> {
        self.written_data().map(|written| written.text)
    }

    /// As [`View::data`].
    pub(super) fn written_data(&self) -> Option<&Written<'a>> {
        self.head.data.as_ref().or(self.head.payload.as_ref())
    }

    /// The event's metadata as it was sent, as JSON.
    pub(super) fn metadata(&self) -> Option<&'a str> {
        self.head.metadata.as_ref().map(|written| written.text)
    }
}

enum Inner<'a> {
    Raw(&'a str),
    Text(String),
}

/// What a CloudEvent carries. JSON inside a string is what a sidecar makes of a body without content type.
fn inner_text<'a>(outer: &Head<'a>) -> Option<Inner<'a>> {
    if let Some(raw) = outer.data.as_ref().map(|written| written.text) {
        let object = |text: &String| text.trim_start().starts_with('{') && is_json(text);
        let unquoted = || serde_json::from_str::<String>(raw).ok().filter(object);
        return Some(if raw.starts_with('"') { unquoted().map_or(Inner::Raw(raw), Inner::Text) } else { Inner::Raw(raw) });
    }
    let bytes = BASE64_STANDARD.decode(outer.data_base64.text()?).ok()?;
    String::from_utf8(bytes).ok().filter(|text| is_json(text)).map(Inner::Text)
}

/// The value as text, without a byte order mark.
fn text_of(value: Option<&[u8]>) -> Result<&str, String> {
    let value = value.ok_or("no value (a tombstone)")?;
    let value = value.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(value);
    if value.is_empty() {
        return Err("an empty value".to_owned());
    }
    std::str::from_utf8(value).map_err(|error| format!("not UTF-8 at byte {}", error.valid_up_to()))
}

fn read_head<'a>(text: &'a str, head: &mut Head<'a>) -> Result<(), String> {
    match text.trim_ascii_start().as_bytes().first() {
        Some(b'{') => head.read(text).map_err(|error| told(&error)),
        Some(b'[') => Err("an array: one record is one event".to_owned()),
        _ if is_json(text) => Err("a JSON value that is no object".to_owned()),
        _ => Err("not JSON".to_owned()),
    }
}

/// Where and how reading failed. The parser's messages name positions and expectations, never content.
fn told(error: &serde_json::Error) -> String {
    let category = match error.classify() {
        serde_json::error::Category::Eof => "JSON that ends too early",
        _ if error.to_string().starts_with("recursion limit") => "JSON nested deeper than 127 levels",
        _ if error.to_string().starts_with("number out of range") => "a number beyond what a double holds",
        _ => "not JSON",
    };
    format!("{category}, line {} column {}", error.line(), error.column())
}

/// The attributes of a binary CloudEvent: `ce_*` headers, where `ce_type` is among them and the value is not said to be a structured one.
fn attributes(record: &dyn RawRecord) -> Option<Head<'static>> {
    // Nearly no record has any of these.
    let mut found: Option<Head<'static>> = None;
    let mut structured = false;
    record.headers(&mut |name, value| {
        // Most headers are none of these: no copy for them.
        if !name.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("ce") || start.eq_ignore_ascii_case("co")) {
            return;
        }
        let Some(value) = value.and_then(|value| std::str::from_utf8(value).ok()) else { return };
        let lower = name.to_ascii_lowercase();
        if lower == "content-type" {
            structured = value.to_ascii_lowercase().starts_with("application/cloudevents");
        }
        let Some(attribute) = lower.strip_prefix("ce_").or_else(|| lower.strip_prefix("ce-")) else { return };
        // Headers may have an underscore, extension names may not.
        let attribute = if attribute == "user_id" { "userid" } else { attribute };
        if let Some(place) = found.get_or_insert_default().attribute(attribute) {
            *place = Scalar::owned(value.to_owned());
        }
    });
    found.filter(|head| head.kind.text().is_some() && !structured)
}
