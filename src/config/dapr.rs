//! A folder of Dapr's component files as this worker's configuration: what is translated, what is left out and why, what a person must
//! decide. Read by `worker import dapr` and `--dapr-components`.

mod component;
mod cron;
mod documents;
mod kafka;
mod redis;
mod resiliency;
mod subscription;
mod toml;
mod tree;

use std::path::Path;

use self::component::Component;
pub use self::{documents::Document, toml::to_toml, tree::Node};
use super::problem::Problem;

/// What the files do not say.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Dapr's app-id: default consumer group, and whom `scopes` name.
    pub app_id: String,
    /// Where the app listens; `None`: not known.
    pub app_url: Option<String>,
}

/// What became of one setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// Stands in the result.
    Translated,
    /// Left out, since it means nothing here.
    Ignored,
    /// Left out or guessed: a person must look.
    Decide,
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// What became of it.
    pub fate: Fate,
    /// File and key: `pubsub.yaml: kafka-pubsub.brokers`.
    pub from: String,
    /// What it became, or why it did not.
    pub text: String,
}

/// A translated folder.
#[derive(Debug, Clone, Default)]
pub struct Translation {
    /// The configuration, each value with its origin.
    pub root: Node,
    /// Everything that was found, in the order of files and keys.
    pub notes: Vec<Note>,
}

impl Translation {
    /// Sets a key (`kafka.properties`, then names) and notes it.
    fn set(&mut self, path: &[&str], value: impl Into<serde_json::Value>, from: &str) {
        let shown = path.iter().skip_while(|name| name.is_empty()).fold(String::new(), |shown, name| super::layer::join(&shown, name));
        self.root.set(path, value.into(), from);
        self.note(Fate::Translated, from, format!("-> {shown}"));
    }

    fn note(&mut self, fate: Fate, from: &str, text: impl Into<String>) {
        self.notes.push(Note { fate, from: from.to_owned(), text: text.into() });
    }

    fn ignore(&mut self, from: &str, why: impl Into<String>) {
        self.note(Fate::Ignored, from, why);
    }

    fn decide(&mut self, from: &str, what: impl Into<String>) {
        self.note(Fate::Decide, from, what);
    }

    /// The lines of one fate.
    pub fn of(&self, fate: Fate) -> impl Iterator<Item = &Note> {
        self.notes.iter().filter(move |note| note.fate == fate)
    }
}

/// Reads and translates every `.yaml` and `.yml` of a folder, in the order of their names.
///
/// # Errors
/// Files that cannot be read or are no YAML.
pub fn import(dir: &Path, facts: &Facts) -> Result<Translation, Vec<Problem>> {
    let documents = documents::read(dir)?;
    Ok(translate(&documents, facts))
}

/// Translates what was read.
fn translate(documents: &[Document], facts: &Facts) -> Translation {
    let mut out = Translation::default();
    let mine = |document: &&Document| document.scopes.is_empty() || document.scopes.contains(&facts.app_id);
    for other in documents.iter().filter(|document| !mine(document)) {
        out.ignore(&other.label(), format!("its scopes do not name the app-id {}", facts.app_id));
    }
    let documents: Vec<&Document> = documents.iter().filter(mine).collect();
    let components = |kind: &str| -> Vec<Component<'_>> {
        let found = documents.iter().filter(|document| document.kind == "Component" && document.component_type() == kind);
        found.map(|document| Component::new(document, &facts.app_id)).collect()
    };
    let brokers = kafka::translate(&components("pubsub.kafka"), facts, &mut out);
    subscription::translate(&documents, &brokers, facts, &mut out);
    cron::translate(&components("bindings.cron"), facts, &mut out);
    resiliency::translate(&documents, &brokers, &mut out);
    redis::translate(&components("state.redis"), &mut out);
    for other in documents.iter().filter(|document| !document.is_read()) {
        let what = match other.kind.as_str() {
            "Component" => format!("a component of type {}", other.component_type()),
            kind => format!("of kind {kind}"),
        };
        out.ignore(&other.label(), format!("{what}, which the worker has no use for"));
    }
    out
}

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests;
