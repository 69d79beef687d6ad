//! Each effective value and where it came from, secrets masked.

use config::{Value, ValueKind};
use serde::Serialize;

use super::{
    keys::{self, Key, Kind},
    layer::{Table, join, origin},
    secret::{self, MASK},
};

/// One effective value.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Setting {
    /// Its path: `kafka.properties."sasl.password"`, `handlers[0].url`.
    pub key: String,
    /// Its value, masked where it is a secret.
    pub value: serde_json::Value,
    /// Where it was written.
    pub origin: String,
}

/// Every effective value in the order of the table of keys.
#[derive(Debug, Clone, Default)]
pub struct Origins(Vec<Setting>);

impl Origins {
    /// Collects the values of a merged and checked configuration.
    pub(super) fn of(merged: &Table) -> Self {
        let mut settings = Vec::new();
        collect_table(merged, keys::ROOT, "", &mut settings);
        Self(settings)
    }

    /// Every value.
    pub fn settings(&self) -> &[Setting] {
        &self.0
    }

    /// Where the value at that path was written; for a table or a list entry, its first value that is no default. Empty for a path
    /// that has no value.
    pub fn get(&self, key: &str) -> &str {
        let exact = self.0.iter().find(|setting| setting.key == key);
        let inside = || {
            let is_inside = |setting: &&Setting| setting.key.strip_prefix(key).is_some_and(|rest| rest.starts_with(['.', '[']));
            let mut settings = self.0.iter().filter(is_inside);
            settings.clone().find(|setting| setting.origin != "default").or_else(|| settings.next())
        };
        exact.or_else(inside).map_or("", |setting| &setting.origin)
    }
}

fn collect_table(table: &Table, keys: &'static [Key], path: &str, settings: &mut Vec<Setting>) {
    for key in keys {
        let path = join(path, key.name);
        let Some(value) = table.get(key.name) else { continue };
        match (key.kind, &value.kind) {
            (Kind::Table(keys), ValueKind::Table(table)) => collect_table(table, keys, &path, settings),
            (Kind::Tables(keys), ValueKind::Array(entries)) => {
                for (index, entry) in entries.iter().enumerate() {
                    if let ValueKind::Table(table) = &entry.kind {
                        collect_table(table, keys, &format!("{path}[{index}]"), settings);
                    }
                }
            }
            (Kind::ByType(keys), ValueKind::Table(rules)) => {
                for (name, rule) in sorted(rules) {
                    if let ValueKind::Table(fields) = &rule.kind {
                        collect_table(fields, keys, &join(&path, name), settings);
                    }
                }
            }
            (Kind::Properties, ValueKind::Table(properties)) => {
                for (name, value) in sorted(properties) {
                    let shown = if secret::is_secret_property(name) { MASK.into() } else { json(value) };
                    settings.push(Setting { key: join(&path, name), value: shown, origin: origin(value) });
                }
            }
            (kind, _) => {
                let shown = match (kind, &value.kind) {
                    (Kind::Secret, ValueKind::String(text)) if !text.is_empty() => MASK.into(),
                    _ => json(value),
                };
                settings.push(Setting { key: path, value: shown, origin: origin(value) });
            }
        }
    }
}

fn sorted(table: &Table) -> Vec<(&String, &Value)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| *name);
    entries
}

fn json(value: &Value) -> serde_json::Value {
    match &value.kind {
        ValueKind::Boolean(flag) => (*flag).into(),
        ValueKind::I64(number) => (*number).into(),
        ValueKind::Float(number) => (*number).into(),
        ValueKind::Array(items) => items.iter().map(json).collect(),
        other => secret::mask_userinfo(&other.to_string()).into(),
    }
}
