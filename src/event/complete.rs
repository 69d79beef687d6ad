//! Data as a handler sees it: at the catalogue's version, with what stands elsewhere in the envelope in its place.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, value::RawValue};

use super::{
    catalog::{EventType, Version},
    envelope::Scalar,
    fields::{Fields, raw},
    plain::Plain,
    quick::Elsewhere,
    time,
    view::View,
};

/// What completing an event's data needs to know about the event.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'a> {
    pub(super) kind: Option<&'a EventType>,
    pub(super) version: Version,
    pub(super) time: DateTime<Utc>,
    pub(super) user_id: Option<&'a str>,
}

/// The data as a tree. Data that is no object stays what it is: the schema names it.
pub(super) fn value(view: &View<'_>, facts: Facts<'_>) -> Value {
    if facts.kind.is_some_and(|kind| kind.is_past(facts.version)) {
        let upcast = fields(view, facts).map(|fields| fields.to_raw());
        return upcast.as_ref().map(|raw| raw.get()).or_else(|| view.data()).map_or(Value::Null, parsed);
    }
    let mut object = match view.data().map(parsed) {
        None => Map::new(),
        Some(Value::Object(object)) => object,
        Some(other) => return other,
    };
    for (name, value) in lifted(view, facts, |name| object.get(name).is_none_or(Value::is_null)) {
        object.insert(name.to_owned(), parsed(value.get()));
    }
    for name in filled(facts) {
        if !object.contains_key(name) {
            object.insert(name.to_owned(), Value::String(time::format(facts.time)));
        }
    }
    Value::Object(object)
}

/// Whether what [`value`] would make is valid beyond doubt, found without making it; `false` says nothing.
pub(super) fn surely_valid(view: &View<'_>, facts: Facts<'_>) -> bool {
    let Some(kind) = facts.kind.filter(|kind| !kind.is_past(facts.version)) else { return false };
    let members = match view.written_data() {
        None => &[][..],
        Some(data) => match &data.members {
            Some(members) => members,
            None => return false,
        },
    };
    kind.schema.surely_takes(members, |name, null| match (name, &view.head.task_id) {
        ("user_id", _) => facts.user_id.map_or(Elsewhere::Absent, Elsewhere::Text),
        ("task_id", Scalar::Absent | Scalar::Null) => Elsewhere::Absent,
        ("task_id", Scalar::Text(text)) => Elsewhere::Text(text),
        ("task_id", Scalar::Integer(_)) => Elsewhere::Integer,
        _ if kind.lift.iter().any(|lifted| lifted == name) => Elsewhere::Unknown,
        _ if !null && kind.fill.iter().any(|filled| filled == name) => Elsewhere::Time,
        _ => Elsewhere::Absent,
    })
}

/// Whether the data is for sure what [`fields`] would make of it, where the top has nothing that counts as data.
pub(super) fn is_complete(view: &View<'_>, facts: Facts<'_>) -> bool {
    if facts.kind.is_none_or(|kind| kind.is_past(facts.version)) {
        return false;
    }
    let members = view.written_data().and_then(|data| data.members.as_ref());
    let (Some(members), Some(user)) = (members, facts.user_id) else { return false };
    let last = |name: &str| members.iter().rfind(|(found, _)| *found == name).map(|(_, value)| *value);
    last("user_id") == Some(Plain::Text(user)) && filled(facts).all(|name| last(name).is_some())
}

/// The data as text fields; `None` where it is no object.
pub(super) fn fields<'a>(view: &View<'a>, facts: Facts<'_>) -> Option<Fields<'a>> {
    let mut fields = match view.data() {
        None => Fields::default(),
        Some(text) => Fields::of(text)?,
    };
    for (name, value) in lifted(view, facts, |name| fields.get(name).is_none_or(|value| value.get() == "null")) {
        fields.set(name, Cow::Owned(value));
    }
    for step in facts.kind.into_iter().flat_map(|kind| kind.upcast_from(facts.version).filter(|_| facts.version < kind.version)) {
        step.apply(&mut fields);
    }
    for name in filled(facts) {
        if !fields.has(name) {
            fields.set_value(name, &Value::String(time::format(facts.time)));
        }
    }
    Some(fields)
}

/// What counts as data and stands elsewhere: the user wherever it was found, the task and what the type's file lifts from the top.
fn lifted<'f>(view: &View<'_>, facts: Facts<'f>, is_missing: impl Fn(&str) -> bool) -> Vec<(&'f str, Box<RawValue>)> {
    const ALWAYS: [&str; 2] = ["task_id", "user_id"];
    let more = facts.kind.map(|kind| kind.lift.iter().map(String::as_str).filter(|name| !ALWAYS.contains(name)));
    let mut found = Vec::new();
    for name in ALWAYS.into_iter().chain(more.into_iter().flatten()) {
        if !is_missing(name) {
            continue;
        }
        let value = match (name, &view.head.task_id) {
            ("user_id", _) => facts.user_id.map(|user| raw(&user.into())),
            ("task_id", Scalar::Absent | Scalar::Null) => None,
            ("task_id", Scalar::Text(text)) => Some(raw(&text.as_ref().into())),
            _ => at_the_top(view, name),
        };
        if let Some(value) = value {
            found.push((name, value));
        }
    }
    found
}

fn at_the_top(view: &View<'_>, name: &str) -> Option<Box<RawValue>> {
    // Of a CloudEvent with bare data, the data's own fields are read as data already.
    let top: Fields<'_> = serde_json::from_str(view.text).ok()?;
    top.get(name).filter(|value| value.get() != "null").map(ToOwned::to_owned)
}

fn filled<'f>(facts: Facts<'f>) -> impl Iterator<Item = &'f str> {
    facts.kind.into_iter().flat_map(|kind| kind.fill.iter().map(String::as_str))
}

/// What the envelope's reader has been through can be parsed: the null is never seen.
fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_default()
}
