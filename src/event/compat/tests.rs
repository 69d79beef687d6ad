//! Verdicts that a person would give, and that no instance ever contradicts "compatible".

use std::sync::Arc;

use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use serde_json::{Map, Value, json};

use super::{Mode, after, check, contain};
use crate::event::{Catalog, catalog::types_of, schema::validator, upcast::Step};

const FULL: Mode = Mode { backward: true, forward: true, transitive: false };

fn gaps(writer: &Value, reader: &Value) -> Vec<String> {
    contain::gaps(writer, reader)
        .into_iter()
        .map(|gap| format!("{}{}: {}", if gap.checked { "" } else { "? " }, gap.path, gap.problem))
        .collect()
}

fn object(required: &[&str], properties: Value) -> Value {
    json!({ "type": "object", "required": required, "properties": properties })
}

#[test]
fn each_keyword_is_compared() {
    let text = |more: Value| {
        let mut schema = json!({ "type": "string" });
        schema.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        object(&["a"], json!({ "a": schema }))
    };
    let a = |schema: Value| object(&["a"], json!({ "a": schema }));
    let cases: &[(Value, Value, &[&str])] = &[
        (text(json!({ "maxLength": 5 })), text(json!({ "maxLength": 9 })), &[]),
        (text(json!({ "maxLength": 9 })), text(json!({ "maxLength": 5 })), &["data.a: may have more than 5 characters"]),
        (text(json!({})), text(json!({ "minLength": 1 })), &["data.a: may have fewer than 1 characters"]),
        (text(json!({ "enum": ["x", "y"] })), text(json!({ "enum": ["x", "y", "z"] })), &[]),
        (text(json!({ "enum": ["x", "y"] })), text(json!({ "enum": ["x"] })), &["data.a: may be \"y\""]),
        (text(json!({ "enum": ["x", "yy"] })), text(json!({ "maxLength": 1 })), &["data.a: may be \"yy\""]),
        (text(json!({})), text(json!({ "enum": ["x"] })), &["data.a: may be more than the listed values"]),
        (text(json!({ "format": "date-time" })), text(json!({})), &[]),
        (text(json!({})), text(json!({ "format": "date-time" })), &["data.a: may be no date-time"]),
        (text(json!({ "pattern": "^x" })), text(json!({ "pattern": "^y" })), &["data.a: may not match ^y"]),
        (a(json!({ "type": "integer" })), a(json!({ "type": ["number", "null"] })), &[]),
        (a(json!({ "type": "number" })), a(json!({ "type": "integer" })), &["data.a: may be of type number"]),
        (a(json!({ "type": ["string", "null"] })), a(json!({ "type": "string" })), &["data.a: may be null"]),
        (a(json!({ "type": "integer", "exclusiveMinimum": 0 })), a(json!({ "type": "number", "minimum": 1 })), &[]),
        (
            a(json!({ "type": "number", "exclusiveMinimum": 0 })),
            a(json!({ "type": "number", "minimum": 1 })),
            &["data.a: may be less than 1"],
        ),
        (
            a(json!({ "type": "number", "maximum": 9 })),
            a(json!({ "type": "number", "exclusiveMaximum": 9 })),
            &["data.a: may be not less than 9"],
        ),
        (
            a(json!({ "type": "array", "items": { "type": "string" } })),
            a(json!({ "type": "array", "items": { "type": "integer" }, "uniqueItems": true, "maxItems": 3 })),
            &["data.a: may have an item twice", "data.a: may have more than 3 items", "data.a[]: may be of type string"],
        ),
        (object(&[], json!({ "a": {} })), object(&["a"], json!({ "a": {} })), &["data.a: may be missing"]),
        (object(&["a"], json!({ "a": {} })), object(&[], json!({})), &[]),
        (object(&[], json!({})), object(&[], json!({ "b": { "type": "string" } })), &[]),
        (
            object(&[], json!({ "b": { "type": "string" } })),
            json!({ "type": "object", "properties": {}, "additionalProperties": false }),
            &["data.b: is no longer allowed"],
        ),
        (
            a(json!({ "anyOf": [{ "type": "integer" }, { "type": "string", "format": "uuid" }] })),
            a(json!({ "anyOf": [{ "type": "string" }, { "type": "integer" }] })),
            &[],
        ),
        (
            a(json!({ "type": ["integer", "string"] })),
            a(json!({ "anyOf": [{ "type": "integer" }, { "type": "string", "format": "uuid" }] })),
            &["data.a: of type string may fit none of the alternatives"],
        ),
        (
            a(json!({ "type": "string" })),
            a(json!({ "type": "string", "contentEncoding": "base64" })),
            &["? data.a: `contentEncoding` is not compared"],
        ),
        (a(json!({ "not": {} })), a(json!({ "not": {} })), &["? data.a: `not` is not compared"]),
    ];
    for (writer, reader, expected) in cases {
        assert_eq!(gaps(writer, reader), *expected, "{writer} read by {reader}");
    }
}

