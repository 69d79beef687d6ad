//! The fields of a schema in words.

use serde_json::Value;

/// One field of `data`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) required: bool,
    /// What a value must be besides: `1 to 200 characters`.
    pub(super) rules: String,
    pub(super) description: String,
}

/// Every field, in the order of the file; those of an object inside follow it as `outer.inner`.
pub(super) fn fields(schema: &Value) -> Vec<Field> {
    let mut all = Vec::new();
    collect(schema, "", &mut all);
    all
}

fn collect(schema: &Value, prefix: &str, all: &mut Vec<Field>) {
    let required = |name: &str| schema["required"].as_array().is_some_and(|names| names.iter().any(|needed| needed == name));
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{prefix}{name}");
        all.push(Field {
            kind: kind(property),
            required: required(name),
            rules: rules(property),
            description: property["description"].as_str().unwrap_or_default().to_owned(),
            name: path.clone(),
        });
        collect(property, &format!("{path}."), all);
    }
}

/// `a string`, without the null that every optional field may be.
fn kind(property: &Value) -> String {
    let known = match &property["type"] {
        Value::String(name) => vec![name.as_str()],
        Value::Array(names) => names.iter().filter_map(Value::as_str).filter(|name| *name != "null").collect(),
        _ => Vec::new(),
    };
    if known == ["array"] && !property["items"].is_null() {
        return format!("list of {}", kind(&property["items"]));
    }
    if !known.is_empty() {
        let format = property["format"].as_str().map(|format| format!(" ({format})")).unwrap_or_default();
        return known.join(" or ") + &format;
    }
    let choices = ["anyOf", "oneOf"].into_iter().find_map(|key| property[key].as_array());
    let choices: Vec<_> = choices.into_iter().flatten().map(kind).filter(|name| name != "null").collect();
    if choices.is_empty() { "any".to_owned() } else { choices.join(" or ") }
}

fn rules(property: &Value) -> String {
    let number = |key: &str| property[key].as_f64().map(|_| property[key].to_string());
    let span = |least: &str, most: &str, unit: &str| match (number(least), number(most)) {
        (Some(least), Some(most)) => Some(format!("{least} to {most}{unit}")),
        (Some(least), None) => Some(format!("at least {least}{unit}")),
        (None, Some(most)) => Some(format!("at most {most}{unit}")),
        (None, None) => None,
    };
    let choices = property["enum"].as_array().map(|choices| {
        let choices = choices.iter().filter(|choice| !choice.is_null());
        choices.map(|choice| choice.as_str().map_or_else(|| choice.to_string(), str::to_owned)).collect::<Vec<_>>().join(", ")
    });
    let not_empty = property["minLength"] == 1 && property["maxLength"].is_null();
    let parts = [
        choices.map(|choices| format!("one of {choices}")),
        if not_empty { Some("not empty".to_owned()) } else { span("minLength", "maxLength", " characters") },
        span("minimum", "maximum", ""),
        span("minItems", "maxItems", " items"),
        property["pattern"].as_str().map(|pattern| format!("matches {pattern}")),
        property.get("const").map(|value| format!("always {value}")),
        property.get("default").filter(|value| !value.is_null()).map(|value| format!("default {}", value.to_string().trim_matches('"'))),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::event::Catalog;

    #[test]
    fn a_schemas_fields_are_told_in_words() {
        let catalog = Catalog::embedded().unwrap();
        let of = |name: &str, field: &str| {
            let all = fields(catalog.get(name).unwrap().schema.json());
            let found = all.into_iter().find(|one| one.name == field).unwrap();
            (found.kind, found.required, found.rules)
        };
        let told = |kind: &str, required, rules: &str| (kind.to_owned(), required, rules.to_owned());
        assert_eq!(of("task.created", "title"), told("string", true, "1 to 200 characters"));
        assert_eq!(of("task.created", "user_id"), told("string", true, "not empty"));
        assert_eq!(of("task.created", "task_id"), told("integer or string (uuid)", true, ""));
        assert_eq!(of("task.created", "priority"), told("string", false, "one of low, medium, high"));
        assert_eq!(of("task.created", "tags"), told("list of string", false, ""));
        assert_eq!(of("reminder.due", "reminder_type"), told("string", false, "one of overdue, due_soon, recurring; default due_soon"));
        assert_eq!(of("dlq.failed", "dlq_metadata.retry_count"), told("integer", true, "at least 0"));
    }
}
