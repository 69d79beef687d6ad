//! Apps as they were written for a sidecar, on the frameworks and SDKs themselves, with the worker in its place: each publishes through the
//! producer role and is given its events back by the consumer role.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command},
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    stack_or_skip,
    support::{
        eventually, free_address, node, python,
        stack::Stack,
        unique,
        worker::{Launch, Worker},
    },
};

const LONG: Duration = Duration::from_secs(90);

/// An app's process, and what it says.
struct Program {
    child: Child,
    address: String,
    log: tempfile::NamedTempFile,
}

impl Program {
    /// Starts it with the variables that a sidecar's tools would have set, and waits until it listens.
    async fn start(mut command: Command, topic: &str, producer: &Worker, address: String) -> Self {
        let log = tempfile::NamedTempFile::new().unwrap();
        let sidecar = producer.publish_url("");
        let port = |address: &str| address.rsplit(':').next().unwrap().trim_end_matches('/').to_owned();
        command.env("TOPIC", topic).env("APP_PORT", port(&address)).env("DAPR_HTTP_PORT", port(&sidecar));
        command.current_dir(apps()).stdout(log.reopen().unwrap()).stderr(log.reopen().unwrap()).stdin(File::open("/dev/null").unwrap());
        let program = Self { child: command.spawn().unwrap(), address, log };
        eventually("the app listens", LONG, async || tokio::net::TcpStream::connect(&program.address).await.ok()).await;
        program
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    async fn received(&self) -> Vec<Value> {
        let answer = reqwest::get(self.url("/received")).await.unwrap();
        serde_json::from_str(&answer.text().await.unwrap()).unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            eprintln!("--- the app's last words ---\n{}", std::fs::read_to_string(self.log.path()).unwrap_or_default());
        }
    }
}

fn apps() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/apps")
}

fn uvicorn(python: &Path, app: &str, address: &str) -> Command {
    let mut command = Command::new(python);
    command.args(["-B", "-m", "uvicorn", app, "--port", address.rsplit(':').next().unwrap()]);
    command
}

/// The app publishes three events of one user and gets them back, in order, each once.
async fn publishes_and_receives(stack: Stack, command: impl FnOnce(&str) -> Command) {
    let (kafka, topic, name) = (stack.kafka(), unique("apps"), unique("todo"));
    kafka.create_topic(&topic, 3, &[]).await;
    let producer = Launch::role("producer", &stack, &name, "").arg("--serve").start_ready().await;
    let address = free_address();
    let app = Program::start(command(&address), &topic, &producer, address).await;
    let toml = format!("[[handlers]]\nname = \"app\"\nkind = \"http\"\ndiscover = \"{}\"\n", app.url(""));
    let consumer = Launch::role("consumer", &stack, &name, &toml).start_ready().await;

    let event =
        |task: u32| json!({"event_type": "task.completed", "user_id": "ada", "task_id": task, "event_id": format!("{name}-{task}")});
    for task in 1..=3 {
        let answer = reqwest::Client::new()
            .post(app.url("/publish"))
            .header("content-type", "application/json")
            .body(event(task).to_string())
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
    }
    let received = eventually("three events", LONG, async || Some(app.received().await).filter(|all| all.len() >= 3)).await;
    assert_eq!(received.iter().map(|one| one["event"].clone()).collect::<Vec<_>>(), [event(1), event(2), event(3)]);
    assert!(received.iter().all(|one| one["id"].is_string() && one["source"].is_string()), "{received:?}");
    consumer.wait_for_metric("worker_events_settled_total", &[("outcome", "done")], LONG, |sum| sum == 3.0).await;
    let stored = kafka.read_all(&topic).await;
    assert!(stored.iter().all(|record| record.key_text() == "ada" && record.json()["specversion"] == "1.0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fastapi_app_written_for_a_sidecar_publishes_and_receives_unchanged() {
    let stack = stack_or_skip!(Stack::shared());
    let python = stack_or_skip!(python::venv(&["fastapi==0.165.0", "uvicorn==0.54.0", "httpx==0.28.1"]));
    publishes_and_receives(stack, |address| uvicorn(&python, "fastapi_app:app", address)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flask_app_written_for_a_sidecar_publishes_and_receives_unchanged() {
    let stack = stack_or_skip!(Stack::shared());
    let python = stack_or_skip!(python::venv(&["flask==3.1.3", "requests==2.34.2"]));
    publishes_and_receives(stack, |_| {
        let mut command = Command::new(&python);
        command.args(["-B", "flask_app.py"]);
        command
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_on_daprs_fastapi_extension_publishes_and_receives_unchanged() {
    let stack = stack_or_skip!(Stack::shared());
    let packages = ["dapr-ext-fastapi==1.18.3", "dapr==1.19.0", "fastapi==0.165.0", "uvicorn==0.54.0", "httpx==0.28.1"];
    let python = stack_or_skip!(python::venv(&packages));
    publishes_and_receives(stack, |address| uvicorn(&python, "dapr_ext_app:app", address)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_on_daprs_javascript_sdk_publishes_and_receives_unchanged() {
    let stack = stack_or_skip!(Stack::shared());
    let folder = stack_or_skip!(node::packages(&["@dapr/dapr@3.18.0"]));
    publishes_and_receives(stack, |_| {
        let mut command = Command::new("node");
        command.arg("dapr_app.js").env("NODE_PATH", folder.join("node_modules"));
        command
    })
    .await;
}
