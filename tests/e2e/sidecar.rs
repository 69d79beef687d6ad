//! Code written for a Dapr sidecar, unchanged, against the worker: plain HTTP, and Dapr's own SDKs.

use std::{
    fs::File,
    path::PathBuf,
    process::{Child, Command},
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    stack_or_skip,
    support::{
        eventually, free_address,
        kafka::Record,
        node, python,
        stack::Stack,
        unique,
        worker::{Launch, Worker},
    },
};

const LONG: Duration = Duration::from_secs(60);
const SDK: &[&str] = &["dapr==1.19.0"];

fn app(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/apps").join(name)
}

fn port(address: &str) -> &str {
    address.rsplit(':').next().unwrap()
}

/// A producer with a state store, and a topic of its own.
async fn producer(stack: &Stack, more: &str) -> (Worker, String) {
    let topic = unique("sidecar");
    stack.kafka().create_topic(&topic, 3, &[]).await;
    let worker = Launch::role("producer", stack, &unique("todo"), &format!("state.stores = [\"statestore\"]\n{more}"));
    (worker.start_ready().await, topic)
}

/// Points a program at the worker, as Dapr's own variables do.
fn beside(worker: &Worker, program: &mut Command) {
    let http = worker.publish_url("");
    program.env("DAPR_HTTP_PORT", port(&http)).env("DAPR_GRPC_PORT", port(worker.grpc_address()));
    for name in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
        program.env_remove(name);
    }
}

/// Runs a program to its end; answers the JSON that it prints last.
async fn said(mut program: Command) -> Value {
    let output = tokio::task::spawn_blocking(move || program.output().unwrap()).await.unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned());
    assert!(output.status.success(), "{out}{err}");
    serde_json::from_str(out.lines().last().unwrap_or_default()).unwrap_or_else(|error| panic!("{error}: {out}{err}"))
}

