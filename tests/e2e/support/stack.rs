//! The Kafka and Redis of a test: the shared ones, or some of its own that it may kill.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::kafka::Kafka;

/// Addresses of a running Kafka and Redis.
pub struct Stack {
    env: HashMap<String, String>,
    /// Only of a private one: its folder, and the end of it when dropped.
    own: Option<PathBuf>,
}

/// What the broker's SASL_SSL listener wants. PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512 know the user.
pub struct SaslSsl {
    /// `host:port`.
    pub brokers: String,
    /// PEM file of the CA.
    pub ca: String,
    /// User.
    pub user: String,
    /// Password.
    pub password: String,
}

/// What the broker's listener for OAUTHBEARER tokens wants.
pub struct Oidc {
    /// `host:port`.
    pub brokers: String,
    /// PEM file of the CA.
    pub ca: String,
    /// PEM file of the key that tokens are signed with (RS256, `kid` tests).
    pub key: String,
}

impl Stack {
    /// The stack that `tests/stack` started for this run; never to be killed or flushed. `None`, with a printed reason, where there
    /// is none; a panic with `CI=true`.
    pub fn shared() -> Option<Self> {
        let env: HashMap<_, _> = std::env::vars().filter(|(name, _)| name.starts_with("WORKER_TEST_")).collect();
        if env.contains_key("WORKER_TEST_KAFKA") && env.contains_key("WORKER_TEST_REDIS") {
            return Some(Self { env, own: None });
        }
        let reason = "WORKER_TEST_KAFKA and WORKER_TEST_REDIS are not set; run this under `tests/stack run ..`";
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{reason}");
        eprintln!("skipped: {reason}");
        None
    }

    /// A Kafka, a Redis, or both, of this test alone (about 4 s for Kafka), gone when dropped. `None` as for [`Stack::shared`].
    pub fn private(parts: &[&str]) -> Option<Self> {
        Self::private_behind(parts, &[])
    }

    /// As [`Stack::private`]. Kafka gets a listener more for each of `proxies` (`host:port`), which sends its clients there.
    pub fn private_behind(parts: &[&str], proxies: &[&str]) -> Option<Self> {
        Self::start_private(parts, &[("STACK_BEHIND", proxies.join(" "))])
    }

    /// A Kafka and a Redis as [`Stack::private`], the Kafka with a listener for tokens of OIDC.
    pub fn private_with_oidc() -> Option<Self> {
        Self::start_private(&["kafka", "redis"], &[("STACK_OIDC", "yes".to_owned())])
    }

    fn start_private(parts: &[&str], options: &[(&str, String)]) -> Option<Self> {
        Self::shared()?;
        let shared = PathBuf::from(stack_output(None, &["dir"], &[]).trim().to_owned());
        let own = shared.join("private").join(super::unique("stack"));
        let lines = stack_output(Some(&own), &[&["up"], parts].concat(), options);
        let env = lines
            .lines()
            .filter_map(|line| line.strip_prefix("export ")?.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Some(Self { env, own: Some(own) })
    }

    /// `host:port` of the plain listener.
    pub fn brokers(&self) -> &str {
        self.get("WORKER_TEST_KAFKA")
    }

    /// `redis://host:port`.
    pub fn redis(&self) -> &str {
        self.get("WORKER_TEST_REDIS")
    }

    /// The encrypted listener with its credentials.
    pub fn sasl_ssl(&self) -> SaslSsl {
        SaslSsl {
            brokers: self.get("WORKER_TEST_KAFKA_SASL_SSL").to_owned(),
            ca: self.get("WORKER_TEST_KAFKA_CA").to_owned(),
            user: self.get("WORKER_TEST_KAFKA_USER").to_owned(),
            password: self.get("WORKER_TEST_KAFKA_PASSWORD").to_owned(),
        }
    }

    /// The listener for tokens.
    pub fn oidc(&self) -> Oidc {
        let [brokers, ca, key] =
            ["WORKER_TEST_KAFKA_OIDC", "WORKER_TEST_KAFKA_CA", "WORKER_TEST_KAFKA_TOKEN_KEY"].map(|name| self.get(name).to_owned());
        Oidc { brokers, ca, key }
    }

    /// `host:port` of the listener behind each proxy, in the order that they were given.
    pub fn behind(&self) -> Vec<String> {
        self.get("WORKER_TEST_KAFKA_BEHIND").split(',').map(str::to_owned).collect()
    }

    /// Topics, records and groups of this broker.
    pub fn kafka(&self) -> Kafka {
        Kafka::new(self.brokers())
    }

    /// SIGKILL to `kafka` or `redis`, on a private stack only.
    pub fn kill(&self, part: &str) {
        self.control("kill", part);
    }

    /// Starts a killed part again, on the same data and port, and waits until it answers.
    pub fn start(&self, part: &str) {
        self.control("start", part);
    }

    /// SIGSTOP: there, and mute.
    pub fn stop(&self, part: &str) {
        self.control("stop", part);
    }

    /// SIGCONT.
    pub fn cont(&self, part: &str) {
        self.control("cont", part);
    }

    /// What one of Kafka's console tools prints about this broker, which must be a private one.
    pub fn kafka_tool(&self, args: &[&str]) -> String {
        let own = self.own.as_deref().expect("a private stack");
        stack_output(Some(own), &[&["kafka-tool"], args].concat(), &[])
    }

    fn control(&self, verb: &str, part: &str) {
        let own = self.own.as_deref().expect("only a private stack may be tampered with");
        stack_output(Some(own), &[verb, part], &[]);
    }

    fn get(&self, name: &str) -> &str {
        self.env.get(name).unwrap_or_else(|| panic!("{name} is not part of this stack"))
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if let Some(own) = &self.own {
            stack_output(Some(own), &["down"], &[]);
        }
    }
}

/// Runs `tests/stack`; panics with its words where it fails.
fn stack_output(dir: Option<&Path>, args: &[&str], options: &[(&str, String)]) -> String {
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stack"));
    if let Some(dir) = dir {
        command.env("STACK_DIR", dir);
    }
    command.envs(options.iter().map(|(name, value)| (name, value)));
    let output = command.args(args).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "tests/stack {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
