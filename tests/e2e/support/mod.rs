//! What the end-to-end tests share: the stack, the worker's process, topics, an app that answers by script, waiting.

#![allow(dead_code, reason = "each test takes what it needs")]

pub mod again;
pub mod app;
pub mod go;
pub mod job;
pub mod kafka;
pub mod mail;
pub mod metrics;
pub mod node;
pub mod packages;
pub mod python;
pub mod proxy;
pub mod stack;
pub mod worker;

use std::{
    future::Future,
    time::{Duration, Instant},
};

/// A name that no other test, run or clone uses: for topics, groups, key prefixes.
pub fn unique(what: &str) -> String {
    format!("{what}-{}", uuid::Uuid::new_v4().simple())
}

/// Asks again every 20 ms until there is an answer; panics with `what` after `within`.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, within: Duration, ask: impl FnMut() -> F) -> T {
    eventually_every(Duration::from_millis(20), what, within, ask).await
}

/// As [`eventually`], for a question that costs more.
pub async fn eventually_every<T, F: Future<Output = Option<T>>>(
    pause: Duration,
    what: &str,
    within: Duration,
    mut ask: impl FnMut() -> F,
) -> T {
    let end = Instant::now() + within;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < end, "not within {within:?}: {what}");
        tokio::time::sleep(pause).await;
    }
}

/// An address of 127.0.0.1 that nothing listens on now. Below the ports that systems give to connections, one of which could take it
/// before it is used.
pub fn free_address() -> String {
    let mut addresses = std::iter::repeat_with(|| format!("127.0.0.1:{}", fastrand::u16(10_000..20_000)));
    addresses.find(|address| std::net::TcpListener::bind(address).is_ok()).unwrap()
}

/// Resident memory of a process; 0 where it cannot be read.
pub fn rss_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or_default()
}

/// Ends the test early, visibly, where there is no stack: `let stack = stack_or_skip!(Stack::shared());`
#[macro_export]
macro_rules! stack_or_skip {
    ($stack:expr) => {
        match $stack {
            Some(stack) => stack,
            None => return,
        }
    };
}
