//! The main job: a generated history of many users, an app that notes every effect, and the judgement of what came of it.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{body::Bytes, extract::State, http::StatusCode, routing::post};
use serde_json::{Value, json};

use super::{
    eventually,
    kafka::{Kafka, Record},
    stack::Stack,
    worker::{Launch, Worker},
};

/// Topics of the job, as the catalogue has them.
pub const TOPICS: [(&str, i32); 3] = [("task-events", 12), ("reminders", 3), ("user-events", 5)];
/// Runs of an event that always fails: two delays.
pub const RUNS: usize = 3;

/// What the app makes of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// 200.
    Done,
    /// 503 once, then 200.
    Once,
    /// 422: to the DLQ at once.
    Permanent,
    /// 500 whenever it comes: to the DLQ after its schedule.
    Exhausted,
}

/// One generated event; `n` is its place, carried in its data.
#[derive(Debug)]
pub struct Planned {
    pub user: String,
    pub topic: &'static str,
    pub event_type: &'static str,
    pub fate: Fate,
    pub line: String,
    /// The same line comes a second time, a little later.
    pub twice: bool,
}

/// A record that some other program wrote, which no handler may see.
#[derive(Debug)]
pub struct Poison {
    pub reason: &'static str,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
}

/// The history.
#[derive(Debug)]
pub struct Plan {
    pub events: Vec<Planned>,
    pub poison: Vec<Poison>,
    /// Lines that the producer must refuse: their numbers and reasons.
    pub refused: Vec<(usize, &'static str)>,
    /// The input, without its last newline.
    pub lines: Vec<String>,
}

impl Plan {
    /// The same for the same arguments. About 1 in 100 events dies, 1 in 100 fails once, 1 in 97 comes twice.
    pub fn new(events: usize, users: usize) -> Self {
        let events: Vec<_> = (0..events).map(|n| planned(n, &format!("user-{}", n.wrapping_mul(7919) % users))).collect();
        let mut lines = Vec::new();
        let mut refused = Vec::new();
        let mut again = Vec::new();
        for (n, event) in events.iter().enumerate() {
            lines.push(event.line.clone());
            if event.twice {
                again.push(event.line.clone());
            }
            if n % 40 == 39 {
                lines.append(&mut again);
            }
            if n % (events.len() / 8).max(1) == 3 {
                for (reason, line) in REFUSED {
                    lines.push((*line).to_owned());
                    refused.push((lines.len(), *reason));
                }
            }
        }
        lines.append(&mut again);
        Self { events, poison: poison(), refused, lines }
    }

    /// Records that the producer must have written.
    pub fn written(&self) -> usize {
        self.lines.len() - self.refused.len()
    }

    /// How often the same event stands in the log a second time.
    pub fn copies(&self) -> usize {
        self.events.iter().filter(|event| event.twice).count()
    }

    /// Events that handlers end in the DLQ.
    pub fn dead(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.events.len()).filter(|n| matches!(self.events[*n].fate, Fate::Permanent | Fate::Exhausted))
    }

    /// The handlers of an event.
    pub fn handlers(&self, n: usize) -> &'static [&'static str] {
        if self.events[n].event_type == "task.completed" { &["app", "points"] } else { &["app"] }
    }
}

const REFUSED: &[(&str, &str)] = &[
    ("undecodable", "{\"event_type\":"),
    ("missing_user_id", "{\"event_type\":\"task.completed\",\"task_id\":1}"),
    ("unknown_type", "{\"event_type\":\"task.exploded\",\"user_id\":\"user-1\",\"task_id\":1}"),
    ("schema", "{\"event_type\":\"task.created\",\"user_id\":\"user-1\",\"data\":{\"task_id\":1,\"title\":\"\"}}"),
];

