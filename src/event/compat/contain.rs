//! Whether every value that one schema describes is valid under another: keyword by keyword, for those that catalogues use.

use std::{cmp::Ordering, collections::BTreeSet};

use jsonschema::Validator;
use serde_json::{Map, Number, Value, json};

use super::{
    Gap,
    writer::{All, each, field, is_empty, types, types_of, undeclared, values, ways},
};
use crate::event::schema::{self, REMARKS};

/// Keywords that are compared.
const COMPARED: [&str; 18] = [
    "type",
    "enum",
    "const",
    "minLength",
    "maxLength",
    "pattern",
    "format",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "items",
    "minItems",
    "maxItems",
    "uniqueItems",
    "required",
    "properties",
    "additionalProperties",
];

/// Whether two schemas differ in remarks at most.
pub(super) fn is_same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Object(left), Value::Object(right)) => {
            let plain = |schema: &Map<String, Value>| -> BTreeSet<String> {
                schema.keys().filter(|key| !REMARKS.contains(&key.as_str())).cloned().collect()
            };
            let keys = plain(left);
            keys == plain(right) && keys.iter().all(|key| same_keyword(key, &left[key], &right[key]))
        }
        _ => left == right,
    }
}

fn same_keyword(keyword: &str, left: &Value, right: &Value) -> bool {
    match (keyword, left, right) {
        // Here names are fields, and no keywords.
        ("properties", Value::Object(left), Value::Object(right)) => {
            left.len() == right.len() && left.iter().all(|(name, schema)| right.get(name).is_some_and(|other| is_same(schema, other)))
        }
        ("anyOf", Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| is_same(left, right))
        }
        ("items" | "additionalProperties", left, right) => is_same(left, right),
        ("required" | "type" | "enum", Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().all(|one| right.contains(one))
        }
        _ => left == right,
    }
}

/// What the writer may send and the reader refuses, and what could not be compared.
pub(super) fn gaps(writer: &Value, reader: &Value) -> Vec<Gap> {
    let mut found = Vec::new();
    unknown(writer, "data", &mut found);
    unknown(reader, "data", &mut found);
    contain(&vec![writer], reader, "data", &mut found);
    found.dedup();
    found.sort_by(|a, b| (&a.path, &a.problem).cmp(&(&b.path, &b.problem)));
    found.dedup();
    found
}

fn said(path: &str, problem: impl Into<String>) -> Gap {
    Gap { path: path.to_owned(), problem: problem.into(), checked: true }
}

/// Names every keyword that is not compared.
fn unknown(schema: &Value, path: &str, found: &mut Vec<Gap>) {
    let Some(keywords) = schema.as_object() else { return };
    for (keyword, value) in keywords {
        match (keyword.as_str(), value) {
            ("properties", Value::Object(fields)) => {
                fields.iter().for_each(|(name, field)| unknown(field, &format!("{path}.{name}"), found));
            }
            ("anyOf", Value::Array(branches)) => branches.iter().for_each(|branch| unknown(branch, path, found)),
            ("items", inner) => unknown(inner, &format!("{path}[]"), found),
            ("additionalProperties", inner) => unknown(inner, &format!("{path}.*"), found),
            (keyword, _) if COMPARED.contains(&keyword) || REMARKS.contains(&keyword) => {}
            _ => found.push(Gap { path: path.to_owned(), problem: format!("`{keyword}` is not compared"), checked: false }),
        }
    }
}

fn contain(writer: &All<'_>, reader: &Value, path: &str, found: &mut Vec<Gap>) {
    let Some(rules) = reader.as_object() else {
        if reader == &Value::Bool(false) && !is_empty(writer) {
            found.push(said(path, "is no longer allowed"));
        }
        return;
    };
    if is_empty(writer) {
        return;
    }
    let Some(ways) = ways(writer) else {
        return found.push(Gap {
            path: path.to_owned(),
            problem: "too many alternatives in `anyOf` to compare".to_owned(),
            checked: false,
        });
    };
    for way in ways {
        one_way(&way, reader, rules, path, found);
    }
}

