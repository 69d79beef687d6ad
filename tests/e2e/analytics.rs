//! The `analytics` handler on a real Kafka and Redis; the tallies' contract on Redis.

use std::{sync::Arc, time::Duration};

use chrono::{TimeDelta, Utc};
use futures_util::future::{BoxFuture, FutureExt};
use serde_json::{Value, json};
use worker::store::tally::TallyStore;

use crate::{
    points::store,
    stack_or_skip,
    support::{
        again::handle_again,
        eventually,
        stack::Stack,
        unique,
        worker::{Launch, Worker},
    },
    tally_contract::TallyBench,
};

const MINUTE: Duration = Duration::from_secs(60);

struct Redis([Arc<dyn TallyStore>; 2]);

impl TallyBench for Redis {
    fn stores(&self) -> [Arc<dyn TallyStore>; 2] {
        self.0.clone()
    }

    fn pass(&self, time: Duration) -> BoxFuture<'_, ()> {
        // Redis' own clock ends keys: nothing here can be asked for that instant.
        tokio::time::sleep(time).boxed()
    }
}

async fn shared() -> Option<Redis> {
    let (stack, prefix) = (Stack::shared()?, unique("tally"));
    Some(Redis([(); 2].map(|()| Arc::new(store(&stack, &prefix)) as _)))
}

crate::tally_contract!(tokio::test(flavor = "multi_thread"), shared);

async fn stats(worker: &Worker) -> Value {
    let (status, body) = worker.get("/stats").await.unwrap();
    assert_eq!(status, 200, "{body}");
    serde_json::from_str::<Value>(&body).unwrap()["handlers"]["stats"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_are_exact_on_every_replica_although_one_is_killed_and_all_events_come_again() {
    const USERS: usize = 40;
    let stack = stack_or_skip!(Stack::shared());
    let (name, topic, kafka) = (unique("stats"), unique("stats-events"), stack.kafka());
    kafka.create_topic(&topic, 3, &[]).await;
    let toml = format!("kafka.topics = [{topic:?}]\n[[handlers]]\nname = \"stats\"\nkind = \"analytics\"\n");
    let now = Utc::now();
    let event = |kind: &str, user: usize, task: usize, ago: TimeDelta, data: Value| {
        let user = format!("user-{user}");
        let task = if kind.starts_with("task.") { json!(task + 1) } else { Value::Null };
        let event = json!({ "event_id": format!("{kind}-{task}"), "event_type": kind, "user_id": user, "task_id": task,
                            "timestamp": (now - ago).to_rfc3339(), "data": data });
        (user, event.to_string())
    };
    let (minute, day) = (TimeDelta::minutes(1), TimeDelta::days(1));
    // Everyone makes three tasks yesterday and completes two of them a minute later; half of the users log in today.
    let events = (0..USERS).flat_map(|user| {
        let created = (0..3).map(move |task| event("task.created", user, task, day, json!({ "title": "Water the plants" })));
        let done = (0..2).map(move |task| event("task.completed", user, task, day - minute, json!({})));
        let login = json!({ "login_method": "email", "ip_address": "203.0.113.7", "user_agent": "curl/8.5" });
        created.chain(done).chain((user % 2 == 0).then(|| event("user.logged_in", user, 0, TimeDelta::zero(), login)))
    });
    kafka.produce_all(&topic, events).await;
    let consumer = || Launch::role("consumer", &stack, &name, &toml);
    let mut killed = consumer().start_ready().await;
    killed.wait_for_metric("worker_analytics_events_total", &[], MINUTE, |counted| counted >= 20.0).await;
    killed.kill();
    let (mut one, mut two) = (consumer().start_ready().await, consumer().start_ready().await);
    kafka.wait_until_committed(&name, &topic, 2 * MINUTE).await;
    for worker in [&mut one, &mut two] {
        assert_eq!(worker.terminate(MINUTE).await, Some(0));
    }
    handle_again(&stack, &name, &topic).await;
    let (mut one, mut two) = (consumer().start_ready().await, consumer().start_ready().await);
    kafka.wait_until_committed(&name, &topic, 2 * MINUTE).await;
    let repeated = eventually("all events came again", MINUTE, async || {
        let sums = [one.metrics().await, two.metrics().await]
            .map(|metrics| metrics.sum("worker_analytics_events_total", &[("result", "repeated")]));
        Some(sums[0] + sums[1]).filter(|sum| *sum >= (USERS * 5 + USERS / 2) as f64)
    });
    repeated.await;

    let told = stats(&one).await;
    assert_eq!(told, stats(&two).await, "any replica answers the same");
    assert_eq!(told["events"], json!({ "task.completed": 2 * USERS, "task.created": 3 * USERS, "user.logged_in": USERS / 2 }));
    assert_eq!((&told["completion_rate"], &told["active_users"]), (&json!(0.667), &json!({ "day": USERS / 2, "month": USERS / 2 })));
    assert_eq!(told["time_to_complete"], json!({ "mean_seconds": 60.0, "tasks": 2 * USERS }));
    let yesterday = told["days"].as_array().unwrap().iter().find(|of| of["day"] == (now - day).date_naive().to_string()).unwrap();
    assert_eq!(yesterday["events"]["task.created"], 3 * USERS);
    let gauge = one.metrics().await.sum("worker_active_users", &[("window", "month")]);
    assert_eq!(gauge, (USERS / 2) as f64);
    for worker in [&mut one, &mut two] {
        assert_eq!(worker.terminate(MINUTE).await, Some(0));
    }
    kafka.delete_topic(&topic).await;
}