fn planned(n: usize, user: &str) -> Planned {
    let id = uuid::Uuid::from_u128(0x5eed_0000_0000_4000_8000_0000_0000_0000 | n as u128).to_string();
    let at = format!("2026-01-{:02}T{:02}:{:02}:{:02}Z", 1 + n / 86_400 % 28, n / 3600 % 24, n / 60 % 60, n % 60);
    let completed = json!({"event_id": id, "event_type": "task.completed", "event_version": "1.0", "task_id": n, "user_id": user, "timestamp": at,
        "payload": {"task_id": n, "completed_at": at, "n": n}});
    let updated = json!({"event_id": id, "event_type": "task.updated", "event_version": "1.0", "timestamp": at, "source": "todo-backend",
        "data": {"task_id": n, "user_id": user, "title": format!("Task {n} — größer"), "n": n}});
    let (topic, event_type, value) = match n % 6 {
        0 => (
            "task-events",
            "task.created",
            json!({"event_id": id, "event_type": "task.created", "event_version": "1.0", "timestamp": at,
            "source": "todo-backend", "data": {"task_id": n, "user_id": user, "title": format!("Task {n}"), "created_at": at, "n": n},
            "metadata": {"correlation_id": format!("req-{n}"), "user_id": user}}),
        ),
        1 => ("task-events", "task.completed", completed),
        2 => (
            "reminders",
            "reminder.due",
            json!({"event_id": id, "event_type": "reminder.triggered", "timestamp": at.trim_end_matches('Z'), "user_id": user,
            "task_id": id, "data": {"title": "Call the bank", "n": n}}),
        ),
        3 => (
            "task-events",
            "task.updated",
            json!({"specversion": "1.0", "type": "com.dapr.event.sent", "source": "todo-service", "id": format!("outer-{n}"),
            "datacontenttype": "application/json", "topic": "task-events", "pubsubname": "kafka-pubsub", "traceparent": "", "data": updated}),
        ),
        4 => (
            "user-events",
            "user.logged_in",
            json!({"event_id": id, "event_type": "user.logged_in", "event_version": "1.0", "timestamp": at,
            "source": "todo-backend", "data": {"user_id": user, "login_method": "email", "ip_address": "203.0.113.7", "user_agent": "curl/8.5", "n": n}}),
        ),
        _ => ("task-events", "task.completed", json!({"event_type": "task.completed", "user_id": user, "task_id": n, "n": n})),
    };
    let fate = match n {
        _ if n % 211 == 7 => Fate::Permanent,
        _ if n % 499 == 11 => Fate::Exhausted,
        _ if n % 101 == 5 => Fate::Once,
        _ => Fate::Done,
    };
    // An event without an id is given a new one each time: a second line is a second event.
    Planned { user: user.to_owned(), topic, event_type, fate, line: value.to_string(), twice: n % 97 == 13 && n % 6 != 5 }
}

fn poison() -> Vec<Poison> {
    let of = |reason, key: Option<&[u8]>, value: Option<&[u8]>| Poison { reason, key: key.map(Vec::from), value: value.map(Vec::from) };
    vec![
        of("undecodable", Some(b"user-3"), Some(b"\xff\x00 not json")),
        of("undecodable", None, Some(b"{\"event_type\":")),
        of("undecodable", Some(b"user-4"), Some(b"{\"user_id\":\"user-4\",\"n\":1}")),
        of("undecodable", Some(b"user-5"), Some(b"")),
        of("missing_user_id", Some(b"\xfe\x01"), Some(b"{\"event_type\":\"task.completed\",\"task_id\":1}")),
        of("unknown_type", Some(b"user-6"), Some(b"{\"event_type\":\"task.exploded\", \"user_id\":\"user-6\",\"task_id\":1}")),
        of(
            "schema",
            Some(b"user-7"),
            Some(b"{ \"event_type\":\"task.created\",\"user_id\":\"user-7\",\"data\":{\"task_id\":1,\"title\":\"\"} }"),
        ),
    ]
}

/// One request that the app answered.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    pub handler: &'static str,
    pub n: usize,
    pub done: bool,
}

struct Notes {
    plan: Arc<Plan>,
    runs: Mutex<Runs>,
    count: AtomicUsize,
}

