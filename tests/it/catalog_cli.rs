//! The catalogue as data: what one edited file changes, seen through the binary.

use std::{
    fs,
    io::Write,
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use worker::event::Catalog;

/// A copy of the shipped catalogue, to be edited, and the binary that reads it.
struct Edited(TempDir);

impl Edited {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("events")).unwrap();
        for (name, text) in Catalog::embedded_files() {
            fs::write(dir.path().join(name), text).unwrap();
        }
        Self(dir)
    }

    fn text(&self, file: &str) -> String {
        fs::read_to_string(self.0.path().join(file)).unwrap()
    }

    fn edit(&self, file: &str, from: &str, to: &str) {
        let text = self.text(file);
        assert!(text.contains(from), "{file} has no {from}");
        fs::write(self.0.path().join(file), text.replacen(from, to, 1)).unwrap();
    }

    fn worker(&self, args: &[&str], stdin: &str) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_worker"))
            .args(args)
            .env_clear()
            .env("WORKER_CATALOG__DIR", self.0.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    fn json(&self, args: &[&str], stdin: &str) -> Value {
        let output = self.worker(args, stdin);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
    }

    /// Why `events validate` refuses that event; empty: it does not.
    fn refused(&self, event: &Value) -> String {
        let found = self.json(&["events", "validate", "-o", "json"], &event.to_string());
        found["refused"].as_array().unwrap().iter().map(|one| one["reason"].as_str().unwrap().to_owned()).collect()
    }

    fn export(&self) -> Value {
        self.json(&["topics", "export", "-o", "json"], "")
    }

    /// The topics that the export binds a type to.
    fn topics_of(&self, kind: &str) -> Vec<String> {
        let document = self.export();
        let channels = document["channels"].as_object().unwrap().iter();
        channels.filter(|(_, channel)| !channel["messages"][kind].is_null()).map(|(name, _)| name.clone()).collect()
    }
}

/// The YAML of `docs/catalogue.md`: a type, and what it has more at its next version.
fn documented() -> (String, String) {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/catalogue.md")).unwrap();
    let mut blocks = page.split("```yaml\n").skip(1).map(|block| block.split("```").next().unwrap().to_owned());
    (blocks.next().unwrap(), blocks.next().unwrap())
}

fn created(data: Value) -> Value {
    json!({ "event_type": "task.created", "user_id": "u", "task_id": 1, "data": data })
}

#[test]
fn one_new_file_is_a_new_type_to_publish_validate_and_export() {
    let catalog = Edited::new();
    let archived =
        json!({ "event_type": "task.archived", "user_id": "u", "task_id": 1, "data": { "archived_at": "2025-12-30T10:00:00Z" } });
    assert!(catalog.refused(&archived).contains("`task.archived` is not in the catalogue"));
    fs::write(catalog.0.path().join("events/task.archived.yaml"), documented().0).unwrap();
    assert_eq!(catalog.refused(&archived), "");
    let data = archived["data"].to_string();
    let send = ["events", "send", "--type", "task.archived", "--user", "u", "--task", "1", "--dry-run", "--data", &data];
    let sent = catalog.json(&send, "");
    assert_eq!(sent["event_type"], "task.archived");
    assert_eq!(catalog.topics_of("task.archived"), ["task-events"]);
}

#[test]
fn a_type_with_a_past_takes_what_was_sent_before() {
    let catalog = Edited::new();
    let (first, more) = documented();
    fs::write(catalog.0.path().join("events/task.archived.yaml"), first.replace("version: \"1.0\"\n", &more)).unwrap();
    let event = |version: &str, data: Value| json!({ "event_type": "task.archived", "event_version": version, "user_id": "u", "task_id": 1, "data": data });
    assert_eq!(catalog.refused(&event("1.0", json!({ "when": "2025-12-30T10:00:00Z" }))), "");
    assert!(
        catalog.refused(&event("2.0", json!({ "when": "2025-12-30T10:00:00Z" }))).contains("data.archived_at: missing (task.archived 2.0)")
    );
    assert_eq!(catalog.export()["components"]["messages"]["task.archived"]["x-past-versions"], json!(["1.0"]));
}

