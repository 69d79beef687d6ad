//! One layer of the configuration as a tree of values, each with its origin, and what every layer goes through before it is merged:
//! dotted names joined, secret files read, unknown keys reported.

use std::{fs, path::Path};

use config::{Map, Source, Value, ValueKind};

use super::{
    keys::{self, Key, Kind},
    problem::Problem,
    secret,
};

/// A table of values.
pub type Table = Map<String, Value>;

/// The key under which a layer stands for the `config` crate, which reads a layer's outermost keys as paths and would take a quoted
/// `"a.b"` apart.
const UNDER: &str = "worker";

/// A layer for the `config` crate to merge.
#[derive(Debug, Clone)]
struct Layer(Table);

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Table, config::ConfigError> {
        Ok(Table::from_iter([(UNDER.to_owned(), Value::new(None, self.0.clone()))]))
    }
}

/// Merges the layers, the later ones over the earlier: tables merge, everything else replaces.
pub fn merge(layers: Vec<Table>) -> Table {
    let builder = layers.into_iter().fold(config::Config::builder(), |builder, layer| builder.add_source(Layer(layer)));
    // Sources of this file cannot fail, and neither can building from them.
    builder.build().and_then(|merged| merged.get_table(UNDER)).unwrap_or_default()
}

/// Puts `value` at `path`, making the tables on the way.
pub fn insert(table: &mut Table, path: &[String], value: Value) {
    let Some((name, rest)) = path.split_first() else { return };
    if rest.is_empty() {
        table.insert(name.clone(), value);
        return;
    }
    let origin = value.origin().map(str::to_owned);
    let inner = table.entry(name.clone()).or_insert_with(|| Value::new(origin.as_ref(), Table::new()));
    if !matches!(inner.kind, ValueKind::Table(_)) {
        *inner = Value::new(origin.as_ref(), Table::new());
    }
    if let ValueKind::Table(inner) = &mut inner.kind {
        insert(inner, rest, value);
    }
}

/// `key` below `path`, quoted where it needs to be.
pub fn join(path: &str, name: &str) -> String {
    let bare = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    let name = if bare { name.to_owned() } else { format!("\"{name}\"") };
    if path.is_empty() { name } else { format!("{path}.{name}") }
}

/// Where a value was written, for reports.
pub fn origin(value: &Value) -> String {
    value.origin().unwrap_or_default().to_owned()
}

/// Makes a layer fit the table of keys: names that the file's syntax took apart are joined again, `<secret>_file` becomes the secret that
/// the file holds, and what no key is called is reported and left out.
pub fn tidy(layer: Table, problems: &mut Vec<Problem>) -> Table {
    tidy_table(layer, keys::ROOT, "", problems)
}

fn tidy_table(table: Table, keys: &'static [Key], path: &str, problems: &mut Vec<Problem>) -> Table {
    let mut tidied = Table::new();
    let mut secrets = Vec::new();
    for (name, value) in table {
        if let Some(key) = keys::find(keys, &name) {
            let value = tidy_value(value, key, &join(path, &name), problems);
            tidied.insert(name, value);
        } else if let Some(key) = name.strip_suffix("_file").and_then(|name| keys::find(keys, name)).filter(|key| key.kind.is_secret()) {
            secrets.push((key.name.to_owned(), value));
        } else {
            problems.push(unknown(&name, &value, keys, path));
        }
    }
    read_secrets(&mut tidied, secrets, path, problems);
    tidied
}

fn tidy_value(value: Value, key: &'static Key, path: &str, problems: &mut Vec<Problem>) -> Value {
    let origin = value.origin().map(str::to_owned);
    match (key.kind, value.kind) {
        (Kind::Table(keys), ValueKind::Table(table)) => Value::new(origin.as_ref(), tidy_table(table, keys, path, problems)),
        (Kind::Tables(keys), ValueKind::Array(entries)) => {
            let tidy_entry = |(index, entry): (usize, Value)| {
                let origin = entry.origin().map(str::to_owned);
                match entry.kind {
                    ValueKind::Table(table) => Value::new(origin.as_ref(), tidy_table(table, keys, &format!("{path}[{index}]"), problems)),
                    kind => Value::new(origin.as_ref(), kind),
                }
            };
            Value::new(origin.as_ref(), entries.into_iter().enumerate().map(tidy_entry).collect::<Vec<_>>())
        }
        (Kind::ByType(keys), ValueKind::Table(table)) => {
            let mut rules = Table::new();
            flatten_rules(table, "", keys, &mut rules);
            for (name, rule) in &mut rules {
                let origin = rule.origin().map(str::to_owned);
                if let ValueKind::Table(fields) = std::mem::replace(&mut rule.kind, ValueKind::Nil) {
                    *rule = Value::new(origin.as_ref(), tidy_table(fields, keys, &join(path, name), problems));
                }
            }
            Value::new(origin.as_ref(), rules)
        }
        (Kind::Properties, ValueKind::Table(table)) => {
            let mut properties = Table::new();
            flatten_properties(table, "", &mut properties);
            let files = properties.keys().filter(|name| name.strip_suffix(".file").is_some_and(secret::is_secret_property));
            let files: Vec<String> = files.cloned().collect();
            let taken = files.into_iter().filter_map(|name| {
                let value = properties.remove(&name)?;
                Some((name.trim_end_matches(".file").to_owned(), value))
            });
            let taken = taken.collect();
            read_secrets(&mut properties, taken, path, problems);
            Value::new(origin.as_ref(), properties)
        }
        (_, kind) => Value::new(origin.as_ref(), kind),
    }
}