#[derive(Default)]
struct Runs {
    all: Vec<Run>,
    seen: HashSet<(&'static str, usize)>,
}

/// The app behind both handlers: notes each run in the order of arrival and answers as the plan says.
pub struct Effects {
    notes: Arc<Notes>,
    address: String,
    server: tokio::task::JoinHandle<()>,
}

impl Effects {
    async fn start(plan: Arc<Plan>) -> Self {
        let notes = Arc::new(Notes { plan, runs: Mutex::default(), count: AtomicUsize::new(0) });
        let of = |handler| post(move |State(notes): State<Arc<Notes>>, body: Bytes| async move { notes.answer(handler, &body) });
        let router = axum::Router::new().route("/app", of("app")).route("/points", of("points")).with_state(Arc::clone(&notes));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { notes, address, server }
    }

    /// Requests so far.
    pub fn count(&self) -> usize {
        self.notes.count.load(Ordering::Relaxed)
    }

    /// Every run in order of arrival.
    pub fn runs(&self) -> Vec<Run> {
        self.notes.runs.lock().unwrap().all.clone()
    }
}

impl Drop for Effects {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Notes {
    fn answer(&self, handler: &'static str, body: &[u8]) -> StatusCode {
        let event: Value = serde_json::from_slice(body).expect("a CloudEvent");
        let n = number(&event["data"]).unwrap_or_else(|| panic!("an event of the plan: {event}"));
        assert_eq!(event["type"], self.plan.events[n].event_type, "{event}");
        let mut runs = self.runs.lock().unwrap();
        let first = runs.seen.insert((handler, n));
        let status = match self.plan.events[n].fate {
            _ if handler == "points" => StatusCode::OK,
            Fate::Done => StatusCode::OK,
            Fate::Once if first => StatusCode::SERVICE_UNAVAILABLE,
            Fate::Once => StatusCode::OK,
            Fate::Permanent => StatusCode::UNPROCESSABLE_ENTITY,
            Fate::Exhausted => StatusCode::INTERNAL_SERVER_ERROR,
        };
        runs.all.push(Run { handler, n, done: status == StatusCode::OK });
        drop(runs);
        self.count.fetch_add(1, Ordering::Relaxed);
        status
    }
}

/// A Kafka and a Redis of the job's own, the app, and what is to be done.
pub struct Job {
    pub stack: Stack,
    pub kafka: Kafka,
    pub plan: Arc<Plan>,
    pub app: Effects,
    pub group: String,
}

impl Job {
    /// Topics and app; `None` where there is no stack.
    pub async fn start(plan: Plan) -> Option<Self> {
        let stack = Stack::private(&["kafka", "redis"])?;
        let kafka = stack.kafka();
        for (topic, partitions) in TOPICS.into_iter().chain([("dlq", 3)]) {
            kafka.create_topic(topic, partitions, &[]).await;
        }
        let plan = Arc::new(plan);
        let app = Effects::start(Arc::clone(&plan)).await;
        Some(Self { stack, kafka, plan, app, group: super::unique("job") })
    }

    /// A consumer process of the job's group.
    pub fn consumer(&self) -> Launch {
        let app = &self.app.address;
        let delays = "[\"150ms\", \"300ms\"]";
        Launch::role(
            "consumer",
            &self.stack,
            &self.group,
            &format!(
                "[engine]\nconcurrency = 64\n[dlq]\ntell_users = false\n\
                 [retry.default]\ndelays = {delays}\n[retry.\"task.completed\"]\ndelays = {delays}\n\
                 [retry.\"task.updated\"]\ndelays = {delays}\n[retry.\"reminder.due\"]\ndelays = {delays}\n\
                 [[handlers]]\nname = \"app\"\nkind = \"http\"\nevents = [\"task.*\", \"reminder.due\", \"user.logged_in\"]\nurl = \"http://{app}/app\"\n\
                 [[handlers]]\nname = \"points\"\nkind = \"http\"\nevents = [\"task.completed\"]\nurl = \"http://{app}/points\"\n"
            ),
        )
    }

