//! The `audit` handler on a real Kafka and a real disk: kill -9, a disk without room, records removed behind its back.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Command, Output},
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    stack_or_skip,
    support::{again::handle_again, eventually, stack::Stack, unique, worker::Launch},
};

const MINUTE: Duration = Duration::from_secs(60);

fn deleted(n: usize, reason: &str) -> (String, String) {
    let user = format!("user-{}", n % 7);
    let event = json!({ "event_id": format!("deleted-{n}"), "event_type": "task.deleted", "user_id": user, "task_id": n + 1, "data": { "reason": reason } });
    (user, event.to_string())
}

fn verify(stack: &Stack, place: &str) -> (Output, Value) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_worker"));
    let output = command.env("WORKER_KAFKA__BROKERS", stack.brokers()).args(["audit", "verify", place, "-o", "json"]).output().unwrap();
    let told = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    (output, told)
}

/// The ids of the events that have a record, each as often as it has one.
fn recorded(values: impl Iterator<Item = Value>) -> Vec<String> {
    values.filter_map(|record| Some(record.get("event")?["id"].as_str().unwrap().to_owned())).collect()
}

fn in_files(dir: &Path) -> Vec<String> {
    let names =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|end| end == "ndjson"));
    let lines: String = names.map(|path| fs::read_to_string(path).unwrap()).collect();
    // A half-written line is no record.
    recorded(lines.lines().filter_map(|line| serde_json::from_str(line).ok()))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_deleted_task_has_its_record_in_whole_chains_although_a_worker_is_killed_and_a_removal_shows() {
    const EVENTS: usize = 300;
    let stack = stack_or_skip!(Stack::shared());
    let (name, kafka, dir) = (unique("audit"), stack.kafka(), tempfile::tempdir().unwrap());
    let [tasks, log] = ["audit-tasks", "audit-log"].map(unique);
    for topic in [&tasks, &log] {
        kafka.create_topic(topic, 3, &[]).await;
    }
    let toml = format!(
        "kafka.topics = [{tasks:?}]\n[[handlers]]\nname = \"audit\"\nkind = \"audit\"\n[handlers.audit]\ndir = {:?}\ntopic = {log:?}\nmax_size = \"16KiB\"\n",
        dir.path()
    );
    let consumer = || Launch::role("consumer", &stack, &name, &toml);
    kafka.produce_all(&tasks, (0..EVENTS).map(|n| deleted(n, "user_requested"))).await;
    let mut killed = consumer().start_ready().await;
    kafka.wait_for_records(&log, EVENTS / 10, MINUTE).await;
    killed.kill();
    let mut worker = consumer().start_ready().await;
    kafka.wait_until_committed(&name, &tasks, 2 * MINUTE).await;
    assert_eq!(worker.terminate(MINUTE).await, Some(0));
    handle_again(&stack, &name, &tasks).await;
    let mut worker = consumer().start_ready().await;
    kafka.wait_until_committed(&name, &tasks, 2 * MINUTE).await;
    assert_eq!(worker.terminate(MINUTE).await, Some(0));

    let all: BTreeSet<_> = (0..EVENTS).map(|n| format!("deleted-{n}")).collect();
    let (files, told) = (in_files(dir.path()), recorded(kafka.read_all(&log).await.iter().map(super::support::kafka::Record::json)));
    for ids in [&files, &told] {
        assert!(ids.len() >= 2 * EVENTS, "all events came twice: {}", ids.len());
        assert_eq!(ids.iter().cloned().collect::<BTreeSet<_>>(), all);
    }
    let place = dir.path().display().to_string();
    for place in [&place, &log] {
        let (output, told) = verify(&stack, place);
        assert!(output.status.success(), "{told:#}");
    }
    let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.retain(|path| path.extension().is_some_and(|end| end == "ndjson"));
    names.sort();
    assert!(names.len() > 2, "files end at their size: {names:?}");
    let text = fs::read_to_string(&names[1]).unwrap();
    let without: String = text.lines().enumerate().filter(|(at, _)| *at != 2).map(|(_, line)| format!("{line}\n")).collect();
    fs::write(&names[1], without).unwrap();
    let (output, told) = verify(&stack, &place);
    let broken = told["chains"].as_array().unwrap().iter().find(|chain| !chain["broken"].is_null()).expect("a break")["broken"].clone();
    assert_eq!((output.status.code(), &broken["kind"]), (Some(1), &"removed".into()), "{told:#}");
    for topic in [&tasks, &log] {
        kafka.delete_topic(topic).await;
    }
}

/// A limit on the size of the process' files is to it what a full disk is: a write stops in the middle, and the next one fails.
#[tokio::test(flavor = "multi_thread")]
async fn while_the_disk_is_full_events_wait_and_every_record_is_written_once_there_is_room() {
    let stack = stack_or_skip!(Stack::shared());
    let (name, kafka, dir) = (unique("full"), stack.kafka(), tempfile::tempdir().unwrap());
    let tasks = unique("full-tasks");
    kafka.create_topic(&tasks, 1, &[]).await;
    let delays = vec!["\"200ms\""; 200].join(", ");
    let toml = format!(
        "kafka.topics = [{tasks:?}]\nretry.\"task.deleted\".delays = [{delays}]\n[[handlers]]\nname = \"audit\"\nkind = \"audit\"\naudit.dir = {:?}\n",
        dir.path()
    );
    let mut worker = Launch::role("consumer", &stack, &name, &toml).ignoring("XFSZ").start_ready().await;
    let limit = |worker: &crate::support::worker::Worker, size: &str| {
        let done = Command::new("prlimit").args(["--pid", &worker.pid().to_string(), &format!("--fsize={size}")]).status().unwrap();
        assert!(done.success(), "prlimit");
    };
    limit(&worker, "200000:unlimited");
    let long = "x".repeat(40_000);
    kafka.produce_all(&tasks, (0..12).map(|n| deleted(n, &long))).await;
    worker.wait_for_metric("worker_handler_runs_total", &[("result", "transient")], MINUTE, |runs| runs >= 12.0).await;
    let place = dir.path().display().to_string();
    let (output, told) = verify(&stack, &place);
    assert!(output.status.success(), "what could not be written left nothing behind: {told:#}");
    let before = in_files(dir.path()).len();
    assert!((1..5).contains(&before), "{before} records fit");
    limit(&worker, "unlimited:unlimited");
    kafka.wait_until_committed(&name, &tasks, 2 * MINUTE).await;
    let ids = in_files(dir.path());
    assert_eq!(ids.into_iter().collect::<BTreeSet<_>>(), (0..12).map(|n| format!("deleted-{n}")).collect());
    let (output, told) = verify(&stack, &place);
    assert!(output.status.success(), "{told:#}");
    eventually("nothing is dead", MINUTE, async || (worker.metrics().await.sum("worker_dead_letters_total", &[]) == 0.0).then_some(()))
        .await;
    assert_eq!(worker.terminate(MINUTE).await, Some(0));
    kafka.delete_topic(&tasks).await;
}
