//! The worker's program as a process of its own, for what can be seen from outside alone: its memory, its start, its end.

use std::{
    io::{BufRead as _, BufReader, Lines, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context as _;

use crate::{row::Bench, usage};

/// Longest wait for anything here.
const PATIENCE: Duration = Duration::from_secs(120);

/// A process that is killed when dropped.
pub struct Killed(pub Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}

impl Killed {
    /// Starts this program as the other side of a row; answers also its port, and the lines that it prints after that.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn side(args: &[&str]) -> anyhow::Result<(Self, u16, Lines<BufReader<ChildStdout>>)> {
        let mut process = Command::new(std::env::current_exe()?).arg("--serve").args(args).stdout(Stdio::piped()).spawn()?;
        let stdout = process.stdout.take().context("no stdout")?;
        let process = Self(process);
        let mut lines = BufReader::new(stdout).lines();
        let port = lines.next().with_context(|| format!("{} did not start", args[0]))??.parse()?;
        Ok((process, port, lines))
    }
}

/// A running worker; killed when dropped.
pub struct Program {
    process: Killed,
    listen: u16,
    /// Goes with it.
    _config: tempfile::NamedTempFile,
}

impl Program {
    /// Starts a role with the stack's Kafka and Redis and `config` besides, as TOML.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn start(bench: &Bench, role: &str, config: &str) -> anyhow::Result<Self> {
        let listen = free_port()?;
        let mut file = tempfile::Builder::new().suffix(".toml").tempfile()?;
        file.write_all(config.as_bytes())?;
        let process = Command::new(&bench.binary)
            .args(["--role", role, "-c"])
            .arg(file.path())
            .args(["--set", &format!("kafka.brokers=\"{}\"", bench.stack.brokers)])
            .args(["--set", &format!("store.url=\"{}\"", bench.stack.redis)])
            .args(["--set", &format!("http.listen=\"127.0.0.1:{listen}\"")])
            .env("RUST_LOG", std::env::var("RUST_LOG").unwrap_or_else(|_| "error".to_owned()))
            .args(if role == "producer" { &["--serve"][..] } else { &[] })
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| bench.binary.display().to_string())?;
        Ok(Self { process: Killed(process), listen, _config: file })
    }

    /// Starts a consumer of a topic that posts each event to the app at that port. `more`: other tables, as TOML.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn consumer(bench: &Bench, group: &str, topic: &str, app: u16, more: &str) -> anyhow::Result<Self> {
        let kafka = format!("[kafka]\ngroup_id = \"{group}\"\ntopics = [\"{topic}\"]\n");
        Self::start(bench, "consumer", &(kafka + more + &posting_to(app)))
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.process.0.id()
    }

    /// Waits until it says that it is ready.
    ///
    /// # Errors
    /// Where it does not get ready, or ends.
    pub fn ready(&self) -> anyhow::Result<()> {
        self.wait("ready", Duration::from_millis(5), || get(self.listen, "/readyz").is_ok_and(|(status, _)| status == 200))
    }

    /// Waits until a metric, summed over its labels, satisfies.
    ///
    /// # Errors
    /// Where it never does.
    pub fn until(&self, metric: &str, satisfies: impl Fn(f64) -> bool) -> anyhow::Result<()> {
        self.wait(metric, Duration::from_millis(50), || self.metric(metric).is_ok_and(&satisfies))
    }

    /// A metric, summed over its labels; 0 where it is not there.
    ///
    /// # Errors
    /// Where it does not answer.
    pub fn metric(&self, name: &str) -> anyhow::Result<f64> {
        metric(self.listen, name)
    }

    /// Bytes resident now.
    pub fn rss(&self) -> u64 {
        usage::rss(self.id())
    }

    fn wait(&self, what: &str, look: Duration, is_so: impl Fn() -> bool) -> anyhow::Result<()> {
        let give_up = Instant::now() + PATIENCE;
        while !is_so() {
            anyhow::ensure!(Instant::now() < give_up, "{what}: not within {PATIENCE:?}");
            std::thread::sleep(look);
        }
        Ok(())
    }
}

/// A handler that posts each event to the app at that port, as TOML.
pub fn posting_to(app: u16) -> String {
    format!("[[handlers]]\nname = \"app\"\nkind = \"http\"\nurl = \"http://127.0.0.1:{app}/event\"\n")
}

/// The schedule of events that are to wait for as long as a row lasts, as TOML.
pub const WAITING: &str = "[retry.default]\ndelays = [\"1h\"]\n";

/// A port that nobody listened on a moment ago.
///
/// # Errors
/// Where there is none.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A metric of a worker's ops listener, summed over its labels; 0 where it is not there.
///
/// # Errors
/// Where nobody answers.
pub fn metric(port: u16, name: &str) -> anyhow::Result<f64> {
    let (_, page) = get(port, "/metrics")?;
    let of_this = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    Ok(page.lines().filter(of_this).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}

/// One GET on this machine: the status and the answer with its head.
fn get(port: u16, path: &str) -> anyhow::Result<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no status")?;
    Ok((status, answer))
}