    /// A producer process that reads its standard input.
    pub fn producer(&self) -> Launch {
        Launch::role("producer", &self.stack, &self.group, "")
    }

    /// Writes what other programs wrote: with headers, and not all of it valid.
    pub async fn poison(&self) {
        for poison in &self.plan.poison {
            self.kafka.produce_raw("task-events", poison.key.as_deref(), poison.value.as_deref(), &POISON_HEADERS).await;
        }
    }

    /// Waits until the app had `count` requests.
    pub async fn reached(&self, count: usize, within: Duration) {
        eventually(&format!("{count} requests"), within, async || (self.app.count() >= count).then_some(())).await;
    }

    /// Waits until the group's commits stand at the end of every topic, and the records there are as many as they must be.
    pub async fn finished(&self, within: Duration) {
        let follower = self.kafka.follower(&self.group);
        let records = (self.plan.written() + self.plan.poison.len()) as i64;
        let topics = TOPICS.map(|(topic, _)| topic);
        let what = format!("all {records} records settled and committed");
        super::eventually_every(Duration::from_millis(250), &what, within, || {
            let follower = follower.clone();
            async move { tokio::task::spawn_blocking(move || follower.at_end(&topics)).await.unwrap().filter(|end| *end == records).map(drop) }
        })
        .await;
    }

    /// Every promise about effects: each event once per handler (`extra`: how many more were found, where that is allowed), each user's in order.
    pub fn judge_effects(&self) -> Extra {
        let runs = self.app.runs();
        let mut seen: HashMap<(&str, usize), (usize, usize)> = HashMap::new();
        let mut last: HashMap<(&str, &str, &str), usize> = HashMap::new();
        let mut extra = Extra::default();
        for run in &runs {
            let event = &self.plan.events[run.n];
            let (all, done) = seen.entry((run.handler, run.n)).or_default();
            *all += 1;
            *done += usize::from(run.done);
            let before = last.insert((run.handler, event.topic, &event.user), run.n).unwrap_or(0);
            assert!(before <= run.n, "{}: event {} of {} came after event {before}", run.handler, run.n, event.user);
        }
        for (n, event) in self.plan.events.iter().enumerate() {
            for &handler in self.plan.handlers(n) {
                let (all, done) = seen.remove(&(handler, n)).unwrap_or_default();
                let wanted = match event.fate {
                    _ if handler == "points" => (1, 1),
                    Fate::Done => (1, 1),
                    Fate::Once => (2, 1),
                    Fate::Permanent => (1, 0),
                    Fate::Exhausted => (RUNS, 0),
                };
                assert!(all >= wanted.0 && done >= wanted.1, "{handler}: event {n} of {} was run {all} times, {done} done", event.user);
                if (all, done) != wanted {
                    extra.events.push((handler, n));
                    extra.runs += all - wanted.0;
                }
            }
        }
        assert!(seen.is_empty(), "nobody asked for {seen:?}");
        extra
    }

