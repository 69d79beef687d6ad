//! The embedded broker: librdkafka's in-process cluster, with a guard against what it forgets.
//!
//! It keeps everything in memory, loses it with the process, and drops a partition's oldest batches without a word beyond 5 MiB of
//! batches or 100 000 batches (`rd_kafka_mock_msgset_new` in `rdkafka_mock.c`: `max_size`, `max_cnt`, both per partition; a *batch* is
//! counted, not a record, and its bytes are those on the wire). The guard counts each unsettled record as a batch of its own with the
//! largest overhead that one can have, so that it answers [`PublishError::QueueFull`] before the broker could drop a record whose
//! offset is not committed.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;
use rdkafka::{
    ClientConfig,
    producer::{BaseProducer, DefaultProducerContext, Producer},
};

use super::{
    KafkaError,
    client::Clients,
    native,
    publisher::{Charge, KafkaPublisher},
};
use crate::{
    config::kafka::Partitioner,
    engine::ports::{Acked, Commit, CommitError, Message, OffsetSink, PublishError, Publisher},
};

/// What the broker keeps of one partition.
pub const KEPT_BYTES: usize = 5 * 1024 * 1024;
/// Batches that the broker keeps of one partition.
pub const KEPT_BATCHES: usize = 100_000;
/// Bytes of one batch; also the slack for a batch that is settled in part, since the broker drops whole ones.
const BATCH: usize = 64 * 1024;
/// A batch's header (61 bytes) and a record's own lengths, deltas and attributes (at most 31).
const OVERHEAD: usize = 61 + 31;
/// At most two lengths per header.
const HEADER_OVERHEAD: usize = 10;

/// The in-process cluster. It lives as long as this value; clients of any process reach it at [`Self::brokers`].
pub struct Embedded {
    broker: BaseProducer<DefaultProducerContext>,
    brokers: String,
}

impl Embedded {
    /// Starts a cluster of one broker with these topics: name, partitions.
    ///
    /// # Errors
    /// Where librdkafka cannot make one, or a topic has no partitions.
    pub fn start(topics: &[(&str, i32)]) -> Result<Self, KafkaError> {
        let native = |error: rdkafka::error::KafkaError| KafkaError::from_native(&error, "embedded");
        let broker: BaseProducer<DefaultProducerContext> =
            ClientConfig::new().set("test.mock.num.brokers", "1").set("client.id", "worker-embedded").create().map_err(native)?;
        native::no_initial_rebalance_delay(broker.client());
        let cluster = broker.client().mock_cluster().ok_or_else(|| KafkaError::Refused("no embedded broker".to_owned()))?;
        let brokers = cluster.bootstrap_servers();
        for (topic, partitions) in topics {
            cluster.create_topic(topic, *partitions, 1).map_err(native)?;
        }
        drop(cluster);
        Ok(Self { broker, brokers })
    }

    /// `host:port`, for `kafka.brokers`.
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// Adds a topic.
    ///
    /// # Errors
    /// Where there is one of that name.
    pub fn create_topic(&self, topic: &str, partitions: i32) -> Result<(), KafkaError> {
        let cluster = self.broker.client().mock_cluster().ok_or_else(|| KafkaError::Refused("no embedded broker".to_owned()))?;
        cluster.create_topic(topic, partitions, 1).map_err(|error| KafkaError::from_native(&error, "embedded"))
    }

    /// Takes the broker away (`false`) and brings it back, for tests of what happens then.
    ///
    /// # Errors
    /// Where librdkafka refuses.
    pub fn set_up(&self, up: bool) -> Result<(), KafkaError> {
        let cluster = self.broker.client().mock_cluster().ok_or_else(|| KafkaError::Refused("no embedded broker".to_owned()))?;
        if up { cluster.broker_up(-1) } else { cluster.broker_down(-1) }.map_err(|error| KafkaError::from_native(&error, "embedded"))
    }

    /// A publisher that keeps unsettled records of the guarded topics (name, partitions) from being dropped, and what frees them.
    ///
    /// Guarded are the topics that the consumer of this process reads; what others write directly is not counted.
    ///
    /// # Errors
    /// Where no producer can be made.
    pub fn publisher(&self, clients: &Clients, guarded: &[(&str, i32)]) -> Result<(Arc<GuardedPublisher>, Guard), KafkaError> {
        let inner = KafkaPublisher::with(clients, |config| {
            // Sizes on the wire must be those counted; in process there is no network to save.
            config.set("compression.type", "none").set("batch.size", BATCH.to_string()).set("linger.ms", "0");
        })?;
        let guard = Guard {
            topics: Arc::new(guarded.iter().map(|(topic, partitions)| ((*topic).to_owned(), *partitions)).collect()),
            fnv1a: clients.partitioner() == Partitioner::Fnv1aRandom,
            ledger: Arc::default(),
        };
        Ok((Arc::new(GuardedPublisher { inner, guard: guard.clone() }), guard))
    }
}

/// Unsettled records of one partition.
#[derive(Debug, Default)]
struct Unsettled {
    /// Handed over, offset unknown yet.
    in_flight: (usize, usize),
    written: BTreeMap<i64, usize>,
    written_bytes: usize,
    committed: i64,
}

