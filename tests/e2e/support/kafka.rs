//! Topics, records and groups, seen with a client of the test's own.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    error::KafkaResult,
    message::{Header, Headers, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
};

const TIMEOUT: Duration = Duration::from_secs(20);

/// A record as it stands in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// Milliseconds since 1970.
    pub timestamp: Option<i64>,
    /// Key bytes.
    pub key: Option<Bytes>,
    /// Value bytes; `None`: a tombstone.
    pub value: Option<Bytes>,
    /// Headers in order.
    pub headers: Vec<(String, Option<Bytes>)>,
}

impl Record {
    /// The value as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(self.value.as_deref().expect("a value")).unwrap()
    }

    /// The key as text; "" where there is none.
    pub fn key_text(&self) -> &str {
        std::str::from_utf8(self.key.as_deref().unwrap_or_default()).unwrap()
    }

    /// The only header of that name as text; `None`: there is none. A second one fails the test.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(key, _)| key == name);
        let value = found.next()?.1.as_deref().unwrap_or_default();
        assert!(found.next().is_none(), "header {name} twice in {self:?}");
        Some(std::str::from_utf8(value).unwrap())
    }
}

/// A group's commit for one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Next offset to be read.
    pub offset: i64,
    /// The commit's metadata.
    pub metadata: String,
}

/// One broker.
#[derive(Clone)]
pub struct Kafka {
    config: ClientConfig,
    producer: FutureProducer,
}

impl Kafka {
    /// Over the plain listener.
    pub fn new(brokers: &str) -> Self {
        Self::with(&[("bootstrap.servers", brokers)])
    }

    /// With any librdkafka properties.
    pub fn with(properties: &[(&str, &str)]) -> Self {
        let mut config = ClientConfig::new();
        config.set("broker.address.family", "v4").set("partitioner", "murmur2_random").set("linger.ms", "2");
        for (name, value) in properties {
            config.set(*name, *value);
        }
        let producer = config.create().unwrap();
        Self { config, producer }
    }

    /// Creates a topic and waits until its leaders are known. `config`: such as `("retention.ms", "1000")`.
    pub async fn create_topic(&self, topic: &str, partitions: i32, config: &[(&str, &str)]) {
        let new =
            config.iter().fold(NewTopic::new(topic, partitions, TopicReplication::Fixed(1)), |new, (name, value)| new.set(name, value));
        let results = self.admin().create_topics([&new], &AdminOptions::new()).await.unwrap();
        results.into_iter().for_each(|result| assert_eq!(result, Ok(topic.to_owned())));
        super::eventually("the topic's leaders", TIMEOUT, async || (self.partitions(topic).len() == partitions as usize).then_some(()))
            .await;
    }

    /// Asks for a topic once; false: it is there already, is still being deleted, or nobody answers.
    pub async fn try_create_topic(&self, topic: &str, partitions: i32) -> bool {
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        let results = self.admin().create_topics([&new], &AdminOptions::new()).await;
        results.is_ok_and(|results| results.iter().all(Result::is_ok))
    }

    /// Gives a topic one partition more, and answers how many it has then; `None`: nobody answers.
    pub async fn add_partition(&self, topic: &str) -> Option<i32> {
        let more = self.partitions(topic).len() + 1;
        let results = self.admin().create_partitions([&NewPartitions::new(topic, more)], &AdminOptions::new()).await;
        results.ok()?.into_iter().all(|result| result.is_ok()).then_some(more as i32)
    }

    /// Deletes a topic.
    pub async fn delete_topic(&self, topic: &str) {
        self.admin().delete_topics(&[topic], &AdminOptions::new()).await.unwrap();
    }

    /// Every setting in effect for a topic.
    pub async fn settings(&self, topic: &str) -> BTreeMap<String, String> {
        let found = self.admin().describe_configs(&[ResourceSpecifier::Topic(topic)], &AdminOptions::new()).await.unwrap().remove(0);
        found.unwrap().entries.into_iter().map(|entry| (entry.name, entry.value.unwrap_or_default())).collect()
    }

