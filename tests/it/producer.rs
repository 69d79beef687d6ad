//! The producer role as a process of its own, on the embedded broker where it needs one.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

/// Longest wait for what a process is expected to do; only a broken one takes it.
const PATIENCE: Duration = Duration::from_secs(60);

const EMBEDDED: [&str; 2] = ["--set", "kafka.brokers=embedded"];

fn worker(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_worker"));
    command.args(["--role", "producer"]).args(args).env_clear();
    command
}

fn event(user: &str, task: usize) -> String {
    json!({"event_type": "task.updated", "user_id": user, "task_id": task}).to_string()
}

/// Runs a job with `lines` in a pipe.
fn pipe(args: &[&str], lines: &str) -> Output {
    let mut child = worker(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn events_on_a_pipe_are_published_and_the_process_ends_with_a_summary() {
    let lines: String = (0..500).map(|task| event(&format!("user-{}", task % 9), task) + "\n").collect();
    let output = pipe(&EMBEDDED, &lines);
    let told = stderr(&output);
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(told.contains("500 read, 500 published, 0 rejected") && told.contains("task-events: 500"), "{told}");
    assert!(output.stdout.is_empty(), "data goes to stdout, and there is none");
}

#[test]
fn a_rejected_line_is_exit_1_unless_partial_is_ok() {
    let lines = format!("{}\nnot json\n{}\n", event("a", 1), event("b", 2));
    for (flag, expected) in [(None, 1), (Some("--partial-ok"), 0)] {
        let output = pipe(&[&EMBEDDED[..], flag.as_slice()].concat(), &lines);
        let told = stderr(&output);
        assert_eq!(output.status.code(), Some(expected), "{told}");
        assert!(told.contains("line 2: undecodable") && told.contains("3 read, 2 published, 1 rejected"), "{told}");
    }
}

#[test]
fn a_file_is_read_from_stdin_and_by_name_and_goes_to_the_topic_named() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "{}", event("a", 1)).unwrap();
    let redirected = worker(&EMBEDDED).stdin(File::open(file.path()).unwrap()).output().unwrap();
    assert_eq!(redirected.status.code(), Some(0), "{}", stderr(&redirected));
    let args = [&EMBEDDED[..], &["--input", file.path().to_str().unwrap(), "--topic", "task-updates"]].concat();
    let named = worker(&args).stdin(Stdio::null()).output().unwrap();
    assert_eq!(named.status.code(), Some(0), "{}", stderr(&named));
    assert!(stderr(&named).contains("task-updates: 1"), "{}", stderr(&named));
}

#[test]
fn a_file_that_is_not_there_is_exit_1_and_named() {
    let output = worker(&[&EMBEDDED[..], &["--input", "/nowhere/events.ndjson"]].concat()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("/nowhere/events.ndjson"), "{}", stderr(&output));
}

/// An address that nobody listens on.
fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[test]
fn brokers_that_do_not_answer_in_time_are_named() {
    let brokers = format!("kafka.brokers={}", free_address());
    let output = pipe(&["--set", &brokers, "--exit-if-unreachable", "500ms"], &event("a", 1));
    let told = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.lines().last().unwrap().contains(&brokers["kafka.brokers=".len()..]), "{told}");
}

#[test]
fn a_port_in_use_is_an_error_that_names_its_key() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let free = ["http.listen", "publish.listen", "publish.grpc_listen"].map(|key| (key, format!("{key}=127.0.0.1:0")));
    for (key, _) in &free {
        let taken = format!("{key}={}", taken.local_addr().unwrap());
        let mut args = EMBEDDED.to_vec();
        args.extend(free.iter().flat_map(|(_, free)| ["--set", free.as_str()]).chain(["--set", &taken]));
        let output = worker(&args).stdin(Stdio::null()).output().unwrap();
        let told = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains(key) && told.contains("in use"), "{told}");
    }
}

/// A running service.
struct Service {
    child: Child,
    ops: String,
    api: String,
    logs: mpsc::Receiver<String>,
}

