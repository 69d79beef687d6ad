//! The `points` handler with a publisher that does what the test says; accounts in memory.

use std::{sync::Arc, time::Duration};

use futures_util::future::{BoxFuture, FutureExt};
use serde_json::{Value, json};
use worker::{
    engine::ports::PublishError,
    event::ids,
    outcome::{Failure, Handled},
    store::accounts::{AccountStore, MemoryAccounts},
};

use crate::{
    account_contract::AccountBench,
    support::{job::Job, publisher::FakePublisher},
};

struct Memory(Arc<MemoryAccounts>);

impl AccountBench for Memory {
    fn stores(&self) -> [Arc<dyn AccountStore>; 2] {
        [Arc::clone(&self.0) as _, Arc::clone(&self.0) as _]
    }

    fn pass(&self, time: Duration) -> BoxFuture<'_, ()> {
        tokio::time::advance(time).boxed()
    }
}

async fn empty() -> Option<Memory> {
    Some(Memory(Arc::default()))
}

crate::account_contract!(tokio::test(start_paused = true), empty);

fn completed(user: &str, id: &str, day: u32, data: Value) -> Value {
    json!({ "event_id": id, "event_type": "task.completed", "user_id": user, "task_id": 7, "timestamp": format!("2026-03-{day:02}T23:30:00Z"),
            "data": data })
}

#[tokio::test]
async fn a_completed_task_earns_points_and_days_in_a_row_earn_more() {
    let job = Job::new(r#"{name = "points", kind = "points"}"#).await;
    for (id, day) in [("a", 1), ("b", 2), ("c", 2), ("d", 3)] {
        assert_eq!(job.handle(&completed("ada", id, day, json!({}))).await, Ok(Handled::Done));
    }
    let told = job.published();
    assert_eq!(
        told[0],
        json!({
            "event_id": ids::of_effect("a", "points.awarded").to_string(), "event_type": "points.awarded", "event_version": "1.0",
            "timestamp": "2026-03-01T23:30:00Z", "source": "todo-worker", "metadata": { "correlation_id": "a", "causation_id": "a" },
            "data": { "points": 10, "reason": "task_completed", "total": 10, "parts": [{ "reason": "task_completed", "points": 10 }],
                      "streak_days": 1, "task_id": 7, "user_id": "ada" },
        })
    );
    let figures: Vec<_> =
        told.iter().map(|event| ["points", "total", "streak_days"].map(|name| event["data"][name].as_i64().unwrap())).collect();
    assert_eq!(figures, [[10, 10, 1], [12, 22, 2], [10, 32, 2], [14, 46, 3]]);
    assert!(job.publisher.queued().iter().all(|message| &*message.topic == "user-events" && message.key.as_deref() == Some(b"ada")));
}

#[tokio::test]
async fn an_event_that_is_handled_again_earns_the_same_points_and_nothing_more() {
    let job = Job::new(r#"{name = "points", kind = "points"}"#).await;
    job.publisher.answer([Some(PublishError::Unreachable("away".to_owned()))]);
    let failed = job.handle(&completed("ada", "a", 1, json!({}))).await.unwrap_err();
    assert!(matches!(failed, Failure::Transient { .. }), "{failed:?}");
    job.handle(&completed("ada", "b", 2, json!({}))).await.unwrap();
    job.handle(&completed("ada", "a", 1, json!({}))).await.unwrap();
    job.handle(&completed("bob", "c", 1, json!({}))).await.unwrap();
    let told = job.published();
    assert_eq!(told[0], told[2], "the award that was made, not a new one");
    assert_eq!(told[1]["data"]["total"], 22);
    let board = json!([{ "user_id": "ada", "points": 22 }, { "user_id": "bob", "points": 10 }]);
    assert_eq!(job.stats().await["handlers"]["points"], json!({ "kind": "points", "leaderboard": board }));
}

#[tokio::test]
async fn rules_add_points_where_they_hold_and_days_are_those_of_the_users_zone() {
    let job = Job::new(
        r#"{name = "points", kind = "points", timezone = "Europe/Berlin", points = {points = 1, streak_bonus = 100, top = 0, rules = [
            {match = 'event.data.priority == "high"', points = 5, reason = "high_priority"},
            {match = 'event.type == "task.created"', points = 1000, reason = "never"}]}}"#,
    )
    .await;
    // Half past midnight in Berlin, and the evening before in New York.
    let data = [json!({ "priority": "high" }), json!({ "timezone": "America/New_York" }), json!({ "priority": "low" })];
    for ((id, day), data) in [("a", 1), ("b", 3), ("c", 2)].into_iter().zip(data) {
        job.handle(&completed("ada", id, day, data)).await.unwrap();
    }
    let data = |n: usize, name: &str| job.published()[n]["data"][name].clone();
    assert_eq!(data(0, "parts"), json!([{ "reason": "task_completed", "points": 1 }, { "reason": "high_priority", "points": 5 }]));
    assert_eq!(
        (data(1, "points"), data(1, "streak_days")),
        (101.into(), 2.into()),
        "the 2nd, and the 3rd although it was the 4th in Berlin"
    );
    assert_eq!((data(2, "points"), data(2, "streak_days")), (1.into(), 2.into()), "the 3rd again");
    assert_eq!(job.stats().await["handlers"]["points"]["leaderboard"], json!([]));
}

#[tokio::test]
async fn what_is_awarded_for_makes_sense_or_is_dead() {
    let job = Job::new(r#"{name = "points", kind = "points", points = {points = 0, streak_bonus = 0, rules = [{match = "false", points = 1, reason = "no"}]}}"#).await;
    assert!(matches!(job.handle(&completed("ada", "a", 1, json!({}))).await, Ok(Handled::Dropped(_))));
    let failed = job.handle(&completed("ada", "b", 1, json!({ "timezone": "Mars/Olympus" }))).await.unwrap_err();
    assert!(matches!(&failed, Failure::Permanent { error } if error.starts_with("data.timezone: ")), "{failed:?}");
    assert!(job.publisher.queued().is_empty());
}

#[tokio::test]
async fn a_time_that_its_record_does_not_bear_out_earns_no_streak() {
    let job = Job::new(r#"{name = "points", kind = "points"}"#).await;
    for (id, at) in [("a", "2026-01-01T00:00:00Z"), ("b", "2026-06-01T00:00:00Z")] {
        job.handle(&completed("ada", id, 15, json!({ "completed_at": at }))).await.unwrap();
    }
    assert!(job.published().iter().all(|event| event["data"].get("streak_days").is_none() && event["data"]["points"] == 10));
}

/// A publisher's answers reach the handler: it is not done before.
#[tokio::test]
async fn it_is_done_only_when_the_brokers_have_the_award() {
    let job = Job::with(r#"{name = "points", kind = "points"}"#, FakePublisher::holding()).await;
    let event = completed("ada", "a", 1, json!({}));
    let running = job.handle(&event);
    tokio::pin!(running);
    assert!(futures_util::poll!(&mut running).is_pending());
    job.publisher.acknowledge(1);
    assert_eq!(running.await, Ok(Handled::Done));
}
