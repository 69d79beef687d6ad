//! State in a real Redis: the contract, and the layout that Dapr's own store left there.

use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};
use worker::{
    config::secret::SecretUrl,
    store::{
        redis::state::RedisState,
        state::{Change, Read, StateStore},
    },
};

use crate::{
    contract_state::Bench,
    stack_or_skip,
    support::{eventually, stack::Stack, unique, worker::Launch},
};

const LONG: Duration = Duration::from_secs(30);

/// A Redis that others use too: every key begins with this test's own.
struct Redis(RedisState, String);

impl Redis {
    fn key(&self, key: &str) -> String {
        format!("{}{key}", self.1)
    }
}

impl StateStore for Redis {
    fn get<'a>(&'a self, keys: &'a [String]) -> BoxFuture<'a, Result<Vec<Read>, worker::engine::ports::StoreError>> {
        let keys: Vec<_> = keys.iter().map(|key| self.key(key)).collect();
        async move { self.0.get(&keys).await }.boxed()
    }

    fn save(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<Vec<bool>, worker::engine::ports::StoreError>> {
        self.0.save(changes.into_iter().map(|change| Change { key: self.key(&change.key), ..change }).collect())
    }

    fn delete<'a>(&'a self, key: &'a str, etag: Option<&'a str>) -> BoxFuture<'a, Result<bool, worker::engine::ports::StoreError>> {
        let key = self.key(key);
        async move { self.0.delete(&key, etag).await }.boxed()
    }
}

impl Bench for Redis {
    fn store(&self) -> &dyn StateStore {
        self
    }

    fn pass(&self, time: Duration) -> BoxFuture<'_, ()> {
        // Redis' own clock ends keys: nothing here can be asked for that instant.
        tokio::time::sleep(time).boxed()
    }
}

async fn empty() -> Option<Redis> {
    let stack = Stack::shared()?;
    Some(Redis(RedisState::new(&SecretUrl::new(stack.redis())).unwrap(), format!("{}||", unique("state"))))
}

crate::state_contract!(tokio::test(flavor = "multi_thread"), empty);

async fn client(url: &str) -> MultiplexedConnection {
    redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap()
}

async fn ask<T: redis::FromRedisValue>(client: &MultiplexedConnection, words: &[&str]) -> T {
    redis::cmd(words[0]).arg(&words[1..]).query_async(&mut client.clone()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_dapr_wrote_are_found_and_what_is_written_has_its_layout() {
    let stack = stack_or_skip!(Stack::shared());
    let app = unique("todo");
    let worker = Launch::role("producer", &stack, &app, "state.stores = [\"statestore\"]").start_ready().await;
    let redis = client(stack.redis()).await;
    let key = |name: &str| format!("{app}||{name}");
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = |name: &str| worker.publish_url(&format!("/v1.0/state/statestore/{name}"));

    let () = ask(&redis, &["HSET", &key("old"), "data", "{\"processed\":true}", "version", "4", "first-write", "0"]).await;
    let found = http.get(url("old")).send().await.unwrap();
    assert_eq!((found.status().as_u16(), found.headers()["etag"].to_str().unwrap().to_owned()), (200, "4".to_owned()));
    assert_eq!(found.text().await.unwrap(), r#"{"processed":true}"#);
    let () = ask(&redis, &["SET", &key("older"), "7"]).await;
    assert_eq!(http.get(url("older")).send().await.unwrap().text().await.unwrap(), "7");
    let () = ask(&redis, &["LPUSH", &key("foreign"), "x"]).await;
    assert_eq!(http.get(url("foreign")).send().await.unwrap().status(), 500);

    let item = json!([{"key": "new", "value": {"a": 1}, "metadata": {"ttlInSeconds": "60"}, "options": {"concurrency": "first-write"}}]);
    let save = async |body: &Value| {
        http.post(worker.publish_url("/v1.0/state/statestore")).body(body.to_string()).send().await.unwrap().status().as_u16()
    };
    assert_eq!(save(&item).await, 204);
    let mut fields: Vec<(String, String)> = ask(&redis, &["HGETALL", &key("new")]).await;
    fields.sort();
    let expected = [("data", "{\"a\":1}"), ("first-write", "0"), ("version", "1")];
    assert_eq!(fields, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let left: i64 = ask(&redis, &["TTL", &key("new")]).await;
    assert!((50..=60).contains(&left), "{left}");
    assert_eq!(save(&item).await, 500);
    assert_eq!(save(&json!([{"key": "older", "value": 8}])).await, 204, "a plain value gives way");
    assert_eq!(ask::<String>(&redis, &["HGET", &key("older"), "data"]).await, "8");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_redis_is_away_state_is_503_and_publishing_goes_on() {
    let stack = stack_or_skip!(Stack::private(&["kafka", "redis"]));
    let topic = unique("sidecar");
    stack.kafka().create_topic(&topic, 1, &[]).await;
    let worker = Launch::role("producer", &stack, &unique("todo"), "state.stores = [\"statestore\"]").start_ready().await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let status = async || http.get(worker.publish_url("/v1.0/state/statestore/k")).send().await.unwrap().status().as_u16();
    assert_eq!(status().await, 204);
    stack.kill("redis");
    assert_eq!(status().await, 503);
    let event = json!({"event_type": "task.completed", "task_id": 1, "user_id": "ada"});
    let publish = http.post(worker.publish_url(&format!("/v1.0/publish/kafka-pubsub/{topic}")));
    assert_eq!(publish.body(event.to_string()).send().await.unwrap().status(), 204);
    stack.start("redis");
    eventually("state is back", LONG, async || (status().await == 204).then_some(())).await;
}
