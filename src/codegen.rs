//! Models of the catalogue's events for other programs: types with constraints, an envelope, helpers; one file, to be checked in.
//!
//! A type's JSON Schema is lowered once to a small model of types; each language has one writer. What the model cannot say is named, so
//! that nobody takes a generated check for the worker's own, which is made at publish in any case.

mod layout;
mod lower;
mod model;
mod names;
mod pattern;
mod json_schema;
mod python;
mod rust;
mod template;
mod typescript;

use std::sync::Arc;

use crate::event::{Catalog, EventType};

/// What the models are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// Python 3.10 with Pydantic 2.
    Pydantic,
    /// TypeScript, for Node 20 or a browser.
    TypeScript,
    /// Rust, with serde, serde_json, uuid and chrono; with regex where there are patterns.
    Rust,
    /// One JSON Schema 2020-12 of the domain's events.
    JsonSchema,
}

/// Which parts are written besides types and envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// The envelope's `metadata`: correlation and causation.
    pub metadata: bool,
    /// Constraints (lengths, ranges, patterns) and the helper that names what breaks them.
    pub validation: bool,
    /// Bringing older versions to the newest.
    pub versioning: bool,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generated {
    /// The file.
    pub text: String,
    /// What the schemas ask for and the models do not check, each as `task.created: data.x: format`.
    pub unchecked: Vec<String>,
}

/// Why nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodegenError {
    /// No type of the catalogue is of that domain.
    #[error("no domain `{asked}`; the catalogue has {known}")]
    UnknownDomain {
        /// What was asked for.
        asked: String,
        /// What there is.
        known: String,
    },
    /// The domain has no such type.
    #[error("no event `{asked}` in the domain {domain}; it has {known}")]
    UnknownEvent {
        /// What was asked for.
        asked: String,
        /// Where.
        domain: String,
        /// What there is.
        known: String,
    },
}

/// Writes the models of a domain's events: of all, or of those named by action (`created`), type or alias, in that order.
///
/// The same catalogue and options give the same text.
///
/// # Errors
/// Where the catalogue has no such domain or event.
pub fn generate(
    catalog: &Catalog,
    domain: &str,
    events: &[String],
    language: Language,
    options: Options,
) -> Result<Generated, CodegenError> {
    let kinds = pick(catalog, domain, events)?;
    let (module, unchecked) = lower::module(domain, &kinds, language, options);
    let text = match language {
        Language::Pydantic => python::write(&module, options),
        Language::TypeScript => typescript::write(&module, options),
        Language::Rust => rust::write(&module, options),
        Language::JsonSchema => json_schema::write(&module, &kinds, options),
    };
    Ok(Generated { text, unchecked })
}

fn pick(catalog: &Catalog, domain: &str, events: &[String]) -> Result<Vec<Arc<EventType>>, CodegenError> {
    let all: Vec<_> = catalog.types().filter(|kind| kind.domain == domain).cloned().collect();
    if all.is_empty() {
        let mut known: Vec<_> = catalog.types().map(|kind| kind.domain.as_str()).collect();
        known.sort_unstable();
        known.dedup();
        return Err(CodegenError::UnknownDomain { asked: domain.to_owned(), known: known.join(", ") });
    }
    if events.is_empty() {
        return Ok(all);
    }
    let prefix = names::prefix(domain, &all);
    let mut picked: Vec<Arc<EventType>> = Vec::new();
    for asked in events {
        let named = catalog.canonical(asked).map_or(asked.as_str(), |name| name);
        let found = all.iter().find(|kind| *kind.name == *named || names::action(prefix, &kind.name) == named);
        let Some(found) = found else {
            let known: Vec<_> = all.iter().map(|kind| names::action(prefix, &kind.name)).collect();
            return Err(CodegenError::UnknownEvent { asked: asked.clone(), domain: domain.to_owned(), known: known.join(", ") });
        };
        if !picked.iter().any(|kind| kind.name == found.name) {
            picked.push(Arc::clone(found));
        }
    }
    Ok(picked)
}
