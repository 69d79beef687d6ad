//! The catalogue's files to a [`Catalog`]: every problem at once, each with file, line, field and what to do.

use std::{collections::BTreeMap, fmt, fs, io, path::Path, sync::Arc};

use hashbrown::HashMap;
use serde::Deserialize;

use super::{Catalog, EventType, Origin, topics, type_file};
use crate::event::upcast::Function;

/// The files of `topics/` at build time: path in the folder, text.
const EMBEDDED: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/topics.rs"));

/// One thing wrong with one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Path of the file.
    pub file: String,
    /// Line in it, from 1; 0 where the whole file is meant.
    pub line: usize,
    /// Dotted path of the field; empty where the whole file is meant.
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub fix: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if !self.field.is_empty() {
            write!(f, ": {}", self.field)?;
        }
        write!(f, ": {}; {}", self.message, self.fix)
    }
}

/// A catalogue that cannot be used, with every problem that was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct CatalogError {
    /// At least one.
    pub problems: Vec<Problem>,
}

impl fmt::Display for CatalogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            write!(f, "{}{problem}", if index > 0 { "\n" } else { "" })?;
        }
        Ok(())
    }
}

impl Catalog {
    /// The catalogue that was in `topics/` when the binary was built.
    ///
    /// # Errors
    /// Every problem of every file. The tests read it, so a released binary has none.
    pub fn embedded() -> Result<Self, CatalogError> {
        read(EMBEDDED.iter().map(|(file, text)| ((*file).to_owned(), (*text).to_owned())).collect(), Origin::Embedded, &[])
    }

    /// The files that [`Catalog::embedded`] reads: path in the folder, text.
    pub fn embedded_files() -> &'static [(&'static str, &'static str)] {
        EMBEDDED
    }

    /// The catalogue of a folder: `topics.yaml` and `events/*.yaml`.
    ///
    /// # Errors
    /// Every problem of every file.
    pub fn load(dir: &Path) -> Result<Self, CatalogError> {
        Self::load_with(dir, &[])
    }

    /// As [`Catalog::load`], with functions of the program's own for `call` steps.
    ///
    /// # Errors
    /// Every problem of every file.
    pub fn load_with(dir: &Path, functions: &[(&str, Function)]) -> Result<Self, CatalogError> {
        let files = files_of(dir).map_err(|(path, error)| CatalogError {
            problems: vec![Problem {
                file: path,
                line: 0,
                field: String::new(),
                message: format!("cannot be read ({error})"),
                fix: "set catalog.dir to a folder with topics.yaml and events/*.yaml, or remove it to use the embedded catalogue"
                    .to_owned(),
            }],
        })?;
        read(files, Origin::Folder(dir.to_owned()), functions)
    }
}

/// The types of another state of a catalogue, as far as each file can be understood on its own: what is out there is compared, not judged.
///
/// # Errors
/// What is wrong with a file that cannot be read as a type at all.
pub fn types_of(files: &[(String, String)]) -> Result<Vec<Arc<EventType>>, CatalogError> {
    let (mut types, mut problems) = (Vec::new(), Vec::new());
    for (name, text) in files {
        let mut file = File { name, text, problems: Vec::new() };
        match type_file::read(&mut file, &[]) {
            Some(kind) => types.push(Arc::new(kind)),
            None => problems.append(&mut file.problems),
        }
    }
    if problems.is_empty() { Ok(types) } else { Err(CatalogError { problems }) }
}

fn files_of(dir: &Path) -> Result<Vec<(String, String)>, (String, io::Error)> {
    let read = |path: &Path| {
        let name = path.display().to_string();
        fs::read_to_string(path).map(|text| (name.clone(), text)).map_err(|error| (name, error))
    };
    let events = dir.join("events");
    let mut files = vec![read(&dir.join("topics.yaml"))?];
    let mut paths = fs::read_dir(&events)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>())
        .map_err(|error| (events.display().to_string(), error))?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml"));
    paths.sort();
    for path in paths {
        files.push(read(&path)?);
    }
    Ok(files)
}

