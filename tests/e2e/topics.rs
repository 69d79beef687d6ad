//! `worker topics plan|apply` on a real broker, with a catalogue of the test's own.

use std::{
    path::Path,
    process::{Command, Output},
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    stack_or_skip,
    support::{free_address, kafka::Kafka, stack::Stack, unique},
};

/// A catalogue of one type on one topic of 2 partitions, kept for a day, and a dead-letter topic; and the brokers that it is for.
struct Place {
    dir: TempDir,
    brokers: String,
    topic: String,
    dlq: String,
}

impl Place {
    fn new(brokers: &str) -> Self {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/catalog");
        let place =
            Self { dir: tempfile::tempdir().unwrap(), brokers: brokers.to_owned(), topic: unique("topics"), dlq: unique("topics-dlq") };
        std::fs::create_dir(place.dir.path().join("events")).unwrap();
        for file in ["topics.yaml", "events/task.created.yaml"] {
            let text = std::fs::read_to_string(fixture.join(file)).unwrap();
            std::fs::write(place.dir.path().join(file), text.replace("task-events", &place.topic)).unwrap();
        }
        place
    }

    /// Adds lines to topics.yaml; those of the topic itself come first.
    fn declare(&self, lines: &str) {
        let file = self.dir.path().join("topics.yaml");
        std::fs::write(&file, std::fs::read_to_string(&file).unwrap() + lines).unwrap();
    }

    fn run(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_worker"))
            .arg("topics")
            .args(args)
            .env_clear()
            .env("WORKER_KAFKA__BROKERS", &self.brokers)
            .env("WORKER_CATALOG__DIR", self.dir.path())
            .env("WORKER_DLQ__TOPIC", &self.dlq)
            .output()
            .unwrap()
    }

    /// The exit code and the document of `-o json`.
    fn json(&self, args: &[&str]) -> (Option<i32>, Value) {
        let output = self.run(&[args, &["-o", "json"]].concat());
        let document = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        (output.status.code(), document)
    }

    /// The exit code and the table.
    fn text(&self, args: &[&str]) -> (Option<i32>, String) {
        let output = self.run(args);
        (output.status.code(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap())
    }

    async fn end(self, kafka: &Kafka) {
        for topic in [&self.topic, &self.dlq] {
            if !kafka.partitions(topic).is_empty() {
                kafka.delete_topic(topic).await;
            }
        }
    }
}

fn of<'a>(document: &'a Value, topic: &str) -> &'a Value {
    let topics = document["topics"].as_array().unwrap();
    topics.iter().find(|found| found["name"] == topic).unwrap_or_else(|| panic!("no {topic} in {document}"))
}

fn action<'a>(document: &'a Value, topic: &str) -> &'a str {
    of(document, topic)["action"].as_str().unwrap()
}

