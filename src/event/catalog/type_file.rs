//! One file of `topics/events/` to an [`EventType`], with everything that can be checked inside that file.

use std::{collections::BTreeMap, path::Path};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Counterexample, EventType, Past, Version, load::File};
use crate::event::{
    schema::{Schema, TaskId},
    upcast::{FUNCTIONS, Function, Step, upcast},
};

/// Fields that take the event's time where they are absent.
const FILLED: [&str; 4] = ["created_at", "updated_at", "completed_at", "deleted_at"];

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
    #[serde(default)]
    error: Option<String>,
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

fn user_id() -> String {
    "user_id".to_owned()
}

/// Reads one file; `None` where too little of it could be understood to go on.
pub(super) fn read(file: &mut File<'_>, functions: &[(&str, Function)]) -> Option<EventType> {
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
        counterexamples: read
            .counterexamples
            .into_iter()
            .map(|one| Counterexample { why: one.why, error: one.error, data: one.data })
            .collect(),
        past,
        fill,
        lift: ["task_id", "user_id"].into_iter().map(str::to_owned).chain(read.lift).collect(),
        unlisted: false,
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
    for CounterexampleFile { why, error, data } in counterexamples {
        match (schema.check(data), error) {
            (Ok(()), _) => file.wrong("counterexamples", format!("`{why}` is valid"), "mend it or the schema"),
            (Err(found), Some(expected)) if found.rsplit_once(" (").is_none_or(|(rule, _)| rule != expected) => {
                file.wrong(
                    "counterexamples",
                    format!("`{why}` is refused for another reason: {found}"),
                    "mend it, its `error` or the schema",
                );
            }
            (Err(_), _) => {}
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
