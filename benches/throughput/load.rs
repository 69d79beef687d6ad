//! Clients that POST one event after the other, each over a connection of its own, and wait for each answer. Written by hand: what a
//! client costs is taken from what it measures, on a machine that it shares.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

use crate::{
    journal,
    meter::Measured,
    stack::{USERS, event},
    usage::Processes,
};

/// Until connections are open and caches are warm.
const WARM: Duration = Duration::from_secs(1);
/// What is measured.
const DURING: Duration = Duration::from_secs(5);

/// What the connections share.
#[derive(Default)]
struct Shared {
    next: AtomicU64,
    answered: Mutex<Vec<(Instant, Duration)>>,
}

/// Posts to `path` for a while over so many connections; every answer must be a 2xx.
///
/// # Errors
/// Where one is not.
pub fn run(port: u16, path: &str, connections: usize, processes: &Processes) -> anyhow::Result<Measured> {
    let shared = Arc::new(Shared::default());
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut clients = JoinSet::new();
        for _ in 0..connections {
            clients.spawn(client(port, path.to_owned(), Arc::clone(&shared)));
        }
        let window = async {
            tokio::time::sleep(WARM).await;
            let first = processes.snapshot();
            tokio::time::sleep(DURING).await;
            (first, processes.snapshot())
        };
        let (first, last) = tokio::select! {
            window = window => window,
            Some(ended) = clients.join_next() => return Err(ended?.err().context("a client ended")?),
        };
        let answered = shared.answered.lock().unwrap_or_else(PoisonError::into_inner);
        let within = answered.iter().filter(|(at, _)| (first.at..last.at).contains(at));
        let mut latencies: Vec<Duration> = within.map(|(_, latency)| *latency).collect();
        let mut measured = Measured::between(&first, &last, latencies.len() as u64, processes);
        measured.figures = journal::figures(&mut latencies);
        Ok(measured)
    })
}

async fn client(port: u16, path: String, shared: Arc<Shared>) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    let (mut answer, now) = (Vec::with_capacity(4096), chrono::Utc::now());
    loop {
        let (_, body) = event(shared.next.fetch_add(1, Ordering::Relaxed), USERS, now);
        let length = body.len();
        let request =
            format!("POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}");
        let sent = Instant::now();
        stream.write_all(request.as_bytes()).await?;
        answer.clear();
        while !is_whole(&answer)? {
            anyhow::ensure!(stream.read_buf(&mut answer).await? > 0, "the connection was closed");
        }
        anyhow::ensure!(answer.starts_with(b"HTTP/1.1 2"), "refused: {}", String::from_utf8_lossy(&answer));
        let at = Instant::now();
        shared.answered.lock().unwrap_or_else(PoisonError::into_inner).push((at, at - sent));
    }
}

/// Whether an answer has arrived with all of its body.
fn is_whole(answer: &[u8]) -> anyhow::Result<bool> {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(false) };
    let head = std::str::from_utf8(&answer[..end])?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    Ok(answer.len() >= end + 4 + length.context("an answer without content-length")?)
}
