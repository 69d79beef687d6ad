//! What `examples/` shows, done.

use std::{
    fs::File,
    path::Path,
    process::{Child, Command},
    time::Duration,
};

use crate::support::{eventually, free_address, python, worker::Launch};

const LONG: Duration = Duration::from_secs(60);

/// As its first lines say: run it, publish to it.
#[tokio::test(flavor = "multi_thread")]
async fn the_custom_handler_of_the_examples_handles_what_is_published_to_it() {
    let mut example = Launch::example("custom_handler").start_ready().await;
    for task in 1..=2 {
        let event = format!("{{\"event_type\":\"task.completed\",\"user_id\":\"ada\",\"task_id\":{task}}}");
        let answer = reqwest::Client::new().post(example.publish_url("/events")).body(event).send().await.unwrap();
        assert_eq!(answer.status(), 202, "{}", answer.text().await.unwrap());
    }
    eventually("two completed tasks", LONG, async || example.log().contains("ada has 20 points").then_some(())).await;
    assert_eq!(example.terminate(LONG).await, Some(0));
}

/// The app itself, and the worker with the file that lies beside it; only the port is the test's own.
#[tokio::test(flavor = "multi_thread")]
async fn the_fastapi_app_of_the_examples_is_fed_by_the_worker() {
    let Some(python) = python::venv(&["fastapi==0.165.0", "uvicorn==0.54.0"]) else { return };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/fastapi");
    let said = tempfile::NamedTempFile::new().unwrap();
    let address = free_address();
    let port = address.rsplit(':').next().unwrap();
    let mut uvicorn = Command::new(python);
    uvicorn.args(["-B", "-m", "uvicorn", "app:app", "--port", port]).current_dir(&folder);
    uvicorn.stdout(said.reopen().unwrap()).stderr(File::create("/dev/null").unwrap());
    let _app = Ended(uvicorn.spawn().unwrap());
    eventually("the app listens", LONG, async || tokio::net::TcpStream::connect(&address).await.ok()).await;
    let toml = std::fs::read_to_string(folder.join("worker.toml")).unwrap();
    assert!(toml.contains("localhost:8000"), "{toml}");
    let mut worker = Launch::bare("standalone", &toml.replace("localhost:8000", &address)).start_ready().await;

    for task in [1, 0] {
        let event = format!("{{\"event_type\":\"task.completed\",\"user_id\":\"ada\",\"task_id\":{task}}}");
        let answer = reqwest::Client::new().post(worker.publish_url("/events")).body(event).send().await.unwrap();
        assert_eq!(answer.status(), 202, "{}", answer.text().await.unwrap());
    }
    for (outcome, events) in [("done", 1.0), ("dead", 1.0)] {
        worker.wait_for_metric("worker_events_settled_total", &[("outcome", outcome)], LONG, |sum| sum == events).await;
    }
    let said = std::fs::read_to_string(said.path()).unwrap();
    assert!(said.lines().any(|line| line.starts_with("task.completed of ada, run ")), "{said}");
    assert_eq!(worker.terminate(LONG).await, Some(0));
}

/// A child that does not outlive its test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
