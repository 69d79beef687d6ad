//! Where configuration comes from, and how the layers become one.

use std::{
    env::VarsOs,
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use config::{Value, ValueKind};

use super::{
    Config, Role, dapr, env, file, flags,
    kafka::KafkaConfig,
    layer::{self, Table},
    origins::Origins,
    problem::{ConfigErrors, Problem},
    redis::StoreConfig,
    rules, values,
};

/// The embedded defaults: the reference of every key.
pub const DEFAULT_TOML: &str = include_str!("../../config/default.toml");

/// What a configuration is made from. Plain data: nothing is read from the process but the named files.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// A folder of Dapr's component files, below every other layer but the defaults.
    pub dapr_components: Option<PathBuf>,
    /// Where the app of that folder listens.
    pub dapr_app: Option<String>,
    /// Each `-c FILE`, lowest first.
    pub files: Vec<PathBuf>,
    /// TOML that is in no file, above the files: a label for its lines, and the text.
    pub texts: Vec<(String, String)>,
    /// A snapshot of the environment.
    pub env: Vec<(String, String)>,
    /// Each `--set path=value`.
    pub sets: Vec<String>,
    /// Each `-X property=value`.
    pub properties: Vec<String>,
    /// Flags that are the short form of a key.
    pub flags: Vec<Flag>,
    /// The role to run, which moves some defaults; `None` where a command has none.
    pub role: Option<Role>,
}

/// A flag that is the short form of a key.
#[derive(Debug, Clone)]
pub struct Flag {
    /// As typed: `--http-addr`.
    pub flag: &'static str,
    /// The key: `http.listen`.
    pub key: &'static str,
    /// The value, as text.
    pub value: String,
}

impl Sources {
    /// The process's environment as [`Sources::env`] takes it; what is not Unicode is left out.
    pub fn snapshot(vars: VarsOs) -> Vec<(String, String)> {
        vars.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect()
    }
}

/// A configuration that passed every check.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// Where each value came from.
    pub origins: Origins,
    /// What is allowed and probably not meant.
    pub warnings: Vec<Problem>,
}

impl Config {
    /// Loads, merges and checks every layer.
    ///
    /// # Errors
    /// One report of every problem.
    pub fn load(sources: &Sources) -> Result<Loaded, ConfigErrors> {
        let mut problems = Vec::new();
        let mut warnings = Vec::new();
        let Some(defaults) = layer_of("default", DEFAULT_TOML, true, &mut problems) else { return Err(report(problems)) };
        let mut layers = vec![defaults.clone()];
        layers.extend(sources.role.map(role_layer));
        let components = layers.len();
        let mut readable = true;
        for path in &sources.files {
            let label = path.display().to_string();
            let layer = match fs::read_to_string(path) {
                Ok(text) => layer_of(&label, &text, false, &mut problems),
                Err(error) => {
                    problems.push(Problem::new(label, format!("cannot be read: {error}")));
                    None
                }
            };
            readable &= layer.is_some();
            layers.extend(layer);
        }
        for (label, text) in &sources.texts {
            let layer = layer_of(label, text, false, &mut problems);
            readable &= layer.is_some();
            layers.extend(layer);
        }
        let env = env::layer(&sources.env, &layers, &mut problems, &mut warnings);
        layers.push(layer::tidy(env, &mut problems));
        let flags = flags::layer(sources, &mut problems);
        layers.push(layer::tidy(flags, &mut problems));
        if let Some(dir) = &sources.dapr_components {
            match components_layer(dir, sources, &layers, &mut warnings) {
                Ok(layer) => layers.insert(components, layer::tidy(layer, &mut problems)),
                Err(unreadable) => {
                    problems.extend(
                        unreadable.into_iter().map(|problem| Problem::new(dir.join(problem.origin).display().to_string(), problem.message)),
                    );
                    readable = false;
                }
            }
        }
        if !readable {
            // What an unreadable file holds is not known: checks of the rest would report what it may well set.
            return Err(report(problems));
        }
        let mut merged = layer::merge(layers);
        values::check(&mut merged, &defaults, &mut problems);
        fill_group(&mut merged);
        env::fill_app_token(&sources.env, &mut merged);
        let origins = Origins::of(&merged);
        let config = match Config::deserialize(Value::new(None, merged)) {
            Ok(config) => config,
            Err(error) => {
                problems.push(Problem::new("", error.to_string()));
                return Err(report(problems));
            }
        };
        rules::check(&config, &origins, sources.role, &mut problems, &mut warnings);
        match ConfigErrors::of(problems) {
            Some(errors) => Err(errors),
            None => Ok(Loaded { config, origins, warnings }),
        }
    }
}

