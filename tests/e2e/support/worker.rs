//! The built `worker` as a child process.

use std::{
    fs::File,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    time::Duration,
};

use super::{eventually, free_address, metrics::Metrics, stack::Stack};

/// How a worker is to be started.
pub struct Launch {
    command: Command,
    folder: tempfile::TempDir,
    http: String,
    publish: String,
    grpc: String,
}

/// A running worker, killed when dropped. A failing test prints the end of its log.
pub struct Worker {
    child: Child,
    folder: tempfile::TempDir,
    http: String,
    publish: String,
    grpc: String,
    client: reqwest::Client,
}

impl Launch {
    /// `worker --role <role> -c <file with toml>`, with free ports, an empty current folder, and no variable of the test's own.
    /// `name` becomes `app_id` and `store.prefix`; brokers and store come from `stack`.
    pub fn role(role: &str, stack: &Stack, name: &str, toml: &str) -> Self {
        Self::bare(role, toml)
            .env("WORKER_APP_ID", name)
            .env("WORKER_STORE__PREFIX", name)
            .env("WORKER_KAFKA__BROKERS", stack.brokers())
            .env("WORKER_STORE__URL", stack.redis())
    }

    /// As [`Launch::role`], with only what `toml` says.
    pub fn bare(role: &str, toml: &str) -> Self {
        Self::command(Command::new(env!("CARGO_BIN_EXE_worker")), role, toml)
    }

    /// A program of `examples/`, which takes its configuration from the environment alone.
    pub fn example(name: &str) -> Self {
        let mut cargo = Command::new(env!("CARGO"));
        let built =
            cargo.args(["build", "--quiet", "--locked", "--example", name]).current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap();
        assert!(built.success(), "{name} does not build");
        // Cargo puts examples beside the binaries.
        let program = std::path::Path::new(env!("CARGO_BIN_EXE_worker")).with_file_name("examples").join(name);
        Self::command(Command::new(program), "standalone", "")
    }

    fn command(mut command: Command, role: &str, toml: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("worker.toml");
        std::fs::write(&config, toml).unwrap();
        let [http, publish, grpc] = std::array::from_fn(|_| free_address());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("WORKER_")) {
            command.env_remove(name);
        }
        command.current_dir(folder.path()).args(["--role", role, "-c"]).arg(config).stdin(Stdio::null());
        command.env("WORKER_HTTP__LISTEN", &http).env("WORKER_PUBLISH__LISTEN", &publish).env("WORKER_PUBLISH__GRPC_LISTEN", &grpc);
        Self { command, folder, http, publish, grpc }
    }

    /// Sets a variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: &str) -> Self {
        self.command.arg(arg);
        self
    }

    /// Ignores a signal, which a program inherits from the shell that starts it.
    pub fn ignoring(mut self, signal: &str) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("trap '' {signal}; exec \"$0\" \"$@\"")]).arg(self.command.get_program()).args(self.command.get_args());
        shell.stdin(Stdio::null()).current_dir(self.folder.path());
        for (name, value) in self.command.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        self.command = shell;
        self
    }

    /// Gives it this standard input instead of `/dev/null`.
    pub fn stdin(mut self, stdin: impl Into<Stdio>) -> Self {
        self.command.stdin(stdin);
        self
    }

    /// Starts it. It need not be ready yet.
    pub fn start(mut self) -> Worker {
        let log = File::create(self.folder.path().join("log")).unwrap();
        self.command.stdout(log.try_clone().unwrap()).stderr(log);
        let child = self.command.spawn().unwrap();
        Worker { child, folder: self.folder, http: self.http, publish: self.publish, grpc: self.grpc, client: reqwest::Client::new() }
    }

    /// Starts it and waits until it is ready.
    pub async fn start_ready(self) -> Worker {
        let mut worker = self.start();
        worker.ready(Duration::from_secs(30)).await;
        worker
    }
}

impl Worker {
    /// Waits until `/readyz` answers 200; panics with the log where the process ends instead.
    pub async fn ready(&mut self, within: Duration) {
        let url = format!("http://{}/readyz", self.http);
        let end = std::time::Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the worker ended with {status} before it was ready");
            }
            let answer = self.client.get(&url).timeout(Duration::from_secs(2)).send().await;
            if answer.as_ref().is_ok_and(|answer| answer.status() == 200) {
                return;
            }
            assert!(std::time::Instant::now() < end, "not ready within {within:?}: {answer:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// GET on the operations listener: status and body; `None` while nobody answers.
    pub async fn get(&self, path: &str) -> Option<(u16, String)> {
        let answer = self.client.get(format!("http://{}{path}", self.http)).timeout(Duration::from_secs(5)).send().await.ok()?;
        Some((answer.status().as_u16(), answer.text().await.ok()?))
    }

    /// A scrape of `/metrics`.
    pub async fn metrics(&self) -> Metrics {
        Metrics::parse(&self.get("/metrics").await.expect("the operations listener answers").1)
    }

    /// Waits until a metric's sum satisfies `enough`.
    pub async fn wait_for_metric(&self, name: &str, labels: &[(&str, &str)], within: Duration, enough: impl Fn(f64) -> bool) -> f64 {
        eventually(&format!("{name} {labels:?}"), within, async || Some(self.metrics().await.sum(name, labels)).filter(|sum| enough(*sum)))
            .await
    }

    /// URL on the publish listener.
    pub fn publish_url(&self, path: &str) -> String {
        format!("http://{}{path}", self.publish)
    }

    /// `host:port` of the gRPC listener.
    pub fn grpc_address(&self) -> &str {
        &self.grpc
    }

    /// The writing end of its standard input, where that was [`Stdio::piped`].
    pub fn take_stdin(&mut self) -> ChildStdin {
        self.child.stdin.take().expect("a piped standard input")
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by name: `TERM`, `INT`, `KILL`, `STOP`, `CONT`.
    pub fn signal(&self, signal: &str) {
        let done = Command::new("sh").args(["-c", &format!("kill -{signal} {}", self.child.id())]).status().unwrap();
        assert!(done.success(), "kill -{signal}");
    }

    /// How the process ended; `None`: it runs.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for the end of the process.
    pub async fn ended(&mut self, within: Duration) -> ExitStatus {
        let end = std::time::Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(std::time::Instant::now() < end, "still running after {within:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// SIGTERM, then the exit code.
    pub async fn terminate(&mut self, within: Duration) -> Option<i32> {
        self.signal("TERM");
        self.ended(within).await.code()
    }

    /// SIGKILL, and gone.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// All it wrote so far, stdout and stderr.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.folder.path().join("log")).unwrap()).into_owned()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            eprintln!("--- the worker's last words ---\n{}", lines[lines.len().saturating_sub(60)..].join("\n"));
        }
    }
}