#[test]
fn one_new_line_is_a_new_field_with_its_rules() {
    let catalog = Edited::new();
    let mauve = created(json!({ "title": "x", "color": "mauve" }));
    assert_eq!(catalog.refused(&mauve), "", "unknown fields are kept");
    catalog.edit("events/task.created.yaml", "    tags:", "    color: { type: string, enum: [red, blue] }\n    tags:");
    assert!(catalog.refused(&mauve).contains("data.color: a string that is none of red, blue (task.created 1.0)"));
    assert_eq!(catalog.refused(&created(json!({ "title": "x", "color": "red" }))), "");
    let data = &catalog.export()["components"]["messages"]["task.created"]["payload"]["schema"]["properties"]["data"];
    assert_eq!(data["properties"]["color"]["enum"], json!(["red", "blue", null]));
}

#[test]
fn one_new_line_is_a_new_topic_and_another_binds_a_type_to_it() {
    let catalog = Edited::new();
    catalog.edit("topics.yaml", "  user-events:", "  archive: { description: Old tasks., partitions: 4, retention: 90d }\n  user-events:");
    let channel = &catalog.export()["channels"]["archive"];
    assert_eq!((&channel["address"], &channel["bindings"]["kafka"]["partitions"]), (&json!("archive"), &json!(4)));
    catalog.edit("events/task.deleted.yaml", "topics: [task-events]", "topics: [task-events, archive]");
    assert_eq!(catalog.topics_of("task.deleted"), ["archive", "task-events"]);
}

#[test]
fn each_naming_scheme_names_the_topics_of_the_same_types() {
    let catalog = Edited::new();
    assert_eq!(catalog.topics_of("task.created"), ["task-events"]);
    catalog.edit("topics.yaml", "naming: topic", "naming: evolution-todo");
    assert_eq!(catalog.topics_of("task.created"), ["evolution-todo.tasks.created"]);
    assert_eq!(catalog.topics_of("reminder.due"), ["evolution-todo.reminders.due"]);
    catalog.edit("topics.yaml", "naming: evolution-todo", "naming: type");
    assert_eq!(catalog.topics_of("task.created"), ["task.created"]);
    assert_eq!(catalog.topics_of("dlq.failed"), ["dlq", "dlq.failed"], "dead letters keep their topic");
}

#[test]
fn every_type_has_all_that_the_contract_asks_of_it() {
    let document = Edited::new().export();
    let messages = document["components"]["messages"].as_object().unwrap();
    assert_eq!(messages.len(), 20);
    for (name, message) in messages {
        let text = |key: &str| message[key].as_str().unwrap_or_default().to_owned();
        assert!(!text("summary").is_empty() && text("x-version").contains('.'), "{name}");
        assert!(message["x-aliases"].is_array() && message["x-past-versions"].is_array(), "{name}");
        assert!(!message["x-consumers"].as_object().unwrap().is_empty(), "{name}: nobody reacts");
        assert_eq!(message["bindings"]["kafka"]["key"]["description"], "The event's user_id.", "{name}");
        let event = &message["examples"][0]["payload"];
        assert_eq!(Edited::new().refused(event), "", "{name}");
    }
    assert_eq!(messages["reminder.due"]["x-aliases"], json!(["reminder.triggered"]));
    assert_eq!(messages["recurring.triggered"]["x-aliases"], json!(["recurring.trigger"]));
}

#[test]
fn a_refused_event_is_told_by_path_rule_and_version_and_never_by_its_payload() {
    let catalog = Edited::new();
    let secret = "hunter2".repeat(40);
    for (data, told) in [
        (json!({ "title": secret }), "data.title: longer than 200 characters (task.created 1.0)"),
        (json!({ "title": "x", "due_date": secret }), "data.due_date: a string that is no date-time (task.created 1.0)"),
        (json!({ "title": "x", "tags": [1] }), "data.tags[0]: a number where a string is needed (task.created 1.0)"),
        (json!({ "title": { "hunter2": 1 } }), "data.title: an object where a string is needed (task.created 1.0)"),
        (json!({ "description": "hunter2" }), "data.title: missing (task.created 1.0)"),
    ] {
        let reason = catalog.refused(&created(data));
        assert!(reason.contains(told) && !reason.contains("hunter2"), "{reason}");
    }
}
