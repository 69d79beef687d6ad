//! The merged values against the table of keys: each value of its kind, defaults of list entries filled in.

use std::time::Duration;

use config::{Value, ValueKind};

use super::{
    env,
    keys::{self, Key, Kind},
    layer::{Table, join, origin},
    problem::Problem,
    units,
};

/// Reports every value that does not fit its key and puts the default in its place, so that the checks across keys can still run.
pub fn check(merged: &mut Table, defaults: &Table, problems: &mut Vec<Problem>) {
    check_table(merged, Some(defaults), keys::ROOT, "", problems);
}

fn check_table(table: &mut Table, defaults: Option<&Table>, keys: &'static [Key], path: &str, problems: &mut Vec<Problem>) {
    for key in keys {
        let path = join(path, key.name);
        let default = defaults.and_then(|defaults| defaults.get(key.name));
        let Some(value) = table.get_mut(key.name) else { continue };
        let Err(why) = check_value(value, default, key.kind, &path, problems) else { continue };
        problems.push(Problem::new(origin(value), format!("`{path}`: {why}")));
        match default {
            Some(default) => *value = default.clone(),
            None => drop(table.remove(key.name)),
        }
    }
}

fn check_value(value: &mut Value, default: Option<&Value>, kind: Kind, path: &str, problems: &mut Vec<Problem>) -> Result<(), String> {
    let at = origin(value);
    match (kind, &mut value.kind) {
        (Kind::Table(keys), ValueKind::Table(table)) => {
            let defaults = default.and_then(|default| match &default.kind {
                ValueKind::Table(table) => Some(table),
                _ => None,
            });
            check_table(table, defaults, keys, path, problems);
            Ok(())
        }
        (Kind::Tables(keys), ValueKind::Array(entries)) => {
            check_entries(entries, keys, path, problems);
            Ok(())
        }
        (Kind::ByType(keys), ValueKind::Table(rules)) => {
            rules.retain(|name, rule| match &mut rule.kind {
                ValueKind::Table(fields) => {
                    check_table(fields, None, keys, &join(path, name), problems);
                    true
                }
                _ => {
                    let at = if rule.origin().is_some() { origin(rule) } else { at.clone() };
                    problems.push(Problem::new(at, format!("`{}`: must be a table with delays and jitter", join(path, name))));
                    false
                }
            });
            Ok(())
        }
        (Kind::Properties, ValueKind::Table(properties)) => {
            properties.retain(|name, value| {
                let fits = !matches!(value.kind, ValueKind::Array(_) | ValueKind::Nil);
                if !fits {
                    problems.push(Problem::new(origin(value), format!("`{}`: must be one value, as text", join(path, name))));
                }
                fits
            });
            Ok(())
        }
        (kind, found) => check_scalar(kind, found),
    }
}

fn check_entries(entries: &mut Vec<Value>, keys: &'static [Key], path: &str, problems: &mut Vec<Problem>) {
    for (index, entry) in entries.iter_mut().enumerate() {
        let path = format!("{path}[{index}]");
        let at = origin(entry);
        let ValueKind::Table(fields) = &mut entry.kind else {
            problems.push(Problem::new(&at, format!("`{path}`: must be a table")));
            continue;
        };
        let given: Vec<&str> = keys.iter().map(|key| key.name).filter(|name| fields.contains_key(*name)).collect();
        check_table(fields, None, keys, &path, problems);
        for key in keys {
            if fields.contains_key(key.name) {
                continue;
            }
            if key.required && !given.contains(&key.name) {
                problems.push(Problem::new(&at, format!("`{path}`: `{}` is missing ({})", key.name, key.doc)));
            }
            // A stand-in keeps the entry readable for the other checks; the problem above stops the start.
            let stand_in = match key.kind {
                Kind::Choice(words) if key.required => words.first().map(|word| ValueKind::from(*word)),
                Kind::Integer(least, _) if key.required => Some(ValueKind::I64(least)),
                _ if key.required => Some(ValueKind::from(format!("{path} without {}", key.name))),
                _ => key.default.and_then(|default| env::inline(default, "default").ok()).map(|value| value.kind),
            };
            if let Some(kind) = stand_in {
                fields.insert(key.name.to_owned(), Value::new(Some(&"default".to_owned()), kind));
            }
        }
    }
    entries.retain(|entry| matches!(entry.kind, ValueKind::Table(_)));
}

