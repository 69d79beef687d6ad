//! The catalogue's files to a [`Catalog`]: every problem at once, each with file, line, field and what to do.

use std::{
    collections::{BTreeMap, HashMap},
    fmt, fs, io,
    path::Path,
    sync::Arc,
};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    Catalog, Counterexample, EventType, Origin, Past, Version,
    topics::{Override, Profile, Topic, Topics},
};
use crate::event::{
    schema::{Schema, TaskId},
    upcast::{FUNCTIONS, Function, Step, upcast},
};

/// The files of `topics/` at build time: path in the folder, text.
const EMBEDDED: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/topics.rs"));

/// Fields that take the event's time where they are absent.
const FILLED: [&str; 4] = ["created_at", "updated_at", "completed_at", "deleted_at"];

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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TypeFile {
    #[serde(rename = "type")]
    name: String,
    version: String,
    domain: String,
    description: String,
    topics: Vec<String>,
    #[serde(default = "user_id")]
    key: String,
    #[serde(default)]
    task_id: TaskId,
    #[serde(default)]
    aliases: Vec<String>,
    #[serde(default)]
    lift: Vec<String>,
    #[serde(default)]
    consumers: BTreeMap<String, String>,
    schema: Map<String, Value>,
    example: Value,
    counterexamples: Vec<CounterexampleFile>,
    #[serde(default)]
    past: Vec<PastFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CounterexampleFile {
    why: String,
    data: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PastFile {
    version: String,
    #[serde(default)]
    schema: Option<Map<String, Value>>,
    example: Value,
    upcast: Vec<StepFile>,
}

#[derive(Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum StepFile {
    Add { add: String, value: Value },
    Rename { rename: String, to: String },
    Move { r#move: String, to: String },
    Remove { remove: String },
    Call { call: String, on: String },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TopicsFile {
    profiles: BTreeMap<String, Profile>,
    naming: String,
    schemes: BTreeMap<String, String>,
    topics: BTreeMap<String, Topic>,
}

fn user_id() -> String {
    "user_id".to_owned()
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
struct File<'a> {
    name: &'a str,
    text: &'a str,
    problems: Vec<Problem>,
}

impl File<'_> {
    fn wrong(&mut self, field: &str, message: impl Into<String>, fix: impl Into<String>) {
        let line = line_of(self.text, field);
        self.problems.push(Problem { file: self.name.to_owned(), line, field: field.to_owned(), message: message.into(), fix: fix.into() });
    }

    fn parse<T: for<'de> Deserialize<'de>>(&mut self) -> Option<T> {
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
    let mut topics = None;
    let mut kinds: Vec<(usize, EventType)> = Vec::new();
    for (index, (name, text)) in files.iter().enumerate() {
        let mut file = File { name, text, problems: Vec::new() };
        if index == 0 {
            topics = read_topics(&mut file);
        } else if let Some(kind) = read_type(&mut file, functions) {
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
            if topics.as_ref().is_some_and(|topics: &Topics| topics.resolve(topic).is_none()) {
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

fn read_topics(file: &mut File<'_>) -> Option<Topics> {
    let read: TopicsFile = file.parse()?;
    let Some(scheme) = read.schemes.get(&read.naming).cloned() else {
        file.wrong("naming", format!("no scheme `{}`", read.naming), "name one of `schemes`");
        return None;
    };
    if !["{topic}", "{type}", "{action}"].iter().any(|part| scheme.contains(part)) {
        file.wrong(&format!("schemes.{}", read.naming), "every topic would have the same name", "use {topic}, {type} or {action} in it");
    }
    for (name, profile) in &read.profiles {
        if let Some(other) = &profile.extends
            && !read.profiles.contains_key(other)
        {
            file.wrong(&format!("profiles.{name}.extends"), format!("no profile `{other}`"), "name one of `profiles`");
        }
    }
    let mut aliases = BTreeMap::new();
    for (name, topic) in &read.topics {
        check_topic(file, name, topic, &read.profiles);
        for alias in &topic.aliases {
            if read.topics.contains_key(alias) || aliases.insert(alias.clone(), name.clone()).is_some() {
                file.wrong(&format!("topics.{name}.aliases"), format!("`{alias}` is also another topic"), "let one topic alone have it");
            }
        }
    }
    Some(Topics { profiles: read.profiles, scheme, topics: read.topics, aliases })
}

fn check_topic(file: &mut File<'_>, name: &str, topic: &Topic, profiles: &BTreeMap<String, Profile>) {
    let legal = |name: &str| {
        !name.is_empty() && name.len() <= 249 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    if !legal(name) {
        file.wrong(&format!("topics.{name}"), "Kafka takes no such name", "use letters, digits, `.`, `_` and `-`, 249 at most");
    }
    let base = Override { partitions: Some(topic.partitions), retention: Some(topic.retention.clone()), ..Override::default() };
    let all = topic.profiles.iter().map(|(profile, own)| (format!("topics.{name}.profiles.{profile}"), own));
    for (at, own) in all.chain([(format!("topics.{name}"), &base)]) {
        if own.partitions.is_some_and(|count| count < 1) {
            file.wrong(&format!("{at}.partitions"), "a topic has at least one partition", "write a number from 1 up");
        }
        if let Some(written) = own.retention.as_ref().filter(|written| humantime::parse_duration(written).is_err()) {
            file.wrong(&format!("{at}.retention"), format!("`{written}` is no duration"), "write it like 7d or 12h");
        }
    }
    for profile in topic.profiles.keys().filter(|profile| !profiles.contains_key(*profile)) {
        file.wrong(&format!("topics.{name}.profiles.{profile}"), "no such profile", "name one of `profiles`");
    }
}

fn read_type(file: &mut File<'_>, functions: &[(&str, Function)]) -> Option<EventType> {
    let read: TypeFile = file.parse()?;
    let stem = Path::new(file.name).file_stem().unwrap_or_default();
    if *stem != *read.name {
        file.wrong("type", format!("the file is not named {}.yaml", read.name), "rename the one or the other");
    }
    let segment =
        |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if !read.name.contains('.') || !read.name.split('.').all(segment) {
        file.wrong("type", format!("`{}` is no event type", read.name), "write it like task.created");
    }
    if read.topics.is_empty() {
        file.wrong("topics", "travels nowhere", "name at least one topic");
    }
    if read.key != "user_id" {
        file.wrong(
            "key",
            format!("`{}` cannot key events", read.key),
            "leave it out: user_id keys every event, which is what keeps a user's order",
        );
    }
    let Ok(version) = read.version.parse::<Version>() else {
        file.wrong("version", format!("`{}` is no version", read.version), "write it like \"1.0\"");
        return None;
    };
    let fill = FILLED.into_iter().filter(|name| read.schema.get("properties").and_then(|all| all.get(name)).is_some());
    let fill = fill.map(str::to_owned).collect();
    let schema = compile(file, "schema", &read.name, version, read.schema, read.task_id)?;
    check_examples(file, &schema, &read.example, &read.counterexamples);
    let past = read_past(file, &read.name, version, read.past, read.task_id, functions);
    let kind = EventType {
        name: read.name.into(),
        version,
        domain: read.domain,
        description: read.description,
        topics: read.topics,
        key: read.key,
        aliases: read.aliases,
        consumers: read.consumers,
        schema,
        example: read.example,
        counterexamples: read.counterexamples.into_iter().map(|one| Counterexample { why: one.why, data: one.data }).collect(),
        past,
        fill,
        lift: ["task_id", "user_id"].into_iter().map(str::to_owned).chain(read.lift).collect(),
    };
    for past in &kind.past {
        let current = upcast(&past.example, kind.upcast_from(past.version));
        if let Err(error) = kind.schema.check(&current) {
            file.wrong("past", format!("the example of {} is not valid after its steps: {error}", past.version), "mend its `upcast`");
        }
    }
    Some(kind)
}

fn compile(file: &mut File<'_>, at: &str, name: &str, version: Version, written: Map<String, Value>, task_id: TaskId) -> Option<Schema> {
    let title = format!("{name} {version}");
    Schema::compile(&title, &title, written, task_id)
        .map_err(|error| file.wrong(at, format!("no JSON Schema: {error}"), "mend it after JSON Schema 2020-12"))
        .ok()
}

fn check_examples(file: &mut File<'_>, schema: &Schema, example: &Value, counterexamples: &[CounterexampleFile]) {
    if let Err(error) = schema.check(example) {
        file.wrong("example", format!("not valid: {error}"), "mend the example or the schema");
    }
    if counterexamples.len() < 3 {
        file.wrong(
            "counterexamples",
            format!("{} of them", counterexamples.len()),
            "give at least three, so that the schema is shown to refuse something",
        );
    }
    for counterexample in counterexamples {
        if schema.check(&counterexample.data).is_ok() {
            file.wrong("counterexamples", format!("`{}` is valid", counterexample.why), "mend it or the schema");
        }
    }
}

fn read_past(
    file: &mut File<'_>,
    name: &str,
    current: Version,
    written: Vec<PastFile>,
    task_id: TaskId,
    functions: &[(&str, Function)],
) -> Vec<Past> {
    let mut past: Vec<Past> = Vec::with_capacity(written.len());
    for one in written {
        let Ok(version) = one.version.parse::<Version>() else {
            file.wrong("past.version", format!("`{}` is no version", one.version), "write it like \"1.0\"");
            continue;
        };
        if version >= current || past.last().is_some_and(|before| before.version >= version) {
            file.wrong("past.version", format!("{version} is out of order"), "list versions below the current one, oldest first");
        }
        let schema = one.schema.and_then(|written| compile(file, "past.schema", name, version, written, task_id));
        if let Some(Err(error)) = schema.as_ref().map(|schema| schema.check(&one.example)) {
            file.wrong("past.example", format!("not valid: {error}"), "mend the example or the schema");
        }
        let upcast = one.upcast.into_iter().filter_map(|step| read_step(file, step, functions)).collect();
        past.push(Past { version, example: one.example, schema, upcast });
    }
    past
}

fn read_step(file: &mut File<'_>, step: StepFile, functions: &[(&str, Function)]) -> Option<Step> {
    Some(match step {
        StepFile::Add { add, value } => Step::Add { field: add, value },
        StepFile::Rename { rename: from, to } | StepFile::Move { r#move: from, to } => Step::Move { from, to },
        StepFile::Remove { remove } => Step::Remove { field: remove },
        StepFile::Call { call, on } => {
            let Some(run) = functions.iter().chain(&FUNCTIONS).find(|(name, _)| *name == call).map(|(_, run)| *run) else {
                let known: Vec<_> = functions.iter().chain(&FUNCTIONS).map(|(name, _)| *name).collect();
                file.wrong("past.upcast", format!("no function `{call}`"), format!("call one of {}", known.join(", ")));
                return None;
            };
            Step::Call { name: call, run, field: on }
        }
    })
}
