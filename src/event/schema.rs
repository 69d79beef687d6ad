//! A JSON Schema of `data`, compiled once, with errors that name path and rule and never the payload.

use std::fmt;

use jsonschema::{
    Draft, JsonType, ValidationError, Validator,
    error::{TypeKind, ValidationErrorKind},
};
use serde_json::{Map, Value, json};

use super::{
    plain::Member,
    quick::{Elsewhere, Quick},
    time,
};

/// Keywords of JSON Schema that ask for nothing.
pub const REMARKS: [&str; 10] =
    ["$schema", "$id", "$comment", "title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"];

/// How long a path or a rule may be in an error: names in the payload end up in paths.
const LONGEST: usize = 120;

/// A compiled JSON Schema 2020-12. Formats are checked; `date-time` takes every form that [`time::parse`] takes.
pub struct Schema {
    json: Value,
    name: Box<str>,
    validator: Validator,
    quick: Option<Quick>,
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Schema({})", self.name)
    }
}

/// Whether a type's data names a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskId {
    /// It must.
    #[default]
    Required,
    /// It may.
    Optional,
    /// It has no such field.
    None,
}

impl Schema {
    /// Completes and compiles a schema as the catalogue's files write it: `user_id` and `task_id` are added, and what is not required may
    /// also be null.
    ///
    /// # Errors
    /// What is wrong with the schema, in the words of its compiler.
    pub fn compile(name: &str, title: &str, written: Map<String, Value>, task_id: TaskId) -> Result<Self, String> {
        let json = complete(title, written, task_id);
        let validator = validator(&json)?;
        let quick = Quick::of(&json);
        Ok(Self { json, name: name.into(), validator, quick })
    }

    /// The complete schema as JSON.
    pub fn json(&self) -> &Value {
        &self.json
    }

    /// Checks `data`.
    ///
    /// # Errors
    /// The first broken rule, as `data.title: longer than 200 characters (task.created 1.0)`.
    pub fn check(&self, data: &Value) -> Result<(), String> {
        if self.validator.is_valid(data) {
            return Ok(());
        }
        let error = self.validator.iter_errors(data).next().map_or_else(|| "data: refused".to_owned(), |error| self.told(&error));
        Err(format!("{error} ({})", self.name))
    }

    /// Whether data of these members is valid beyond doubt, found without making values of it: `false` says nothing. `elsewhere`: as
    /// [`Quick::takes`].
    pub(super) fn surely_takes<'e>(&self, data: &[Member<'_>], elsewhere: impl Fn(&str, bool) -> Elsewhere<'e>) -> bool {
        self.quick.as_ref().is_some_and(|quick| quick.takes(data, elsewhere))
    }

    fn told(&self, error: &ValidationError<'_>) -> String {
        let mut path = String::from("data");
        for segment in error.instance_path().segments() {
            match segment {
                jsonschema::paths::LocationSegment::Property(name) => {
                    path.push('.');
                    path.push_str(&name);
                }
                jsonschema::paths::LocationSegment::Index(index) => path.push_str(&format!("[{index}]")),
            }
        }
        if let ValidationErrorKind::Required { property: Value::String(name) } = error.kind() {
            path.push('.');
            path.push_str(name);
        }
        let mut rule = self.rule(error);
        shorten(&mut path);
        shorten(&mut rule);
        format!("{path}: {rule}")
    }

    fn rule(&self, error: &ValidationError<'_>) -> String {
        let found = noun(error.instance());
        match error.kind() {
            ValidationErrorKind::Required { .. } => "missing".to_owned(),
            ValidationErrorKind::Type { kind } => format!("{found} where {} is needed", wanted(kind)),
            ValidationErrorKind::MinLength { limit: 1 } => "an empty string".to_owned(),
            ValidationErrorKind::MinLength { limit } => format!("shorter than {limit} characters"),
            ValidationErrorKind::MaxLength { limit } => format!("longer than {limit} characters"),
            ValidationErrorKind::Enum { options } => format!("{found} that is none of {}", listed(options)),
            ValidationErrorKind::Format { format } => format!("{found} that is no {format}"),
            ValidationErrorKind::Pattern { pattern } => format!("{found} that does not match {pattern}"),
            ValidationErrorKind::Minimum { limit } => format!("less than {limit}"),
            ValidationErrorKind::Maximum { limit } => format!("more than {limit}"),
            ValidationErrorKind::ExclusiveMinimum { limit } => format!("not more than {limit}"),
            ValidationErrorKind::ExclusiveMaximum { limit } => format!("not less than {limit}"),
            ValidationErrorKind::MinItems { limit } => format!("fewer than {limit} items"),
            ValidationErrorKind::MaxItems { limit } => format!("more than {limit} items"),
            ValidationErrorKind::UniqueItems => "items that are not unique".to_owned(),
            ValidationErrorKind::AdditionalProperties { .. } => "a field that the schema does not allow".to_owned(),
            ValidationErrorKind::AnyOf { .. } | ValidationErrorKind::OneOfNotValid { .. } => {
                format!("{found} that is none of: {}", self.choices(error))
            }
            _ => format!("{found} that breaks `{}`", error.kind().keyword()),
        }
    }

    /// The ways that an `anyOf` offers, by title or type.
    fn choices(&self, error: &ValidationError<'_>) -> String {
        let offered = self.json.pointer(error.schema_path().as_str()).and_then(Value::as_array);
        let names = offered.into_iter().flatten().filter_map(|choice| {
            let given = |key: &str| choice.get(key).and_then(Value::as_str).filter(|name| *name != "null").map(str::to_owned);
            given("title").or_else(|| given("format")).or_else(|| given("type"))
        });
        names.collect::<Vec<_>>().join(", ")
    }
}