fn check_scalar(kind: Kind, found: &ValueKind) -> Result<(), String> {
    match (kind, found) {
        (Kind::Text | Kind::Secret | Kind::SecretUrl, ValueKind::String(_)) | (Kind::Flag, ValueKind::Boolean(_)) => Ok(()),
        (Kind::Text | Kind::Secret | Kind::SecretUrl, _) => Err("must be text, in quotes".to_owned()),
        (Kind::Flag, _) => Err(format!("{} is neither true nor false", shown(found))),
        (Kind::Integer(least, most), ValueKind::I64(number)) if (least..=most).contains(number) => Ok(()),
        (Kind::Integer(least, i64::MAX), _) => Err(format!("{} is no whole number from {least} up", shown(found))),
        (Kind::Integer(least, most), _) => Err(format!("{} is no whole number from {least} to {most}", shown(found))),
        (Kind::Number(least, most), ValueKind::Float(number)) if (least..=most).contains(number) => Ok(()),
        #[expect(clippy::cast_precision_loss, reason = "bounds are small")]
        (Kind::Number(least, most), ValueKind::I64(number)) if (least..=most).contains(&(*number as f64)) => Ok(()),
        (Kind::Number(least, most), _) => Err(format!("{} is no number from {least} to {most}", shown(found))),
        (Kind::Duration, found) => duration(found).map(drop),
        (Kind::Size, ValueKind::String(text)) => units::parse_size(text).map(drop),
        (Kind::Size, ValueKind::I64(bytes)) if *bytes >= 0 => Ok(()),
        (Kind::Size, _) => Err(format!("{} is no size; write it like \"256MiB\"", shown(found))),
        (Kind::Choice(words), ValueKind::String(text)) if words.contains(&text.as_str()) => Ok(()),
        (Kind::Choice(words), _) => {
            let meant = match found {
                ValueKind::String(text) => keys::nearest(text, words.iter().copied()),
                _ => None,
            };
            let meant = meant.map(|word| format!("; did you mean \"{word}\"?")).unwrap_or_default();
            Err(format!("{} is none of {}{meant}", shown(found), words.join(", ")))
        }
        (Kind::Texts, ValueKind::Array(items)) if items.iter().all(|item| matches!(item.kind, ValueKind::String(_))) => Ok(()),
        (Kind::Texts, _) => Err("must be a list of texts, like [\"a\", \"b\"]".to_owned()),
        (Kind::Durations, ValueKind::Array(items)) => items.iter().try_for_each(|item| duration(&item.kind).map(drop)),
        (Kind::Durations, _) => Err("must be a list of durations, like [\"1s\", \"5m\"]".to_owned()),
        (Kind::Tables(_), _) => Err("must be a list of tables".to_owned()),
        (Kind::Table(_) | Kind::ByType(_) | Kind::Properties, _) => Err("must be a table".to_owned()),
    }
}

fn duration(found: &ValueKind) -> Result<Duration, String> {
    match found {
        ValueKind::String(text) => units::parse_duration(text),
        found => units::parse_duration(&found.to_string()),
    }
}

/// A value as the report shows it.
fn shown(found: &ValueKind) -> String {
    match found {
        ValueKind::Table(_) => "a table".to_owned(),
        ValueKind::Array(_) => "a list".to_owned(),
        ValueKind::String(text) => format!("`{}`", super::secret::mask_userinfo(text)),
        other => format!("`{other}`"),
    }
}