/// What is to be done, or was done, about one setting of a topic.
fn about<'a>(document: &'a Value, topic: &str, setting: &str) -> &'a Value {
    let found = of(document, topic)["differences"].as_array().unwrap().iter().find(|found| found["setting"] == setting);
    found.unwrap_or_else(|| panic!("nothing about {setting} in {document}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_topics_are_pending_then_created_then_nothing_is_left_to_do() {
    let stack = stack_or_skip!(Stack::shared());
    let (kafka, place) = (stack.kafka(), Place::new(stack.brokers()));
    // As many as take the brokers a moment to show.
    let more: Vec<_> = (0..20).map(|_| unique("topics-more")).collect();
    place.declare(&more.iter().map(|name| format!("  {name}: {{ description: D., partitions: 8, retention: 1d }}\n")).collect::<String>());
    let (code, planned) = place.json(&["plan"]);
    assert_eq!((code, &planned["pending"]), (Some(3), &Value::from(22)));
    assert_eq!((action(&planned, &place.topic), action(&planned, &place.dlq)), ("create", "create"));

    let (code, applied) = place.json(&["apply"]);
    assert_eq!((code, action(&applied, &place.topic), action(&applied, &place.dlq)), (Some(0), "created", "created"));
    assert_eq!(kafka.partitions(&place.topic).len(), 2);

    for command in ["apply", "plan"] {
        let (code, text) = place.text(&[command]);
        assert_eq!(code, Some(0), "{text}");
        assert!(text.contains("as it should be") && !text.contains("to be created"), "{text}");
    }
    for topic in more {
        kafka.delete_topic(&topic).await;
    }
    place.end(&kafka).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn safe_changes_are_made_and_risky_ones_wait_until_they_are_allowed_by_name() {
    let stack = stack_or_skip!(Stack::shared());
    let (kafka, place) = (stack.kafka(), Place::new(stack.brokers()));
    place.declare("    config: { max.message.bytes: \"2000000\" }\n");
    kafka.create_topic(&place.topic, 1, &[("retention.ms", "900000000"), ("segment.bytes", "5000000")]).await;

    let (code, planned) = place.json(&["plan"]);
    assert_eq!((code, &planned["pending"], action(&planned, &place.topic)), (Some(3), &Value::from(4), "change"));
    assert_eq!(about(&planned, &place.topic, "partitions")["risk"], "add-partitions");
    assert_eq!(about(&planned, &place.topic, "retention.ms")["risk"], "lose-records");
    let (_, text) = place.text(&["plan"]);
    assert!(text.contains("2 changes to make, 2 held back: worker topics apply."), "{text}");

    let (code, applied) = place.json(&["apply"]);
    assert_eq!((code, &applied["pending"]), (Some(3), &Value::from(2)), "{applied:#}");
    assert_eq!((action(&applied, &place.topic), action(&applied, &place.dlq)), ("held", "created"));
    assert_eq!(about(&applied, &place.topic, "max.message.bytes")["action"], "changed");
    assert_eq!(kafka.partitions(&place.topic).len(), 1);

    let (code, text) = place.text(&["apply", "--allow", "add-partitions"]);
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("keys move to other partitions") && text.contains("--allow lose-records"), "{text}");
    assert_eq!(kafka.partitions(&place.topic).len(), 2);

    let (code, text) = place.text(&["apply", "--allow", "lose-records"]);
    assert!(code == Some(0) && text.contains("retention.ms 900000000 -> 86400000"), "{text}");
    let settings = kafka.settings(&place.topic).await;
    let set = |key: &str| settings[key].as_str();
    assert_eq!((set("retention.ms"), set("max.message.bytes")), ("86400000", "2000000"));
    assert_eq!(set("segment.bytes"), "5000000", "what is not declared stays");
    assert_eq!(place.json(&["plan"]).0, Some(0));
    place.end(&kafka).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn drift_that_no_change_mends_is_shown_and_not_pending() {
    let stack = stack_or_skip!(Stack::shared());
    let (kafka, place) = (stack.kafka(), Place::new(stack.brokers()));
    place.declare("    profiles: { local: { replication: 3, min_insync: 2 } }\n");
    kafka.create_topic(&place.topic, 5, &[("retention.ms", "86400000")]).await;
    kafka.create_topic(&place.dlq, 1, &[]).await;
    let (code, planned) = place.json(&["plan"]);
    assert_eq!((code, action(&planned, &place.topic), &planned["drift"]), (Some(0), "drift", &Value::from(3)), "{planned:#}");
    for (setting, hint) in
        [("partitions", "declare 5"), ("replication", "kafka-reassign-partitions"), ("min.insync.replicas", "every write would be refused")]
    {
        assert!(about(&planned, &place.topic, setting)["hint"].as_str().unwrap().contains(hint), "{planned:#}");
    }
    let (code, text) = place.text(&["apply", "--allow", "add-partitions"]);
    assert!(code == Some(0) && text.contains("3 differences are not this command's to mend"), "{text}");
    place.end(&kafka).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_deleted_only_where_the_catalogue_and_the_command_both_say_so() {
    let stack = stack_or_skip!(Stack::shared());
    let (kafka, place, old) = (stack.kafka(), Place::new(stack.brokers()), unique("topics-old"));
    kafka.create_topic(&old, 2, &[]).await;
    kafka.produce_all(&old, (0..3).map(|n| (format!("u{n}"), "x"))).await;
    let (_, text) = place.text(&["apply", "--allow", "delete"]);
    assert!(!text.contains(&old), "what is not declared is not even named: {text}");

    place.declare(&format!("gone: [{old}]\n"));
    let (code, planned) = place.json(&["plan"]);
    assert_eq!((code, action(&planned, &old), about(&planned, &old, "topic")["found"].as_str()), (Some(3), "delete", Some("3 records")));
    let (code, applied) = place.json(&["apply"]);
    assert_eq!((code, action(&applied, &old)), (Some(3), "held"));
    assert_eq!(kafka.partitions(&old).len(), 2);

    let (code, applied) = place.json(&["apply", "--allow", "delete"]);
    assert_eq!((code, action(&applied, &old)), (Some(0), "deleted"));
    assert_eq!(kafka.partitions(&old).len(), 0);
    assert_eq!(place.json(&["plan"]).0, Some(0));

    let wanted = Command::new(env!("CARGO_BIN_EXE_worker"))
        .args(["topics", "plan", "--set", &format!("kafka.topics=[\"{old}\"]")])
        .env_clear()
        .env("WORKER_CATALOG__DIR", place.dir.path())
        .output()
        .unwrap();
    let stderr = String::from_utf8(wanted.stderr).unwrap();
    assert!(wanted.status.code() == Some(2) && stderr.contains("this deployment needs it (kafka.topics)"), "{stderr}");
    place.end(&kafka).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_topic_is_told_in_kafkas_words_and_fails_the_command_but_not_the_other_topic() {
    let stack = stack_or_skip!(Stack::shared());
    let place = Place::new(stack.brokers());
    let [policy, setting, mended] = [unique("topics-policy"), unique("topics-setting"), unique("topics-mended")];
    // More copies than there are brokers, more partitions than a request may ask for, and settings that Kafka does not take.
    place.declare(&format!(
        "    profiles: {{ local: {{ replication: 5 }} }}
  {policy}: {{ description: D., partitions: 20000, retention: 1d }}
  {setting}: {{ description: D., partitions: 1, retention: 1d, config: {{ cleanup.policy: sometimes }} }}
  {mended}: {{ description: D., partitions: 1, retention: 1d, config: {{ max.message.bytes: \"-5\" }} }}
  {}: {{ description: D., partitions: 1, retention: 1d, dead_letters: true }}\n",
        place.dlq
    ));
    let kafka = stack.kafka();
    kafka.create_topic(&mended, 1, &[("retention.ms", "86400000")]).await;
    let (code, applied) = place.json(&["apply"]);
    assert_eq!((code, action(&applied, &place.topic), action(&applied, &place.dlq)), (Some(1), "refused", "created"), "{applied:#}");
    for (topic, words, fix) in [
        (&place.topic, "replication factor", "another --profile"),
        (&policy, "the cluster's policy forbids it: Excessively large number of partitions", ""),
        (&setting, "sometimes", "mend the setting in topics.yaml"),
        (&mended, "max.message.bytes", "mend the setting in topics.yaml"),
    ] {
        let error = of(&applied, topic)["error"].as_str().unwrap();
        assert!(error.contains(words) && error.contains(fix), "{error}");
    }
    kafka.delete_topic(&mended).await;
    place.end(&kafka).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_the_rights_is_told_which_it_needs() {
    let stack = stack_or_skip!(Stack::private(&["kafka"]));
    let (kafka, sasl) = (stack.kafka(), stack.sasl_ssl());
    let place = Place::new(&sasl.brokers);
    kafka.create_topic(&place.topic, 1, &[("retention.ms", "1000")]).await;
    let user = format!("User:{}", sasl.user);
    let rule = |principal: &str, operations: &[&str], on: &[&str]| {
        let operations: Vec<_> = operations.iter().flat_map(|operation| ["--operation", operation]).collect();
        stack.kafka_tool(&[&["AclCommand", "--add", principal, &user], operations.as_slice(), on].concat());
    };
    // Either right would do.
    rule("--deny-principal", &["Create"], &["--cluster", "--topic", &place.dlq]);
    rule("--allow-principal", &["Describe", "DescribeConfigs"], &["--topic", &place.topic]);
    let secure = [
        "security.protocol=sasl_ssl".to_owned(),
        "sasl.mechanism=PLAIN".to_owned(),
        format!("sasl.username={}", sasl.user),
        format!("sasl.password={}", sasl.password),
        format!("ssl.ca.location={}", sasl.ca),
    ];
    let secure: Vec<_> = secure.iter().flat_map(|property| ["-X", property]).collect();
    let (code, applied) = place.json(&[&["apply", "--allow", "add-partitions"], secure.as_slice()].concat());
    assert_eq!(code, Some(1));
    for (topic, setting, right) in
        [(&place.dlq, "topic", "Create"), (&place.topic, "partitions", "Alter"), (&place.topic, "retention.ms", "AlterConfigs")]
    {
        let error = about(&applied, topic, setting)["error"].as_str().unwrap_or_else(|| panic!("{applied:#}"));
        let fix = format!("--operation {right} --topic {topic}");
        assert!(error.contains("Kafka does not allow it") && error.contains(&fix), "{error}");
    }

    rule("--deny-principal", &["DescribeConfigs"], &["--topic", &place.topic]);
    let (_, planned) = place.json(&[&["plan"], secure.as_slice()].concat());
    let hidden = of(&planned, &place.topic)["hidden"].as_str().unwrap();
    assert!(hidden.contains("--operation DescribeConfigs"), "{hidden}");
    assert_eq!(about(&planned, &place.topic, "partitions")["found"], "1", "what may be seen is still compared");
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_are_away_are_named_within_a_bounded_time() {
    let (away, began) = (free_address(), Instant::now());
    let (code, text) = Place::new(&away).text(&["plan"]);
    assert_eq!(code, Some(1));
    assert!(text.contains(&format!("no Kafka broker answers at {away}")), "{text}");
    assert!(began.elapsed() < Duration::from_secs(20));
}
