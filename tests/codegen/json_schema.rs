//! JSON Schema: the generated document, compiled and asked.

use serde_json::{Value, json};
use worker::{
    codegen::{Language, Options, generate},
    event::{Catalog, EventType},
};

use crate::{ALL, catalogs, combinations};

fn compiled(catalog: &Catalog, domain: &str, options: Options) -> jsonschema::Validator {
    let made = generate(catalog, domain, &[], Language::JsonSchema, options).unwrap();
    let schema = serde_json::from_str(&made.text).unwrap();
    jsonschema::meta::validate(&schema).unwrap();
    jsonschema::options().should_validate_formats(true).build(&schema).unwrap()
}

fn event(kind: &EventType, data: &Value) -> Value {
    json!({
        "event_id": "e", "event_type": &*kind.name, "event_version": kind.version.to_string(), "timestamp": "2025-12-30T10:00:00Z",
        "source": "s", "data": data, "metadata": { "correlation_id": "c" },
    })
}

#[test]
fn a_json_schema_accepts_each_example_and_rejects_each_counterexample() {
    for (_, catalog) in catalogs() {
        for kind in catalog.types() {
            let schema = compiled(&catalog, &kind.domain, ALL);
            assert!(schema.is_valid(&event(kind, &kind.example)), "{}", kind.name);
            for one in &kind.counterexamples {
                assert!(!schema.is_valid(&event(kind, &one.data)), "{}: {}", kind.name, one.why);
            }
            let mut filled = kind.example.clone();
            for name in &kind.fill {
                filled.as_object_mut().unwrap().remove(name);
            }
            assert!(schema.is_valid(&event(kind, &filled)), "{}: times are filled in", kind.name);
        }
    }
}

#[test]
fn an_option_takes_its_part_out_of_a_json_schema() {
    let catalog = Catalog::embedded().unwrap();
    let kind = catalog.get("task.created").unwrap();
    let mut long = kind.example.clone();
    long["title"] = "x".repeat(201).into();
    for options in combinations() {
        let schema = compiled(&catalog, "tasks", options);
        assert!(schema.is_valid(&event(kind, &kind.example)));
        assert_eq!(schema.is_valid(&event(kind, &long)), !options.validation);
        let mut changed = event(kind, &kind.example);
        changed["metadata"] = json!({ "correlation_id": 7 });
        assert_eq!(schema.is_valid(&changed), !options.metadata);
        changed["metadata"] = Value::Null;
        changed.as_object_mut().unwrap().remove("event_version");
        assert_eq!(schema.is_valid(&changed), !options.versioning);
    }
}