/// Where an alternative of the writer's has none of its own inside.
fn one_way(writer: &All<'_>, reader: &Value, rules: &Map<String, Value>, path: &str, found: &mut Vec<Gap>) {
    if is_empty(writer) {
        return;
    }
    if let Some(values) = values(writer) {
        return listed(writer, &values, reader, path, found);
    }
    if rules.contains_key("enum") || rules.contains_key("const") {
        return found.push(said(path, "may be more than the listed values"));
    }
    let types = types(writer);
    let wanted = types_of(rules);
    for kind in &types {
        let fits = wanted.contains(kind) || kind == "integer" && wanted.contains("number");
        if !fits {
            found.push(said(path, format!("may be {}", if *kind == "null" { "null".to_owned() } else { format!("of type {kind}") })));
        }
    }
    if types.contains("string") {
        strings(writer, rules, path, found);
    }
    if types.contains("number") || types.contains("integer") {
        numbers(writer, !types.contains("number"), rules, path, found);
    }
    if types.contains("array") {
        arrays(writer, rules, path, found);
    }
    if types.contains("object") {
        objects(writer, rules, path, found);
    }
    if let Some(branches) = rules.get("anyOf").and_then(Value::as_array) {
        alternatives(writer, &types, branches, path, found);
    }
}

/// Each type that the writer may send has to fit one branch as a whole.
fn alternatives(writer: &All<'_>, types: &BTreeSet<String>, branches: &[Value], path: &str, found: &mut Vec<Gap>) {
    for kind in types {
        let only = json!({ "type": kind });
        let narrowed: All<'_> = writer.iter().copied().chain([&only]).collect();
        let mut nearest: Option<Vec<Gap>> = None;
        for branch in branches {
            let mut gaps = Vec::new();
            contain(&narrowed, branch, path, &mut gaps);
            if nearest.as_ref().is_none_or(|nearest| gaps.len() < nearest.len()) {
                nearest = Some(gaps);
            }
        }
        match nearest {
            None => found.push(said(path, "fits no alternative")),
            Some(gaps) if gaps.is_empty() => {}
            Some(_) => found.push(said(path, format!("of type {kind} may fit none of the alternatives"))),
        }
    }
}

/// Listed values are asked one by one.
fn listed(writer: &All<'_>, values: &[Value], reader: &Value, path: &str, found: &mut Vec<Gap>) {
    let compiled = |schema: &Value| schema::validator(schema).ok();
    let Some(writers) = writer.iter().map(|schema| compiled(schema)).collect::<Option<Vec<Validator>>>() else {
        return found.push(Gap { path: path.to_owned(), problem: "cannot be compiled alone".to_owned(), checked: false });
    };
    let Some(reader) = compiled(reader) else {
        return found.push(Gap { path: path.to_owned(), problem: "cannot be compiled alone".to_owned(), checked: false });
    };
    for value in values.iter().filter(|value| writers.iter().all(|writer| writer.is_valid(value))) {
        if !reader.is_valid(value) {
            found.push(said(path, format!("may be {value}")));
        }
    }
}

// === Keyword by keyword ===

fn count(schema: &Value, keyword: &str) -> Option<u64> {
    schema.get(keyword).and_then(|limit| limit.as_u64().or_else(|| limit.as_f64().filter(|limit| *limit >= 0.0).map(|limit| limit as u64)))
}

/// Limits of a count: of characters or items.
fn counts(writer: &All<'_>, rules: &Map<String, Value>, [least, most]: [&str; 2], what: &str, path: &str, found: &mut Vec<Gap>) {
    let rules = Value::Object(rules.clone());
    let at_least = writer.iter().filter_map(|schema| count(schema, least)).max().unwrap_or(0);
    let at_most = writer.iter().filter_map(|schema| count(schema, most)).min().unwrap_or(u64::MAX);
    if let Some(limit) = count(&rules, least).filter(|limit| at_least < *limit) {
        found.push(said(path, format!("may have fewer than {limit} {what}")));
    }
    if let Some(limit) = count(&rules, most).filter(|limit| at_most > *limit) {
        found.push(said(path, format!("may have more than {limit} {what}")));
    }
}

fn strings(writer: &All<'_>, rules: &Map<String, Value>, path: &str, found: &mut Vec<Gap>) {
    counts(writer, rules, ["minLength", "maxLength"], "characters", path, found);
    for (keyword, verb) in [("pattern", "may not match"), ("format", "may be no")] {
        let Some(wanted) = rules.get(keyword) else { continue };
        if !each(writer, keyword).any(|given| given == wanted) {
            found.push(said(path, format!("{verb} {}", wanted.as_str().unwrap_or_default())));
        }
    }
}

