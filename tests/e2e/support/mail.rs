//! A real mail server with a script: `apps/mail_server.py` on aiosmtpd.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::Value;

use super::{eventually, free_address, python};

/// Makes a certificate for localhost: what [`MailServer`] takes as `--certificate`, and the authority that clients have to know.
pub fn certificate(folder: &Path) -> (PathBuf, PathBuf) {
    let [server, key, ca] = ["server.pem", "key.pem", "ca.pem"].map(|name| folder.join(name));
    let subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"];
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"])
        .args(subject)
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&ca)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    std::fs::write(&server, std::fs::read_to_string(&key).unwrap() + &std::fs::read_to_string(&ca).unwrap()).unwrap();
    (server, ca)
}

/// A running mail server, ended when dropped.
pub struct MailServer {
    address: String,
    folder: tempfile::TempDir,
    child: Child,
}

impl MailServer {
    /// On a free port. `None`, with a printed reason, where Python or its package cannot be had.
    pub async fn start(arguments: &[&str]) -> Option<Self> {
        Self::start_at(&free_address(), arguments).await
    }

    /// On an address that the test knows beforehand.
    pub async fn start_at(address: &str, arguments: &[&str]) -> Option<Self> {
        let python = python::venv(&["aiosmtpd==1.4.6"])?;
        let folder = tempfile::tempdir().unwrap();
        let log = File::create(folder.path().join("log")).unwrap();
        let child = Command::new(python)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/apps/mail_server.py"))
            .args(["--listen", address])
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(log.try_clone().unwrap())
            .stdout(log)
            .spawn()
            .unwrap();
        let server = Self { address: address.to_owned(), folder, child };
        server.wait_for("ready", 1).await;
        Some(server)
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What it wrote down that has this key: `rcpt`, `mail`, `login`.
    pub fn told(&self, key: &str) -> Vec<Value> {
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap();
        log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).filter(|line| line.get(key).is_some()).collect()
    }

    /// The same, once there are so many.
    pub async fn wait_for(&self, key: &str, count: usize) -> Vec<Value> {
        let what = format!("{count} of {key} at the mail server");
        eventually(&what, Duration::from_secs(60), async || Some(self.told(key)).filter(|told| told.len() >= count)).await
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