/// A folder of Dapr's component files as a layer; what a person must decide becomes warnings. `layers`: the others, for the app-id.
fn components_layer(dir: &Path, sources: &Sources, layers: &[Table], warnings: &mut Vec<Problem>) -> Result<Table, Vec<Problem>> {
    let app_id = layers.iter().rev().find_map(|layer| layer.get("app_id")).map(ToString::to_string).unwrap_or_default();
    // What Dapr's own tools tell both sides of an app.
    let port =
        sources.env.iter().find(|(name, port)| name == "APP_PORT" && !port.is_empty()).map(|(_, port)| format!("http://127.0.0.1:{port}"));
    let facts = dapr::Facts { app_id, app_url: sources.dapr_app.clone().or(port) };
    let imported = dapr::import(dir, &facts)?;
    let of_file = |from: &str| from.contains(".yaml: ") || from.contains(".yml: ");
    let shown = |from: &str| if of_file(from) { dir.join(from).display().to_string() } else { from.to_owned() };
    warnings.extend(imported.of(dapr::Fate::Decide).map(|note| Problem::new(shown(&note.from), note.text.as_str())));
    let handlers = layers.iter().skip(1).rev().find_map(|layer| layer.get("handlers"));
    let replaced = handlers.filter(|handlers| imported.root.has("handlers") && !layer::origin(handlers).starts_with("default"));
    if let Some(handlers) = replaced {
        let why = "handlers that are given elsewhere replace the folder's subscriptions; repeat them there as [[handlers.routes]]";
        warnings.push(Problem::new(layer::origin(handlers), why));
    }
    Ok(imported.root.to_layer(&shown))
}

fn report(problems: Vec<Problem>) -> ConfigErrors {
    ConfigErrors::of(problems).unwrap_or_else(ConfigErrors::unexplained)
}

fn layer_of(label: &str, text: &str, is_default: bool, problems: &mut Vec<Problem>) -> Option<Table> {
    let parsed = if is_default { file::parse_inline(label, text) } else { file::parse(label, text) };
    match parsed {
        Ok(table) => Some(layer::tidy(table, problems)),
        Err(errors) => {
            problems.extend(errors);
            None
        }
    }
}

/// What a role changes of the defaults; every layer that a user writes is above it.
fn role_layer(role: Role) -> Table {
    let mut table = Table::new();
    if role == Role::Standalone {
        let origin = "default of standalone".to_owned();
        let text = |text: &str| Value::new(Some(&origin), text);
        let handler = Table::from_iter([("name".to_owned(), text("log")), ("kind".to_owned(), text("log"))]);
        let handlers = ValueKind::Array(vec![Value::new(Some(&origin), handler)]);
        layer::insert(&mut table, &["kafka".to_owned(), "brokers".to_owned()], text(KafkaConfig::EMBEDDED));
        layer::insert(&mut table, &["store".to_owned(), "url".to_owned()], text(StoreConfig::MEMORY));
        layer::insert(&mut table, &["handlers".to_owned()], Value::new(Some(&origin), handlers));
    }
    table
}

/// A group that is not named is the app's.
fn fill_group(merged: &mut Table) {
    let app_id = merged.get("app_id").cloned();
    if let (Some(app_id), Some(ValueKind::Table(kafka))) = (app_id, merged.get_mut("kafka").map(|kafka| &mut kafka.kind)) {
        let origin = format!("{} (app_id)", layer::origin(&app_id));
        kafka.entry("group_id".to_owned()).or_insert_with(|| Value::new(Some(&origin), app_id.kind));
    }
}
