//! The shipped catalogue against the contract, a catalogue's errors, and the way from old versions.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Catalog, Origin, TopicSpec, Version};
use crate::{
    event::{
        Decoder,
        tests::{decoder, fixtures, record},
    },
    outcome::DeadReason,
};

fn parsed(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

/// A catalogue whose type has had three versions.
pub(in crate::event) fn historic() -> Catalog {
    Catalog::load(&fixtures().join("catalog")).unwrap()
}

fn shipped() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("topics")
}

/// A copy of the shipped catalogue, to be edited.
fn copied() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("events")).unwrap();
    for (name, text) in Catalog::embedded_files() {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

fn edit(dir: &tempfile::TempDir, file: &str, from: &str, to: &str) {
    let path = dir.path().join(file);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{file} has no {from}");
    std::fs::write(path, text.replacen(from, to, 1)).unwrap();
}

#[test]
fn the_embedded_catalogue_is_the_folder() {
    let mut files: Vec<_> = std::fs::read_dir(shipped().join("events")).unwrap().map(|file| file.unwrap().path()).collect();
    files.push(shipped().join("topics.yaml"));
    assert_eq!(files.len(), Catalog::embedded_files().len());
    for file in files {
        let name = file.strip_prefix(shipped()).unwrap().to_str().unwrap();
        let (_, text) = Catalog::embedded_files().iter().find(|(embedded, _)| *embedded == name).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), *text, "{name}");
    }
}

#[test]
fn the_catalogue_has_every_type_topic_and_alias_of_the_contract() {
    let catalog = Catalog::embedded().unwrap();
    let types = [
        ("dlq.failed", &["dlq", "task-events"][..]),
        ("notification.bounced", &["notifications"]),
        ("notification.delivered", &["notifications"]),
        ("notification.due", &["notifications"]),
        ("notification.failed", &["notifications"]),
        ("points.awarded", &["user-events"]),
        ("recurring.spawned", &["task-events"]),
        ("recurring.triggered", &["task-events"]),
        ("reminder.cancelled", &["reminders"]),
        ("reminder.due", &["reminders"]),
        ("reminder.failed", &["reminders"]),
        ("reminder.scheduled", &["reminders"]),
        ("reminder.sent", &["reminders"]),
        ("schedule.ticked", &["task-events"]),
        ("security.alert", &["user-events"]),
        ("task.completed", &["task-events"]),
        ("task.created", &["task-events"]),
        ("task.deleted", &["task-events"]),
        ("task.updated", &["task-events"]),
        ("user.logged_in", &["user-events"]),
    ];
    assert_eq!(catalog.types().map(|kind| &*kind.name).collect::<Vec<_>>(), types.map(|(name, _)| name));
    for (name, topics) in types {
        assert_eq!(catalog.topics_for(name).iter().map(|topic| &**topic).collect::<Vec<_>>(), topics, "{name}");
    }
    assert_eq!(catalog.canonical("reminder.triggered").map(|name| &**name), Some("reminder.due"));
    assert_eq!(catalog.canonical("recurring.trigger.v1").map(|name| &**name), Some("recurring.triggered"));
    assert_eq!(catalog.canonical_pattern("reminder.triggered"), "reminder.due");
    assert_eq!(catalog.canonical_pattern("task.*"), "task.*");
    assert!(!catalog.knows("task.created.v1.v1") && !catalog.knows("task.created.vx") && !catalog.knows("task"));
    assert_eq!((catalog.topic("reminder-events"), catalog.topic("nowhere")), (Some("reminders"), None));
}

#[test]
fn each_example_is_valid_and_each_counterexample_is_refused_with_a_reason() {
    let decoder = decoder();
    for kind in decoder.catalog().types() {
        let event = |data: &Value| record(json!({ "event_type": &*kind.name, "user_id": "u", "data": data }).to_string());
        assert_eq!(decoder.decode(event(&kind.example)).unwrap().data(), kind.example, "{}", kind.name);
        assert!(kind.counterexamples.len() >= 3, "{}", kind.name);
        for counterexample in &kind.counterexamples {
            let error = kind.schema.check(&counterexample.data).unwrap_err();
            let expected = counterexample.error.as_deref().unwrap_or("an error that the file does not name");
            assert_eq!(error, format!("{expected} ({} {})", kind.name, kind.version), "{}", counterexample.why);
        }
    }
}

#[test]
fn topics_are_what_the_contract_says_in_each_profile() {
    let catalog = Catalog::embedded().unwrap();
    let spec = |profile: &str| -> Vec<(String, i32, u64, i32, String)> {
        let row = |spec: TopicSpec| {
            let insync = spec.config["min.insync.replicas"].clone();
            (spec.name.to_string(), spec.partitions, spec.retention.as_secs() / 86_400, spec.replication, insync)
        };
        catalog.topic_specs(profile).unwrap().into_iter().map(row).collect()
    };
    let names = [
        ("dlq", 3, 30),
        ("notifications", 3, 7),
        ("reminders", 3, 1),
        ("task-events", 12, 7),
        ("task-updates", 12, 1),
        ("user-events", 5, 30),
    ];
    assert_eq!(spec("local"), names.map(|(name, count, days)| (name.to_owned(), count, days, 1, "1".to_owned())));
    assert_eq!(spec("production"), names.map(|(name, count, days)| (name.to_owned(), count, days, 3, "2".to_owned())));
    assert_eq!(spec("cloud")[3], ("task-events".to_owned(), 12, 30, 3, "2".to_owned()));
    assert_eq!(catalog.topic_specs("nowhere"), None);
    let tasks = catalog.topic_specs("local").unwrap().swap_remove(3);
    assert_eq!(tasks.config["retention.ms"], "604800000");
    assert!(tasks.types.iter().any(|kind| &**kind == "task.created"));
}