impl Service {
    fn start(args: &[&str]) -> Self {
        let free = ["http.listen=127.0.0.1:0", "publish.listen=127.0.0.1:0", "publish.grpc_listen=127.0.0.1:0"];
        let listen: Vec<_> = free.into_iter().flat_map(|free| ["--set", free]).collect();
        let mut child = worker(&[&listen[..], args].concat()).stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let (send, logs) = mpsc::channel();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| send.send(line)));
        let mut service = Self { child, ops: String::new(), api: String::new(), logs };
        let started: Value = serde_json::from_str(&service.log("producer started")).unwrap();
        service.ops = started["http.listen"].as_str().unwrap().to_owned();
        service.api = started["publish.listen"].as_str().unwrap().to_owned();
        service
    }

    /// The first line from here on that contains `text`.
    fn log(&self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let line = self.logs.recv_timeout(deadline.saturating_duration_since(Instant::now())).expect("a line that says so");
            if line.contains(text) {
                return line;
            }
        }
    }

    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap().success());
    }

    fn exit(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the process ends");
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn get(&self, path: &str) -> (u16, String) {
        exchange(&self.ops, &format!("GET {path} HTTP/1.0\r\n\r\n"))
    }

    fn post(&self, body: &str) -> (u16, String) {
        exchange(
            &self.api,
            &format!("POST /events HTTP/1.0\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len()),
        )
    }

    /// Waits until `/readyz` answers so.
    fn await_readiness(&self, expected: u16) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (status, body) = self.get("/readyz");
            if status == expected {
                return body;
            }
            assert!(Instant::now() < deadline, "/readyz answers {status}, not {expected}: {body}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// A request whose body never ends.
    fn stuck_request(&self) -> TcpStream {
        let mut stream = TcpStream::connect(&self.api).unwrap();
        stream.write_all(b"POST /events HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\nexpect: 100-continue\r\n\r\n").unwrap();
        // "100 Continue" says that the handler has it.
        let mut begun = [0; 12];
        stream.read_exact(&mut begun).unwrap();
        assert_eq!(&begun, b"HTTP/1.1 100");
        stream
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn exchange(address: &str, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[test]
fn without_input_it_is_a_service_that_publishes_is_measured_and_ends_with_0_on_sigterm() {
    let mut service = Service::start(&EMBEDDED);
    service.await_readiness(200);
    let (status, body) = service.post(&event("user-1", 7));
    assert_eq!(status, 202, "{body}");
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&body["accepted"], &body["events"][0]["topic"]), (&json!(1), &json!("task-events")));
    let (_, metrics) = service.get("/metrics");
    assert!(metrics.contains(r#"worker_published_total{result="ok",topic="task-events"} 1"#), "{metrics}");
    assert_eq!(service.get("/livez").0, 200);
    service.signal("TERM");
    assert_eq!(service.exit().code(), Some(0));
}

#[test]
fn with_kafka_away_it_is_live_and_not_ready_and_callers_get_503() {
    let brokers = free_address();
    let service = Service::start(&["--set", &format!("kafka.brokers={brokers}")]);
    let page = service.await_readiness(503);
    assert!(page.contains("brokers"), "{page}");
    assert_eq!(service.get("/livez").0, 200);
    assert_eq!(service.post(&event("u", 1)).0, 503);
    assert!(service.log("kafka does not answer").contains(&brokers));
}

#[test]
fn a_request_in_flight_past_the_drain_timeout_is_exit_4_and_the_process_is_live_and_not_ready_meanwhile() {
    let mut service = Service::start(&[&EMBEDDED[..], &["--set", "engine.drain_timeout=2s"]].concat());
    service.await_readiness(200);
    let _stuck = service.stuck_request();
    service.signal("TERM");
    assert!(service.await_readiness(503).contains("draining"));
    assert_eq!(service.get("/livez").0, 200);
    assert_eq!(service.exit().code(), Some(4));
}

#[test]
fn a_second_sigint_ends_the_process_at_once() {
    let mut service = Service::start(&EMBEDDED);
    service.await_readiness(200);
    let _stuck = service.stuck_request();
    service.signal("INT");
    service.await_readiness(503);
    service.signal("INT");
    assert_eq!(service.exit().code(), Some(130));
}

#[test]
fn an_open_address_without_a_token_is_a_warning_at_start() {
    let open = Service::start(&[&EMBEDDED[..], &["--set", "publish.listen=0.0.0.0:0"]].concat());
    assert!(open.log("anyone who reaches this address can publish").contains("publish.api_token"));
    let mut guarded =
        Service::start(&[&EMBEDDED[..], &["--set", "publish.listen=0.0.0.0:0", "--set", "publish.api_token=hunter2"]].concat());
    guarded.signal("TERM");
    guarded.exit();
    let told: String = guarded.logs.iter().collect();
    assert!(!told.contains("anyone who reaches") && !told.contains("hunter2"), "{told}");
}

#[test]
fn a_catalogue_that_cannot_be_read_is_bad_configuration() {
    assert!(!Path::new("/nowhere").exists());
    let output = worker(&["--set", "catalog.dir=/nowhere"]).stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(78), "{}", stderr(&output));
    assert!(stderr(&output).contains("/nowhere"), "{}", stderr(&output));
}
