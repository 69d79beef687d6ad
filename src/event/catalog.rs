//! The catalogue: which event types exist, what their data must be, on which topics they travel. Data, not code: `topics/`.

pub mod load;
pub mod topics;
mod type_file;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use hashbrown::HashMap;
use serde_json::Value;

pub use self::{
    load::{CatalogError, Problem, types_of},
    topics::{Profile, TopicSpec},
};
use super::{pattern::matches, schema::Schema, upcast::Step};

/// Every event type and topic of a deployment. Immutable; share it in an `Arc`.
#[derive(Debug)]
pub struct Catalog {
    pub(super) types: BTreeMap<Arc<str>, Arc<EventType>>,
    /// Names and aliases.
    pub(super) names: HashMap<Box<str>, Arc<EventType>>,
    pub(super) topics: topics::Topics,
    pub(super) origin: Origin,
}

/// Where a catalogue was read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The files that were in `topics/` when the binary was built.
    Embedded,
    /// A folder.
    Folder(PathBuf),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded => f.write_str("embedded in the binary"),
            Self::Folder(folder) => write!(f, "{}", folder.display()),
        }
    }
}

/// `1.0`: a minor version adds optional fields only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version {
    /// Breaking changes.
    pub major: u32,
    /// Additions.
    pub minor: u32,
}

impl Version {
    /// What an event without a version is.
    pub const FIRST: Self = Self { major: 1, minor: 0 };
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for Version {
    type Err = NoVersion;

    /// Reads `1.0`, and what producers write for it: `1`, `v1`, `1.0.0`.
    fn from_str(text: &str) -> Result<Self, NoVersion> {
        // What nearly every event says.
        if let &[major @ b'0'..=b'9', b'.', minor @ b'0'..=b'9'] = text.as_bytes() {
            return Ok(Self { major: u32::from(major - b'0'), minor: u32::from(minor - b'0') });
        }
        let text = text.strip_prefix(['v', 'V']).unwrap_or(text);
        let mut parts = text.splitn(3, '.');
        let number = |part: Option<&str>| match part {
            None => Ok(0),
            Some(part) if part.starts_with('+') => Err(NoVersion),
            Some(part) => part.parse().map_err(|_| NoVersion),
        };
        let version = Self { major: number(parts.next())?, minor: number(parts.next())? };
        number(parts.next()).map(|_patch: u32| version)
    }
}

/// The text is no version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no version like 1.0")]
pub struct NoVersion;

/// One event type: one file in `topics/events/`.
#[derive(Debug)]
pub struct EventType {
    /// `task.created`.
    pub name: Arc<str>,
    /// The version that handlers see.
    pub version: Version,
    /// The group that it belongs to in generated models and topic names: `tasks`.
    pub domain: String,
    /// One sentence for people.
    pub description: String,
    /// Where it travels; the first is where it is published to. Names as in `topics.yaml`, before its naming scheme.
    pub topics: Vec<String>,
    /// The field that keys its records.
    pub key: String,
    /// Other names that producers send it under.
    pub aliases: Vec<String>,
    /// Who reacts, and how.
    pub consumers: BTreeMap<String, String>,
    /// What `data` must be, at the current version.
    pub schema: Schema,
    /// A valid `data`.
    pub example: Value,
    /// Invalid ones.
    pub counterexamples: Vec<Counterexample>,
    /// Older versions that still arrive, oldest first.
    pub past: Vec<Past>,
    /// Fields of `data` that take the event's time where they are absent.
    pub fill: Vec<String>,
    /// Fields that count as part of `data` also where they stand at the top: `task_id`, `user_id`, and what the file adds.
    pub lift: Vec<String>,
    /// No catalogue has it: its events are delivered as they came, and counted as `unknown`.
    pub unlisted: bool,
}

/// A `data` that the schema must refuse.
#[derive(Debug, Clone, PartialEq)]
pub struct Counterexample {
    /// What is wrong with it.
    pub why: String,
    /// What the schema must say to it, without type and version; `None`: anything.
    pub error: Option<String>,
    /// The data.
    pub data: Value,
}

/// An older version of a type.
#[derive(Debug)]
pub struct Past {
    /// Which.
    pub version: Version,
    /// A `data` of that version; valid at the current one after its steps.
    pub example: Value,
    /// The schema of that version, where the file keeps it: for the compatibility check.
    pub schema: Option<Schema>,
    /// What makes the next version of it.
    pub upcast: Vec<Step>,
}

impl EventType {
    /// The steps that bring `data` of `version` to the current version, in order; none where it is current or newer.
    pub fn upcast_from(&self, version: Version) -> impl Iterator<Item = &Step> {
        // An older version that the file does not list had nothing to change: its steps are those of the next listed one.
        self.past.iter().filter(move |past| past.version >= version).flat_map(|past| &past.upcast)
    }