/// `[retry.task.completed]` is a table in a table to TOML; no field of a rule is a table, so it can only mean `"task.completed"`.
fn flatten_rules(table: Table, prefix: &str, keys: &'static [Key], rules: &mut Table) {
    for (name, value) in table {
        let name = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        let origin = value.origin().map(str::to_owned);
        match value.kind {
            ValueKind::Table(inner) => {
                let is_deeper =
                    |(field, value): &(String, Value)| keys::find(keys, field).is_none() && matches!(value.kind, ValueKind::Table(_));
                let (deeper, fields): (Vec<_>, Vec<_>) = inner.into_iter().partition(is_deeper);
                if !fields.is_empty() || deeper.is_empty() {
                    rules.insert(name.clone(), Value::new(origin.as_ref(), Table::from_iter(fields)));
                }
                flatten_rules(Table::from_iter(deeper), &name, keys, rules);
            }
            kind => {
                rules.insert(name, Value::new(origin.as_ref(), kind));
            }
        }
    }
}

/// `security.protocol = "ssl"` without quotes is a table in a table to TOML; no property is a table.
fn flatten_properties(table: Table, prefix: &str, properties: &mut Table) {
    for (name, value) in table {
        let name = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        match value.kind {
            ValueKind::Table(inner) => flatten_properties(inner, &name, properties),
            _ => {
                properties.insert(name, value);
            }
        }
    }
}

fn read_secrets(table: &mut Table, files: Vec<(String, Value)>, path: &str, problems: &mut Vec<Problem>) {
    for (name, value) in files {
        let at = origin(&value);
        let key = join(path, &name);
        let ValueKind::String(file) = &value.kind else {
            problems.push(Problem::new(at, format!("the file of `{key}` must be the path of a file, as text")));
            continue;
        };
        if let Some(other) = table.get(&name) {
            problems.push(Problem::new(at, format!("`{key}` is given twice: here by file, and by {}; keep one", origin(other))));
            continue;
        }
        match read_secret(Path::new(file)) {
            Ok(secret) => {
                table.insert(name, Value::new(Some(&format!("{at} ({file})")), secret));
            }
            Err(why) => problems.push(Problem::new(at, format!("cannot read the secret `{key}` from {file}: {why}"))),
        }
    }
}

/// The text of a secret's file, without the line end that editors and `echo` leave.
fn read_secret(path: &Path) -> Result<String, String> {
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    let secret = text.trim_end_matches(['\n', '\r']);
    if secret.is_empty() { Err("the file is empty".to_owned()) } else { Ok(secret.to_owned()) }
}

fn unknown(name: &str, value: &Value, keys: &'static [Key], path: &str) -> Problem {
    let full = join(path, name);
    let in_this_table = || keys::nearest(name, keys.iter().map(|key| key.name)).map(|name| join(path, name));
    let elsewhere = || {
        let leaves = keys::leaves();
        let same_name = leaves.iter().find(|(_, key)| key.name == name).map(|(path, _)| path.clone());
        same_name.or_else(|| keys::nearest(&full, leaves.iter().map(|(path, _)| path.as_str())).map(str::to_owned))
    };
    let mut message = format!("unknown key `{full}`");
    if let Some(meant) = in_this_table().or_else(elsewhere) {
        message += &format!("; did you mean `{meant}`");
        if origin(value).starts_with("env ") {
            message += &format!(" ({})", super::env::name(&meant));
        }
        message += "?";
    }
    Problem::new(origin(value), message)
}
