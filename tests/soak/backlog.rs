//! One user fails, and a whole log of events piles up behind: how much memory it takes, who else notices, and what happens when it ends.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{body::Bytes, extract::State, http::StatusCode, routing::post};

use crate::{
    asked, stack_or_skip,
    support::{eventually_every, rss_kib, stack::Stack, unique, worker::Launch},
};

/// `engine.memory` of the consumer, its default. A stub takes 24 bytes; with four partitions a million of them are less than half of one's
/// share, below which it is always read.
const BUDGET_MIB: u64 = 256;
/// What a process takes beside it: itself, librdkafka with its queues (at most a quarter of the budget), and what the allocator keeps.
const BESIDE_MIB: u64 = 96;
const PARTITIONS: i32 = 4;
/// Of so many events one is another user's; there are as many others.
const OTHERS: u64 = 100;
/// Events where nothing else is asked for.
const EVENTS: u64 = 100_000;
/// Events that are written before the next ones are made.
const CHUNK: u64 = 20_000;

/// The app: one user fails until it is told to recover; nobody's events may come out of order or twice.
#[derive(Default)]
struct App {
    recovered: AtomicBool,
    /// Runs of the failing user's first event.
    failures: AtomicU64,
    done: AtomicU64,
    last: Mutex<HashMap<u64, u64>>,
    wrong: Mutex<Vec<String>>,
}

fn user(n: u64) -> u64 {
    if n.is_multiple_of(OTHERS) { 1 + n / OTHERS % OTHERS } else { 0 }
}

fn event(n: u64) -> (String, String) {
    let user = format!("user-{}", user(n));
    let value = format!(
        "{{\"event_id\":\"{n}\",\"event_type\":\"task.updated\",\"event_version\":\"1.0\",\"timestamp\":\"2026-01-01T00:00:00Z\",\
         \"source\":\"soak\",\"data\":{{\"task_id\":{n},\"user_id\":\"{user}\",\"title\":\"One of very many\",\"n\":{n}}}}}"
    );
    (user, value)
}

async fn answer(State(app): State<Arc<App>>, body: Bytes) -> StatusCode {
    let event: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let Some(n) = event["data"]["data"]["n"].as_u64() else { return StatusCode::IM_A_TEAPOT };
    if user(n) == 0 && !app.recovered.load(Ordering::Relaxed) {
        app.failures.fetch_add(1, Ordering::Relaxed);
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    if let Some(before) = app.last.lock().unwrap().insert(user(n), n).filter(|before| *before >= n) {
        app.wrong.lock().unwrap().push(format!("{n} after {before}"));
    }
    app.done.fetch_add(1, Ordering::Relaxed);
    StatusCode::OK
}

/// Most memory of a process so far, read every 200 ms.
fn watch_memory(pid: u32) -> (Arc<AtomicU64>, tokio::task::JoinHandle<()>) {
    let most = Arc::<AtomicU64>::default();
    let seen = Arc::clone(&most);
    let watching = tokio::spawn(async move {
        loop {
            seen.fetch_max(rss_kib(pid), Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    (most, watching)
}

/// `WORKER_SOAK_BACKLOG` events, else [`EVENTS`], of which one in a hundred is another user's.
#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_of_any_length_behind_one_failing_user_stays_within_the_budget_and_is_handled_in_order() {
    let _alone = crate::ALONE.lock().await;
    let events = asked("WORKER_SOAK_BACKLOG").unwrap_or(EVENTS);
    let patience = Duration::from_secs(120) + Duration::from_millis(10 * events);
    let stack = stack_or_skip!(Stack::private(&["kafka", "redis"]));
    let (kafka, group) = (stack.kafka(), unique("backlog"));
    for (topic, partitions) in [("task-events", PARTITIONS), ("dlq", 1)] {
        kafka.create_topic(topic, partitions, &[]).await;
    }
    let app = Arc::<App>::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let router = axum::Router::new().route("/", post(answer)).with_state(Arc::clone(&app));
    let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let delays = ["\"10s\""; 250].join(",");
    let toml = format!(
        "[kafka]\ntopics = [\"task-events\"]\n[engine]\nmemory = \"{BUDGET_MIB}MiB\"\nmax_held_events = 10000000\nmax_hold_age = \"24h\"\n\
         [retry.\"task.updated\"]\ndelays = [{delays}]\n[[handlers]]\nname = \"app\"\nkind = \"http\"\nurl = \"{url}\"\n"
    );
    let mut worker = Launch::role("consumer", &stack, &group, &toml).start_ready().await;
    let (most, watching) = watch_memory(worker.pid());

    let begun = Instant::now();
    for chunk in 0..events.div_ceil(CHUNK) {
        kafka.produce_all("task-events", (chunk * CHUNK..events.min((chunk + 1) * CHUNK)).map(event)).await;
    }
    let written = begun.elapsed();
    let others = events.div_ceil(OTHERS);
    let every = Duration::from_millis(500);
    eventually_every(every, "all others' events, and the backlog taken", patience, async || {
        let held = worker.metrics().await.sum("worker_held_events", &[]);
        (app.done.load(Ordering::Relaxed) == others && held as u64 == events - others).then_some(())
    })
    .await;
    let taken = begun.elapsed();
    let (failures, blocked) = (app.failures.load(Ordering::Relaxed), most.load(Ordering::Relaxed) / 1024);
    assert!(failures > 0);

    app.recovered.store(true, Ordering::Relaxed);
    let recovered = Instant::now();
    eventually_every(every, "the backlog", patience, async || (app.done.load(Ordering::Relaxed) >= events).then_some(())).await;
    let drained = recovered.elapsed();
    kafka.wait_until_committed(&group, "task-events", Duration::from_secs(60)).await;
    let wrong = app.wrong.lock().unwrap().clone();
    assert!(wrong.is_empty(), "{} out of order or twice: {:?}", wrong.len(), &wrong[..wrong.len().min(10)]);
    assert_eq!(kafka.read_all("dlq").await, []);
    assert_eq!(worker.metrics().await.sum("worker_conservation_error", &[]), 0.0);
    watching.abort();
    let most = most.load(Ordering::Relaxed) / 1024;
    println!(
        "{events} events, written in {written:.1?}; {others} of other users handled and {} held behind one after {taken:.1?}, {failures} failures;\n\
         {blocked} MiB resident until then, {most} MiB at most, of {BUDGET_MIB} + {BESIDE_MIB}; all handled in order {drained:.1?} after the recovery",
        events - others
    );
    assert!(most <= BUDGET_MIB + BESIDE_MIB, "{most} MiB resident");
    assert_eq!(worker.terminate(Duration::from_secs(60)).await, Some(0));
    server.abort();
}