    /// Whether data of `version` has steps to go.
    pub fn is_past(&self, version: Version) -> bool {
        version < self.version && self.upcast_from(version).next().is_some()
    }
}

impl EventType {
    /// What values are that nobody looks into: of a topic that is declared opaque. No catalogue has it.
    ///
    /// # Errors
    /// In the words of the schema's compiler; none is known.
    pub(super) fn opaque() -> Result<Self, String> {
        Ok(Self {
            name: "raw".into(),
            version: Version::FIRST,
            domain: String::new(),
            description: "an opaque value".to_owned(),
            topics: Vec::new(),
            key: "user_id".to_owned(),
            aliases: Vec::new(),
            consumers: BTreeMap::new(),
            schema: Schema::compile("raw", "an opaque value", serde_json::Map::new(), super::schema::TaskId::None)?,
            example: Value::Null,
            counterexamples: Vec::new(),
            past: Vec::new(),
            fill: Vec::new(),
            lift: Vec::new(),
            unlisted: false,
        })
    }

    /// A type of that name that the catalogue lacks: any data will do.
    ///
    /// # Errors
    /// As [`EventType::opaque`].
    pub(super) fn unlisted(name: &Arc<str>) -> Result<Self, String> {
        let lift = ["task_id", "user_id"].map(str::to_owned).to_vec();
        Ok(Self {
            name: Arc::clone(name),
            description: "a type that the catalogue lacks".to_owned(),
            lift,
            unlisted: true,
            ..Self::opaque()?
        })
    }
}

impl Catalog {
    /// The event type of that name, alias, or name with its major version (`task.created.v1`), and that version.
    pub fn resolve(&self, sent: &str) -> Option<(&Arc<EventType>, Option<Version>)> {
        if let Some(found) = self.names.get(sent) {
            return Some((found, None));
        }
        let (name, major) = sent.rsplit_once(".v")?;
        let major = major.parse().ok().filter(|_| major.bytes().all(|byte| byte.is_ascii_digit()))?;
        self.names.get(name).map(|found| (found, Some(Version { major, minor: 0 })))
    }

    /// The catalogue's own name for a type, an alias, or a type with its major version.
    pub fn canonical(&self, sent: &str) -> Option<&Arc<str>> {
        self.resolve(sent).map(|(found, _)| &found.name)
    }

    /// A type pattern with an alias in it resolved: `reminder.triggered` is `reminder.due`. Patterns with a star stay as they are.
    pub fn canonical_pattern<'a>(&'a self, pattern: &'a str) -> &'a str {
        self.canonical(pattern).map_or(pattern, |name| name)
    }

    /// Whether the type, alias, or type with its major version is known.
    pub fn knows(&self, sent: &str) -> bool {
        self.resolve(sent).is_some()
    }

    /// The entry of exactly that name.
    pub fn get(&self, name: &str) -> Option<&Arc<EventType>> {
        self.types.get(name)
    }

    /// Every type by name.
    pub fn types(&self) -> impl ExactSizeIterator<Item = &Arc<EventType>> {
        self.types.values()
    }

    /// Where it was read from.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Topics of a type (or alias) under this deployment's naming scheme; the first is where it is published to. Empty: unknown type.
    pub fn topics_for(&self, sent: &str) -> Vec<Arc<str>> {
        self.resolve(sent).map(|(found, _)| self.topics.names_of(found)).unwrap_or_default()
    }

    /// Topics that carry what these type patterns cover, each once, by name: what a consumer reads by default. A topic of dead letters is
    /// among them only where a pattern names such a type itself (`dlq.failed`, `dlq.*`): `*` does not mean to eat one's own dead letters.
    pub fn topics_needed<'a>(&self, patterns: impl IntoIterator<Item = &'a str>) -> BTreeSet<Arc<str>> {
        let mut needed = BTreeSet::new();
        for pattern in patterns {
            let pattern = self.canonical_pattern(pattern);
            for kind in self.types().filter(|kind| matches(pattern, &kind.name)) {
                let own = kind.topics.first().is_some_and(|first| self.topics.is_dead_letters(first));
                needed.extend(
                    kind.topics
                        .iter()
                        .filter(|topic| (own && pattern != "*") || !self.topics.is_dead_letters(topic))
                        .map(|topic| self.topics.name_for(topic, kind)),
                );
            }
        }
        needed
    }

    /// Every topic as that profile (`local`, `production` ...) makes it, by name; `None`: no such profile.
    pub fn topic_specs(&self, profile: &str) -> Option<Vec<TopicSpec>> {
        self.topics.specs(profile, self.types.values())
    }

    /// How many copies that profile gives a topic which says nothing else; `None`: no such profile.
    pub fn replication(&self, profile: &str) -> Option<i32> {
        self.topics.replication(profile)
    }

    /// Topics that are to be no more, by the names that they have on the brokers.
    pub fn gone(&self) -> &[String] {
        &self.topics.gone
    }

    /// The profiles' names.
    pub fn profiles(&self) -> impl Iterator<Item = &str> {
        self.topics.profiles.keys().map(String::as_str)
    }

    /// The name in use for a topic or one of its aliases (`reminder-events` is `reminders`); `None`: the catalogue lacks it.
    pub fn topic(&self, name: &str) -> Option<&str> {
        self.topics.resolve(name)
    }

    /// The catalogue of a configured folder, or the embedded one where the folder is missing and `is_default` says that nobody asked for it.
    ///
    /// # Errors
    /// Every problem of every file.
    pub fn open(dir: &Path, is_default: bool) -> Result<Self, CatalogError> {
        if is_default && !dir.exists() { Self::embedded() } else { Self::load(dir) }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
pub(super) mod tests;