type Ledger = Mutex<HashMap<(String, i32), Unsettled>>;

/// Shared by the publisher and the offset sink.
#[derive(Debug, Clone)]
pub struct Guard {
    topics: Arc<HashMap<String, i32>>,
    fnv1a: bool,
    ledger: Arc<Ledger>,
}

impl Guard {
    /// Frees what the sink's commits settle.
    pub fn sink(&self, inner: Arc<dyn OffsetSink>) -> Arc<dyn OffsetSink> {
        Arc::new(GuardedOffsets { inner, guard: self.clone() })
    }

    /// Reserves room for one record of a guarded topic and fixes its partition.
    fn reserve(&self, message: &mut Message) -> Result<Option<Reserved>, PublishError> {
        let Some(partitions) = self.topics.get(&*message.topic) else { return Ok(None) };
        let partition = *message.partition.get_or_insert_with(|| match &message.key {
            Some(key) => native::partition_of(self.fnv1a, key, *partitions),
            None => fastrand::i32(0..(*partitions).max(1)),
        });
        let bytes = size_of_record(message);
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let unsettled = ledger.entry((message.topic.to_string(), partition)).or_default();
        let held = unsettled.in_flight.1 + unsettled.written_bytes;
        let count = unsettled.in_flight.0 + unsettled.written.len();
        // One record alone is always kept, however large: the broker never drops its last batch.
        let fits = held + bytes + BATCH <= KEPT_BYTES && count + 1 < KEPT_BATCHES;
        if !fits && count > 0 {
            return Err(PublishError::QueueFull);
        }
        unsettled.in_flight.0 += 1;
        unsettled.in_flight.1 += bytes;
        Ok(Some(Reserved { ledger: Arc::clone(&self.ledger), place: (message.topic.to_string(), partition), bytes, open: true }))
    }

    fn settle(&self, commits: &[Commit]) {
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        for commit in commits.iter().filter(|commit| self.topics.contains_key(&*commit.partition.topic)) {
            let unsettled = ledger.entry((commit.partition.topic.to_string(), commit.partition.partition)).or_default();
            unsettled.committed = unsettled.committed.max(commit.offset);
            let left = unsettled.written.split_off(&commit.offset);
            let freed: usize = std::mem::replace(&mut unsettled.written, left).values().sum();
            unsettled.written_bytes -= freed;
        }
    }
}

/// Upper bound of a record's bytes in the broker's log.
fn size_of_record(message: &Message) -> usize {
    let headers: usize =
        message.headers.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, |value| value.len()) + HEADER_OVERHEAD).sum();
    OVERHEAD + message.key.as_ref().map_or(0, |key| key.len()) + message.value.as_ref().map_or(0, |value| value.len()) + headers
}

/// Room taken for one record until its offset is known; given back where it was not written.
struct Reserved {
    ledger: Arc<Ledger>,
    place: (String, i32),
    bytes: usize,
    open: bool,
}

impl Reserved {
    fn close(&mut self, offset: Option<i64>) {
        if !std::mem::take(&mut self.open) {
            return;
        }
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(unsettled) = ledger.get_mut(&self.place) else { return };
        unsettled.in_flight.0 -= 1;
        unsettled.in_flight.1 -= self.bytes;
        // Settled already where the engine was faster than the acknowledgement.
        if let Some(offset) = offset.filter(|offset| *offset >= unsettled.committed) {
            unsettled.written.insert(offset, self.bytes);
            unsettled.written_bytes += self.bytes;
        }
    }
}

impl Charge for Reserved {
    fn written(mut self: Box<Self>, acked: Acked) {
        self.close(Some(acked.offset));
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.close(None);
    }
}

/// A publisher to the embedded broker.
pub struct GuardedPublisher {
    inner: KafkaPublisher,
    guard: Guard,
}

impl GuardedPublisher {
    /// As [`KafkaPublisher::brokers_up`].
    pub fn brokers_up(&self) -> bool {
        self.inner.brokers_up()
    }

    /// As [`KafkaPublisher::close`].
    pub async fn close(&self, deadline: Duration) -> usize {
        self.inner.close(deadline).await
    }
}

impl Publisher for GuardedPublisher {
    fn publish(&self, mut message: Message) -> BoxFuture<'_, Result<Acked, PublishError>> {
        Box::pin(async move {
            let charge = self.guard.reserve(&mut message)?.map(|reserved| Box::new(reserved) as Box<dyn Charge>);
            let answered = self.inner.enqueue(&message, charge)?;
            answered.await.unwrap_or_else(|_| Err(PublishError::Unreachable("the producer was closed".to_owned())))
        })
    }
}

/// An offset sink whose commits free room.
struct GuardedOffsets {
    inner: Arc<dyn OffsetSink>,
    guard: Guard,
}

impl OffsetSink for GuardedOffsets {
    fn commit(&self, commits: Vec<Commit>) -> BoxFuture<'_, Result<(), CommitError>> {
        Box::pin(async move {
            let settled: Vec<_> = commits.iter().map(|commit| Commit { metadata: String::new(), ..commit.clone() }).collect();
            self.inner.commit(commits).await?;
            self.guard.settle(&settled);
            Ok(())
        })
    }
}
