//! The `analytics` handler with figures in memory.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::{BoxFuture, FutureExt};
use serde_json::{Value, json};
use worker::{
    outcome::Handled,
    store::tally::{MemoryTally, TallyStore},
};

use crate::{support::job::Job, tally_contract::TallyBench};

struct Memory(Arc<MemoryTally>);

impl TallyBench for Memory {
    fn stores(&self) -> [Arc<dyn TallyStore>; 2] {
        [Arc::clone(&self.0) as _, Arc::clone(&self.0) as _]
    }

    fn pass(&self, time: Duration) -> BoxFuture<'_, ()> {
        tokio::time::advance(time).boxed()
    }
}

async fn empty() -> Option<Memory> {
    Some(Memory(Arc::default()))
}

crate::tally_contract!(tokio::test(start_paused = true), empty);

fn event(kind: &str, id: &str, user: &str, at: DateTime<Utc>, mut data: Value) -> Value {
    if kind.starts_with("task.") {
        data["task_id"] = 7.into();
    }
    json!({ "event_id": id, "event_type": kind, "user_id": user, "timestamp": at.to_rfc3339(), "data": data })
}

fn login(id: &str, user: &str, at: DateTime<Utc>) -> Value {
    event("user.logged_in", id, user, at, json!({ "login_method": "email", "ip_address": "203.0.113.7", "user_agent": "curl/8.5" }))
}

async fn job() -> Job {
    Job::new(r#"{name = "stats", kind = "analytics"}"#).await
}

/// A moment of today whose minutes before are today as well, unless the test runs in the first minutes of a day.
fn now() -> DateTime<Utc> {
    Utc::now()
}

#[tokio::test]
async fn events_are_counted_by_day_once_however_often_they_come() {
    let (job, now) = (job().await, now());
    let yesterday = now - TimeDelta::days(1);
    for _ in 0..3 {
        for (id, user, at) in [("c1", "ada", yesterday), ("c2", "ada", now), ("c2", "bob", now)] {
            let created = event("task.created", id, user, at, json!({ "title": "Water the plants" }));
            assert_eq!(job.handle(&created).await, Ok(Handled::Done));
        }
        job.handle(&event("task.completed", "d1", "ada", now, json!({}))).await.unwrap();
        job.handle(&event("points.awarded", "p1", "ada", now, json!({ "points": 12, "reason": "task_completed" }))).await.unwrap();
        for (id, user, at) in [("l1", "ada", yesterday), ("l2", "bob", now), ("l3", "bob", now)] {
            job.handle(&login(id, user, at)).await.unwrap();
        }
    }
    let told = job.stats().await["handlers"]["stats"].clone();
    assert_eq!(told["events"], json!({ "points.awarded": 1, "task.completed": 1, "task.created": 3, "user.logged_in": 3 }));
    assert_eq!((&told["active_users"], &told["points"]), (&json!({ "day": 1, "month": 2 }), &12.into()));
    assert_eq!(told["completion_rate"], 0.333);
    let days: Vec<_> =
        told["days"].as_array().unwrap().iter().map(|day| (day["day"].clone(), day["events"]["task.created"].clone())).collect();
    assert_eq!(days, [(now.date_naive().to_string().into(), 2.into()), (yesterday.date_naive().to_string().into(), 1.into())]);
    let metrics = job.metrics.render().unwrap();
    assert!(metrics.contains("worker_analytics_events_total{event_type=\"task.created\",result=\"counted\"} 3"), "{metrics}");
    assert!(metrics.contains("worker_analytics_events_total{event_type=\"task.created\",result=\"repeated\"} 6"), "{metrics}");
}

#[tokio::test]
async fn the_time_to_complete_is_from_the_creation_that_was_seen_or_told_else_the_time_worked() {
    let (job, now) = (job().await, now());
    let took = async |user: &str, created: bool, data: Value| {
        if created {
            job.handle(&event("task.created", "c", user, now - TimeDelta::seconds(90), json!({ "title": "a" }))).await.unwrap();
        }
        let before = job.stats().await["handlers"]["stats"]["time_to_complete"].clone();
        let sum = |told: &Value| told["mean_seconds"].as_f64().unwrap_or_default() * told["tasks"].as_f64().unwrap();
        job.handle(&event("task.completed", "d", user, now, data)).await.unwrap();
        (sum(&job.stats().await["handlers"]["stats"]["time_to_complete"]) - sum(&before)).round()
    };
    let at = |seconds: i64| (now - TimeDelta::seconds(seconds)).to_rfc3339();
    assert_eq!(took("ada", true, json!({})).await, 90.0);
    assert_eq!(took("bob", true, json!({ "created_at": at(30) })).await, 30.0);
    assert_eq!(took("cyd", false, json!({ "duration_seconds": 12 })).await, 12.0);
    assert_eq!(took("dan", false, json!({})).await, 0.0);
    assert_eq!(took("eve", false, json!({ "created_at": at(-30) })).await, 0.0, "completed before it was created");
    assert_eq!(job.stats().await["handlers"]["stats"]["time_to_complete"]["tasks"], 3);
    assert!(job.metrics.render().unwrap().contains("worker_time_to_complete_seconds_count 3"));
}

#[tokio::test]
async fn what_comes_too_late_or_from_the_future_is_dropped_and_counted_as_such() {
    let (job, now) = (job().await, now());
    for at in [now - TimeDelta::days(20), now + TimeDelta::days(3)] {
        let created = event("task.created", "c", "ada", at, json!({ "title": "a" }));
        assert!(matches!(job.handle(&created).await, Ok(Handled::Dropped(_))), "{at}");
    }
    job.handle(&login("l", "ada", now - TimeDelta::days(20))).await.unwrap();
    let told = job.stats().await["handlers"]["stats"].clone();
    assert_eq!((&told["events"], &told["active_users"]["month"]), (&json!({}), &1.into()), "who was there can be told however late");
    let metrics = job.metrics.render().unwrap();
    for result in ["late", "ahead"] {
        assert!(
            metrics.contains(&format!("worker_analytics_events_total{{event_type=\"task.created\",result=\"{result}\"}} 1")),
            "{metrics}"
        );
    }
}

#[tokio::test]
async fn a_failed_login_is_no_active_user_and_metrics_tell_how_many_there_are() {
    let (job, now) = (job().await, now());
    let mut failed = login("l1", "bob", now);
    failed["data"]["success"] = false.into();
    job.handle(&failed).await.unwrap();
    job.handle(&login("l2", "ada", now)).await.unwrap();
    job.stats.refresh().await;
    let metrics = job.metrics.render().unwrap();
    for window in ["day", "month"] {
        assert!(metrics.contains(&format!("worker_active_users{{handler=\"stats\",window=\"{window}\"}} 1")), "{metrics}");
    }
}
