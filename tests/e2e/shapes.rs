//! The shapes of an event as Python programs write them, with their own clients, to the real broker.

use std::{process::Command, time::Duration};

use serde_json::Value;
use worker::{
    codegen::{Language, Options, generate},
    event::Catalog,
};

use crate::{
    stack_or_skip,
    support::{
        app::{Answer, App},
        python,
        stack::Stack,
        unique,
        worker::Launch,
    },
};

const LONG: Duration = Duration::from_secs(60);
const PACKAGES: [&str; 4] = ["confluent-kafka==2.16.1", "httpx==0.28.1", "kafka-python==3.0.12", "pydantic==2.14.3"];

#[tokio::test(flavor = "multi_thread")]
async fn every_shape_that_python_clients_publish_is_handled() {
    let stack = stack_or_skip!(Stack::shared());
    let python = stack_or_skip!(tokio::task::spawn_blocking(|| python::venv(&PACKAGES)).await.unwrap());
    let (kafka, topic, name) = (stack.kafka(), unique("shapes"), unique("group"));
    kafka.create_topic(&topic, 3, &[]).await;
    let app = App::start(|_| Answer::json("{}")).await;
    let toml = format!("[kafka]\ntopics = [\"{topic}\"]\n[[handlers]]\nname = \"app\"\nkind = \"http\"\nurl = \"{}\"\n", app.url("/"));
    let consumer = Launch::role("consumer", &stack, &name, &toml).start_ready().await;
    let producer = Launch::role("producer", &stack, &unique("producer"), "").start_ready().await;

    let folder = tempfile::tempdir().unwrap();
    let all = Options { metadata: true, validation: true, versioning: true };
    let models = generate(&Catalog::embedded().unwrap(), "tasks", &[], Language::Pydantic, all).unwrap();
    std::fs::write(folder.path().join("tasks.py"), models.text).unwrap();
    std::fs::write(folder.path().join("shapes.py"), include_str!("shapes.py")).unwrap();
    let mut script = Command::new(python);
    script.arg("-B").arg(folder.path().join("shapes.py")).args([stack.brokers(), &topic, &producer.publish_url("")]);
    script.env("no_proxy", "127.0.0.1,localhost");
    let output = tokio::task::spawn_blocking(move || script.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let sent: Vec<Value> = output.stdout.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
    assert_eq!(sent.len(), 10);

    let deliveries: Vec<Value> = app.wait_for(sent.len(), LONG).await.iter().map(|delivery| delivery.json()).collect();
    // An event is around its record, or is the CloudEvent that was stored: the app finds the event's own envelope or the bare data inside.
    let user = |delivery: &Value| {
        let data = &delivery["data"];
        [&data["user_id"], &data["data"]["user_id"]].iter().find_map(|user| user.as_str().map(str::to_owned))
    };
    for one in &sent {
        let found: Vec<_> = deliveries.iter().filter(|delivery| user(delivery).as_deref() == one["user"].as_str()).collect();
        assert_eq!(found.len(), 1, "{one}: {deliveries:?}");
        if let Some(id) = one["id"].as_str() {
            assert_eq!(found[0]["id"], id, "{one}");
        }
        if let Some(source) = one["source"].as_str().filter(|source| *source != "unknown") {
            let said = [&found[0]["source"], &found[0]["data"]["source"]];
            assert!(said.iter().any(|said| *said == source), "{one}: {}", found[0]);
        }
    }
    kafka.wait_until_committed(&name, &topic, LONG).await;
    let metrics = consumer.metrics().await;
    for (kind, count) in
        [("task.created", 2.0), ("task.completed", 3.0), ("task.deleted", 3.0), ("task.updated", 1.0), ("reminder.due", 1.0)]
    {
        assert_eq!(metrics.sum("worker_handler_runs_total", &[("event_type", kind), ("result", "ok")]), count, "{kind}");
    }
    assert_eq!(metrics.sum("worker_dead_letters_total", &[]), 0.0);
    let records = kafka.read_all(&topic).await;
    assert!(sent.iter().all(|one| records.iter().any(|record| record.key_text() == one["user"])), "keyed by their users");
}
