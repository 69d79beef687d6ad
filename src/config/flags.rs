//! `--set path=value`, `-X property=value` and flags that are a key's short form, as the topmost layer.

use config::{Value, ValueKind};

use super::{
    env, file,
    keys::{self, Kind},
    layer::{self, Table},
    problem::Problem,
    sources::Sources,
};

/// The topmost layer. Among flags a later one wins; `-X` and named flags win over `--set`.
pub fn layer(sources: &Sources, problems: &mut Vec<Problem>) -> Table {
    let mut table = Table::new();
    for set in &sources.sets {
        match assignment(set) {
            Ok((path, value)) => layer::insert(&mut table, &path, value),
            Err(problem) => problems.push(problem),
        }
    }
    for property in &sources.properties {
        match property.split_once('=').filter(|(name, _)| !name.trim().is_empty()) {
            Some((name, text)) => {
                let name = name.trim();
                let path = ["kafka".to_owned(), "properties".to_owned(), name.to_owned()];
                layer::insert(&mut table, &path, Value::new(Some(&format!("-X {name}")), text));
            }
            None => problems.push(Problem::new("-X", "write it as -X property=value, for example -X security.protocol=ssl")),
        }
    }
    for flag in &sources.flags {
        let path: Vec<String> = flag.key.split('.').map(str::to_owned).collect();
        layer::insert(&mut table, &path, Value::new(Some(&flag.flag.to_owned()), flag.value.as_str()));
    }
    table
}

/// Reads `path=value`: the path as TOML writes keys, the value as TOML, or else as text. A key that takes text takes `123` as text too.
fn assignment(set: &str) -> Result<(Vec<String>, Value), Problem> {
    let Some((path_text, text)) = split(set) else {
        // Without a `=` outside quotes nothing tells a path from a secret: the text is not repeated.
        return Err(Problem::new("--set", "write it as --set path=value, for example --set kafka.brokers=localhost:9092"));
    };
    let path_text = path_text.trim();
    let origin = format!("--set {path_text}");
    let path = path(path_text).ok_or_else(|| Problem::new(&origin, "the path is not a key as TOML writes it"))?;
    let kind = kind(&path);
    let parsed = env::inline(text, &origin).ok();
    let is_text = !matches!(kind, Some(Kind::Texts | Kind::Durations | Kind::Table(_) | Kind::Tables(_) | Kind::ByType(_)));
    let value = match parsed.map(|value| value.kind) {
        Some(kind @ ValueKind::String(_)) if is_text => kind,
        Some(kind @ (ValueKind::Array(_) | ValueKind::Table(_))) => kind,
        _ => env::literal(kind.unwrap_or(Kind::Text), text, &origin).map_or_else(|_| text.into(), |value| value.kind),
    };
    Ok((path, Value::new(Some(&origin), value)))
}

/// Splits at the first `=` outside quotes.
fn split(set: &str) -> Option<(&str, &str)> {
    let mut quote = None;
    let at = set.char_indices().find(|(_, c)| {
        match (quote, *c) {
            (None, '"' | '\'') => quote = Some(*c),
            (Some(open), c) if c == open => quote = None,
            _ => {}
        }
        quote.is_none() && *c == '='
    })?;
    Some((&set[..at.0], &set[at.0 + 1..]))
}

fn path(text: &str) -> Option<Vec<String>> {
    let mut table = file::parse_inline("", &format!("{text} = 0")).ok()?;
    let mut path = Vec::new();
    loop {
        let (name, value) = table.into_iter().next()?;
        path.push(name);
        match value.kind {
            ValueKind::Table(inner) => table = inner,
            _ => return Some(path),
        }
    }
}

/// What the key at that path takes; `None` for a key that is not known.
fn kind(path: &[String]) -> Option<Kind> {
    let mut keys = keys::ROOT;
    for (at, name) in path.iter().enumerate() {
        let kind = keys::find(keys, name)?.kind;
        match kind {
            _ if at + 1 == path.len() => return Some(kind),
            Kind::Table(inner) => keys = inner,
            Kind::ByType(inner) => return keys::find(inner, path.last()?).map(|key| key.kind),
            Kind::Properties => return Some(Kind::Text),
            _ => return None,
        }
    }
    None
}
