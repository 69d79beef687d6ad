//! The `security` handler with a publisher that does what the test says; accounts in memory.

use serde_json::{Value, json};
use worker::{
    engine::ports::PublishError,
    event::ids,
    outcome::{Failure, Handled},
};

use crate::support::job::Job;

const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";

fn login(id: &str, user: &str, minute: u32, address: &str, agent: &str) -> Value {
    let data = json!({ "login_method": "email", "ip_address": address, "user_agent": agent });
    json!({ "event_id": id, "event_type": "user.logged_in", "user_id": user, "timestamp": format!("2026-03-28T12:{minute:02}:00Z"), "data": data })
}

fn failed(mut login: Value) -> Value {
    login["data"]["success"] = false.into();
    login
}

async fn job() -> Job {
    Job::new(r#"{name = "watch", kind = "security", security = {key = "a key of this test"}}"#).await
}

fn rules(job: &Job) -> Vec<String> {
    job.published().iter().map(|alert| alert["data"]["rule"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_login_from_a_new_device_and_network_raises_an_alert_without_the_address() {
    let job = job().await;
    assert_eq!(job.handle(&login("l1", "ada", 0, "203.0.113.7", FIREFOX)).await, Ok(Handled::Done));
    assert_eq!(job.handle(&login("l2", "ada", 1, "203.0.113.99", FIREFOX)).await, Ok(Handled::Done));
    assert!(job.published().is_empty(), "the first device, and the same network");
    job.handle(&login("l3", "ada", 2, "198.51.100.23", "curl/8.5")).await.unwrap();
    let told = job.published();
    assert_eq!(rules(&job), ["new_device", "new_network"]);
    assert_eq!(told[0]["event_id"], ids::of_effect("l3", "security.alert new_device").to_string());
    assert_eq!((&told[0]["event_type"], &told[0]["metadata"]["causation_id"]), (&"security.alert".into(), &"l3".into()));
    assert_eq!((&told[0]["data"]["severity"], &told[0]["data"]["user_id"]), (&"medium".into(), &"ada".into()));
    assert_eq!(told[0]["data"]["evidence"]["known"], 1);
    let text = told.iter().map(ToString::to_string).collect::<String>();
    assert!(!text.contains("198.51") && !text.contains("curl"), "{text}");
    assert!(job.publisher.queued().iter().all(|message| &*message.topic == "user-events" && message.key.as_deref() == Some(b"ada")));
}

#[tokio::test]
async fn a_login_that_is_handled_again_raises_the_same_alerts_and_no_others() {
    let job = job().await;
    job.handle(&login("l1", "ada", 0, "203.0.113.7", FIREFOX)).await.unwrap();
    let suspicious = login("l2", "ada", 1, "198.51.100.23", "curl/8.5");
    // The first alert is written, the second is not acknowledged.
    job.publisher.answer([None, Some(PublishError::Unreachable("away".to_owned()))]);
    let answer = job.handle(&suspicious).await.unwrap_err();
    assert!(matches!(answer, Failure::Transient { .. }), "{answer:?}");
    job.handle(&suspicious).await.unwrap();
    job.handle(&login("l1", "ada", 0, "203.0.113.7", FIREFOX)).await.unwrap();
    let told = job.published();
    assert_eq!((told.len(), &told[..2]), (4, &told[2..]), "by then the device is known, and the alert is told all the same");
    job.handle(&login("l3", "ada", 2, "198.51.100.23", "curl/8.5")).await.unwrap();
    assert_eq!(job.published().len(), 4, "another login from there is nothing new");
}

#[tokio::test]
async fn many_failures_or_users_from_one_address_raise_an_alert_once_in_a_window() {
    let job = job().await;
    for n in 0..8 {
        job.handle(&failed(login(&format!("f{n}"), "ada", n, "203.0.113.7", FIREFOX))).await.unwrap();
    }
    assert_eq!(rules(&job), ["user_failures"]);
    assert_eq!(job.published()[0]["data"]["evidence"]["failures"], 5);
    for n in 0..30 {
        job.handle(&failed(login(&format!("g{n}"), &format!("user-{n}"), 9, "198.51.100.23", "curl/8.5"))).await.unwrap();
    }
    assert_eq!(rules(&job)[1..], ["address_users", "address_failures"]);
    let metrics = job.metrics.render().unwrap();
    assert!(metrics.contains("worker_security_alerts_total{rule=\"address_users\"} 1"), "{metrics}");
}

#[tokio::test]
async fn more_logins_than_anybody_makes_raise_an_alert_and_rules_can_be_left_out() {
    let job =
        Job::new(r#"{name = "watch", kind = "security", security = {rules = ["user_logins"], user_logins = 3, window = "1m"}}"#).await;
    for n in 0..5 {
        job.handle(&login(&format!("l{n}"), "ada", 0, &format!("203.0.{n}.7"), &format!("agent {}", "x".repeat(n)))).await.unwrap();
    }
    assert_eq!(rules(&job), ["user_logins"]);
    job.handle(&login("odd", "bob", 0, "unknown", "")).await.unwrap();
}
