//! `worker events ..` as a person runs it.

use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

fn worker(args: &[&str], stdin: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_worker"))
        .args(args)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn validate_names_the_line_and_the_rule_of_each_refused_event_and_exits_1() {
    let input = concat!(
        r#"{"event_type":"task.created","user_id":"ada","task_id":1,"data":{"title":"Buy milk"}}"#,
        "\n{bad\n",
        r#"{"event_type":"task.created","user_id":"ada","task_id":1,"data":{"title":""}}"#,
    );
    let output = worker(&["events", "validate"], input);
    let shown = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{shown}");
    assert!(shown.contains("-:2: undecodable") && shown.contains("-:3: schema data.title"), "{shown}");
    assert!(shown.contains("1 valid, 2 refused") && !shown.contains('\x1b'), "{shown}");

    let valid = worker(&["events", "validate", "-o", "json"], input.lines().next().unwrap());
    assert_eq!(valid.status.code(), Some(0));
    let json: serde_json::Value = serde_json::from_slice(&valid.stdout).unwrap();
    assert_eq!(json, serde_json::json!({ "valid": { "task.created": 1 }, "refused": [] }));
}

#[test]
fn validate_reads_files_and_says_which_one_it_cannot_read() {
    let output = worker(&["events", "validate", "/no/such/file.ndjson"], "");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("/no/such/file.ndjson"), "{}", text(&output.stderr));
}

#[test]
fn send_shows_what_it_would_publish_and_refuses_what_the_catalogue_does() {
    let dry = worker(&["events", "send", "--type", "task.completed", "--user", "ada", "--task", "7", "--id", "e-1", "--dry-run"], "");
    let event: serde_json::Value = serde_json::from_slice(&dry.stdout).unwrap();
    assert_eq!((&event["event_id"], &event["data"]["task_id"], &event["data"]["user_id"]), (&"e-1".into(), &7.into(), &"ada".into()));

    let refused = worker(&["events", "send", "--type", "task.created", "--user", "ada", "--task", "7"], "");
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("data.title"), "{}", text(&refused.stderr));

    let usage = worker(&["events", "send", "--type", "task.completed", "--user", "ada", "--data", "[]"], "");
    assert_eq!(usage.status.code(), Some(2));
}

#[test]
fn send_publishes_and_answers_with_where_the_event_stands() {
    let sent =
        worker(&["events", "send", "--type", "task.completed", "--user", "ada", "--task", "7", "--set", "kafka.brokers=embedded"], "");
    let answer: serde_json::Value = serde_json::from_slice(&sent.stdout).unwrap();
    assert_eq!((&answer["topic"], &answer["offset"]), (&"task-events".into(), &0.into()), "{}", text(&sent.stderr));
}

#[test]
fn codegen_writes_a_file_or_stdout_and_names_what_it_does_not_know() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("events.py");
    let ask = |more: &[&str]| worker(&[&["events", "codegen", "--domain", "tasks"], more].concat(), "");
    let events = ["--events", "created,updated,completed,deleted", "--lang", "pydantic"];
    let written = ask(&[&events[..], &["--output", file.to_str().unwrap()]].concat());
    assert_eq!((written.status.code(), text(&written.stdout)), (Some(0), String::new()), "{}", text(&written.stderr));
    let shown = ask(&events);
    assert_eq!(std::fs::read_to_string(file).unwrap(), text(&shown.stdout));
    assert!(text(&shown.stdout).contains("class TaskCreatedPayload") && text(&shown.stdout).contains("class EventMetadata"));
    assert!(!text(&ask(&["--metadata", "false"]).stdout).contains("EventMetadata"));
    assert!(!text(&ask(&["--validation", "false"]).stdout).contains("max_length"));
    assert!(!text(&ask(&["--versioning", "false"]).stdout).contains("def migrate"));
    for (lang, sign) in [("typescript", "export interface"), ("rust", "pub struct TaskEvent"), ("json-schema", "\"$defs\"")] {
        assert!(text(&ask(&["--lang", lang]).stdout).contains(sign), "{lang}");
    }
    let wrong = ask(&["--events", "made"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(text(&wrong.stderr).contains("it has completed, created, deleted, updated"), "{}", text(&wrong.stderr));
    let fixture = concat!("catalog.dir=", env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/keywords");
    let warned = worker(&["events", "codegen", "--domain", "orders", "--set", fixture], "");
    assert!(text(&warned.stderr).contains("order.placed: data.site: format"), "{}", text(&warned.stderr));
}

/// A git repository with the shipped catalogue in `topics`, committed.
fn repository() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let topics = dir.path().join("topics");
    std::fs::create_dir_all(topics.join("events")).unwrap();
    for (name, text) in worker::event::Catalog::embedded_files() {
        std::fs::write(topics.join(name), text).unwrap();
    }
    for args in [&["init", "-q"][..], &["add", "."], &["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-q", "-m", "catalogue"]] {
        assert!(Command::new("git").arg("-C").arg(dir.path()).args(args).status().unwrap().success());
    }
    dir
}

#[test]
fn check_compares_the_catalogue_with_a_git_ref_or_a_folder_and_exits_3_on_a_break() {
    let dir = repository();
    let topics = dir.path().join("topics");
    let set = format!("catalog.dir={}", topics.display());
    let check = |against: &str, more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_worker"));
        command.args(["events", "check", "--against", against, "--set", &set]).args(more).env_remove("GIT_DIR").output().unwrap()
    };
    let same = check("HEAD", &[]);
    assert_eq!(same.status.code(), Some(0), "{}", text(&same.stderr));
    assert!(text(&same.stdout).starts_with("compatible:"), "{}", text(&same.stdout));

    let file = topics.join("events/task.created.yaml");
    let old = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, old.replace("maxLength: 200", "maxLength: 100")).unwrap();
    let broken = check("HEAD", &[]);
    assert_eq!(broken.status.code(), Some(3));
    let shown = text(&broken.stdout);
    assert!(shown.contains("may have more than 100") && shown.contains("1 breaks, 0 not checked"), "{shown}");
    assert_eq!(check("HEAD", &["--mode", "forward"]).status.code(), Some(0), "old readers take shorter titles");
    let json: serde_json::Value = serde_json::from_slice(&check("HEAD", &["--mode", "backward-transitive", "-o", "json"]).stdout).unwrap();
    assert_eq!(
        (&json["mode"], &json["compatible"], &json["findings"][0]["path"]),
        (&"BACKWARD_TRANSITIVE".into(), &false.into(), &"data.title".into())
    );

    std::fs::write(&file, old.replace("minLength: 1, maxLength: 200,", "minLength: 1, maxLength: 200, contentEncoding: base64,")).unwrap();
    let unknown = check("HEAD", &[]);
    assert_eq!(unknown.status.code(), Some(3));
    assert!(text(&unknown.stdout).contains("not checked"), "{}", text(&unknown.stdout));

    let folder = check(concat!(env!("CARGO_MANIFEST_DIR"), "/topics"), &["-o", "json"]);
    assert_eq!(folder.status.code(), Some(3), "{}", text(&folder.stderr));
    let nowhere = check("no-such-ref", &[]);
    assert_eq!(nowhere.status.code(), Some(2));
    assert!(text(&nowhere.stderr).contains("neither a folder nor a git ref"), "{}", text(&nowhere.stderr));
}
