//! NDJSON through the ingest loop, with a publisher that does what the test says.

use std::{io::Cursor, sync::Arc};

use serde_json::json;
use worker::{
    engine::ports::PublishError,
    event::Catalog,
    publish::Publishing,
    roles::{
        ingest::{Stopped, Summary, Told, ingest},
        input::Opened,
    },
    shutdown::Shutdown,
    telemetry::Metrics,
};

use crate::support::{config, publisher::FakePublisher};

fn updated(user: &str, task: usize) -> String {
    json!({"event_id": format!("{user}-{task}"), "event_type": "task.updated", "user_id": user, "task_id": task}).to_string()
}

/// The summary, and each rejected line with its reason.
async fn run(publisher: &Arc<FakePublisher>, text: String, shutdown: &Shutdown) -> (Summary, Vec<(u64, String)>) {
    let catalog = Arc::new(Catalog::embedded().unwrap());
    let publishing = Publishing::new(&config(&[]), catalog, publisher.clone(), Metrics::new("producer"));
    let lines = Opened::from_reader(Cursor::new(text.into_bytes())).lines().unwrap();
    let mut rejected = Vec::new();
    let mut tell = |told: Told<'_>| {
        if let Told::Rejected(line, reason, _) = told {
            rejected.push((line, reason.to_owned()));
        }
    };
    let summary = ingest(&publishing, None, lines, shutdown, &mut tell).await;
    (summary, rejected)
}

#[tokio::test]
async fn every_line_is_published_in_order() {
    let publisher = FakePublisher::new();
    let lines: Vec<_> = (0..30_000).map(|task| updated(&format!("user-{}", task % 7), task)).collect();
    let (summary, rejected) = run(&publisher, lines.join("\n"), &Shutdown::new()).await;
    assert_eq!((summary.read, summary.stored(), rejected.len()), (30_000, 30_000, 0));
    assert!(summary.is_success(false));
    let keys: Vec<_> = publisher.queued().iter().map(|message| message.key.clone().unwrap()).collect();
    let expected: Vec<_> = (0..30_000).map(|task| format!("user-{}", task % 7)).collect();
    assert_eq!(keys, expected);
}

#[tokio::test]
async fn a_bad_line_is_told_by_number_and_reason_and_stops_no_other() {
    let publisher = FakePublisher::new();
    let text = format!("{}\n\nnot json\n{{\"event_type\":\"task.updated\"}}\n{}\n", updated("a", 1), updated("b", 2));
    let (summary, rejected) = run(&publisher, text, &Shutdown::new()).await;
    assert_eq!(rejected, [(3, "undecodable".to_owned()), (4, "missing_user_id".to_owned())]);
    assert_eq!((summary.read, summary.stored(), summary.rejected), (4, 2, 2));
    assert!(!summary.is_success(false));
    assert!(summary.is_success(true));
}

#[tokio::test]
async fn a_full_queue_holds_the_input_back_and_loses_and_reorders_nothing() {
    let publisher = FakePublisher::new();
    publisher.answer((0..200).map(|n| (n % 3 != 0).then_some(PublishError::QueueFull)));
    let lines: Vec<_> = (0..100).map(|task| updated("u", task)).collect();
    let (summary, _) = run(&publisher, lines.join("\n"), &Shutdown::new()).await;
    assert_eq!((summary.stored(), summary.not_stored), (100, 0));
    let ids: Vec<_> = publisher
        .queued()
        .iter()
        .map(|message| serde_json::from_slice::<serde_json::Value>(message.value.as_ref().unwrap()).unwrap()["event_id"].clone())
        .collect();
    assert_eq!(ids, (0..100).map(|task| json!(format!("u-{task}"))).collect::<Vec<_>>());
}

#[tokio::test]
async fn brokers_that_stay_away_stop_the_input_and_the_summary_says_what_is_not_stored() {
    let publisher = FakePublisher::new();
    publisher.answer([None, None, Some(PublishError::Unreachable("timed out".to_owned()))]);
    let lines: Vec<_> = (0..100_000).map(|task| updated("u", task)).collect();
    let (summary, _) = run(&publisher, lines.join("\n"), &Shutdown::new()).await;
    assert!(matches!(summary.stopped, Some(Stopped::Brokers(_))));
    assert_eq!((summary.not_stored, summary.first_not_stored), (1, Some(3)));
    assert!(summary.read < 100_000 && summary.stored() + summary.not_stored == summary.read);
    assert!(!summary.is_success(true), "--partial-ok is about lines, not about brokers");
    assert!(summary.to_string().contains("the first line that is not stored is 3"), "{summary}");
}

#[tokio::test]
async fn a_record_that_the_brokers_refuse_for_good_is_a_rejected_line() {
    let publisher = FakePublisher::new();
    publisher.answer([Some(PublishError::TooLarge), None]);
    let (summary, rejected) = run(&publisher, format!("{}\n{}", updated("u", 1), updated("u", 2)), &Shutdown::new()).await;
    assert_eq!(rejected, [(1, "too_large".to_owned())]);
    assert_eq!((summary.stored(), summary.rejected, summary.not_stored), (1, 1, 0));
}

#[tokio::test]
async fn a_missing_topic_is_not_the_lines_fault_and_stops_the_input() {
    let publisher = FakePublisher::new();
    publisher.answer([Some(PublishError::TopicMissing("task-events".to_owned())), None]);
    let (summary, rejected) = run(&publisher, format!("{}\n{}", updated("u", 1), updated("u", 2)), &Shutdown::new()).await;
    assert_eq!((rejected.len(), summary.read, summary.not_stored, summary.stored()), (0, 1, 1, 0));
    assert!(!summary.is_success(true));
    assert!(matches!(summary.stopped, Some(Stopped::Brokers(_))), "no later line would fare better");
    assert!(summary.to_string().contains("worker topics apply"), "{summary}");
}

#[tokio::test]
async fn a_signal_stops_reading_and_what_is_in_flight_is_waited_for() {
    let publisher = FakePublisher::new();
    let shutdown = Shutdown::new();
    shutdown.drain();
    let (summary, _) = run(&publisher, updated("u", 1), &shutdown).await;
    assert_eq!((summary.stopped, summary.read), (Some(Stopped::Signal), 0));
}
