//! `worker dlq` and the alert webhook, with the built binary on a real Kafka and Redis.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::{Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    stack_or_skip,
    support::{
        app::{Answer, App},
        kafka::{Kafka, Record},
        stack::Stack,
        unique,
        worker::Launch,
    },
};

const LONG: Duration = Duration::from_secs(30);

/// Topics and group of one test.
struct Place {
    stack: Stack,
    kafka: Kafka,
    name: String,
    source: String,
    dlq: String,
}

impl Place {
    async fn new(stack: Stack, dlq_config: &[(&str, &str)]) -> Self {
        let (kafka, name) = (stack.kafka(), unique("dlq"));
        let (source, dlq) = (format!("{name}-events"), format!("{name}-dead"));
        kafka.create_topic(&source, 2, &[]).await;
        kafka.create_topic(&dlq, 2, dlq_config).await;
        Self { stack, kafka, name, source, dlq }
    }

    /// A consumer of the source topic with no retries and the named handlers behind `app`.
    fn consumer(&self, app: &App, handlers: &[&str], more: &str) -> Launch {
        let mut toml = format!(
            "kafka.topics = [\"{}\"]\ndlq.topic = \"{}\"\ncatalog.validate = false\nretry.default.delays = []\n{more}\n",
            self.source, self.dlq
        );
        for name in handlers {
            toml += &format!("[[handlers]]\nname = \"{name}\"\nkind = \"http\"\nurl = \"{}\"\n", app.url(&format!("/{name}")));
        }
        Launch::role("consumer", &self.stack, &self.name, &toml)
    }

    fn command(&self, args: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_worker"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("WORKER_")) {
            command.env_remove(name);
        }
        command.env("WORKER_APP_ID", &self.name).env("WORKER_KAFKA__BROKERS", self.stack.brokers()).env("WORKER_DLQ__TOPIC", &self.dlq);
        command.arg("dlq").args(args).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    async fn dlq_output(&self, args: &[&str]) -> Output {
        self.command(args).output().await.unwrap()
    }

