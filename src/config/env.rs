//! Environment variables as a layer: `WORKER_STORE__URL` is `store.url`.

use config::{Value, ValueKind};

use super::{
    file,
    keys::{self, Key, Kind},
    layer::{self, Table},
    problem::Problem,
};

/// What every name begins with.
const PREFIX: &str = "WORKER_";

/// What Dapr's clients and sidecars call the API token; read where `WORKER_PUBLISH__API_TOKEN` is not set.
const DAPR_TOKEN: &str = "DAPR_API_TOKEN";

/// What Dapr's sidecars call the token that they send to their app.
const APP_TOKEN: &str = "APP_API_TOKEN";

/// Keys of the root with a value of their own: configuration although their name has no `__`.
const PLAIN: &[&str] = &["WORKER_APP_ID"];

/// The variables that are configuration, as a layer, and warnings about those that look as if they were meant to be.
///
/// `WORKER_APP_ID` and names with `__` are configuration. Any other `WORKER_*` is left alone: Kubernetes sets `WORKER_PORT`,
/// `WORKER_SERVICE_HOST` and their like for a Service named worker. An empty value counts as not set. `lower` holds the layers
/// below, whose event types resolve names such as `WORKER_RETRY__TASK_BULK_DONE__DELAYS`.
pub fn layer(env: &[(String, String)], lower: &[Table], problems: &mut Vec<Problem>, warnings: &mut Vec<Problem>) -> Table {
    let mut table = Table::new();
    let set = env.iter().filter(|(_, text)| !text.is_empty());
    for (variable, text) in set.clone() {
        let Some(rest) = variable.strip_prefix(PREFIX) else { continue };
        let origin = format!("env {variable}");
        if !rest.contains("__") && !PLAIN.contains(&variable.as_str()) {
            warnings.extend(meant(variable).map(|meant| Problem::new(origin, format!("not read; did you mean {meant}?"))));
            continue;
        }
        let segments: Vec<String> = rest.split("__").map(str::to_lowercase).collect();
        match locate(&segments, lower) {
            Ok((path, kind)) => match literal(kind, text, &origin) {
                Ok(value) => layer::insert(&mut table, &path, value),
                Err(why) => problems.push(Problem::new(origin, why)),
            },
            Err(why) => problems.push(Problem::new(origin, why)),
        }
    }
    let is_given = env.iter().any(|(name, text)| name.starts_with("WORKER_PUBLISH__API_TOKEN") && !text.is_empty());
    if let Some((_, token)) = set.clone().find(|(variable, _)| variable == DAPR_TOKEN).filter(|_| !is_given) {
        let origin = format!("env {DAPR_TOKEN}");
        layer::insert(&mut table, &["publish".to_owned(), "api_token".to_owned()], Value::new(Some(&origin), token.clone()));
    }
    table
}

/// Gives `APP_API_TOKEN` to the handlers whose app tells its routes and that have no token of their own. No other receiver gets it.
pub fn fill_app_token(env: &[(String, String)], merged: &mut Table) {
    let Some((_, token)) = env.iter().find(|(name, text)| name == APP_TOKEN && !text.is_empty()) else { return };
    let origin = format!("env {APP_TOKEN}");
    let Some(ValueKind::Array(handlers)) = merged.get_mut("handlers").map(|handlers| &mut handlers.kind) else { return };
    for handler in handlers {
        if let ValueKind::Table(fields) = &mut handler.kind
            && fields.contains_key("discover")
        {
            fields.entry("api_token".to_owned()).or_insert_with(|| Value::new(Some(&origin), token.clone()));
        }
    }
}

/// The variable of a key: `store.url` is `WORKER_STORE__URL`, `kafka.properties."sasl.password"` is
/// `WORKER_KAFKA__PROPERTIES__SASL_PASSWORD`.
pub fn name(key: &str) -> String {
    let mut name = PREFIX.to_owned();
    let mut quoted = false;
    for c in key.chars() {
        match c {
            '"' => quoted = !quoted,
            '.' if !quoted => name.push_str("__"),
            '.' => name.push('_'),
            c => name.push(c.to_ascii_uppercase()),
        }
    }
    name
}