/// The tasks and users of a topic, in order of the tasks.
fn tasks(records: &[Record]) -> Vec<(i64, String)> {
    let mut tasks: Vec<_> = records
        .iter()
        .map(|record| {
            let data = match &record.json()["data"] {
                Value::String(text) => serde_json::from_str(text).unwrap(),
                data => data.clone(),
            };
            (data["task_id"].as_i64().or(data["data"]["task_id"].as_i64()).unwrap(), record.key_text().to_owned())
        })
        .collect();
    tasks.sort();
    tasks
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fastapi_app_publishes_with_httpx_and_remembers_what_it_handled() {
    let stack = stack_or_skip!(Stack::shared());
    let Some(python) = python::venv(&["fastapi==0.165.0", "uvicorn==0.54.0", "httpx==0.28.1"]) else { return };
    let (worker, topic) = producer(&stack, "").await;
    let address = free_address();
    let mut uvicorn = Command::new(python);
    uvicorn.args(["-B", "-m", "uvicorn", "httpx_app:app", "--port", port(&address), "--app-dir"]).arg(app(""));
    uvicorn.env("TOPIC", &topic).stdout(File::create("/dev/null").unwrap());
    beside(&worker, &mut uvicorn);
    let _app = Ended(uvicorn.spawn().unwrap());
    eventually("the app listens", LONG, async || tokio::net::TcpStream::connect(&address).await.ok()).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let post = async |path: &str, body: Value| -> Value {
        let request = client.post(format!("http://{address}{path}")).header("content-type", "application/json").body(body.to_string());
        serde_json::from_str(&request.send().await.unwrap().text().await.unwrap()).unwrap()
    };

    assert_eq!(post("/tasks/7/complete", json!({"user_id": "ada"})).await, json!({"status": 204, "body": ""}));
    let refused = post("/tasks/8/complete", json!({})).await;
    assert!(refused["status"] == 400 && refused["body"].as_str().unwrap().contains("user_id: missing"), "{refused}");
    let records = stack.kafka().wait_for_records(&topic, 1, LONG).await;
    assert_eq!(tasks(&records), [(7, "ada".to_owned())]);
    let value = records[0].json();
    assert_eq!((&value["specversion"], &value["data"]["event_id"], &value["topic"]), (&json!("1.0"), &json!("completed-7"), &json!(topic)));

    for duplicate in [false, true, true] {
        assert_eq!(post("/handle", json!({"event_id": "e-1"})).await, json!({"status": "SUCCESS", "duplicate": duplicate}));
    }
    assert_eq!(post("/handle", json!({"event_id": "e-2"})).await["duplicate"], false);
    let handled = client.get(format!("http://{address}/handled")).send().await.unwrap().text().await.unwrap();
    assert_eq!(serde_json::from_str::<Value>(&handled).unwrap(), json!(["e-1", "e-2"]));
    stack.kafka().delete_topic(&topic).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_sdk_publishes_and_keeps_state_unchanged() {
    let stack = stack_or_skip!(Stack::shared());
    let Some(python) = python::venv(SDK) else { return };
    let (worker, topic) = producer(&stack, "publish.api_token = \"hunter2\"").await;
    let mut program = Command::new(python);
    program.arg("-B").arg(app("python_sdk.py")).arg(&topic).env("DAPR_API_TOKEN", "hunter2");
    beside(&worker, &mut program);
    let said = said(program).await;

    let records = stack.kafka().wait_for_records(&topic, 4, LONG).await;
    let expected = [(1, "ada"), (2, "ada"), (3, "bob"), (4, "bob")].map(|(task, user)| (task, user.to_owned()));
    assert_eq!(tasks(&records), expected, "keyed by the user, in spite of a partitionKey");
    let first = records.iter().find(|record| record.header("ttlInSeconds").is_some()).unwrap();
    assert!(first.json()["expiration"].is_string() && first.header("partitionKey") == Some("elsewhere"));

    assert_eq!(said["bulk_failed"], 0);
    assert_eq!((&said["nobody"]["code"], &said["nobody"]["reason"]), (&json!("INVALID_ARGUMENT"), &json!("DAPR_PUBSUB_MARSHAL_EVENTS")));
    assert!(said["nobody"]["details"].as_str().unwrap().contains("user_id: missing"), "{said}");
    assert_eq!((&said["no_pubsub"]["code"], &said["no_pubsub"]["reason"]), (&json!("INVALID_ARGUMENT"), &json!("DAPR_PUBSUB_NOT_FOUND")));
    assert_eq!(
        (&said["absent"], &said["state"], &said["etag"], &said["deleted"]),
        (&json!(""), &json!({"processed": true}), &json!("1"), &json!(""))
    );
    assert_eq!((&said["mismatch"]["code"], &said["second_claim"]["code"]), (&json!("ABORTED"), &json!("INTERNAL")));
    assert_eq!(said["bulk_state"], json!({"a": "1", "b": "2", "none": ""}));
    assert!(said["metadata"].as_str().unwrap().starts_with("todo-"), "{said}");
    stack.kafka().delete_topic(&topic).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_javascript_sdk_publishes_and_keeps_state_unchanged() {
    let stack = stack_or_skip!(Stack::shared());
    let Some(packages) = node::packages(&["@dapr/dapr@3.18.0"]) else { return };
    let (worker, topic) = producer(&stack, "").await;
    let mut program = Command::new("node");
    let http = worker.publish_url("");
    program.arg(app("javascript_sdk.cjs")).args(["127.0.0.1", port(&http), port(worker.grpc_address()), &topic]);
    program.env("NODE_PATH", packages.join("node_modules"));
    beside(&worker, &mut program);
    let said = said(program).await;

    let records = stack.kafka().wait_for_records(&topic, 6, LONG).await;
    let expected = [(1, "ada"), (1, "ada"), (2, "bob"), (2, "bob"), (3, "bob"), (3, "bob")].map(|(task, user)| (task, user.to_owned()));
    assert_eq!(tasks(&records), expected);
    let subjects: Vec<_> = records.iter().filter_map(|record| record.json()["subject"].as_str().map(str::to_owned)).collect();
    assert_eq!(subjects.iter().collect::<std::collections::BTreeSet<_>>().len(), 2, "{subjects:?}");
    for protocol in ["http", "grpc"] {
        let said = &said[protocol];
        assert!(said["nobody"].as_str().is_some_and(|why| why.contains("user_id: missing")), "{protocol}: {said}");
        assert_eq!((&said["published"], &said["bulkFailed"]), (&Value::Null, &json!(0)), "{protocol}: {said}");
        assert_eq!((&said["absent"], &said["gone"]), (&json!(""), &json!("")), "{protocol}: {said}");
        assert_eq!(
            (&said["saved"], &said["state"], &said["deleted"]),
            (&Value::Null, &json!({"processed": true}), &Value::Null),
            "{protocol}: {said}"
        );
        assert_eq!(said["many"].as_array().map(Vec::len), Some(2), "{protocol}: {said}");
    }
    stack.kafka().delete_topic(&topic).await;
}

/// A child that does not outlive its test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