    /// The DLQ holds exactly the events that must be there: bytes and headers untouched, ours complete. Answers how many stand there a
    /// second time.
    pub async fn judge_dead_letters(&self) -> usize {
        let dead: BTreeMap<usize, Fate> = self.plan.dead().map(|n| (n, self.plan.events[n].fate)).collect();
        let letters = self.kafka.read_all("dlq").await;
        let mut sources: HashMap<(String, i32, i64), Record> = HashMap::new();
        for (topic, _) in TOPICS {
            sources.extend(
                self.kafka.read_all(topic).await.into_iter().map(|record| ((topic.to_owned(), record.partition, record.offset), record)),
            );
        }
        let (mut by_handler, mut poison, mut places) = (Vec::new(), Vec::new(), HashSet::new());
        for letter in &letters {
            let header = |name: &str| letter.header(name).unwrap_or_else(|| panic!("no {name} in {letter:?}"));
            let number = |name: &str| header(name).parse::<i64>().unwrap();
            let place = (header("x-dlq-source-topic").to_owned(), number("x-dlq-source-partition") as i32, number("x-dlq-source-offset"));
            let source = sources.get(&place).unwrap_or_else(|| panic!("a letter from nowhere: {letter:?}"));
            assert_eq!((&letter.key, &letter.value), (&source.key, &source.value), "bytes untouched");
            let theirs: Vec<_> = letter.headers.iter().filter(|(name, _)| !name.starts_with("x-dlq-")).cloned().collect();
            assert_eq!(theirs, source.headers, "headers untouched");
            assert_eq!(Some(number("x-dlq-source-timestamp")), source.timestamp);
            assert_eq!((header("x-dlq-consumer-group"), header("x-dlq-redrives")), (self.group.as_str(), "0"));
            for name in ["failed-at", "first-failed-at"] {
                chrono::DateTime::parse_from_rfc3339(header(&format!("x-dlq-{name}"))).unwrap();
            }
            assert!(!header("x-dlq-worker").is_empty() && !header("x-dlq-error-class").is_empty() && !header("x-dlq-event-id").is_empty());
            if !places.insert(place) {
                continue;
            }
            let Some(n) = plan_number(source) else {
                assert!(!header("x-dlq-error").is_empty());
                poison.push((header("x-dlq-reason"), source.value.clone()));
                continue;
            };
            let event = &self.plan.events[n];
            let (reason, attempts) = if event.fate == Fate::Permanent { ("permanent", 1) } else { ("exhausted", RUNS as i64) };
            assert_eq!((header("x-dlq-reason"), header("x-dlq-handler")), (reason, "app"), "event {n}");
            // A crash between a run and its record may have cost one more.
            assert_eq!(number("x-dlq-retry-count"), number("x-dlq-attempts") - 1);
            assert!(number("x-dlq-attempts") >= attempts, "event {n}: {letter:?}");
            assert_eq!((header("x-dlq-event-type"), header("x-dlq-user-id")), (event.event_type, event.user.as_str()));
            by_handler.push(n);
        }
        by_handler.sort_unstable();
        assert_eq!(by_handler, dead.into_keys().collect::<Vec<_>>(), "the events that had to die");
        let mut wanted: Vec<_> = self.plan.poison.iter().map(|poison| (poison.reason, poison.value.clone().map(Into::into))).collect();
        poison.sort();
        wanted.sort();
        assert_eq!(poison, wanted);
        letters.len() - places.len()
    }

    /// What a consumer says of itself at the end.
    pub async fn judge_books(&self, consumers: &[Worker]) -> Books {
        let mut books = Books::default();
        for consumer in consumers {
            let metrics = consumer.metrics().await;
            assert_eq!(metrics.sum("worker_conservation_error", &[]), 0.0);
            assert_eq!(metrics.sum("worker_held_events", &[]), 0.0);
            let settled = |outcome| metrics.sum("worker_events_settled_total", &[("outcome", outcome)]) as usize;
            books.done += settled("done");
            books.duplicate += settled("duplicate");
            books.dead += settled("dead");
        }
        books
    }
}

/// Runs beyond those that had to be.
#[derive(Debug, Default)]
pub struct Extra {
    pub events: Vec<(&'static str, usize)>,
    pub runs: usize,
}

/// Settled events by outcome.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Books {
    pub done: usize,
    pub duplicate: usize,
    pub dead: usize,
}

const POISON_HEADERS: [(&str, Option<&[u8]>); 4] = [
    ("traceparent", Some(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")),
    ("x-binary", Some(b"\x00\xff")),
    ("x-none", None),
    ("x-app", Some(b"legacy")),
];

/// Where a record stands in the plan; `None`: other programs wrote it.
fn plan_number(record: &Record) -> Option<usize> {
    number(&serde_json::from_slice(record.value.as_deref()?).ok()?).filter(|_| record.header("x-app").is_none())
}

/// `n`, where the shape has room for it.
fn number(event: &Value) -> Option<usize> {
    event["data"]["n"].as_u64().or_else(|| event["n"].as_u64()).map(|n| n as usize)
}
