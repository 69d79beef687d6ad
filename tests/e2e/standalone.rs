//! Both roles in one process: on the embedded broker, with nothing installed, and on a real one.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::Value;

use crate::{
    stack_or_skip,
    support::{
        app::{Answer, App},
        stack::Stack,
        unique,
        worker::{Launch, Worker},
    },
};

const LONG: Duration = Duration::from_secs(60);

fn config(app: &App, more: &str) -> String {
    format!("{more}\n[[handlers]]\nname = \"app\"\nkind = \"http\"\nurl = \"{}\"\n", app.url("/"))
}

fn event(user: &str, n: usize, pad: usize) -> String {
    format!(
        "{{\"event_id\":\"{user}-{n}\",\"event_type\":\"task.completed\",\"user_id\":\"{user}\",\"task_id\":{n},\"pad\":\"{}\"}}",
        "x".repeat(pad)
    )
}

async fn post(worker: &Worker, query: &str, body: String) -> reqwest::Response {
    reqwest::Client::new().post(worker.publish_url(&format!("/events{query}"))).body(body).send().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn on_the_embedded_broker_an_event_is_published_handled_and_deduplicated_with_nothing_installed() {
    let app = App::start(|_| Answer::status(200)).await;
    let mut worker = Launch::bare("standalone", &config(&app, "")).start_ready().await;
    for _ in 0..2 {
        let answer = post(&worker, "", event("user-1", 1, 0)).await;
        assert_eq!(answer.status(), 202);
        let answer: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        assert_eq!((&answer["accepted"], &answer["events"][0]["topic"]), (&1.into(), &"task-events".into()));
    }
    worker.wait_for_metric("worker_events_settled_total", &[("outcome", "duplicate")], LONG, |sum| sum == 1.0).await;
    assert_eq!(app.deliveries().len(), 1);
    let log = worker.log();
    assert!(log.contains("what is published ends with it") && log.contains("are forgotten with this process"), "{log}");
    assert!(log.contains("5 MiB"), "how much it keeps: {log}");
    assert_eq!(worker.terminate(LONG).await, Some(0));
}

/// The embedded broker drops a partition's oldest records without a word. One user's events all go to one partition, and none is settled.
#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_broker_refuses_with_429_before_it_could_drop_an_unsettled_event() {
    let healed = Arc::new(AtomicBool::new(false));
    let heal = Arc::clone(&healed);
    let app = App::start(move |_| Answer::status(if healed.load(Ordering::SeqCst) { 200 } else { 503 })).await;
    let forever = vec!["\"400ms\""; 250].join(", ");
    let retry = format!("[retry.default]\ndelays = [{forever}]\n[retry.\"task.completed\"]\ndelays = [{forever}]\n");
    let worker = Launch::bare("standalone", &config(&app, &retry)).start_ready().await;
    let mut accepted = 0;
    let refused = loop {
        let answer = post(&worker, "", event("user-1", accepted, 50_000)).await;
        if answer.status() != 202 {
            break answer;
        }
        accepted += 1;
        assert!(accepted < 200, "10 MB of unsettled events were taken for one partition that keeps 5 MiB");
    };
    assert_eq!(refused.status(), 429);
    assert!(refused.headers().contains_key("retry-after"));
    assert!(accepted > 50, "most of the 5 MiB can be used: {accepted}");

    heal.store(true, Ordering::SeqCst);
    worker.wait_for_metric("worker_events_settled_total", &[("outcome", "done")], LONG, |sum| sum == accepted as f64).await;
    let handled: BTreeSet<_> = app.deliveries().iter().map(|delivery| delivery.headers["idempotency-key"].clone()).collect();
    assert_eq!(handled, (0..accepted).map(|n| format!("user-1-{n}")).collect(), "whatever was accepted was handled");
    // Once the commit has freed room, there is a yes again.
    crate::support::eventually("room", LONG, async || {
        (post(&worker, "", event("user-1", accepted, 50_000)).await.status() == 202).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_real_broker_and_redis_both_roles_run_in_one_process() {
    let stack = stack_or_skip!(Stack::shared());
    let (kafka, topic, group) = (stack.kafka(), unique("standalone"), unique("group"));
    kafka.create_topic(&topic, 3, &[]).await;
    let app = App::start(|_| Answer::status(200)).await;
    let toml = config(&app, &format!("[kafka]\ntopics = [\"{topic}\"]"));
    let mut worker = Launch::role("standalone", &stack, &group, &toml).start_ready().await;
    for n in 0..20 {
        assert_eq!(post(&worker, &format!("?topic={topic}"), event(&format!("user-{}", n % 5), n, 0)).await.status(), 202);
    }
    app.wait_for(20, LONG).await;
    kafka.wait_until_committed(&group, &topic, LONG).await;
    assert_eq!(app.deliveries().len(), 20);
    assert!(!worker.log().contains("ends with it"), "nothing is lost here: {}", worker.log());
    assert_eq!(worker.terminate(LONG).await, Some(0));
}

/// Every metric of the outside contract, with its type, from the first scrape on.
#[tokio::test(flavor = "multi_thread")]
async fn every_role_shows_every_metric_of_the_contract() {
    const NAMES: &[(&str, &str)] = &[
        ("worker_build_info", "gauge"),
        ("worker_events_consumed_total", "counter"),
        ("worker_events_settled_total", "counter"),
        ("worker_handler_runs_total", "counter"),
        ("worker_handler_duration_seconds", "histogram"),
        ("worker_event_latency_seconds", "histogram"),
        ("worker_retries_scheduled_total", "counter"),
        ("worker_events_waiting_retry", "gauge"),
        ("worker_users_blocked", "gauge"),
        ("worker_dead_letters_total", "counter"),
        ("worker_dead_letter_failures_total", "counter"),
        ("worker_dlq_breaker_open", "gauge"),
        ("worker_consumer_lag_records", "gauge"),
        ("worker_consumer_lag_seconds", "gauge"),
        ("worker_held_events", "gauge"),
        ("worker_held_bytes", "gauge"),
        ("worker_spilled_events", "gauge"),
        ("worker_commits_total", "counter"),
        ("worker_commit_map_chars", "gauge"),
        ("worker_commit_map_overflows_total", "counter"),
        ("worker_assigned_partitions", "gauge"),
        ("worker_rebalances_total", "counter"),
        ("worker_store_up", "gauge"),
        ("worker_store_errors_total", "counter"),
        ("worker_store_duration_seconds", "histogram"),
        ("worker_published_total", "counter"),
        ("worker_publish_duration_seconds", "histogram"),
        ("worker_schedule_ticks_total", "counter"),
        ("worker_schedule_lateness_seconds", "histogram"),
        ("worker_conservation_error", "gauge"),
    ];
    let stack = stack_or_skip!(Stack::shared());
    let topic = unique("metrics");
    stack.kafka().create_topic(&topic, 1, &[]).await;
    let handler = format!("[kafka]\ntopics = [\"{topic}\"]\n[[handlers]]\nname = \"log\"\nkind = \"log\"\n");
    for (role, toml) in [("consumer", handler.as_str()), ("producer", "")] {
        let worker = Launch::role(role, &stack, &unique("metrics"), toml).start_ready().await;
        let (status, text) = worker.get("/metrics").await.unwrap();
        assert_eq!(status, 200);
        for (name, kind) in NAMES {
            assert!(text.contains(&format!("# TYPE {name} {kind}\n")), "{role}: {name}, a {kind}: {text}");
        }
        assert_eq!(worker.metrics().await.sum("worker_build_info", &[("role", role)]), 1.0);
    }
}