#[test]
fn a_consumer_of_everything_does_not_eat_its_own_dead_letters() {
    let catalog = Catalog::embedded().unwrap();
    let needed = |patterns: &[&str]| catalog.topics_needed(patterns.iter().copied()).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(needed(&["*"]), ["notifications", "reminders", "task-events", "user-events"]);
    assert_eq!(needed(&["task.*", "reminder.triggered"]), ["reminders", "task-events"]);
    assert_eq!(needed(&["dlq.failed"]), ["dlq", "task-events"]);
    assert!(needed(&["no.such"]).is_empty());
}

#[test]
fn a_naming_scheme_gives_each_type_a_topic_of_its_own() {
    let dir = copied();
    edit(&dir, "topics.yaml", "naming: topic", "naming: evolution-todo");
    let catalog = Catalog::load(dir.path()).unwrap();
    assert_eq!(&*catalog.topics_for("task.created")[0], "evolution-todo.tasks.created");
    assert_eq!(catalog.topics_needed(["reminder.due"]).iter().map(|name| &**name).collect::<Vec<_>>(), ["evolution-todo.reminders.due"]);
    let specs = catalog.topic_specs("local").unwrap();
    let created = specs.iter().find(|spec| &*spec.name == "evolution-todo.tasks.created").unwrap();
    assert_eq!((created.partitions, created.types.len()), (12, 1));
    assert!(specs.iter().any(|spec| &*spec.name == "dlq"), "dead letters keep their topic");
    edit(&dir, "topics.yaml", "naming: evolution-todo", "naming: type");
    assert_eq!(&*Catalog::load(dir.path()).unwrap().topics_for("reminder.triggered")[0], "reminder.due");
}