// === The catalogue ===

fn embedded() -> Vec<(String, String)> {
    Catalog::embedded_files().iter().skip(1).map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

fn changed(file: &str, edits: &[(&str, &str)]) -> Vec<String> {
    let mut files = embedded();
    let (_, text) = files.iter_mut().find(|(name, _)| name == file).unwrap();
    for (from, to) in edits {
        assert!(text.contains(from), "{file} has no {from}");
        *text = text.replacen(from, to, 1);
    }
    let shown = |finding: &super::Finding| {
        format!("{} {} {}->{} {}: {}", finding.event_type, finding.direction, finding.written, finding.read, finding.path, finding.problem)
    };
    check(&types_of(&embedded()).unwrap(), &types_of(&files).unwrap(), FULL).iter().map(shown).collect()
}

#[test]
fn a_change_of_the_catalogue_is_judged_both_ways() {
    let file = "events/task.created.yaml";
    assert_eq!(changed(file, &[("What is to be done.", "The title.")]), [""; 0], "a remark");
    assert_eq!(changed(file, &[("    tags:", "    colour: { type: string }\n    tags:")]), [""; 0], "an optional field");
    assert_eq!(
        changed(file, &[("maxLength: 200", "maxLength: 100")]),
        ["task.created backward 1.0->1.0 data.title: may have more than 100 characters"]
    );
    assert_eq!(
        changed(file, &[("[low, medium, high]", "[low, medium, high, urgent]")]),
        ["task.created forward 1.0->1.0 data.priority: may be \"urgent\""]
    );
    assert_eq!(
        changed(
            file,
            &[("version: \"1.0\"", "version: \"1.1\""), ("required: [title, created_at]", "required: [title, created_at, priority]")]
        ),
        ["task.created backward 1.0->1.1 data.priority: may be missing", "task.created backward 1.0->1.1 data.priority: may be null"]
    );
    assert_eq!(
        changed("events/reminder.scheduled.yaml", &[("reminder_type: { type: string }", "reminder_type: { type: string, maxLength: 9 }")])
            .len(),
        1
    );
    assert_eq!(
        changed("events/reminder.due.yaml", &[("type: reminder.due", "type: reminder.gone")])[0],
        "reminder.due backward 1.0->none : the type is gone: keep it, or give its name to another as an alias"
    );
}

#[test]
fn steps_of_a_new_version_bring_old_events_to_it() {
    let history = "past:\n  - version: \"1.0\"\n    example: { task_id: 1, user_id: u, title: x, created_at: \"2025-12-30\" }\n    upcast:\n      - { rename: title, to: name }\n      - { add: priority, value: low }\n";
    let renamed = [
        ("version: \"1.0\"", "version: \"2.0\""),
        ("required: [title, created_at]", "required: [name, created_at]"),
        ("    title: {", "    name: {"),
        ("counterexamples:", &format!("{history}counterexamples:")),
    ];
    let found = changed("events/task.created.yaml", &renamed);
    assert_eq!(found, ["task.created forward 2.0->1.0 data.title: may be missing"], "new readers have the steps, old readers have not");
}

#[test]
fn past_versions_count_with_transitive_and_those_without_schema_are_said_to_be_unchecked() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/catalog");
    let catalog = Catalog::load(&dir).unwrap();
    let types: Vec<_> = catalog.types().map(Arc::clone).collect();
    assert_eq!(check(&types, &types, FULL), []);
    let found = check(&types, &types, Mode { backward: true, forward: false, transitive: true });
    assert_eq!(found.iter().map(|one| (one.written.as_str(), one.checked)).collect::<Vec<_>>()[0], ("1.0", false));
    assert!(found.iter().any(|one| one.written == "1.1" && one.path == "data.urgency"), "{found:?}");
}

