//! A schema of old data after the steps that bring old data to a newer version.

use serde_json::{Map, Value, json};

use crate::event::upcast::Step;

/// What data of that schema may be after these steps.
pub(super) fn steps(schema: &Value, steps: &[&Step]) -> Value {
    let mut schema = schema.clone();
    for step in steps {
        match step {
            Step::Add { field, value } => add(&mut schema, field, value),
            Step::Move { from, to } => relocate(&mut schema, from, to),
            Step::Remove { field } => drop(take(&mut schema, field)),
            Step::Call { name, run, field } => call(&mut schema, field, name, *run),
        }
    }
    schema
}

/// A field that a step leaves alone where it is there, and whether it always is.
struct Found {
    schema: Value,
    always: bool,
}

fn add(schema: &mut Value, path: &str, value: &Value) {
    match look(schema, path) {
        Some(found) if found.always => {}
        found => {
            let filled = json!({ "enum": [value] });
            let either = found.map_or(filled.clone(), |found| json!({ "anyOf": [found.schema, filled] }));
            put(schema, path, Found { schema: either, always: true });
        }
    }
}

fn relocate(schema: &mut Value, from: &str, to: &str) {
    match look(schema, to) {
        Some(there) if there.always => {}
        None => {
            if let Some(taken) = take(schema, from) {
                put(schema, to, taken);
            }
        }
        Some(there) => {
            // Either may be there: what was in the new place wins, what was in the old one may stay.
            if let Some(taken) = take(schema, from) {
                let schema_from = taken.schema.clone();
                put(schema, from, Found { schema: schema_from, always: false });
                put(schema, to, Found { schema: json!({ "anyOf": [there.schema, taken.schema] }), always: taken.always });
            }
        }
    }
}

fn call(schema: &mut Value, path: &str, name: &str, run: fn(Value) -> Value) {
    let Some(found) = look(schema, path) else { return };
    let listed = found.schema.get("enum").and_then(Value::as_array);
    let after = match (listed, name) {
        (Some(values), _) => json!({ "enum": values.iter().cloned().map(run).collect::<Vec<_>>() }),
        (None, "integer") => json!({ "anyOf": [found.schema, { "type": "integer" }] }),
        (None, "text") => json!({ "anyOf": [found.schema, { "type": "string" }] }),
        // A program's own function may make anything of it; even another case may be another length.
        _ => Value::Bool(true),
    };
    put(schema, path, Found { schema: after, always: found.always });
}

fn look(schema: &Value, path: &str) -> Option<Found> {
    let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
    let inner = schema.get("properties")?.get(first)?;
    let always = is_required(schema, first);
    match rest {
        None => Some(Found { schema: inner.clone(), always }),
        Some(rest) => look(inner, rest).map(|found| Found { always: found.always && always, ..found }),
    }
}

fn take(schema: &mut Value, path: &str) -> Option<Found> {
    let found = look(schema, path)?;
    let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
    match rest {
        Some(rest) => drop(take(schema.get_mut("properties")?.get_mut(first)?, rest)),
        None => {
            schema.get_mut("properties")?.as_object_mut()?.shift_remove(first);
            if let Some(required) = schema.get_mut("required").and_then(Value::as_array_mut) {
                required.retain(|name| name != first);
            }
        }
    }
    Some(found)
}

fn put(schema: &mut Value, path: &str, mut found: Found) {
    let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
    let Some(keywords) = schema.as_object_mut() else { return };
    let properties = keywords.entry("properties").or_insert_with(|| Value::Object(Map::new()));
    let Some(fields) = properties.as_object_mut() else { return };
    // Into what may be null, say, nothing is put.
    found.always &= rest.is_none() || fields.get(first).is_none_or(|inner| inner.get("type").is_some_and(|kind| kind == "object"));
    let always = found.always;
    match rest {
        None => drop(fields.insert(first.to_owned(), found.schema)),
        // What is moved into an object makes that object.
        Some(rest) => put(fields.entry(first).or_insert_with(|| json!({ "type": "object" })), rest, found),
    }
    if always && !is_required(schema, first) {
        let required = schema.as_object_mut().map(|keywords| keywords.entry("required").or_insert_with(|| json!([])));
        if let Some(Value::Array(required)) = required {
            required.push(first.into());
        }
    }
}

fn is_required(schema: &Value, name: &str) -> bool {
    schema.get("required").and_then(Value::as_array).is_some_and(|names| names.iter().any(|one| one == name))
}
