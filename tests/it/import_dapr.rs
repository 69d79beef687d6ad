//! `worker import dapr`, and a folder of Dapr's files given to a role: the binary, as an operator meets it.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};

const PUBSUB: &str = "apiVersion: dapr.io/v1alpha1
kind: Component
metadata:
  name: kafka-pubsub
spec:
  type: pubsub.kafka
  version: v1
  metadata:
  - {name: brokers, value: \"broker:9093\"}
  - {name: authType, value: password}
  - {name: saslUsername, value: app}
  - {name: saslPassword, secretKeyRef: {name: kafka, key: password}}
  - {name: consumerGroup, value: todo-group}
  - {name: version, value: 3.0.0}
---
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: orders}
spec:
  pubsubname: kafka-pubsub
  topic: orders
  routes: {default: /orders, rules: [{match: event.type == \"a\", path: /a}]}
  deadLetterTopic: orders-dead
";

fn worker(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_worker"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("WORKER_") || name == "APP_PORT" || name.starts_with("DAPR_")) {
        command.env_remove(name);
    }
    command.current_dir(folder).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("components")).unwrap();
    fs::write(folder.path().join("components/pubsub.yaml"), PUBSUB).unwrap();
    folder
}

#[test]
fn the_toml_is_data_the_report_is_not_and_the_result_passes_the_check() {
    let folder = folder();
    let args = ["import", "dapr", "components", "--app-id", "todo", "--app-url", "http://app:8000"];
    let output = worker(folder.path(), &args);
    let (toml, report) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{report}");
    for expected in [
        "app_id = \"todo\"",
        "brokers = \"broker:9093\"",
        "group_id = \"todo-group\"",
        "partitioner = \"fnv1a_random\"",
        "\"sasl.mechanism\" = \"PLAIN\"",
        "# \"sasl.password.file\" = \"/run/secrets/kafka/password\"",
        "topic = \"orders\"",
        "dead_letter_topic = \"orders-dead\"",
    ] {
        assert!(toml.contains(expected), "{expected}\n{toml}");
    }
    let at = |section: &str| report.find(section).unwrap_or_else(|| panic!("{section}\n{report}"));
    assert!(at("translated\n") < at("ignored\n") && at("ignored\n") < at("needs a decision\n"));
    assert!(report[at("ignored\n")..at("needs a decision\n")].contains("kafka-pubsub.version"), "{report}");
    assert!(report[at("needs a decision\n")..].contains("WORKER_KAFKA__PROPERTIES__SASL_PASSWORD"), "{report}");

    let written = worker(folder.path(), &[&args[..], &["-o", "worker.toml"]].concat());
    assert_eq!((written.status.code(), text(&written.stdout)), (Some(0), String::new()));
    let file = folder.path().join("worker.toml");
    assert_eq!(fs::read_to_string(&file).unwrap(), toml);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "it may hold a secret");
    for role in ["consumer", "producer"] {
        let check = worker(folder.path(), &["config", "check", "--role", role, "-c", "worker.toml"]);
        assert_eq!((check.status.code(), text(&check.stdout)), (Some(0), "ok\n".to_owned()), "{}", text(&check.stderr));
    }
    let again = worker(folder.path(), &[&args[..], &["-o", "worker.toml"]].concat());
    assert_eq!(again.status.code(), Some(1), "a file that is there is kept");
}

#[test]
fn a_folder_that_cannot_be_read_is_78_with_file_and_line() {
    let folder = folder();
    fs::write(folder.path().join("components/bad.yaml"), "kind: Component\nspec: [").unwrap();
    for args in [&["import", "dapr", "components"][..], &["config", "check", "--dapr-components", "components"]] {
        let output = worker(folder.path(), args);
        assert_eq!(output.status.code(), Some(78), "{args:?}");
        assert!(text(&output.stderr).contains("components/bad.yaml:"), "{}", text(&output.stderr));
    }
    let missing = worker(folder.path(), &["import", "dapr", "nowhere"]);
    assert_eq!(missing.status.code(), Some(78));
    assert!(text(&missing.stderr).contains("nowhere"), "{}", text(&missing.stderr));
}

#[test]
fn a_folder_given_to_a_role_shows_where_each_value_came_from() {
    let folder = folder();
    let args = ["config", "print", "--origin", "--role", "consumer", "--dapr-components", "components", "--dapr-app", "http://app:8000"];
    let output = worker(folder.path(), &args);
    let shown = text(&output.stdout);
    let line = |key: &str| shown.lines().find(|line| line.starts_with(key)).unwrap_or_else(|| panic!("{key}\n{shown}"));
    assert!(
        line("kafka.brokers ").contains("broker:9093") && line("kafka.brokers ").ends_with("components/pubsub.yaml: kafka-pubsub.brokers")
    );
    assert!(line("handlers[0].discover ").contains("http://app:8000"));
    assert!(line("handlers[0].routes[0].topic ").ends_with("components/pubsub.yaml: orders"));
    assert!(text(&output.stderr).contains("saslPassword"), "what needs a decision is a warning");
}