#[test]
fn a_type_a_field_and_a_topic_are_each_added_by_one_file() {
    let dir = copied();
    let text = std::fs::read_to_string(dir.path().join("events/reminder.cancelled.yaml")).unwrap();
    std::fs::write(dir.path().join("events/task.archived.yaml"), text.replace("reminder.cancelled", "task.archived")).unwrap();
    edit(&dir, "events/task.created.yaml", "    tags:", "    color: { type: string, enum: [red, blue] }\n    tags:");
    edit(&dir, "topics.yaml", "  user-events:", "  archive: { description: Old tasks., partitions: 1, retention: 90d }\n  user-events:");
    let catalog = Arc::new(Catalog::load(dir.path()).unwrap());
    assert!(catalog.topic_specs("local").unwrap().iter().any(|spec| &*spec.name == "archive"));
    let decoder = Decoder::new(catalog, true);
    assert!(decoder.decode(record(r#"{"event_type":"task.archived","user_id":"u","task_id":1}"#)).is_ok());
    let colored = |color: &str| {
        record(format!(r#"{{"event_type":"task.created","user_id":"u","task_id":1,"data":{{"title":"x","color":"{color}"}}}}"#))
    };
    assert!(decoder.decode(colored("red")).is_ok());
    assert_eq!(decoder.decode(colored("mauve")).unwrap_err().error, "data.color: a string that is none of red, blue (task.created 1.0)");
}

#[test]
fn every_problem_of_a_catalogue_is_told_with_file_line_field_and_fix() {
    let dir = copied();
    edit(&dir, "events/task.created.yaml", "topics: [task-events]", "topics: [task-evnets]");
    edit(&dir, "events/task.updated.yaml", "version: \"1.0\"", "version: one");
    edit(&dir, "events/task.deleted.yaml", "domain: tasks\n", "");
    edit(&dir, "events/reminder.due.yaml", "  reminder_type: due_soon", "  reminder_type: whenever");
    edit(&dir, "events/user.logged_in.yaml", "carrier_pigeon", "email");
    edit(&dir, "events/points.awarded.yaml", "data.reason: missing", "data.reason: empty");
    edit(&dir, "topics.yaml", "retention: 7d", "retention: a week");
    let error = Catalog::load(dir.path()).unwrap_err();
    let told: Vec<String> =
        error.problems.iter().map(|problem| problem.to_string().replace(&format!("{}/", dir.path().display()), "")).collect();
    let expected = [
        "topics.yaml:22: topics.task-events.retention: `a week` is no duration; write it like 7d or 12h",
        "events/points.awarded.yaml:25: counterexamples: `the reason is missing` is refused for another reason: data.reason: missing (points.awarded 1.0); mend it, its `error` or the schema",
        "events/reminder.due.yaml:17: example: not valid: data.reminder_type: a string that is none of overdue, due_soon, recurring (reminder.due 1.0); mend the example or the schema",
        "events/task.deleted.yaml:1: missing field `domain`; add it",
        "events/task.updated.yaml:2: version: `one` is no version; write it like \"1.0\"",
        "events/user.logged_in.yaml:23: counterexamples: `no such login method` is valid; mend it or the schema",
        "events/task.created.yaml:5: topics: topic `task-evnets` is not in topics.yaml; add it there, or name one that is",
    ];
    assert_eq!(told, expected);
    let missing = Catalog::load(&dir.path().join("nowhere")).unwrap_err();
    assert!(missing.problems[0].file.ends_with("nowhere/topics.yaml") && missing.to_string().contains("catalog.dir"), "{missing}");
}

#[test]
fn a_topic_of_the_past_is_neither_a_declared_one_nor_one_of_kafkas_own() {
    let dir = copied();
    edit(&dir, "topics.yaml", "gone: []", "gone: [old-events, reminder-events, __consumer_offsets]");
    let error = Catalog::load(dir.path()).unwrap_err().to_string();
    assert!(error.contains("gone: `reminder-events` is also one of `topics`"), "{error}");
    assert!(error.contains("`__consumer_offsets` is no topic that could be deleted") && !error.contains("`old-events`"), "{error}");
    edit(&dir, "topics.yaml", "[old-events, reminder-events, __consumer_offsets]", "[old-events]");
    assert_eq!(Catalog::load(dir.path()).unwrap().gone(), ["old-events"]);
}

#[test]
fn two_types_cannot_share_a_name() {
    let dir = copied();
    edit(&dir, "events/reminder.due.yaml", "aliases: [reminder.triggered]", "aliases: [task.created]");
    let error = Catalog::load(dir.path()).unwrap_err().to_string();
    assert!(error.contains("`task.created` is also a name of"), "{error}");
}

#[test]
fn the_embedded_catalogue_stands_in_for_a_missing_default_folder_only() {
    let missing = fixtures().join("nowhere");
    assert_eq!(Catalog::open(&missing, true).unwrap().origin().to_string(), "embedded in the binary");
    assert!(Catalog::open(&missing, false).is_err());
    let dir = shipped();
    assert_eq!(Catalog::open(&dir, true).unwrap().origin(), &Origin::Folder(dir));
}

// === Versions ===

#[test]
fn every_past_version_arrives_at_the_current_one() {
    let decoder = Decoder::new(Arc::new(historic()), true);
    let send = |version: &str, data: Value| {
        let event = json!({ "event_id": "e", "event_type": "task.created", "event_version": version, "timestamp": "2025-12-30T10:00:00Z", "data": data });
        decoder.decode(record(event.to_string()))
    };
    let event =
        send("1.0", json!({ "task_id": 1, "user_id": "u", "name": "Call", "estimate": "5", "due_date": "2026-01-01", "legacy": true }))
            .unwrap();
    assert_eq!(event.version(), Version::FIRST);
    let current = json!({
        "task_id": 1, "user_id": "u", "estimate": 5, "title": "Call", "urgency": "low", "schedule": { "due": "2026-01-01" },
        "created_at": "2025-12-30T10:00:00Z"
    });
    assert_eq!(event.data(), current);
    let published = parsed(&event.to_published());
    assert_eq!((&published["data"], &published["event_version"]), (&current, &json!("2.0")));
    assert_eq!(parsed(&event.to_canonical())["event_version"], "2.0");
    let event = send("1.1", json!({ "task_id": 1, "user_id": "u", "title": "Call", "urgency": "HIGH" })).unwrap();
    assert_eq!(event.data()["urgency"], "high");
    let rejected = send("2.0", json!({ "task_id": 1, "user_id": "u", "title": "Call", "urgency": "HIGH" })).unwrap_err();
    assert_eq!(rejected.reason, DeadReason::Schema, "the steps are not for the current version");
}

#[test]
fn a_program_can_bring_functions_of_its_own_for_upcasts() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("events")).unwrap();
    for file in ["topics.yaml", "events/task.created.yaml"] {
        std::fs::copy(fixtures().join("catalog").join(file), dir.path().join(file)).unwrap();
    }
    edit(&dir, "events/task.created.yaml", "call: integer", "call: hours_to_minutes");
    let error = Catalog::load(dir.path()).unwrap_err().to_string();
    assert!(error.contains("no function `hours_to_minutes`") && error.contains("call one of lowercase"), "{error}");
    fn minutes(hours: Value) -> Value {
        hours.as_str().and_then(|hours| hours.parse::<i64>().ok()).map_or(hours, |hours| json!(hours * 60))
    }
    let catalog = Catalog::load_with(dir.path(), &[("hours_to_minutes", minutes)]).unwrap();
    let old = r#"{"event_type":"task.created","user_id":"u","task_id":1,"data":{"name":"x","estimate":"2"}}"#;
    assert_eq!(Decoder::new(Arc::new(catalog), true).decode(record(old)).unwrap().data()["estimate"], 120);
}