    /// Writes one record and answers its partition and offset.
    pub async fn produce(&self, topic: &str, key: &str, value: &[u8], headers: &[(&str, &str)]) -> (i32, i64) {
        let headers = headers.iter().fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: Some(*value) }));
        let record = FutureRecord::to(topic).key(key).payload(value).headers(headers);
        let delivery = self.producer.send(record, TIMEOUT).await.map_err(|(error, _)| error).unwrap();
        (delivery.partition, delivery.offset)
    }

    /// Writes one record of any bytes: key, value and headers can be missing or no text.
    pub async fn produce_raw(
        &self,
        topic: &str,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, Option<&[u8]>)],
    ) -> (i32, i64) {
        self.try_produce_raw(topic, key, value, headers).await.unwrap()
    }

    /// As [`Kafka::produce_raw`]; `None`: it is not known whether it was written.
    pub async fn try_produce_raw(
        &self,
        topic: &str,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, Option<&[u8]>)],
    ) -> Option<(i32, i64)> {
        let headers = headers.iter().fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: *value }));
        let mut record = FutureRecord::<[u8], [u8]>::to(topic).headers(headers);
        (record.key, record.payload) = (key, value);
        let delivery = self.producer.send(record, TIMEOUT).await.ok()?;
        Some((delivery.partition, delivery.offset))
    }

    /// Writes many (key, value), in order, and returns when all are acknowledged.
    pub async fn produce_all<K: AsRef<str>, V: AsRef<[u8]>>(&self, topic: &str, records: impl IntoIterator<Item = (K, V)>) {
        let mut sent = Vec::new();
        for (key, value) in records {
            let mut record = FutureRecord::to(topic).key(key.as_ref()).payload(value.as_ref());
            sent.push(loop {
                match self.producer.send_result(record) {
                    Ok(delivery) => break delivery,
                    Err((_, back)) => record = back,
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            });
        }
        for delivery in sent {
            delivery.await.unwrap().map_err(|(error, _)| error).unwrap();
        }
    }

    /// Every record that the topic holds now, by partition, then offset.
    pub async fn read_all(&self, topic: &str) -> Vec<Record> {
        self.try_read_all(topic).await.unwrap()
    }

    /// As [`Kafka::read_all`], where the brokers may be on their way up.
    ///
    /// # Errors
    /// What the client says.
    pub async fn try_read_all(&self, topic: &str) -> KafkaResult<Vec<Record>> {
        let consumer = self.consumer(&super::unique("reader"));
        let topic = topic.to_owned();
        tokio::task::spawn_blocking(move || read_to_end(&consumer, &topic)).await.unwrap()
    }

    /// All records once there are at least `count`.
    pub async fn wait_for_records(&self, topic: &str, count: usize, within: Duration) -> Vec<Record> {
        super::eventually(&format!("{count} records in {topic}"), within, async || {
            let ends: i64 =
                self.partitions(topic).into_iter().map(|partition| self.watermarks(topic, partition)).map(|(low, high)| high - low).sum();
            (ends >= count as i64).then_some(())
        })
        .await;
        self.read_all(topic).await
    }

    /// The group's commits of a topic; partitions without one are missing.
    pub fn committed(&self, group: &str, topic: &str) -> BTreeMap<i32, Committed> {
        let consumer = self.consumer(group);
        let mut wanted = TopicPartitionList::new();
        for partition in self.partitions(topic) {
            wanted.add_partition(topic, partition);
        }
        let found = consumer.committed_offsets(wanted, TIMEOUT).unwrap();
        let commit = |offset, metadata: &str| Committed { offset, metadata: metadata.to_owned() };
        found
            .elements()
            .iter()
            .filter_map(|element| match element.offset() {
                Offset::Offset(offset) => Some((element.partition(), commit(offset, element.metadata()))),
                _ => None,
            })
            .collect()
    }

    /// Waits until the group's commits stand at the end of every partition that has records.
    pub async fn wait_until_committed(&self, group: &str, topic: &str, within: Duration) {
        super::eventually(&format!("{group} at the end of {topic}"), within, async || {
            let committed = self.committed(group, topic);
            self.partitions(topic)
                .into_iter()
                .all(|partition| {
                    let (low, high) = self.watermarks(topic, partition);
                    low == high || committed.get(&partition).is_some_and(|commit| commit.offset == high)
                })
                .then_some(())
        })
        .await;
    }

    /// Watches how far a group is, over one connection; it survives a broker that goes away.
    pub fn follower(&self, group: &str) -> Follower {
        Follower(Arc::new(self.consumer(group)))
    }

    /// First offset kept, and the next one to be written.
    pub fn watermarks(&self, topic: &str, partition: i32) -> (i64, i64) {
        self.consumer(&super::unique("reader")).fetch_watermarks(topic, partition, TIMEOUT).unwrap()
    }

    /// The topic's partitions that have a leader.
    pub fn partitions(&self, topic: &str) -> Vec<i32> {
        let metadata = self.consumer(&super::unique("reader")).fetch_metadata(Some(topic), TIMEOUT).unwrap();
        metadata.topics()[0].partitions().iter().filter(|partition| partition.error().is_none()).map(|partition| partition.id()).collect()
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.config.create().unwrap()
    }

    fn consumer(&self, group: &str) -> BaseConsumer {
        let mut config = self.config.clone();
        config.set("group.id", group).set("enable.auto.commit", "false").set("auto.offset.reset", "earliest");
        config.create().unwrap()
    }
}

