//! Schedules of several producers on a real Kafka and Redis; the tick store's contract on Redis.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use chrono::{DateTime, Utc};
use futures_util::future::{BoxFuture, FutureExt};
use redis::aio::MultiplexedConnection;
use worker::{
    config::{
        redis::{StoreConfig, WhenDown},
        secret::SecretUrl,
    },
    store::{
        redis::{RedisOptions, RedisStore},
        ticks::TickStore,
    },
};

use crate::{
    stack_or_skip,
    support::{
        app::{Answer, App},
        eventually, eventually_every,
        stack::Stack,
        unique,
        worker::Launch,
    },
    tick_contract::TickBench,
};

struct Redis {
    stores: [RedisStore; 2],
    base: String,
    client: MultiplexedConnection,
}

impl Redis {
    async fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let mut cmd = redis::cmd(words[0]);
        for word in &words[1..] {
            cmd.arg(word);
        }
        cmd.query_async(&mut self.client.clone()).await.unwrap()
    }
}

impl TickBench for Redis {
    fn stores(&self) -> [&dyn TickStore; 2] {
        [&self.stores[0], &self.stores[1]]
    }

    fn expire(&self) -> BoxFuture<'_, ()> {
        async {
            let key = format!("{}:schedule:hourly", self.base);
            let all: BTreeMap<String, String> = self.ask(&["HGETALL", &key]).await;
            for (field, value) in all.iter().filter(|(field, _)| field.starts_with("run:")) {
                let (_, owner) = value.split_once(':').unwrap();
                let _: i64 = self.ask(&["HSET", &key, field, &format!("1:{owner}")]).await;
            }
        }
        .boxed()
    }

    fn flush(&self) -> BoxFuture<'_, ()> {
        async {
            let _: i64 = self.ask(&["DEL", &format!("{}:schedule:hourly", self.base)]).await;
        }
        .boxed()
    }
}

async fn shared() -> Option<Redis> {
    let stack = Stack::shared()?;
    let prefix = unique("ticks");
    let config = StoreConfig {
        url: SecretUrl::new(stack.redis()),
        prefix: prefix.clone(),
        retention: Duration::from_secs(8 * 24 * 3600),
        when_down: WhenDown::Hold,
        bypass_after: Duration::ZERO,
        allow_eviction: false,
    };
    let store = || RedisStore::new(RedisOptions::new(&config, "group")).unwrap();
    let client = redis::Client::open(stack.redis()).unwrap().get_multiplexed_async_connection().await.unwrap();
    Some(Redis { stores: [store(), store()], base: format!("{prefix}:group"), client })
}

crate::tick_contract!(tokio::test(flavor = "multi_thread"), shared);

/// Ticks of one kind as they were fired.
#[derive(Debug)]
struct Fired {
    fires: usize,
    seconds: BTreeSet<i64>,
}

impl Fired {
    fn of(ticks: impl Iterator<Item = String>) -> Self {
        let ticks: Vec<_> = ticks.map(|tick| tick.parse::<DateTime<Utc>>().unwrap().timestamp()).collect();
        Self { fires: ticks.len(), seconds: ticks.into_iter().collect() }
    }

    /// From the first to the last, each once; the killed producer may have fired one that it could not finish.
    fn is_sound(&self) -> bool {
        let (Some(first), Some(last)) = (self.seconds.first(), self.seconds.last()) else { return false };
        self.seconds.iter().copied().eq(*first..=*last) && self.fires <= self.seconds.len() + 1
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_tick_is_one_event_and_one_call_although_one_of_three_producers_is_killed() {
    let stack = stack_or_skip!(Stack::shared());
    let (name, topic) = (unique("schedules"), unique("schedules-topic"));
    let (kafka, app) = (stack.kafka(), App::start(|_| Answer::status(204)).await);
    kafka.create_topic(&topic, 1, &[]).await;
    let catalog = catalog(&topic, &["schedule.ticked"]);
    let toml = format!(
        "catalog.dir = {:?}\n[[schedules]]\nname = \"event\"\ncron = \"* * * * * *\"\n\
         [[schedules]]\nname = \"call\"\ncron = \"@every 1s\"\nhttp = {:?}\noverlap = \"allow\"\n",
        catalog.path(),
        app.url("/tick"),
    );
    let mut workers = Vec::new();
    for _ in 0..3 {
        workers.push(Launch::role("producer", &stack, &name, &toml).start_ready().await);
    }
    let calls = || Fired::of(app.deliveries().iter().map(|call| call.headers["x-worker-tick"].clone()));
    let second = Duration::from_secs(1);
    app.wait_for(3, 30 * second).await;
    workers[0].kill();
    let more = calls().seconds.len() + 5;
    let grown = |fired: Fired| Some(fired).filter(|fired| fired.is_sound() && fired.seconds.len() >= more);
    let calls = eventually("each tick called once", 60 * second, async || grown(calls())).await;
    let events = async || {
        let records = kafka.read_all(&topic).await;
        assert!(records.iter().all(|record| record.key_text() == "schedule:event"));
        grown(Fired::of(records.iter().map(|record| record.json()["data"]["tick_at"].as_str().unwrap().to_owned())))
    };
    let events = eventually_every(second, "each tick published once", 60 * second, events).await;
    for worker in &mut workers[1..] {
        assert_eq!(worker.terminate(30 * second).await, Some(0));
    }
    eprintln!("{} calls of {} ticks, {} events of {}", calls.fires, calls.seconds.len(), events.fires, events.seconds.len());
    kafka.delete_topic(&topic).await;
}

/// The catalogue of the project with these types on `topic`.
pub fn catalog(topic: &str, types: &[&str]) -> tempfile::TempDir {
    let (from, to) = (concat!(env!("CARGO_MANIFEST_DIR"), "/topics"), tempfile::tempdir().unwrap());
    std::fs::create_dir(to.path().join("events")).unwrap();
    for file in std::fs::read_dir(format!("{from}/events")).unwrap() {
        let file = file.unwrap();
        let text = std::fs::read_to_string(file.path()).unwrap();
        let is_moved = types.iter().any(|name| file.file_name() == format!("{name}.yaml").as_str());
        let text = if is_moved {
            ["task-events", "reminders", "notifications", "user-events"]
                .iter()
                .fold(text, |text, from| text.replace(&format!("[{from}]"), &format!("[{topic}]")))
        } else {
            text
        };
        std::fs::write(to.path().join("events").join(file.file_name()), text).unwrap();
    }
    let topics = std::fs::read_to_string(format!("{from}/topics.yaml")).unwrap();
    let own = format!("\ntopics:\n  {topic}: {{ description: Of one test., partitions: 1, retention: 1d }}\n");
    std::fs::write(to.path().join("topics.yaml"), topics.replacen("\ntopics:\n", &own, 1)).unwrap();
    to
}
