//! The app behind the handlers: answers as the seed says, and writes every run down.

use std::{
    collections::HashMap,
    fs::File,
    io::Write,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    body::Bytes,
    extract::{Path as Segments, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use serde_json::Value;

use crate::events::{Failure, Fate, fate, handlers, kind};

/// Longest run that the soak's configuration allows a handler.
pub const TIMEOUT: Duration = Duration::from_secs(5);

/// How a run ended, as the app saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The effect took place, and 200 was answered.
    Done,
    /// 200 with DROP.
    Dropped,
    /// 422.
    Permanent,
    /// Any answer that asks for another run.
    Failed,
    /// The connection was gone before there was an answer.
    Cut,
}

/// One run.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// Which process sent it.
    pub process: usize,
    pub handler: &'static str,
    pub n: u64,
    /// Microseconds since 1970; `end`: of the answer.
    pub start: u64,
    pub end: u64,
    pub attempt: u64,
    pub epoch: u64,
    pub verdict: Verdict,
}

/// Now, in microseconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64
}

struct Notes {
    seed: u64,
    /// The effects log: a line per run, written at its end in one piece.
    log: Mutex<(File, Vec<Run>)>,
    failures: Mutex<HashMap<(&'static str, u64), usize>>,
}

/// A running app.
pub struct App {
    notes: Arc<Notes>,
    address: String,
    server: tokio::task::JoinHandle<()>,
}

/// A run that has not ended; dropped without an end, it was cut.
struct Open {
    notes: Arc<Notes>,
    run: Run,
}

impl App {
    /// Listens on a free port; the effects log is `folder/effects.log`.
    pub async fn start(seed: u64, folder: &Path) -> Self {
        let log = Mutex::new((File::create(folder.join("effects.log")).unwrap(), Vec::new()));
        let notes = Arc::new(Notes { seed, log, failures: Mutex::default() });
        let router = axum::Router::new().route("/{process}/{handler}", post(answer)).with_state(Arc::clone(&notes));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { notes, address, server }
    }

    /// Where a process' handler posts to.
    pub fn url(&self, process: usize, handler: &str) -> String {
        format!("http://{}/{process}/{handler}", self.address)
    }

    /// Every run that has ended, by its end.
    pub fn runs(&self) -> Vec<Run> {
        self.notes.log.lock().unwrap().1.clone()
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.run.end = now();
        let Run { process, handler, n, start, end, attempt, epoch, verdict } = self.run;
        let line = format!("{start} {end} consumer={process} {handler} n={n} attempt={attempt} epoch={epoch} {verdict:?}\n");
        let mut log = self.notes.log.lock().unwrap();
        log.0.write_all(line.as_bytes()).unwrap();
        log.1.push(self.run);
    }
}

async fn answer(
    State(notes): State<Arc<Notes>>,
    Segments((process, handler)): Segments<(usize, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let start = now();
    let event: Value = serde_json::from_slice(&body).unwrap_or_default();
    let Some(n) = event["data"]["data"]["n"].as_u64().or_else(|| event["data"]["n"].as_u64()) else {
        // Nobody may be asked about a record that other programs wrote; the oracle finds no such number.
        return StatusCode::IM_A_TEAPOT.into_response();
    };
    let handler = handlers(kind(n).0).iter().find(|known| **known == handler).copied().unwrap_or("nobody");
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or_default();
    let (attempt, epoch) = (header("x-worker-attempt"), header("x-worker-epoch"));
    let run = Run { process, handler, n, start, end: 0, attempt, epoch, verdict: Verdict::Cut };
    let mut open = Open { notes: Arc::clone(&notes), run };
    let fate = fate(notes.seed, n, handler);
    let (verdict, answer) = match fate {
        Fate::Done(ms) => {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            (Verdict::Done, StatusCode::OK.into_response())
        }
        Fate::Fails(times, failure) if notes.fail(handler, n, times) => (Verdict::Failed, failed(failure).await),
        Fate::Fails(..) => (Verdict::Done, StatusCode::OK.into_response()),
        Fate::Dropped => (Verdict::Dropped, "{\"status\":\"DROP\"}".into_response()),
        Fate::Permanent => (Verdict::Permanent, StatusCode::UNPROCESSABLE_ENTITY.into_response()),
        Fate::Exhausted => (Verdict::Failed, StatusCode::INTERNAL_SERVER_ERROR.into_response()),
    };
    open.run.verdict = verdict;
    drop(open);
    answer
}

async fn failed(failure: Failure) -> Response {
    match failure {
        Failure::Error => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Failure::Busy => (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "1")]).into_response(),
        Failure::Retry => "{\"status\":\"RETRY\"}".into_response(),
        Failure::Timeout => {
            tokio::time::sleep(TIMEOUT * 10).await;
            StatusCode::OK.into_response()
        }
    }
}

impl Notes {
    /// Whether this run is one of the first `times`.
    fn fail(&self, handler: &'static str, n: u64, times: usize) -> bool {
        let mut failures = self.failures.lock().unwrap();
        let count = failures.entry((handler, n)).or_default();
        *count += 1;
        *count <= times
    }
}