/// See [`Kafka::follower`].
#[derive(Clone)]
pub struct Follower(Arc<BaseConsumer>);

impl Follower {
    /// How many records the topics hold, once the group's commits stand at their ends; `None`: not yet, or nobody answers.
    pub fn at_end(&self, topics: &[&str]) -> Option<i64> {
        let patience = Duration::from_secs(2);
        let mut wanted = TopicPartitionList::new();
        for topic in topics {
            let metadata = self.0.fetch_metadata(Some(topic), patience).ok()?;
            for partition in metadata.topics()[0].partitions() {
                wanted.add_partition(topic, partition.id());
            }
        }
        let committed = self.0.committed_offsets(wanted, patience).ok()?;
        let mut sum = 0;
        for element in committed.elements() {
            let (low, high) = self.0.fetch_watermarks(element.topic(), element.partition(), patience).ok()?;
            if low < high && element.offset() != Offset::Offset(high) {
                return None;
            }
            sum += high - low;
        }
        Some(sum)
    }
}

/// Reads each partition up to the end it had when asked. Transaction markers take offsets too: the position decides, not the count.
fn read_to_end(consumer: &BaseConsumer, topic: &str) -> KafkaResult<Vec<Record>> {
    let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT)?;
    let mut assignment = TopicPartitionList::new();
    let mut ends = BTreeMap::new();
    for partition in metadata.topics()[0].partitions().iter().map(|partition| partition.id()) {
        let (low, high) = consumer.fetch_watermarks(topic, partition, TIMEOUT)?;
        if low < high {
            assignment.add_partition_offset(topic, partition, Offset::Offset(low))?;
            ends.insert(partition, high);
        }
    }
    consumer.assign(&assignment)?;
    let mut records = Vec::new();
    let deadline = Instant::now() + 3 * TIMEOUT;
    while !ends.is_empty() {
        assert!(Instant::now() < deadline, "{topic} was not read to its end: {ends:?}");
        if let Some(message) = consumer.poll(Duration::from_millis(20)) {
            records.push(record(&message?));
        }
        for element in consumer.position()?.elements() {
            let Some(end) = ends.get(&element.partition()) else { continue };
            if matches!(element.offset(), Offset::Offset(next) if next >= *end) {
                ends.remove(&element.partition());
            }
        }
    }
    records.sort_by_key(|record| (record.partition, record.offset));
    Ok(records)
}

fn record(message: &impl Message) -> Record {
    let bytes = Bytes::copy_from_slice;
    Record {
        partition: message.partition(),
        offset: message.offset(),
        timestamp: message.timestamp().to_millis(),
        key: message.key().map(bytes),
        value: message.payload().map(bytes),
        headers: message
            .headers()
            .map(|headers| headers.iter().map(|header| (header.key.to_owned(), header.value.map(bytes))).collect())
            .unwrap_or_default(),
    }
}
