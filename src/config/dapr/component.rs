//! A component's metadata: names in any case, values that are texts, references to secrets, Dapr's templates.

use serde_json::Value as Json;

use super::{Document, Translation};

/// One `Component`.
pub(super) struct Component<'a> {
    document: &'a Document,
    items: Vec<Item>,
}

/// One entry of `spec.metadata`.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) name: String,
    pub(super) content: Content,
}

/// What an entry says.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Content {
    /// The value itself, templates filled in.
    Text(String),
    /// `secretKeyRef`: secret and key.
    Secret(String, String),
    /// `envRef`.
    Env(String),
}

impl<'a> Component<'a> {
    pub(super) fn new(document: &'a Document, app_id: &str) -> Self {
        let entries = document.spec["metadata"].as_array().map(Vec::as_slice).unwrap_or_default();
        Self { document, items: entries.iter().filter_map(|entry| item(entry, app_id)).collect() }
    }

    pub(super) fn name(&self) -> &str {
        &self.document.name
    }

    /// File and component, for reports.
    pub(super) fn label(&self) -> String {
        self.document.label()
    }

    /// File, component and key.
    pub(super) fn from(&self, item: &Item) -> String {
        format!("{}.{}", self.label(), item.name)
    }

    pub(super) fn items(&self) -> &[Item] {
        &self.items
    }

    /// The entry of that name, in any case, unless it is empty.
    pub(super) fn get(&self, name: &str) -> Option<&Item> {
        self.items.iter().find(|item| item.name.eq_ignore_ascii_case(name) && item.content != Content::Text(String::new()))
    }

    /// Its text; `None` also where it is a reference.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match &self.get(name)?.content {
            Content::Text(text) => Some(text),
            Content::Secret(..) | Content::Env(_) => None,
        }
    }

    /// Whether it says true, as Dapr reads it.
    pub(super) fn is_true(&self, name: &str) -> bool {
        self.text(name).is_some_and(is_true)
    }

    /// What else than values differs from another component: names and contents.
    pub(super) fn same_as(&self, other: &Self) -> bool {
        let sorted = |component: &Self| {
            let mut items: Vec<_> =
                component.items.iter().map(|item| (item.name.to_ascii_lowercase(), format!("{:?}", item.content))).collect();
            items.sort();
            items
        };
        sorted(self) == sorted(other)
    }

    /// Sets a key from an entry: its text, or, for a secret, a placeholder that names file and variable. `None`: there is no such entry.
    pub(super) fn put(&self, name: &str, path: &[&str], out: &mut Translation) -> Option<()> {
        let item = self.get(name)?;
        let from = self.from(item);
        let variable = crate::config::env::name(&path.iter().fold(String::new(), |key, name| crate::config::layer::join(&key, name)));
        match &item.content {
            Content::Text(text) => {
                out.set(path, text.as_str(), &from);
                if is_secret(path) {
                    out.decide(&from, format!("is a secret in plain text: better give {variable}, or a file"));
                }
            }
            Content::Secret(secret, key) => {
                let (last, table) = path.split_last()?;
                let file = format!("\"/run/secrets/{secret}/{key}\"");
                let why = format!("secret {secret}, key {key}: mount it and name the file here, or set {variable}");
                // The client reads certificates and keys from files by properties of their own.
                let of_file = last.strip_suffix(".pem").map_or_else(|| format!("{last}.file"), |name| format!("{name}.location"));
                let path: Vec<&str> = table.iter().copied().chain([of_file.as_str()]).collect();
                out.root.leave_out(&path, file, &why);
                out.decide(&from, why);
            }
            Content::Env(name) => out.decide(&from, format!("is the variable {name}: give its value as {variable}")),
        }
        Some(())
    }
}

fn is_secret(path: &[&str]) -> bool {
    path.last().is_some_and(|name| crate::config::secret::is_secret_property(name))
}

fn item(entry: &Json, app_id: &str) -> Option<Item> {
    let name = entry["name"].as_str()?.to_owned();
    let reference = &entry["secretKeyRef"];
    let content = if let Some(secret) = reference["name"].as_str() {
        Content::Secret(secret.to_owned(), reference["key"].as_str().unwrap_or(secret).to_owned())
    } else if let Some(variable) = entry["envRef"].as_str() {
        Content::Env(variable.to_owned())
    } else {
        Content::Text(text(&entry["value"]).replace("{appID}", app_id))
    };
    Some(Item { name, content })
}

/// YAML values are what they look like; Dapr reads them all as text.
pub(super) fn text(value: &Json) -> String {
    match value {
        Json::String(text) => text.trim().to_owned(),
        Json::Null => String::new(),
        other => other.to_string(),
    }
}

/// As Go's `ParseBool`, and as Dapr's own reader, takes it.
pub(super) fn is_true(text: &str) -> bool {
    ["1", "t", "true", "y", "yes", "on"].iter().any(|word| text.eq_ignore_ascii_case(word))
}