/// The path and kind that a variable's segments stand for. An unknown name keeps its segments: the layer's own check reports it.
fn locate(segments: &[String], lower: &[Table]) -> Result<(Vec<String>, Kind), String> {
    let mut keys = keys::ROOT;
    let mut path = Vec::new();
    let mut rest = segments.iter();
    while let Some(segment) = rest.next() {
        path.push(segment.clone());
        let Some(Key { kind, .. }) = keys::find(keys, segment) else { break };
        match *kind {
            Kind::Table(inner) => keys = inner,
            Kind::ByType(inner) => {
                if let Some(pattern) = rest.next() {
                    path.push(event_type(pattern, lower));
                }
                keys = inner;
            }
            Kind::Properties => {
                let [name] = rest.as_slice() else {
                    return Err(format!("name one property, as in {}__SECURITY_PROTOCOL", self::name(&path.join("."))));
                };
                path.push(name.replace('_', "."));
                return Ok((path, *kind));
            }
            Kind::Tables(_) => return Err(format!("`{segment}` is a list of tables: give it in a file, or by --set '{segment}=[{{..}}]'")),
            kind if rest.as_slice().is_empty() => return Ok((path, kind)),
            _ => break,
        }
    }
    path.extend(rest.cloned());
    Ok((path, Kind::Text))
}

/// The event type or pattern meant by `task_completed`: one that a layer below names, else each `_` a dot.
fn event_type(segment: &str, lower: &[Table]) -> String {
    let mut named = lower.iter().rev().filter_map(|table| match table.get("retry").map(|retry| &retry.kind) {
        Some(ValueKind::Table(rules)) => rules.keys().find(|name| name.replace('.', "_").to_lowercase() == segment).cloned(),
        _ => None,
    });
    named.next().unwrap_or_else(|| segment.replace('_', "."))
}

/// Reads the text of a variable or a flag as a value of that kind. What does not fit stays text, for the value check to report.
///
/// # Errors
/// Where a list in brackets is not TOML.
pub fn literal(kind: Kind, text: &str, origin: &str) -> Result<Value, String> {
    let origin_text = origin.to_owned();
    let value = |kind: ValueKind| Ok(Value::new(Some(&origin_text), kind));
    let trimmed = text.trim();
    match kind {
        Kind::Flag => value(trimmed.parse().map_or_else(|_| text.into(), ValueKind::Boolean)),
        Kind::Integer(..) => value(trimmed.parse().map_or_else(|_| text.into(), ValueKind::I64)),
        Kind::Number(..) => value(trimmed.parse().map_or_else(|_| text.into(), ValueKind::Float)),
        Kind::Texts | Kind::Durations if trimmed.starts_with('[') => inline(trimmed, origin),
        Kind::Texts | Kind::Durations => {
            let items = trimmed.split(',').map(str::trim).filter(|item| !item.is_empty());
            value(ValueKind::Array(items.map(|item| Value::new(Some(&origin_text), item)).collect()))
        }
        Kind::Table(_) | Kind::Tables(_) | Kind::ByType(_) => inline(trimmed, origin),
        Kind::Text | Kind::Secret | Kind::SecretUrl | Kind::Choice(_) | Kind::Duration | Kind::Size | Kind::Properties => {
            value(text.into())
        }
    }
}

/// Reads a TOML value.
///
/// # Errors
/// Where it is none.
pub fn inline(text: &str, origin: &str) -> Result<Value, String> {
    let table = file::parse_inline(origin, &format!("value = {text}"));
    let table = table.map_err(|problems| problems.first().map_or_else(String::new, |problem| problem.message.clone()))?;
    match (table.len(), table.get("value")) {
        (1, Some(value)) => Ok(value.clone()),
        _ => Err("not one TOML value".to_owned()),
    }
}

/// The variable that one without `__` was probably meant to be: `WORKER_STORE_URL` for `WORKER_STORE__URL`.
fn meant(variable: &str) -> Option<String> {
    let plain = keys::leaves().into_iter().filter(|(path, _)| !path.contains(['[', '<']));
    let mut names = plain.flat_map(|(path, key)| {
        let name = name(&path);
        let file = key.kind.is_secret().then(|| format!("{name}_FILE"));
        [Some(name), file].into_iter().flatten()
    });
    names.find(|name| name.replace("__", "_") == variable)
}
