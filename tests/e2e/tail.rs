//! `worker events tail` on a real broker.

use std::{
    process::{Output, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};
use worker::{
    config::{Config, Sources},
    kafka::{client::Clients, topics::TopicAdmin},
};

use crate::{
    stack_or_skip,
    support::{stack::Stack, unique},
};

const LONG: Duration = Duration::from_secs(60);

fn command(stack: &Stack, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_worker"));
    command.args(["events", "tail"]).args(args).env_clear().env("WORKER_KAFKA__BROKERS", stack.brokers());
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

async fn tail(stack: &Stack, args: &[&str]) -> Output {
    tokio::time::timeout(LONG, command(stack, args).output()).await.expect("an end").unwrap()
}

/// The objects of `-o ndjson --until-end`, which must end well.
async fn history(stack: &Stack, args: &[&str]) -> Vec<Value> {
    let output = tail(stack, &[args, &["--until-end", "-o", "ndjson"]].concat()).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A tail that goes on, and its lines.
struct Live {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Live {
    fn start(stack: &Stack, args: &[&str]) -> Self {
        let mut child = command(stack, args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    async fn line(&mut self) -> String {
        tokio::time::timeout(LONG, self.lines.next_line()).await.expect("a line").unwrap().expect("a line, not the end")
    }
}

fn event(id: &str, event_type: &str, user: &str) -> String {
    json!({ "event_type": event_type, "event_id": id, "user_id": user, "task_id": 1, "data": { "title": "t" } }).to_string()
}

fn ids(found: &[Value]) -> Vec<&str> {
    let mut ids: Vec<_> = found.iter().filter_map(|line| line["event"]["event_id"].as_str()).collect();
    ids.sort_unstable();
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn history_is_read_from_any_start_picked_and_decoded_and_what_is_no_event_has_its_reason() {
    let stack = stack_or_skip!(Stack::shared());
    let (kafka, first, second) = (stack.kafka(), unique("tail"), unique("tail"));
    kafka.create_topic(&first, 2, &[]).await;
    kafka.create_topic(&second, 1, &[]).await;
    for n in 0..4 {
        let event_type = if n % 2 == 0 { "task.created" } else { "task.deleted" };
        kafka.produce(&first, "ada", event(&format!("a{n}"), event_type, "ada").as_bytes(), &[]).await;
    }
    kafka.produce(&first, "bob", event("b0", "task.created", "bob").as_bytes(), &[]).await;
    kafka.produce(&second, "ada", event("s0", "reminder.triggered", "ada").as_bytes(), &[]).await;
    kafka.produce_raw(&second, None, Some(b"\xff"), &[]).await;
    kafka.produce_raw(&second, Some(b"ada"), None, &[]).await;
    kafka.produce(&second, "ada", event("s1", "task.invented", "ada").as_bytes(), &[]).await;
    let both = ["--topic", first.as_str(), "--topic", second.as_str()];
    let picked = async |args: &[&str]| history(&stack, &[&both, args].concat()).await;

    let all = picked(&[]).await;
    assert_eq!(ids(&all), ["a0", "a1", "a2", "a3", "b0", "s0"]);
    let reasons: Vec<_> = all.iter().filter_map(|line| line["reason"].as_str()).collect();
    assert_eq!(reasons, ["undecodable", "undecodable", "unknown_type"]);
    let due = all.iter().find(|line| line["event"]["event_id"] == "s0").unwrap();
    assert_eq!((&due["event"]["event_type"], &due["topic"], &due["offset"]), (&json!("reminder.due"), &json!(second), &json!(0)));
    let broken = all.iter().find(|line| line["value_base64"] == "/w==").unwrap();
    assert!(broken["error"].as_str().unwrap().contains("UTF-8"), "{broken}");

    assert_eq!(ids(&picked(&["--user", "bob"]).await), ["b0"]);
    assert_eq!(ids(&picked(&["--type", "task.deleted", "--type", "reminder.triggered"]).await), ["a1", "a3", "s0"]);
    assert_eq!(picked(&["--limit", "2"]).await.len(), 2);
    assert_eq!(ids(&picked(&["--from", "1h", "--user", "ada"]).await), ["a0", "a1", "a2", "a3", "s0"]);
    assert_eq!(picked(&["--from", "2100-01-01T00:00:00Z"]).await.len(), 0);
    let ada = all.iter().find(|line| line["event"]["event_id"] == "a0").unwrap()["partition"].to_string();
    let of_ada = ["--topic", first.as_str(), "--partition", ada.as_str(), "--user", "ada"];
    assert_eq!(ids(&history(&stack, &[&of_ada[..], &["--from", "-1"]].concat()).await).len(), 1);
    let offset = all.iter().find(|line| line["event"]["event_id"] == "a2").unwrap()["offset"].to_string();
    assert_eq!(ids(&history(&stack, &[&of_ada[..], &["--from", &offset]].concat()).await), ["a2", "a3"]);

    let table = tail(&stack, &[&both[..], &["--until-end"]].concat()).await;
    let text = String::from_utf8(table.stdout).unwrap();
    assert!(text.starts_with("TIME ") && text.lines().count() == 10 && !text.contains('\x1b'), "{text}");
    assert!(text.contains("unknown_type: event_type: `task.invented` is not in the catalogue"), "{text}");
    assert!(String::from_utf8(table.stderr).unwrap().contains("9 shown, 9 read"));
    kafka.delete_topic(&first).await;
    kafka.delete_topic(&second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_shown_as_they_come_until_ctrl_c_and_so_are_those_of_new_partitions() {
    let stack = stack_or_skip!(Stack::shared());
    let (kafka, topic) = (stack.kafka(), unique("tail"));
    kafka.create_topic(&topic, 1, &[]).await;
    kafka.produce(&topic, "ada", event("before", "task.created", "ada").as_bytes(), &[]).await;
    let mut live = Live::start(&stack, &["--topic", &topic]);
    assert!(live.line().await.starts_with("TIME "), "the header shows that it reads");
    kafka.produce(&topic, "ada", event("after", "task.created", "ada").as_bytes(), &[]).await;
    let line = live.line().await;
    assert!(line.contains(" after ") && line.contains("task.created"), "{line}");

    let sets = vec![format!("kafka.brokers={}", stack.brokers())];
    let config = Config::load(&Sources { sets, ..Sources::default() }).unwrap().config;
    let admin = TopicAdmin::new(&Clients::new(&config).unwrap()).unwrap();
    admin.add_partitions(&[(topic.clone(), 2)]).await.unwrap().remove(0).1.unwrap();
    // A producer that knows of the new partition, and users enough that some are of it.
    stack.kafka().produce_all(&topic, (0..20).map(|n| (format!("u{n}"), event(&format!("n{n}"), "task.created", "u")))).await;
    assert!(kafka.watermarks(&topic, 1).1 > 0);
    for _ in 0..20 {
        live.line().await;
    }
    let pid = live.child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().await.unwrap().success());
    assert_eq!(tokio::time::timeout(LONG, live.child.wait()).await.unwrap().unwrap().code(), Some(0));
    kafka.delete_topic(&topic).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_topic_is_named_and_is_an_error_only_where_there_is_no_other() {
    let stack = stack_or_skip!(Stack::shared());
    let (kafka, topic, missing) = (stack.kafka(), unique("tail"), unique("tail-missing"));
    kafka.create_topic(&topic, 1, &[]).await;
    let some = tail(&stack, &["--topic", &topic, "--topic", &missing, "--until-end"]).await;
    let stderr = String::from_utf8(some.stderr).unwrap();
    assert!(some.status.success() && stderr.contains(&format!("not there, or hidden from this client: {missing}")), "{stderr}");
    let none = tail(&stack, &["--topic", &missing]).await;
    assert_eq!(none.status.code(), Some(1));
    let none = tail(&stack, &["--topic", &topic, "--partition", "7"]).await;
    assert!(String::from_utf8(none.stderr).unwrap().contains("there is no partition 7"));
    let none = tail(&stack, &["--type", "task.*", "--type", "tsk.*", "--until-end"]).await;
    let stderr = String::from_utf8(none.stderr).unwrap();
    assert!(none.status.code() == Some(2) && stderr.contains("--type tsk.*: the catalogue has no such type"), "{stderr}");
    kafka.delete_topic(&topic).await;
}
