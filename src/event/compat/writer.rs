//! What a writer may send, read from several schemas that all hold.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

const TYPES: [&str; 6] = ["null", "boolean", "number", "string", "array", "object"];
/// Ways through nested `anyOf` that are followed; beyond it the schema counts as not compared.
const MOST_WAYS: usize = 256;

/// A schema that all of these hold in.
pub(super) type All<'a> = Vec<&'a Value>;

/// The writer's alternatives, each without `anyOf`; `None`: too many.
pub(super) fn ways<'a>(writer: &All<'a>) -> Option<Vec<All<'a>>> {
    let mut done: Vec<All<'a>> = Vec::new();
    let mut open: Vec<(All<'a>, All<'a>)> = vec![(Vec::new(), writer.clone())];
    while let Some((mut seen, mut rest)) = open.pop() {
        let Some(schema) = rest.pop() else {
            done.push(seen);
            if done.len() + open.len() > MOST_WAYS {
                return None;
            }
            continue;
        };
        seen.push(schema);
        match schema.get("anyOf").and_then(Value::as_array) {
            None => open.push((seen, rest)),
            Some(branches) => {
                for branch in branches {
                    open.push((seen.clone(), rest.iter().copied().chain([branch]).collect()));
                }
            }
        }
        if open.len() > MOST_WAYS {
            return None;
        }
    }
    Some(done)
}

pub(super) fn each<'a>(writer: &All<'a>, keyword: &str) -> impl Iterator<Item = &'a Value> {
    writer.iter().filter_map(move |schema| schema.get(keyword))
}

/// Whether nothing at all can be sent, as far as it is easily seen.
pub(super) fn is_empty(writer: &All<'_>) -> bool {
    writer.iter().any(|schema| **schema == Value::Bool(false)) || values(writer).is_none() && types(writer).is_empty()
}

pub(super) fn types(writer: &All<'_>) -> BTreeSet<String> {
    let mut left: BTreeSet<String> = TYPES.iter().map(|kind| (*kind).to_owned()).collect();
    for schema in writer {
        let wanted = schema.as_object().map_or_else(|| types_of(&Map::new()), types_of);
        let narrower = |kind: &String| match kind.as_str() {
            _ if wanted.contains(kind) => Some(kind.clone()),
            "number" if wanted.contains("integer") => Some("integer".to_owned()),
            "integer" if wanted.contains("number") => Some("integer".to_owned()),
            _ => None,
        };
        left = left.iter().filter_map(narrower).collect();
    }
    left
}

pub(super) fn types_of(schema: &Map<String, Value>) -> BTreeSet<String> {
    match schema.get("type") {
        Some(Value::String(kind)) => BTreeSet::from([kind.clone()]),
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => TYPES.iter().map(|kind| (*kind).to_owned()).collect(),
    }
}

/// The only values that may be sent, where they are listed.
pub(super) fn values(writer: &All<'_>) -> Option<Vec<Value>> {
    let listed = |schema: &&Value| {
        let one = schema.get("const").map(|value| vec![value.clone()]);
        one.or_else(|| schema.get("enum").and_then(Value::as_array).cloned())
    };
    writer.iter().find_map(listed)
}

/// What a field of that name may hold; `None`: nobody writes it.
pub(super) fn field<'a>(writer: &All<'a>, name: &str, required: bool) -> Option<All<'a>> {
    let own = |schema: &&'a Value| schema.get("properties").and_then(|fields| fields.get(name));
    if !required && !writer.iter().any(|schema| own(schema).is_some()) {
        return undeclared(writer);
    }
    Some(writer.iter().filter_map(|schema| own(schema).or_else(|| schema.get("additionalProperties"))).collect())
}

/// What fields may hold that no schema of the writer's declares; `None`: there are none.
pub(super) fn undeclared<'a>(writer: &All<'a>) -> Option<All<'a>> {
    let rules: All<'a> = each(writer, "additionalProperties").collect();
    let free = writer.iter().all(|schema| schema.get("properties").is_none());
    let said = rules.iter().any(|rule| rule.is_object());
    (free || said).then_some(rules).filter(|rules| !is_empty(rules))
}
