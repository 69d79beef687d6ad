//! The Kafka and Redis under test, and the topic that every row reads: made once, kept while the stack lives.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant, UNIX_EPOCH},
};

use anyhow::Context as _;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseProducer, BaseRecord, Producer},
};

use crate::usage::{self, Processes};

/// Partitions of every topic here.
pub const PARTITIONS: i32 = 12;
/// Users of the stream.
pub const USERS: u64 = 10_000;
const WAIT: Duration = Duration::from_secs(30);

/// Addresses of a running Kafka and Redis.
#[derive(Debug, Clone)]
pub struct Stack {
    /// `host:port`.
    pub brokers: String,
    /// `redis://host:port`.
    pub redis: String,
}

impl Stack {
    /// As `tests/stack` tells them; `None` where it was not asked, an error with `CI=true`.
    pub fn from_env() -> anyhow::Result<Option<Self>> {
        let var = |name: &str| std::env::var(name).ok();
        match (var("WORKER_TEST_KAFKA"), var("WORKER_TEST_REDIS")) {
            (Some(brokers), Some(redis)) => Ok(Some(Self { brokers, redis })),
            _ if var("CI").as_deref() == Some("true") => {
                anyhow::bail!("WORKER_TEST_KAFKA and WORKER_TEST_REDIS are not set; run `make bench`")
            }
            _ => Ok(None),
        }
    }

    /// The processes behind the addresses, where they run on this machine.
    pub fn processes(&self) -> Processes {
        let port = |address: &str| address.rsplit(':').next()?.parse().ok();
        let listener = |address: &str| port(address).and_then(usage::listener);
        Processes { broker: listener(&self.brokers), redis: listener(&self.redis), ..Processes::default() }
    }

    /// A client's configuration.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        config
    }

    /// A topic that holds `events` events of ten thousand users, written where it is new.
    ///
    /// # Errors
    /// Where the broker does not take them.
    pub fn filled_topic(&self, events: u64) -> anyhow::Result<String> {
        self.filled_topic_of(events, USERS)
    }

    /// The same of as many users.
    ///
    /// # Errors
    /// Where the broker does not take them.
    pub fn filled_topic_of(&self, events: u64, users: u64) -> anyhow::Result<String> {
        let topic = format!("bench-{events}-of-{users}");
        self.create(&topic)?;
        if self.count(&topic)? == events {
            return Ok(topic);
        }
        eprintln!("writing {events} events");
        let producer: BaseProducer = self
            .client()
            .set("enable.idempotence", "true")
            .set("queue.buffering.max.messages", "200000")
            .set("linger.ms", "20")
            .create()?;
        let now = chrono::Utc::now();
        for number in 0..events {
            let (user, event) = event(number, users, now);
            let mut record = BaseRecord::to(&topic).key(&user).payload(&event);
            while let Err((error, back)) = producer.send(record) {
                anyhow::ensure!(error == KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), "not written: {error}");
                producer.poll(Duration::from_millis(10));
                record = back;
            }
        }
        producer.flush(WAIT)?;
        anyhow::ensure!(self.count(&topic)? == events, "{topic} does not hold {events} events; remove the stack and start anew");
        Ok(topic)
    }

    /// Bytes that Redis has allocated.
    ///
    /// # Errors
    /// Where it does not say so.
    pub fn redis_memory(&self) -> anyhow::Result<u64> {
        let mut redis = redis::Client::open(self.redis.as_str())?.get_connection()?;
        let info: String = redis::cmd("INFO").arg("memory").query(&mut redis)?;
        let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")?.trim().parse().ok());
        used.context("Redis does not tell used_memory")
    }

    /// Makes a topic, where it is missing.
    ///
    /// # Errors
    /// Where the broker does not make it.
    pub fn create(&self, topic: &str) -> anyhow::Result<()> {
        self.create_with(topic, PARTITIONS)
    }

    /// The same with so many partitions.
    ///
    /// # Errors
    /// Where the broker does not make it.
    pub fn create_with(&self, topic: &str, partitions: i32) -> anyhow::Result<()> {
        let admin: AdminClient<DefaultClientContext> = self.client().create()?;
        let wanted = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let answers = runtime.block_on(admin.create_topics([&wanted], &AdminOptions::new().operation_timeout(Some(WAIT))))?;
        for answer in answers {
            match answer {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => anyhow::bail!("topic {topic}: {code}"),
            }
        }
        Ok(())
    }

    fn count(&self, topic: &str) -> anyhow::Result<u64> {
        let consumer: BaseConsumer = self.client().set("group.id", "bench-count").create()?;
        let mut sum = 0;
        for partition in 0..PARTITIONS {
            let (low, high) = Self::ends(&consumer, topic, partition)?;
            sum += u64::try_from(high - low).unwrap_or_default();
        }
        Ok(sum)
    }

    /// First offset and end. A partition that was made just now is not known everywhere and has no leader yet: asked again.
    ///
    /// # Errors
    /// Where the broker does not answer.
    pub fn ends(consumer: &BaseConsumer, topic: &str, partition: i32) -> anyhow::Result<(i64, i64)> {
        let give_up = Instant::now() + WAIT;
        loop {
            match consumer.fetch_watermarks(topic, partition, WAIT) {
                Err(KafkaError::MetadataFetch(
                    RDKafkaErrorCode::NotLeaderForPartition
                    | RDKafkaErrorCode::UnknownPartition
                    | RDKafkaErrorCode::UnknownTopicOrPartition,
                )) if Instant::now() < give_up => {
                    std::thread::sleep(Duration::from_millis(100));
                }
                ends => return ends.with_context(|| format!("end of {topic}:{partition}")),
            }
        }
    }
}

/// A name that no other measurement has, in a later process of the same number neither: for groups and key prefixes.
pub fn unique(what: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let now = UNIX_EPOCH.elapsed().unwrap_or_default().as_millis();
    format!("bench-{what}-{now}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A user's id; below a hundred thousand in the order of their numbers.
pub fn user_name(number: u64) -> String {
    format!("user-{number:05}")
}

/// Whose event that is, one of so many. Not one user after the other: neighbours in the log are different users, repeats come at every
/// distance.
pub fn user(number: u64, users: u64) -> String {
    user_name((number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) % users)
}

/// The event of a number and its user: 400 bytes in the canonical shape.
pub fn event(number: u64, users: u64, now: chrono::DateTime<chrono::Utc>) -> (String, String) {
    let user = user(number, users);
    let at = now.format("%Y-%m-%dT%H:%M:%SZ");
    let id = uuid::Uuid::from_u64_pair(number.wrapping_mul(0x2545_F491_4F6C_DD1D), number);
    let mut event = String::with_capacity(420);
    let _ = write!(
        event,
        r#"{{"event_id":"{id}","event_type":"task.created","event_version":"1.0","timestamp":"{at}","source":"todo-backend","data":{{"task_id":{number},"user_id":"{user}","title":"Buy groceries","description":"Milk, eggs, bread","priority":"high","created_at":"{at}"}},"metadata":{{"correlation_id":"req_{number:016}","user_id":"{user}"}}}}"#
    );
    (user, event)
}

/// The number of an event, from its id.
pub fn number(event_id: &str) -> Option<u64> {
    Some(event_id.parse::<uuid::Uuid>().ok()?.as_u64_pair().1)
}