#[test]
fn a_schema_after_its_steps_describes_what_data_becomes() {
    let lower =
        Step::Call { name: "lowercase".to_owned(), run: |value| value.as_str().map(str::to_lowercase).into(), field: "c".to_owned() };
    let steps = [
        Step::Move { from: "a".to_owned(), to: "x.y".to_owned() },
        Step::Add { field: "b".to_owned(), value: json!(1) },
        Step::Remove { field: "d".to_owned() },
        lower,
    ];
    let old = object(&["a", "c"], json!({ "a": { "type": "string" }, "b": { "type": "integer" }, "c": { "enum": ["X"] }, "d": {} }));
    let new = after::steps(&old, &steps.iter().collect::<Vec<_>>());
    let reader = object(
        &["x", "b", "c"],
        json!({ "x": object(&["y"], json!({ "y": { "type": "string" } })), "b": { "type": "integer" }, "c": { "const": "x" } }),
    );
    assert_eq!(gaps(&new, &reader), [""; 0], "{new}");
    assert_eq!(gaps(&new, &json!({ "properties": { "d": { "type": "string" }, "b": { "minimum": 1 } } })), ["data.b: may be less than 1"]);
}

// === No instance contradicts a verdict ===

fn number() -> impl Strategy<Value = Value> {
    (-6..=6_i32).prop_map(|half| if half % 2 == 0 { json!(half / 2) } else { json!(f64::from(half) / 2.0) })
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        number(),
        "[ab]{0,4}".prop_map(Value::from),
        Just(json!("2025-12-30"))
    ]
}

