//! JSON Schema 2020-12 as draft 7, which is what AsyncAPI's tools read.

use serde_json::{Map, Value, json};

/// Keywords whose value is a map of names to schemas.
const NAMED: [&str; 5] = ["properties", "patternProperties", "definitions", "dependencies", "$defs"];
/// Keywords that draft 7 has no form of. Without them a schema takes more, never less.
const LOST: [&str; 8] =
    ["unevaluatedProperties", "unevaluatedItems", "minContains", "maxContains", "$anchor", "$dynamicRef", "$dynamicAnchor", "$vocabulary"];

/// The schema in draft 7, without its `$schema`.
pub(super) fn seven(schema: &Value) -> Value {
    match schema {
        Value::Object(schema) => Value::Object(keywords(schema)),
        // `true` and `false` are schemas too.
        other => other.clone(),
    }
}

fn keywords(schema: &Map<String, Value>) -> Map<String, Value> {
    let mut out = Map::new();
    for (keyword, value) in schema {
        let (keyword, value) = match (keyword.as_str(), value) {
            ("$schema", _) => continue,
            (lost, _) if LOST.contains(&lost) => continue,
            ("$defs", value) => ("definitions", named(value)),
            ("$ref", Value::String(to)) => ("$ref", json!(to.replace("#/$defs/", "#/definitions/"))),
            ("dependentRequired", value) => ("dependencies", joined(&out, value.clone())),
            ("dependentSchemas", value) => ("dependencies", joined(&out, named(value))),
            ("prefixItems", value) => ("items", list(value)),
            ("items", value) if schema.contains_key("prefixItems") => ("additionalItems", seven(value)),
            (name, value) if NAMED.contains(&name) => (name, named(value)),
            (name @ ("const" | "enum" | "default" | "examples"), value) => (name, value.clone()),
            (name, value @ Value::Array(_)) => (name, list(value)),
            (name, value) => (name, seven(value)),
        };
        out.insert(keyword.to_owned(), value);
    }
    out
}

/// What `dependencies` has from the other of its two newer keywords, and this.
fn joined(out: &Map<String, Value>, value: Value) -> Value {
    let mut all = out.get("dependencies").and_then(Value::as_object).cloned().unwrap_or_default();
    all.extend(value.as_object().cloned().unwrap_or_default());
    Value::Object(all)
}

fn named(value: &Value) -> Value {
    let Value::Object(schemas) = value else { return value.clone() };
    Value::Object(schemas.iter().map(|(name, schema)| (name.clone(), seven(schema))).collect())
}

fn list(value: &Value) -> Value {
    value.as_array().map_or_else(|| value.clone(), |schemas| schemas.iter().map(seven).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_draft_7_says_otherwise_is_said_its_way() {
        let new = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$defs": { "id": { "type": "string" } },
            "required": ["a"],
            "properties": {
                "a": { "$ref": "#/$defs/id" },
                "$defs": { "enum": [{ "$defs": 1 }] },
                "pair": { "prefixItems": [{ "type": "integer" }], "items": false },
                "tags": { "type": ["array", "null"], "items": { "$ref": "#/$defs/id" } },
            },
            "dependentRequired": { "a": ["pair"] },
            "dependentSchemas": { "tags": { "required": ["a"] } },
            "unevaluatedProperties": false,
        });
        let old = json!({
            "definitions": { "id": { "type": "string" } },
            "required": ["a"],
            "properties": {
                "a": { "$ref": "#/definitions/id" },
                "$defs": { "enum": [{ "$defs": 1 }] },
                "pair": { "items": [{ "type": "integer" }], "additionalItems": false },
                "tags": { "type": ["array", "null"], "items": { "$ref": "#/definitions/id" } },
            },
            "dependencies": { "a": ["pair"], "tags": { "required": ["a"] } },
        });
        assert_eq!(seven(&new), old);
    }
}
