//! `worker topics plan|apply` on a real broker, with a catalogue of the test's own.

use std::{
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    stack_or_skip,
    support::{free_address, stack::Stack, unique},
};

/// A catalogue of one type on one topic of 2 partitions, kept for a day.
fn catalog(dir: &Path, topic: &str) {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/catalog");
    std::fs::create_dir(dir.join("events")).unwrap();
    for file in ["topics.yaml", "events/task.created.yaml"] {
        let text = std::fs::read_to_string(fixture.join(file)).unwrap();
        std::fs::write(dir.join(file), text.replace("task-events", topic)).unwrap();
    }
}

fn topics(brokers: &str, dir: &Path, dlq: &str, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_worker"))
        .arg("topics")
        .args(args)
        .env_clear()
        .env("WORKER_KAFKA__BROKERS", brokers)
        .env("WORKER_CATALOG__DIR", dir)
        .env("WORKER_DLQ__TOPIC", dlq)
        .output()
        .unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
}

fn action<'a>(document: &'a Value, topic: &str) -> &'a str {
    let topics = document["topics"].as_array().unwrap();
    topics.iter().find(|found| found["name"] == topic).unwrap_or_else(|| panic!("no {topic} in {document}"))["action"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_topics_are_pending_then_created_then_nothing_is_left_to_do() {
    let stack = stack_or_skip!(Stack::shared());
    let (topic, dlq, dir) = (unique("topics"), unique("topics-dlq"), tempfile::tempdir().unwrap());
    catalog(dir.path(), &topic);
    let run = |args: &[&str]| topics(stack.brokers(), dir.path(), &dlq, args);

    let planned = run(&["plan", "-o", "json"]);
    assert_eq!((planned.status.code(), &json(&planned)["pending"]), (Some(3), &Value::from(2)));
    assert_eq!((action(&json(&planned), &topic), action(&json(&planned), &dlq)), ("create", "create"));

    let applied = run(&["apply", "-o", "json"]);
    assert_eq!((applied.status.code(), action(&json(&applied), &topic), action(&json(&applied), &dlq)), (Some(0), "created", "created"));
    assert_eq!(stack.kafka().partitions(&topic).len(), 2);

    for command in ["apply", "plan"] {
        let again = run(&[command]);
        let text = String::from_utf8(again.stdout).unwrap();
        assert_eq!(again.status.code(), Some(0), "{text}");
        assert!(text.contains("as it should be") && !text.contains("to be created"), "{text}");
    }
    stack.kafka().delete_topic(&topic).await;
    stack.kafka().delete_topic(&dlq).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_differs_is_shown_and_left_as_it_is() {
    let stack = stack_or_skip!(Stack::shared());
    let (topic, dlq, dir) = (unique("topics"), unique("topics-dlq"), tempfile::tempdir().unwrap());
    catalog(dir.path(), &topic);
    stack.kafka().create_topic(&topic, 1, &[("retention.ms", "1000000")]).await;
    let applied = json(&topics(stack.brokers(), dir.path(), &dlq, &["apply", "-o", "json"]));
    assert_eq!((action(&applied, &topic), action(&applied, &dlq)), ("drift", "created"));
    assert_eq!(stack.kafka().partitions(&topic).len(), 1);
    let planned = topics(stack.brokers(), dir.path(), &dlq, &["plan"]);
    let text = String::from_utf8(planned.stdout).unwrap();
    assert_eq!(planned.status.code(), Some(0), "what differs is not pending: {text}");
    assert!(text.contains("retention.ms is 1000000, not 86400000") && text.contains("--partitions 2"), "{text}");
    stack.kafka().delete_topic(&topic).await;
    stack.kafka().delete_topic(&dlq).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_topic_is_told_in_kafkas_words_and_fails_the_command_but_not_the_other_topic() {
    let stack = stack_or_skip!(Stack::shared());
    let (topic, dlq, dir) = (unique("topics"), unique("topics-dlq"), tempfile::tempdir().unwrap());
    catalog(dir.path(), &topic);
    let file = dir.path().join("topics.yaml");
    // More copies than there are brokers.
    let more = format!(
        "    profiles: {{ local: {{ replication: 5 }} }}\n  {dlq}: {{ description: D., partitions: 1, retention: 1d, dead_letters: true }}\n"
    );
    std::fs::write(&file, std::fs::read_to_string(&file).unwrap() + &more).unwrap();
    let applied = topics(stack.brokers(), dir.path(), &dlq, &["apply", "-o", "json"]);
    let document = json(&applied);
    assert_eq!((applied.status.code(), action(&document, &topic), action(&document, &dlq)), (Some(1), "refused", "created"));
    let refused = document["topics"].as_array().unwrap().iter().find(|found| found["name"] == *topic).unwrap();
    assert!(refused["error"].as_str().unwrap().contains("replication factor"), "{refused}");
    stack.kafka().delete_topic(&dlq).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_are_away_are_named_within_a_bounded_time() {
    let dir = tempfile::tempdir().unwrap();
    catalog(dir.path(), "t");
    let (away, began) = (free_address(), Instant::now());
    let planned = topics(&away, dir.path(), "dlq", &["plan"]);
    assert_eq!(planned.status.code(), Some(1));
    let stderr = String::from_utf8(planned.stderr).unwrap();
    assert!(stderr.contains(&format!("no Kafka broker answers at {away}")), "{stderr}");
    assert!(began.elapsed() < Duration::from_secs(20));
}