/// A bound, and whether the limit itself is outside of it.
type Edge = (Number, bool);

fn numbers(writer: &All<'_>, whole: bool, rules: &Map<String, Value>, path: &str, found: &mut Vec<Gap>) {
    let rules = Value::Object(rules.clone());
    for (keywords, side, word) in [
        (["minimum", "exclusiveMinimum"], Ordering::Greater, ["less than", "not more than"]),
        (["maximum", "exclusiveMaximum"], Ordering::Less, ["more than", "not less than"]),
    ] {
        let edges = |schema: &Value| -> Vec<Edge> {
            let edge = |index: usize| Some((schema.get(keywords[index])?.as_number()?.clone(), index == 1));
            [edge(0), edge(1)].into_iter().flatten().collect()
        };
        for (limit, open) in edges(&rules) {
            // One edge of the writer's that is as narrow is enough.
            let inside = |(edge, excluded): &Edge| match order(edge, &limit) {
                Ordering::Equal => !open || *excluded,
                found if found == side => true,
                // Between 2 and "more than 1" there is no whole number.
                _ => whole && *excluded && !open && next(edge, side).is_some_and(|next| order(&next, &limit) != side.reverse()),
            };
            if !writer.iter().flat_map(|schema| edges(schema)).any(|edge| inside(&edge)) {
                found.push(said(path, format!("may be {} {limit}", word[usize::from(open)])));
            }
        }
    }
}

/// The whole number beside an edge, into the range.
fn next(edge: &Number, side: Ordering) -> Option<Number> {
    let step = if side == Ordering::Greater { 1 } else { -1 };
    edge.as_i64().and_then(|edge| edge.checked_add(step)).map(Number::from)
}

fn order(left: &Number, right: &Number) -> Ordering {
    let whole = |number: &Number| number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
    match (whole(left), whole(right)) {
        (Some(left), Some(right)) => left.cmp(&right),
        _ => left.as_f64().unwrap_or_default().total_cmp(&right.as_f64().unwrap_or_default()),
    }
}

fn arrays(writer: &All<'_>, rules: &Map<String, Value>, path: &str, found: &mut Vec<Gap>) {
    counts(writer, rules, ["minItems", "maxItems"], "items", path, found);
    let unique = Value::Bool(true);
    if rules.get("uniqueItems") == Some(&unique) && !each(writer, "uniqueItems").any(|given| *given == unique) {
        found.push(said(path, "may have an item twice"));
    }
    let none = writer.iter().filter_map(|schema| count(schema, "maxItems")).min() == Some(0);
    if let Some(items) = rules.get("items").filter(|_| !none) {
        contain(&each(writer, "items").collect(), items, &format!("{path}[]"), found);
    }
}

fn objects(writer: &All<'_>, rules: &Map<String, Value>, path: &str, found: &mut Vec<Gap>) {
    let names = |schema: &Value| -> Vec<String> {
        schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let given: BTreeSet<String> = writer.iter().flat_map(|schema| names(schema)).collect();
    for name in names(&Value::Object(rules.clone())).into_iter().filter(|name| !given.contains(name)) {
        found.push(said(&format!("{path}.{name}"), "may be missing"));
    }
    let empty = Map::new();
    let wanted = rules.get("properties").and_then(Value::as_object).unwrap_or(&empty);
    let open = Value::Bool(true);
    let more = rules.get("additionalProperties").unwrap_or(&open);
    let declared = each(writer, "properties").filter_map(Value::as_object).flat_map(Map::keys).chain(&given);
    for name in wanted.keys().chain(declared).collect::<BTreeSet<_>>() {
        let path = format!("{path}.{name}");
        let sent = field(writer, name, given.contains(name));
        match (sent, wanted.get(name)) {
            (Some(sent), Some(schema)) => contain(&sent, schema, &path, found),
            (Some(sent), None) if !is_empty(&sent) => contain(&sent, more, &path, found),
            _ => {}
        }
    }
    if let Some(rest) = undeclared(writer) {
        contain(&rest, more, &format!("{path}.*"), found);
    }
}
