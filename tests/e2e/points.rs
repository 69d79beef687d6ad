//! The `points` handler on a real Kafka and Redis; the accounts' contract on Redis.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::future::{BoxFuture, FutureExt};
use serde_json::{Value, json};
use worker::{
    config::{
        redis::{StoreConfig, WhenDown},
        secret::SecretUrl,
    },
    store::{
        accounts::AccountStore,
        redis::{RedisOptions, RedisStore},
    },
};

use crate::{
    account_contract::AccountBench,
    schedules::catalog,
    stack_or_skip,
    support::{again::handle_again, stack::Stack, unique, worker::Launch},
};

const MINUTE: Duration = Duration::from_secs(60);

struct Redis([Arc<dyn AccountStore>; 2]);

impl AccountBench for Redis {
    fn stores(&self) -> [Arc<dyn AccountStore>; 2] {
        self.0.clone()
    }

    fn pass(&self, time: Duration) -> BoxFuture<'_, ()> {
        // Redis' own clock ends keys: nothing here can be asked for that instant.
        tokio::time::sleep(time).boxed()
    }
}

/// A worker's view of a Redis that others use too.
pub fn store(stack: &Stack, prefix: &str) -> RedisStore {
    let config = StoreConfig {
        url: SecretUrl::new(stack.redis()),
        prefix: prefix.to_owned(),
        retention: Duration::from_secs(8 * 24 * 3600),
        when_down: WhenDown::Hold,
        bypass_after: Duration::ZERO,
        allow_eviction: false,
    };
    RedisStore::new(RedisOptions::new(&config, "group")).unwrap()
}

async fn shared() -> Option<Redis> {
    let (stack, prefix) = (Stack::shared()?, unique("accounts"));
    Some(Redis([(); 2].map(|()| Arc::new(store(&stack, &prefix)) as _)))
}

crate::account_contract!(tokio::test(flavor = "multi_thread"), shared);

#[tokio::test(flavor = "multi_thread")]
async fn every_award_is_made_once_although_a_worker_is_killed_and_all_events_come_again() {
    const USERS: usize = 6;
    const DAYS: usize = 10;
    let stack = stack_or_skip!(Stack::shared());
    let (name, kafka) = (unique("points"), stack.kafka());
    let [tasks, awards] = ["points-tasks", "points-awards"].map(unique);
    for topic in [&tasks, &awards] {
        kafka.create_topic(topic, 3, &[]).await;
    }
    let catalog = catalog(&awards, &["points.awarded"]);
    let toml =
        format!("catalog.dir = {:?}\nkafka.topics = [{tasks:?}]\n[[handlers]]\nname = \"points\"\nkind = \"points\"\n", catalog.path());
    let now = chrono::Utc::now();
    let event = |user: usize, day: usize| {
        let at = (now - chrono::TimeDelta::hours(24 * i64::try_from(DAYS - 1 - day).unwrap())).to_rfc3339();
        let value = json!({ "event_id": format!("{user}-{day}"), "event_type": "task.completed", "user_id": format!("user-{user}"), "task_id": day + 1,
                            "timestamp": at, "data": {} });
        (format!("user-{user}"), value.to_string())
    };
    // Days of the last week count for a streak, the older ones earn points alone.
    kafka.produce_all(&tasks, (0..DAYS).flat_map(|day| (0..USERS).map(move |user| event(user, day)))).await;
    let consumer = || Launch::role("consumer", &stack, &name, &toml);
    let mut killed = consumer().start_ready().await;
    kafka.wait_for_records(&awards, USERS, MINUTE).await;
    killed.kill();
    let mut worker = consumer().start_ready().await;
    kafka.wait_until_committed(&name, &tasks, 2 * MINUTE).await;
    let stats = async |worker: &crate::support::worker::Worker| -> Value {
        let (status, body) = worker.get("/stats").await.unwrap();
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    };
    let before = stats(&worker).await;
    assert_eq!(worker.terminate(MINUTE).await, Some(0));

    handle_again(&stack, &name, &tasks).await;
    let mut worker = consumer().start_ready().await;
    kafka.wait_for_records(&awards, USERS * DAYS * 2, 2 * MINUTE).await;
    kafka.wait_until_committed(&name, &tasks, 2 * MINUTE).await;
    assert_eq!(stats(&worker).await, before, "nobody has more points for events that came again");
    assert_eq!(worker.terminate(MINUTE).await, Some(0));

    // Each award by its id: told more than once, always the same.
    let mut told: BTreeMap<String, Value> = BTreeMap::new();
    for record in kafka.read_all(&awards).await {
        let event = record.json();
        let first = told.entry(event["event_id"].to_string()).or_insert_with(|| event["data"].clone());
        assert_eq!(*first, event["data"]);
    }
    assert_eq!(told.len(), USERS * DAYS);
    let mut sums: BTreeMap<&str, i64> = BTreeMap::new();
    told.values().for_each(|data| *sums.entry(data["user_id"].as_str().unwrap()).or_default() += data["points"].as_i64().unwrap());
    let board = before["handlers"]["points"]["leaderboard"].as_array().unwrap();
    let board: BTreeMap<_, _> = board.iter().map(|row| (row["user_id"].as_str().unwrap(), row["points"].as_i64().unwrap())).collect();
    assert_eq!(board, sums, "what was told is what the accounts hold");
    assert_eq!(board.len(), USERS);
    for topic in [&tasks, &awards] {
        kafka.delete_topic(topic).await;
    }
}