/// Compiles a complete schema, with the formats that this worker checks.
pub(super) fn validator(json: &Value) -> Result<Validator, String> {
    jsonschema::options()
        .with_draft(Draft::Draft202012)
        .should_validate_formats(true)
        .with_format("date-time", |text: &str| time::parse(text).is_some())
        .build(json)
        .map_err(|error| error.to_string())
}

fn complete(title: &str, written: Map<String, Value>, task_id: TaskId) -> Value {
    let mut properties = Map::new();
    if task_id != TaskId::None {
        let integer = json!({ "title": "an integer", "type": "integer" });
        let uuid = json!({ "title": "a UUID", "type": "string", "format": "uuid" });
        properties.insert("task_id".to_owned(), json!({ "anyOf": [integer, uuid], "description": "Which task." }));
    }
    properties.insert("user_id".to_owned(), json!({ "type": "string", "minLength": 1, "description": "Whose event it is." }));
    let mut required = vec![json!("user_id")];
    if task_id == TaskId::Required {
        required.insert(0, json!("task_id"));
    }
    let mut schema = Map::new();
    schema.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
    schema.insert("title".to_owned(), json!(title));
    schema.insert("type".to_owned(), json!("object"));
    schema.insert("required".to_owned(), Value::Null);
    schema.insert("properties".to_owned(), Value::Null);
    for (keyword, value) in written {
        match (keyword.as_str(), value) {
            ("required", Value::Array(names)) => {
                required.extend(names.into_iter().filter(|name| !["user_id", "task_id"].iter().any(|own| name == own)))
            }
            ("properties", Value::Object(written)) => properties.extend(written),
            (_, value) => drop(schema.insert(keyword, value)),
        }
    }
    schema.insert("required".to_owned(), Value::Array(required));
    schema.insert("properties".to_owned(), Value::Object(properties));
    let mut schema = Value::Object(schema);
    allow_null(&mut schema);
    schema
}

/// What may be absent may also be null: producers that serialise optional fields write them so.
fn allow_null(schema: &mut Value) {
    let required = schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
    let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) else { return };
    for (name, property) in properties {
        allow_null(property);
        if required.iter().any(|needed| needed == name.as_str()) {
            continue;
        }
        let Some(property) = property.as_object_mut() else { continue };
        match property.get_mut("type") {
            Some(Value::Array(types)) if !types.iter().any(|name| name == "null") => types.push(json!("null")),
            Some(Value::String(name)) => {
                let both = json!([name.clone(), "null"]);
                property.insert("type".to_owned(), both);
            }
            _ => {}
        }
        for keyword in ["enum", "anyOf", "oneOf"] {
            let null = if keyword == "enum" { Value::Null } else { json!({ "type": "null" }) };
            match property.get_mut(keyword) {
                Some(Value::Array(choices)) if !choices.contains(&null) => choices.push(null),
                _ => {}
            }
        }
    }
}

/// What a value is, without its content.
pub(super) fn noun(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn wanted(kind: &TypeKind) -> String {
    let name = |one: JsonType| match one {
        JsonType::Array => "an array",
        JsonType::Boolean => "a boolean",
        JsonType::Integer => "an integer",
        JsonType::Null => "null",
        JsonType::Number => "a number",
        JsonType::Object => "an object",
        JsonType::String => "a string",
    };
    match kind {
        TypeKind::Single(one) => name(*one).to_owned(),
        TypeKind::Multiple(several) => several.into_iter().filter(|one| *one != JsonType::Null).map(name).collect::<Vec<_>>().join(" or "),
    }
}

fn listed(options: &Value) -> String {
    let names = options.as_array().into_iter().flatten().filter(|option| !option.is_null());
    names.map(|option| option.as_str().map_or_else(|| option.to_string(), str::to_owned)).collect::<Vec<_>>().join(", ")
}

fn shorten(text: &mut String) {
    if text.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push_str("...");
    }
}