    /// `worker dlq ..`, which must end well: its stdout.
    async fn dlq(&self, args: &[&str]) -> String {
        let output = self.dlq_output(args).await;
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// As [`Place::dlq`], with `-o ndjson`.
    async fn lines(&self, args: &[&str]) -> Vec<Value> {
        let text = self.dlq(&[args, &["-o", "ndjson"]].concat()).await;
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// How often each outcome came.
    async fn redrive(&self, args: &[&str]) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for line in self.lines(&[&["redrive"], args].concat()).await {
            *counts.entry(line["outcome"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        counts
    }

    async fn publish(&self, id: &str, user: &str) {
        self.kafka.produce(&self.source, user, event(id, user).as_bytes(), &[("tenant", "t1")]).await;
    }

    /// A letter as the engine writes it.
    async fn letter(&self, id: &str, user: &str, reason: &str, handler: &str, redrives: &str) {
        let headers = [
            ("tenant", "t1"),
            ("x-dlq-reason", reason),
            ("x-dlq-error", "connection refused"),
            ("x-dlq-attempts", "4"),
            ("x-dlq-retry-count", "3"),
            ("x-dlq-failed-at", "2026-01-02T03:04:05.000Z"),
            ("x-dlq-event-id", id),
            ("x-dlq-event-type", "task.created"),
            ("x-dlq-user-id", user),
            ("x-dlq-handler", handler),
            ("x-dlq-source-topic", &self.source),
            ("x-dlq-source-partition", "0"),
            ("x-dlq-source-offset", "0"),
            ("x-dlq-redrives", redrives),
        ];
        self.kafka.produce(&self.dlq, user, event(id, user).as_bytes(), &headers).await;
    }
}

fn event(id: &str, user: &str) -> String {
    json!({ "event_type": "task.created", "event_id": id, "user_id": user, "data": { "task_id": 1, "title": "t" } }).to_string()
}

fn counts(pairs: &[(&str, usize)]) -> BTreeMap<String, usize> {
    pairs.iter().map(|(code, count)| ((*code).to_owned(), *count)).collect()
}

fn ids(records: &[Record]) -> Vec<String> {
    records.iter().map(|record| record.json()["event_id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redriven_event_passes_the_ledger_once_and_reaches_the_failed_handler_alone() {
    let place = Place::new(stack_or_skip!(Stack::shared()), &[]).await;
    let mended = Arc::new(AtomicBool::new(false));
    let is_mended = Arc::clone(&mended);
    let app = App::start(move |delivery| {
        let stays_bad = String::from_utf8_lossy(&delivery.body).contains("hopeless");
        let fails = delivery.path == "/bad" && (stays_bad || !is_mended.load(Ordering::SeqCst));
        Answer::status(if fails { 400 } else { 200 })
    })
    .await;
    let mut worker = place.consumer(&app, &["good", "bad"], "").start_ready().await;
    for (id, user) in [("e1", "u1"), ("e2", "u2"), ("hopeless", "u3")] {
        place.publish(id, user).await;
    }
    place.kafka.wait_for_records(&place.dlq, 3, LONG).await;
    mended.store(true, Ordering::SeqCst);

    assert_eq!(place.redrive(&[]).await, counts(&[("would_send", 3)]), "without --execute nothing is sent");
    assert_eq!(place.kafka.read_all(&place.source).await.len(), 3);

    assert_eq!(place.redrive(&["--execute", "--user", "u1"]).await, counts(&[("sent", 1)]));
    app.wait_for(7, LONG).await;
    assert_eq!(place.redrive(&["--execute", "--user", "u1"]).await, counts(&[("already_sent", 1)]));
    assert_eq!(place.redrive(&["--execute", "--type", "task.*"]).await, counts(&[("already_sent", 1), ("sent", 2)]));

    let letters = place.kafka.wait_for_records(&place.dlq, 4, LONG).await;
    let back: Vec<_> = letters.iter().filter(|letter| letter.header("x-dlq-redrives") == Some("1")).collect();
    assert_eq!(back.len(), 1);
    assert_eq!((back[0].json()["event_id"].as_str(), back[0].header("x-dlq-handler")), (Some("hopeless"), Some("bad")));
    assert_eq!((back[0].key_text(), back[0].header("tenant")), ("u3", Some("t1")));
    worker.wait_for_metric("worker_events_settled_total", &[("outcome", "done")], LONG, |done| done == 2.0).await;
    assert_eq!(worker.terminate(LONG).await, Some(0));

    let mut runs: BTreeMap<(String, String), usize> = BTreeMap::new();
    for delivery in app.deliveries() {
        let body = delivery.json();
        let id = body["id"].as_str().or_else(|| body["event_id"].as_str()).unwrap().to_owned();
        *runs.entry((id, delivery.path)).or_default() += 1;
    }
    for id in ["e1", "e2", "hopeless"] {
        let of = |path: &str| runs[&(id.to_owned(), path.to_owned())];
        assert_eq!((of("/good"), of("/bad")), (1, 2), "{id}: {runs:?}");
    }
    // The copy of the letter that came back may go once more with a limit of 2, and with 1 it stays.
    assert_eq!(place.redrive(&["--max-redrives", "1", "--id", "hopeless"]).await, counts(&[("already_sent", 1), ("refused", 1)]));
    assert_eq!(place.redrive(&["--max-redrives", "2", "--id", "hopeless"]).await, counts(&[("already_sent", 1), ("would_send", 1)]));
    let shown: Value = serde_json::from_str(&place.dlq(&["show", "hopeless", "-o", "json"]).await).unwrap();
    assert_eq!(shown["redrives"], 1);
    assert_eq!(shown["history"].as_array().unwrap().iter().map(|pass| pass["redrives"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_reason_and_every_form_is_counted_listed_shown_and_exported() {
    let place = Place::new(stack_or_skip!(Stack::shared()), &[]).await;
    let reasons = [
        "exhausted",
        "permanent",
        "undecodable",
        "schema",
        "missing_user_id",
        "unknown_type",
        "crash_loop",
        "user_overflow",
        "oversize",
        "handler_gone",
    ];
    for (n, reason) in reasons.iter().enumerate() {
        place.letter(&format!("e{n}"), &format!("u{n}"), reason, if n % 2 == 0 { "a" } else { "a,b" }, "0").await;
    }
    let of_dapr = [("__topic", place.source.as_str()), ("__partition", "1"), ("__offset", "5"), ("__key", "u20"), ("pubsubName", "p")];
    place.kafka.produce(&place.dlq, "u20", event("d1", "u20").as_bytes(), &of_dapr).await;
    let mut failed: Value = serde_json::from_str(&event("f1", "u21")).unwrap();
    failed["dlq_metadata"] = json!({ "failed_at": "2026-01-02T03:04:05Z", "error": "smtp refused", "retry_count": 3 });
    place.kafka.produce(&place.dlq, "u21", failed.to_string().as_bytes(), &[]).await;
    let (partition, offset) = place.kafka.produce(&place.dlq, "u22", &[0xff, 0xfe], &[("x-dlq-reason", "undecodable")]).await;

    let stats: Value = serde_json::from_str(&place.dlq(&["stats", "-o", "json"]).await).unwrap();
    assert_eq!(stats["count"], 13);
    let groups = stats["groups"].as_array().unwrap();
    let of =
        |reason: &str| groups.iter().filter(|group| group["reason"] == reason).map(|group| group["count"].as_u64().unwrap()).sum::<u64>();
    assert_eq!(reasons.map(of), [2, 1, 2, 1, 1, 1, 1, 1, 1, 1]);
    let crash = groups.iter().find(|group| group["reason"] == "crash_loop").unwrap();
    assert_eq!((&crash["handler"], &crash["oldest"]), (&json!("a"), &json!("2026-01-02T03:04:05.000Z")));

    let listed = async |args: &[&str]| -> Vec<String> {
        let mut found: Vec<_> =
            place.lines(&[&["ls"], args].concat()).await.iter().map(|line| line["event_id"].as_str().unwrap().to_owned()).collect();
        found.sort();
        found
    };
    assert_eq!(listed(&[]).await.len(), 13);
    assert_eq!(listed(&["--reason", "schema", "--reason", "oversize"]).await, ["e3", "e8"]);
    assert_eq!(listed(&["--user", "u20"]).await, ["d1"]);
    assert_eq!(listed(&["--handler", "b", "--until", "2026-01-02T03:04:06Z"]).await, ["e1", "e3", "e5", "e7", "e9"]);
    assert_eq!(listed(&["--error", "SMTP"]).await, ["f1"]);
    assert_eq!(listed(&["--since", "1h", "--type", "task.*"]).await, ["d1"], "the one that has no time but its record's");
    assert_eq!(listed(&["--limit", "3"]).await.len(), 3);
    let array: Vec<Value> = serde_json::from_str(&place.dlq(&["ls", "-o", "json", "--type", "task.created"]).await).unwrap();
    assert_eq!(array.len(), 12);
    let table = place.dlq(&["ls"]).await;
    assert!(table.starts_with("AT ") && table.lines().count() == 14, "{table}");

    let shown: Value = serde_json::from_str(&place.dlq(&["show", "f1", "-o", "json"]).await).unwrap();
    assert_eq!(
        (&shown["event"]["event_id"], &shown["dlq_metadata"]["error"], &shown["event"]["dlq_metadata"]),
        (&json!("f1"), &json!("smtp refused"), &Value::Null)
    );
    let text = place.dlq(&["show", "e0"]).await;
    assert!(text.contains("connection refused") && text.contains("x-dlq-source-topic") && text.contains("\"title\": \"t\""), "{text}");
    let missing = place.dlq_output(&["show", "nobody"]).await;
    assert_eq!(missing.status.code(), Some(1));

    let exported = place.dlq(&["export"]).await;
    let lines: Vec<Value> = exported.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 13);
    let raw = lines.iter().find(|line| line["dlq"]["partition"] == partition && line["dlq"]["offset"] == offset).unwrap();
    assert_eq!(raw["value_base64"], "//4=");
    let dapr = lines.iter().find(|line| line["event_id"] == "d1").unwrap();
    assert_eq!((dapr["value"].as_str(), &dapr["source"]["offset"]), (Some(event("d1", "u20").as_str()), &json!(5)));

    assert_eq!(place.redrive(&["--execute", "--id", "d1"]).await, counts(&[("sent", 1)]), "a sidecar's letter goes back too");
    let copy = &place.kafka.wait_for_records(&place.source, 1, LONG).await[0];
    assert_eq!(copy.headers, [("x-dlq-redrives".to_owned(), Some("1".into()))]);
    assert_eq!((copy.key_text(), copy.value.as_deref()), ("u20", Some(event("d1", "u20").as_bytes())));
}

/// A letter whose value was too big for the DLQ comes back as what stands at its source (F69).
#[tokio::test(flavor = "multi_thread")]
async fn a_stub_comes_back_as_the_original() {
    let place = Place::new(stack_or_skip!(Stack::shared()), &[("max.message.bytes", "4000")]).await;
    let failed = AtomicBool::new(false);
    let app = App::start(move |_| Answer::status(if failed.swap(true, Ordering::SeqCst) { 200 } else { 400 })).await;
    let mut worker = place.consumer(&app, &["app"], "").start_ready().await;
    let mut big: Value = serde_json::from_str(&event("big", "u1")).unwrap();
    big["data"]["description"] = (0..500).map(|_| uuid::Uuid::new_v4().to_string()).collect::<String>().into();
    place.kafka.produce(&place.source, "u1", big.to_string().as_bytes(), &[("tenant", "t1")]).await;
    let stub = &place.kafka.wait_for_records(&place.dlq, 1, LONG).await[0];
    assert_eq!((stub.header("x-dlq-reason"), stub.value.as_deref()), (Some("oversize"), Some(&b""[..])));

    assert_eq!(place.redrive(&["--execute"]).await, counts(&[("sent", 1)]));
    let records = place.kafka.wait_for_records(&place.source, 2, LONG).await;
    assert_eq!(records[0].value, records[1].value);
    assert_eq!((records[1].header("tenant"), records[1].header("x-dlq-handler")), (Some("t1"), Some("app")));
    worker.wait_for_metric("worker_events_settled_total", &[("outcome", "done")], LONG, |done| done == 1.0).await;
    assert_eq!(worker.terminate(LONG).await, Some(0));
}

/// What was acknowledged before a kill is not sent again, but for the window that was not noted yet.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_redrive_goes_on_where_it_was() {
    const LETTERS: usize = 200;
    const WINDOW: usize = 10;
    let place = Place::new(stack_or_skip!(Stack::shared()), &[]).await;
    for n in 0..LETTERS {
        place.letter(&format!("e{n}"), &format!("u{}", n % 7), "exhausted", "app", "0").await;
    }
    let mut killed =
        place.command(&["redrive", "--execute", "--rate", "100/s"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    place.kafka.wait_for_records(&place.source, 40, LONG).await;
    killed.kill().await.unwrap();
    let before = place.kafka.read_all(&place.source).await.len();
    assert!(before < LETTERS, "it was killed in the middle");

    let outcomes = place.redrive(&["--execute", "--rate", "1000/s"]).await;
    let records = place.kafka.read_all(&place.source).await;
    let distinct: BTreeSet<_> = ids(&records).into_iter().collect();
    assert_eq!(distinct.len(), LETTERS, "none is lost");
    assert!(records.len() <= LETTERS + WINDOW, "{} copies of {LETTERS}", records.len());
    assert!(outcomes["already_sent"] + WINDOW >= before, "{outcomes:?} after {before}");
    assert!(records.iter().all(|record| record.header("x-dlq-redrives") == Some("1")), "a repeated copy is the ledger's duplicate");

    assert_eq!(place.redrive(&["--execute"]).await, counts(&[("already_sent", LETTERS)]));
    assert_eq!(place.redrive(&["--execute", "--again", "--limit", "5", "--rate", "1000"]).await, counts(&[("sent", 5)]));
    let again = place.kafka.read_all(&place.source).await;
    assert_eq!(again.len(), records.len() + 5);
    assert_eq!(again.iter().filter(|record| record.header("x-dlq-redrives") == Some("2")).count(), 5, "no duplicate for the ledger");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_cannot_be_sent_fails_the_run_and_not_the_others() {
    let place = Place::new(stack_or_skip!(Stack::shared()), &[]).await;
    place.letter("e1", "u1", "exhausted", "app", "0").await;
    let gone = unique("no-such-topic");
    place.kafka.produce(&place.dlq, "u2", event("e2", "u2").as_bytes(), &[("x-dlq-reason", "schema"), ("x-dlq-source-topic", &gone)]).await;
    let output = place.dlq_output(&["redrive", "--execute", "-o", "ndjson"]).await;
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<Value> = String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut outcomes: Vec<_> = lines.iter().map(|line| (line["user_id"].as_str().unwrap(), line["outcome"].as_str().unwrap())).collect();
    outcomes.sort_unstable();
    assert_eq!(outcomes, [("", "failed"), ("u1", "sent")]);
    assert_eq!(place.redrive(&[]).await, counts(&[("already_sent", 1), ("would_send", 1)]), "the failed one is still to be sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_are_told_of_dead_letters_at_most_once_a_minute_per_kind() {
    let place = Place::new(stack_or_skip!(Stack::shared()), &[]).await;
    let app = App::start(|_| Answer::status(400)).await;
    let operations = App::start(|_| Answer::status(204)).await;
    let hook = format!("dlq.alert_webhook = \"{}\"\ndlq.breaker_ratio = 1.0", operations.url("/hook"));
    let mut worker = place.consumer(&app, &["app"], &hook).start_ready().await;
    for n in 0..20 {
        place.publish(&format!("e{n}"), &format!("u{n}")).await;
    }
    let first = operations.wait_for(1, LONG).await[0].json();
    assert_eq!(
        (&first["kind"], &first["event_type"], &first["reason"]),
        (&json!("dead_letter"), &json!("task.created"), &json!("permanent"))
    );
    assert_eq!((&first["handlers"], &first["source"]["topic"]), (&json!("app"), &json!(place.source)));
    worker.wait_for_metric("worker_dead_letters_total", &[("reason", "permanent")], LONG, |dead| dead == 20.0).await;
    assert_eq!(operations.deliveries().len(), 1, "the rest of the minute is summed up");
    assert_eq!(worker.terminate(LONG).await, Some(0));
    let told: Vec<_> = operations.deliveries().iter().map(|message| message.json()["count"].as_u64().unwrap()).collect();
    assert_eq!((told.len(), told.iter().sum::<u64>()), (2, 20), "what was held back is told at the end");
}

/// Every copy has its line, and every line its copy, also where a person stops the run.
#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_ends_a_redrive_with_everything_told_and_noted() {
    const LETTERS: usize = 100;
    let place = Place::new(stack_or_skip!(Stack::shared()), &[]).await;
    for n in 0..LETTERS {
        place.letter(&format!("e{n}"), "u1", "exhausted", "app", "0").await;
    }
    let running = place.command(&["redrive", "--execute", "--rate", "20/s", "-o", "ndjson"]).stdout(Stdio::piped()).spawn().unwrap();
    place.kafka.wait_for_records(&place.source, 10, LONG).await;
    let pid = running.id().unwrap();
    assert!(std::process::Command::new("sh").args(["-c", &format!("kill -INT {pid}")]).status().unwrap().success());
    let output = running.wait_with_output().await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stdout).unwrap().lines().filter(|line| line.contains("\"outcome\":\"sent\"")).count();
    assert!((10..LETTERS).contains(&told), "{told}");
    assert_eq!(place.kafka.read_all(&place.source).await.len(), told);
    assert_eq!(place.redrive(&["--execute", "--rate", "1000"]).await, counts(&[("already_sent", told), ("sent", LETTERS - told)]));
    assert_eq!(place.kafka.read_all(&place.source).await.len(), LETTERS);
}
