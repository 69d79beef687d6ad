//! The app that events are posted to, the same for the worker and the floor: a process of its own, so that its CPU is its own too.

use std::{
    borrow::Cow,
    io::{BufReader, Lines},
    process::ChildStdout,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::State,
    http::StatusCode,
    routing::{get, post},
    serve::ListenerExt as _,
};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use crate::{meter::Meter, program::Killed};

/// The app's process.
pub struct App {
    process: Killed,
    lines: Option<Lines<BufReader<ChildStdout>>>,
    port: u16,
}

impl App {
    /// Starts one that takes `delay` for each event and says when it has answered the first and `events`.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn start(events: u64, delay: Duration) -> anyhow::Result<Self> {
        let (delay, events) = (humantime::format_duration(delay).to_string(), events.to_string());
        let (process, port, lines) = Killed::side(&["app", "--delay", &delay, "--events", &events])?;
        Ok(Self { process, lines: Some(lines), port })
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.process.0.id()
    }

    /// Where it listens, on this machine.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Counts its first and its last event into `meter`, on a thread of its own.
    pub fn count_into(&mut self, events: u64, meter: &Arc<Meter>) {
        let Some(mut lines) = self.lines.take() else { return };
        let meter = Arc::clone(meter);
        std::thread::spawn(move || {
            for count in [1, events - 1] {
                if lines.next().is_some_and(|line| line.is_ok()) {
                    meter.add(count);
                }
            }
        });
    }
}

struct Count {
    answered: AtomicU64,
    events: u64,
    delay: Duration,
}

impl Count {
    fn add(&self, events: u64) {
        let before = self.answered.fetch_add(events, Ordering::Relaxed);
        if before == 0 {
            println!("first");
        }
        if before < self.events && before + events >= self.events {
            println!("last");
        }
    }
}

/// The app itself: prints its port, then serves until it is killed.
///
/// # Errors
/// Where it cannot listen.
pub fn serve(events: u64, delay: Duration) -> anyhow::Result<()> {
    let count = Arc::new(Count { answered: AtomicU64::new(0), events, delay });
    let router = Router::new()
        .route("/event", post(one))
        .route("/events", post(many))
        .route("/dapr/subscribe", get(async || Json(json!([]))))
        .with_state(count);
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?.port());
        let listener = listener.tap_io(|stream| {
            let _refused = stream.set_nodelay(true);
        });
        anyhow::Ok(axum::serve(listener, router).await?)
    })
}

async fn one(State(count): State<Arc<Count>>, body: Bytes) -> StatusCode {
    std::hint::black_box(body);
    if !count.delay.is_zero() {
        tokio::time::sleep(count.delay).await;
    }
    count.add(1);
    StatusCode::OK
}

/// A batch as a Dapr sidecar sends it, of which each entry gets its verdict.
#[derive(Deserialize)]
struct Batch<'a> {
    #[serde(borrow)]
    entries: Vec<Entry<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    #[serde(borrow)]
    entry_id: Cow<'a, str>,
    #[serde(borrow)]
    event: &'a RawValue,
}

/// Many events: in a bare list, which is answered with nothing, or in a sidecar's batch.
async fn many(State(count): State<Arc<Count>>, body: Bytes) -> Result<Json<Value>, StatusCode> {
    if body.starts_with(b"[") {
        let events: Vec<&RawValue> = serde_json::from_slice(&body).map_err(|_| StatusCode::BAD_REQUEST)?;
        count.add(events.len() as u64);
        return Ok(Json(Value::Null));
    }
    let batch: Batch<'_> = serde_json::from_slice(&body).map_err(|_| StatusCode::BAD_REQUEST)?;
    let verdict = |entry: &Entry<'_>| {
        std::hint::black_box(entry.event);
        json!({ "entryId": entry.entry_id, "status": "SUCCESS" })
    };
    let statuses: Vec<Value> = batch.entries.iter().map(verdict).collect();
    count.add(batch.entries.len() as u64);
    Ok(Json(json!({ "statuses": statuses })))
}