/// One file being read, and what was found wrong with it.
pub(super) struct File<'a> {
    pub(super) name: &'a str,
    text: &'a str,
    problems: Vec<Problem>,
}

impl File<'_> {
    /// Notes what is wrong with a field (a dotted path), and what to do.
    pub(super) fn wrong(&mut self, field: &str, message: impl Into<String>, fix: impl Into<String>) {
        let line = line_of(self.text, field);
        self.problems.push(Problem { file: self.name.to_owned(), line, field: field.to_owned(), message: message.into(), fix: fix.into() });
    }

    /// Reads the file, or notes why it cannot be.
    pub(super) fn parse<T: for<'de> Deserialize<'de>>(&mut self) -> Option<T> {
        match serde_yaml_ng::from_str(self.text) {
            Ok(read) => Some(read),
            Err(error) => {
                let line = error.location().map_or(0, |place| place.line());
                let message = error.to_string();
                let (field, message) = message.split_once(": ").map_or(("", message.as_str()), |(field, rest)| {
                    if field.contains(' ') { ("", message.as_str()) } else { (field, rest) }
                });
                let fix = if message.contains("missing field") {
                    "add it"
                } else if message.contains("expected a string") {
                    "write it in quotes"
                } else {
                    "compare it with the files that come with the worker"
                };
                let (file, field, message) = (self.name.to_owned(), field.to_owned(), message.to_owned());
                self.problems.push(Problem { file, line, field, message, fix: fix.to_owned() });
                None
            }
        }
    }
}

/// The line of a dotted field in YAML text, by its indented keys; of the nearest one that is there.
fn line_of(text: &str, field: &str) -> usize {
    let mut lines = text.lines().enumerate();
    let mut found = 0;
    let mut least = 0;
    for key in field.split('.').filter(|key| !key.is_empty()) {
        let place = lines.find_map(|(index, line)| {
            let trimmed = line.trim_start_matches([' ', '-']);
            let indent = line.len() - trimmed.len();
            let named = trimmed.strip_prefix(key).is_some_and(|rest| rest.starts_with(':'));
            (named && indent >= least).then_some((index + 1, indent + 1))
        });
        let Some((line, next)) = place else { break };
        (found, least) = (line, next);
    }
    found
}

fn read(files: Vec<(String, String)>, origin: Origin, functions: &[(&str, Function)]) -> Result<Catalog, CatalogError> {
    let mut problems = Vec::new();
    let mut topics: Option<topics::Topics> = None;
    let mut kinds: Vec<(usize, EventType)> = Vec::new();
    for (index, (name, text)) in files.iter().enumerate() {
        let mut file = File { name, text, problems: Vec::new() };
        if index == 0 {
            topics = topics::read(&mut file);
        } else if let Some(kind) = type_file::read(&mut file, functions) {
            kinds.push((index, kind));
        }
        problems.append(&mut file.problems);
    }
    let mut types = BTreeMap::new();
    let mut names: HashMap<Box<str>, Arc<EventType>> = HashMap::new();
    for (index, kind) in kinds {
        let (name, text) = &files[index];
        let mut file = File { name, text, problems: Vec::new() };
        for topic in &kind.topics {
            if topics.as_ref().is_some_and(|topics| topics.resolve(topic).is_none()) {
                file.wrong("topics", format!("topic `{topic}` is not in topics.yaml"), "add it there, or name one that is");
            }
        }
        let kind = Arc::new(kind);
        for called in kind.aliases.iter().map(String::as_str).chain([&*kind.name]) {
            if let Some(other) = names.insert(called.into(), Arc::clone(&kind)) {
                file.wrong("type", format!("`{called}` is also a name of {}", other.name), "let one type alone have it");
            }
        }
        types.insert(Arc::clone(&kind.name), kind);
        problems.append(&mut file.problems);
    }
    match topics {
        Some(topics) if problems.is_empty() => Ok(Catalog { types, names, topics, origin }),
        _ => Err(CatalogError { problems }),
    }
}
