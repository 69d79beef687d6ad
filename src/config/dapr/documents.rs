//! The YAML documents of a folder, as far as every kind has the same fields.

use std::{fs, path::Path};

use serde::Deserialize;
use serde_json::Value as Json;

use crate::config::problem::Problem;

/// One document of one file.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// The file's name in its folder.
    pub file: String,
    /// `Component`, `Subscription`, `Resiliency`, or any other.
    pub kind: String,
    /// `metadata.name`.
    pub name: String,
    /// The kind's own fields.
    pub spec: Json,
    /// App-ids that it is for; empty: all.
    pub scopes: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Raw {
    kind: String,
    metadata: Metadata,
    spec: Json,
    scopes: Option<Vec<String>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Metadata {
    name: String,
}

impl Document {
    /// File and name, for reports.
    pub fn label(&self) -> String {
        format!("{}: {}", self.file, if self.name.is_empty() { &self.kind } else { &self.name })
    }

    /// `spec.type` of a component.
    pub(super) fn component_type(&self) -> &str {
        self.spec["type"].as_str().unwrap_or_default()
    }

    /// Whether the translation looks into it.
    pub(super) fn is_read(&self) -> bool {
        match self.kind.as_str() {
            "Component" => ["pubsub.kafka", "bindings.cron", "state.redis"].contains(&self.component_type()),
            "Subscription" | "Resiliency" => true,
            _ => false,
        }
    }
}

/// Every document of every `.yaml` and `.yml` in the folder, by file name, then in the file's order; empty ones are left out.
///
/// # Errors
/// Each file that cannot be read, or is no YAML, with the line; files by their name in the folder.
pub(super) fn read(dir: &Path) -> Result<Vec<Document>, Vec<Problem>> {
    let entries = fs::read_dir(dir).map_err(|error| vec![Problem::new("", format!("cannot be read: {error}"))])?;
    let is_yaml = |path: &Path| path.extension().is_some_and(|ending| ending == "yaml" || ending == "yml");
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_file() && is_yaml(path)).collect();
    paths.sort();
    if paths.is_empty() {
        return Err(vec![Problem::new("", "no .yaml or .yml file in it")]);
    }
    let (mut documents, mut problems) = (Vec::new(), Vec::new());
    for path in paths {
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match fs::read_to_string(&path) {
            Ok(text) => parse(&file, &text, &mut documents, &mut problems),
            Err(error) => problems.push(Problem::new(file, format!("cannot be read: {error}"))),
        }
    }
    if problems.is_empty() { Ok(documents) } else { Err(problems) }
}

/// Adds a file's documents.
pub(super) fn parse(file: &str, text: &str, documents: &mut Vec<Document>, problems: &mut Vec<Problem>) {
    for document in serde_yaml_ng::Deserializer::from_str(text) {
        match Option::<Raw>::deserialize(document) {
            Ok(None) => {}
            Ok(Some(raw)) => documents.push(Document {
                file: file.to_owned(),
                kind: raw.kind,
                name: raw.metadata.name,
                spec: raw.spec,
                scopes: raw.scopes.unwrap_or_default(),
            }),
            Err(error) => {
                let line = error.location().map(|at| format!(":{}", at.line())).unwrap_or_default();
                problems.push(Problem::new(format!("{file}{line}"), format!("no Dapr resource: {error}")));
                // What follows a syntax error is not told apart from it.
                return;
            }
        }
    }
}
