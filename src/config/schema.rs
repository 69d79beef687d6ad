//! JSON Schema of a configuration file, from the table of keys: for editors and CI.

use serde_json::{Map, Value, json};

use super::{
    keys::{self, Key, Kind},
    secret::SECRET_PROPERTIES,
};

/// What humantime reads: numbers with units, with or without white space between.
const DURATION: &str = concat!(
    r"^\s*(0|([0-9]+(\.[0-9]+)?\s*(nanos|nsec|ns|usec|us|µs|millis|msec|ms|seconds|second|secs|sec|s|minutes|minute|min|mins|m|",
    r"hours|hour|hr|hrs|h|days|day|d|weeks|week|wk|wks|w|months|month|M|years|year|yr|yrs|y)\s*)+)\s*$"
);

const SIZE: &str = r"^\s*[0-9]+\s*(B|KiB|MiB|GiB|kB|KB|MB|GB)?\s*$";

/// The schema, draft 2020-12. What a file may hold, key by key; checks across keys are `worker config check`'s.
pub fn schema() -> Value {
    let mut schema = table(keys::ROOT);
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("configuration of worker");
    schema
}

fn table(keys: &'static [Key]) -> Value {
    let mut properties = Map::new();
    for key in keys {
        let mut of_key = kind(key.kind);
        of_key["description"] = json!(key.doc);
        if let Some(default) = key.default.and_then(|default| serde_json::from_str::<Value>(default).ok()) {
            of_key["default"] = default;
        }
        properties.insert(key.name.to_owned(), of_key);
        if key.kind.is_secret() {
            let doc = format!("file that holds {}", key.name);
            properties.insert(format!("{}_file", key.name), json!({ "type": "string", "description": doc }));
        }
    }
    let required: Vec<&str> = keys.iter().filter(|key| key.required).map(|key| key.name).collect();
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

fn kind(kind: Kind) -> Value {
    match kind {
        Kind::Table(keys) => table(keys),
        Kind::Tables(keys) => json!({ "type": "array", "items": table(keys) }),
        Kind::ByType(keys) => json!({ "type": "object", "additionalProperties": table(keys) }),
        Kind::Properties => {
            let files: Map<String, Value> =
                SECRET_PROPERTIES.iter().map(|name| (format!("{name}.file"), json!({ "type": "string" }))).collect();
            let value = json!({ "type": ["string", "number", "boolean", "object"] });
            json!({ "type": "object", "properties": files, "additionalProperties": value })
        }
        Kind::Text | Kind::Secret | Kind::SecretUrl => json!({ "type": "string" }),
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Integer(least, i64::MAX) => json!({ "type": "integer", "minimum": least }),
        Kind::Integer(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Kind::Number(least, most) => json!({ "type": "number", "minimum": least, "maximum": most }),
        Kind::Duration => json!({ "type": "string", "pattern": DURATION }),
        Kind::Size => json!({ "oneOf": [{ "type": "string", "pattern": SIZE }, { "type": "integer", "minimum": 0 }] }),
        Kind::Choice(words) => json!({ "enum": words }),
        Kind::Texts => json!({ "type": "array", "items": { "type": "string" } }),
        Kind::Durations => json!({ "type": "array", "items": { "type": "string", "pattern": DURATION } }),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::Value;

    use super::{DURATION, schema};
    use crate::config::DEFAULT_TOML;

    fn errors(toml: &str) -> Vec<String> {
        let file: toml::Table = toml::from_str(toml).unwrap();
        let file = serde_json::to_value(file).unwrap();
        let validator = jsonschema::validator_for(&schema()).unwrap();
        validator.iter_errors(&file).map(|error| error.to_string()).collect()
    }

    #[test]
    fn the_schema_accepts_the_files_that_we_ship() {
        assert_eq!(errors(DEFAULT_TOML), Vec::<String>::new());
        assert_eq!(errors(include_str!("../../config/production.toml")), Vec::<String>::new());
    }

    #[test]
    fn the_schema_refuses_what_the_loader_refuses() {
        for bad in [
            "kafak = 1",
            "[kafka]\nbroker = \"a\"",
            "[engine]\nconcurrency = 0",
            "[engine]\nmemory = \"much\"",
            "[engine]\ndrain_timeout = \"25\"",
            "[engine]\ndrain_timeout = 25",
            "[store]\nwhen_down = \"wait\"",
            "[catalog]\nvalidate = \"yes\"",
            "[[handlers]]\nname = \"a\"",
            "[retry.default]\ndelays = [\"soon\"]",
            "[retry.default]\njitter = 0.2",
        ] {
            assert!(!errors(bad).is_empty(), "{bad}");
        }
    }

    #[test]
    fn the_pattern_of_durations_says_what_the_parser_says() {
        let pattern = serde_json::json!({ "pattern": DURATION });
        let pattern = jsonschema::validator_for(&pattern).unwrap();
        for text in ["30s", "1h 30m", "1h30m", "500ms", "8d", "2 weeks", "0", "0s", "25", "soon", "", "1.5h", "-1s", "s", "1h 30"] {
            let parses = crate::config::units::parse_duration(text).is_ok();
            assert_eq!(pattern.is_valid(&Value::from(text)), parses, "{text:?}");
        }
    }
}