fn instance() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(2, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[abcd]", inner, 0..4).prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// Any of these keywords, each with a chance.
fn keywords(all: Vec<(&'static str, BoxedStrategy<Value>)>) -> BoxedStrategy<Map<String, Value>> {
    let each = all
        .into_iter()
        .map(|(name, value)| prop::option::weighted(0.4, value).prop_map(move |value| value.map(|value| (name.to_owned(), value))));
    each.collect::<Vec<_>>().prop_map(|found| found.into_iter().flatten().collect()).boxed()
}

fn schema() -> BoxedStrategy<Value> {
    let count = || (0..4_u64).prop_map(Value::from).boxed();
    let kinds = prop::sample::subsequence(vec!["null", "boolean", "integer", "number", "string", "array", "object"], 1..4)
        .prop_map(|kinds| json!(kinds));
    let leaf = keywords(vec![
        ("type", kinds.boxed()),
        ("minLength", count()),
        ("maxLength", count()),
        ("pattern", prop::sample::select(vec![json!("^a"), json!("b$")]).boxed()),
        ("format", Just(json!("date-time")).boxed()),
        ("minimum", number().boxed()),
        ("maximum", number().boxed()),
        ("exclusiveMinimum", number().boxed()),
        ("exclusiveMaximum", number().boxed()),
        ("minItems", count()),
        ("maxItems", count()),
        ("uniqueItems", any::<bool>().prop_map(Value::from).boxed()),
    ]);
    let listed = prop::collection::vec(scalar(), 1..4).prop_map(|values| json!({ "enum": values }));
    let leaf = prop_oneof![6 => leaf.prop_map(Value::Object), 2 => listed, 1 => scalar().prop_map(|value| json!({ "const": value })), 1 => Just(json!({}))];
    leaf.prop_recursive(2, 12, 3, |inner| {
        let fields =
            prop::collection::btree_map("[abc]", inner.clone(), 0..3).prop_map(|fields| Value::Object(fields.into_iter().collect()));
        let required = prop::sample::subsequence(vec!["a", "b", "c"], 0..3).prop_map(|names| json!(names));
        let more = prop_oneof![any::<bool>().prop_map(Value::from), inner.clone()];
        let branches = prop::collection::vec(inner.clone(), 1..3).prop_map(Value::from);
        let object = keywords(vec![("properties", fields.boxed()), ("required", required.boxed()), ("additionalProperties", more.boxed())]);
        let object = object.prop_map(|mut keywords| {
            keywords.insert("type".to_owned(), json!("object"));
            Value::Object(keywords)
        });
        prop_oneof![
            3 => object,
            1 => inner.clone().prop_map(|items| json!({ "type": "array", "items": items })),
            1 => (inner, branches).prop_map(|(base, branches)| {
                let mut base = base;
                if let Some(keywords) = base.as_object_mut() {
                    keywords.insert("anyOf".to_owned(), branches);
                }
                base
            }),
        ]
    })
    .boxed()
}

/// The same schema with a keyword changed somewhere: what edits of a catalogue are.
fn edited(mut schema: Value, way: u32, other: &Value) -> Value {
    let Some(keywords) = schema.as_object_mut() else { return schema };
    let names: Vec<String> = keywords.keys().cloned().collect();
    let Some(name) = names.get(way as usize % names.len().max(1)) else { return other.clone() };
    match (name.as_str(), way / 7 % 3) {
        ("properties", 0 | 1) => {
            if let Some((_, field)) = keywords[name].as_object_mut().and_then(|fields| fields.iter_mut().next()) {
                *field = edited(field.take(), way / 3, other);
            }
        }
        ("items", 0 | 1) => keywords[name] = edited(keywords[name].take(), way / 3, other),
        (_, 0) => drop(keywords.shift_remove(name)),
        _ => {
            for (keyword, value) in other.as_object().into_iter().flatten().take(1) {
                keywords.insert(keyword.clone(), value.clone());
            }
        }
    }
    schema
}

/// Whether a producer of that schema writes such a value: only fields that the schema declares, anywhere.
fn is_written(schema: &Value, value: &Value) -> bool {
    let branches = schema.get("anyOf").and_then(Value::as_array);
    let all: Vec<&Value> = [schema].into_iter().chain(branches.into_iter().flatten()).collect();
    let of = |keyword: &str| all.iter().filter_map(|schema| schema.get(keyword)).collect::<Vec<_>>();
    match value {
        Value::Object(fields) => fields.iter().all(|(name, inner)| {
            let own: Vec<_> = of("properties").into_iter().filter_map(|fields| fields.get(name)).collect();
            let required = of("required").iter().any(|names| names.as_array().is_some_and(|names| names.contains(&json!(name))));
            let more = of("additionalProperties");
            let free = of("properties").is_empty() || more.iter().any(|more| more.is_object());
            (!own.is_empty() || required || free) && own.iter().chain(more.iter()).all(|schema| is_written(schema, inner))
        }),
        Value::Array(items) => items.iter().all(|item| of("items").iter().all(|schema| is_written(schema, item))),
        _ => true,
    }
}

/// Objects inside of alternatives declare fields for their own branch alone, which [`is_written`] does not tell apart.
fn has_objects_in_alternatives(schema: &Value, inside: bool) -> bool {
    let Some(keywords) = schema.as_object() else { return false };
    if inside && ["properties", "additionalProperties", "items"].iter().any(|keyword| keywords.contains_key(*keyword)) {
        return true;
    }
    keywords.iter().any(|(keyword, value)| match (keyword.as_str(), value) {
        ("anyOf", Value::Array(branches)) => branches.iter().any(|branch| has_objects_in_alternatives(branch, true)),
        ("properties", Value::Object(fields)) => fields.values().any(|field| has_objects_in_alternatives(field, inside)),
        ("items" | "additionalProperties", inner) => has_objects_in_alternatives(inner, inside),
        _ => false,
    })
}

#[test]
fn no_instance_of_a_writer_is_refused_by_a_reader_that_is_said_to_fit() {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Config { failure_persistence: None, ..Config::default() }, rng);
    let instances: Vec<Value> = (0..400).map(|_| instance().new_tree(&mut runner).unwrap().current()).collect();
    let pairs = (schema(), schema(), any::<u32>(), 0..3_u8);
    let (mut fitting, mut asked) = (0, 0);
    for _ in 0..4000 {
        let (old, other, way, kind) = pairs.new_tree(&mut runner).unwrap().current();
        let new = if kind == 0 { other } else { edited(old.clone(), way, &other) };
        if has_objects_in_alternatives(&old, false) {
            continue;
        }
        for (writer, reader) in [(&old, &new), (&new, &old)] {
            if has_objects_in_alternatives(writer, false) || !contain::gaps(writer, reader).is_empty() {
                continue;
            }
            fitting += usize::from(!contain::is_same(writer, reader));
            let (writes, reads) = (validator(writer).unwrap(), validator(reader).unwrap());
            for value in instances.iter().filter(|value| writes.is_valid(value) && is_written(writer, value)) {
                asked += 1;
                assert!(reads.is_valid(value), "{value}\nis written by {writer}\nand refused by {reader}");
            }
        }
    }
    assert!(fitting > 500 && asked > 20_000, "{fitting} pairs that fit and {asked} instances say too little");
}

#[test]
fn a_schema_fits_itself() {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[9; 32]);
    let mut runner = TestRunner::new_with_rng(Config { failure_persistence: None, ..Config::default() }, rng);
    for _ in 0..1000 {
        let one = schema().new_tree(&mut runner).unwrap().current();
        assert!(contain::is_same(&one, &one));
    }
    for kind in Catalog::embedded().unwrap().types() {
        assert_eq!(gaps(kind.schema.json(), kind.schema.json()), [""; 0], "{}", kind.name);
    }
}
