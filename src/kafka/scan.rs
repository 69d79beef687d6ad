//! Reads a whole topic once, as it is now, without a group: for tools that look at the DLQ.

use std::{
    collections::HashMap,
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError as Native,
    message::{BorrowedMessage, Headers},
};
use tokio::sync::mpsc;

use super::{
    KafkaError,
    client::{Clients, Logs},
    lookup,
};
use crate::event::record::{RawRecord, Record, TopicPartition};

/// Time for one answer of a broker, and longest silence while records are to come.
const PATIENCE: Duration = Duration::from_secs(15);
/// Records that wait for the reader of a scan.
const WAITING: usize = 64;

/// One pass over a topic: every partition from where it was told to begin to the end that it had at the start.
///
/// Records come in offset order within a partition. At most 64 of them and 16 MiB of the client's own wait; dropping the scan ends it.
pub struct Scan {
    records: mpsc::Receiver<Result<Record, KafkaError>>,
    total: u64,
}

impl Scan {
    /// Begins at the first record, or at the first whose timestamp is not before `since` (milliseconds since 1970).
    ///
    /// # Errors
    /// Where no broker answers, the topic is missing, or reading it is not allowed.
    pub async fn start(clients: &Clients, topic: &str, since: Option<i64>) -> Result<Self, KafkaError> {
        let config = clients.scanner();
        let (brokers, topic) = (clients.brokers().to_owned(), topic.to_owned());
        let (records, receiver) = mpsc::channel(WAITING);
        let (found, total) = tokio::sync::oneshot::channel();
        thread::Builder::new()
            .name("kafka-scan".to_owned())
            .spawn(move || {
                let sort = |error: Native| KafkaError::from_native(&error, &brokers);
                let opened = Clients::create(&config, Logs::default()).and_then(|consumer: BaseConsumer<Logs>| {
                    let plan = plan(&consumer, &topic, since, &brokers)?;
                    Ok((consumer, plan))
                });
                let (consumer, plan) = match opened {
                    Ok(opened) => opened,
                    Err(error) => return drop(found.send(Err(error))),
                };
                let count = plan.values().map(|(from, end)| end - from).sum::<i64>();
                if found.send(Ok(u64::try_from(count).unwrap_or(0))).is_ok()
                    && let Err(error) = read(&consumer, &topic, plan, &records, &sort)
                {
                    let _nobody_reads = records.blocking_send(Err(error));
                }
            })
            .map_err(|error| KafkaError::Refused(format!("no thread: {error}")))?;
        let total = total.await.unwrap_or_else(|_| Err(KafkaError::Refused("the reading thread died".to_owned())))?;
        Ok(Self { records: receiver, total })
    }

    /// Offsets between the beginning and the end; a little more than there are records where some were compacted away.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The next record; `None` at the end.
    ///
    /// # Errors
    /// Where the brokers stop answering: the scan is over then.
    pub async fn next(&mut self) -> Result<Option<Record>, KafkaError> {
        self.records.recv().await.transpose()
    }
}

/// From where to where each partition is read; empty ones are left out.
fn plan(consumer: &BaseConsumer<Logs>, topic: &str, since: Option<i64>, brokers: &str) -> Result<HashMap<i32, (i64, i64)>, KafkaError> {
    let sort = |error: Native| KafkaError::from_native(&error, brokers);
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).map_err(sort)?;
    let found = metadata.topics().first().filter(|found| found.error().is_none() && !found.partitions().is_empty());
    let found = found.ok_or_else(|| KafkaError::Refused(format!("topic {topic} does not exist, or may not be read")))?;
    let name: std::sync::Arc<str> = topic.into();
    let partitions: Vec<_> = found.partitions().iter().map(|partition| TopicPartition::new(name.clone(), partition.id())).collect();
    let lows = lookup::log_ends(consumer, &partitions, Offset::Beginning, PATIENCE).map_err(sort)?;
    let ends = lookup::log_ends(consumer, &partitions, Offset::End, PATIENCE).map_err(sort)?;
    let starts = match since {
        Some(since) => lookup::first_since(consumer, &partitions, since, PATIENCE).map_err(sort)?,
        None => vec![Some(i64::MIN); partitions.len()],
    };
    let spans = partitions.iter().zip(lows).zip(ends.into_iter().zip(starts)).map(|((partition, low), (end, start))| {
        // No record is that young: nothing to read.
        (partition.partition, (start.unwrap_or(end).max(low), end))
    });
    Ok(spans.filter(|(_, (from, end))| from < end).collect())
}

fn read(
    consumer: &BaseConsumer<Logs>,
    topic: &str,
    mut left: HashMap<i32, (i64, i64)>,
    records: &mpsc::Sender<Result<Record, KafkaError>>,
    sort: &dyn Fn(Native) -> KafkaError,
) -> Result<(), KafkaError> {
    let mut list = TopicPartitionList::with_capacity(left.len());
    for (partition, (from, _)) in &left {
        list.add_partition(topic, *partition).set_offset(Offset::Offset(*from)).map_err(sort)?;
    }
    consumer.assign(&list).map_err(sort)?;
    let name: std::sync::Arc<str> = topic.into();
    let mut heard = Instant::now();
    while !left.is_empty() {
        let message = match consumer.poll(Duration::from_millis(100)) {
            None if heard.elapsed() < PATIENCE => continue,
            None => return Err(KafkaError::Refused(format!("{topic}: nothing came for {} s", PATIENCE.as_secs()))),
            // The log's last offsets can be markers that no consumer sees.
            Some(Err(Native::PartitionEOF(partition))) => {
                left.remove(&partition);
                heard = Instant::now();
                continue;
            }
            // One broker that went away: the client looks for it by itself.
            Some(Err(error)) => match sort(error) {
                KafkaError::Unreachable { .. } if heard.elapsed() < PATIENCE => continue,
                error => return Err(error),
            },
            Some(Ok(message)) => message,
        };
        let Some((_, end)) = left.get(&message.partition()) else { continue };
        let last = message.offset() + 1 >= *end;
        if message.offset() < *end {
            let partition = TopicPartition::new(name.clone(), message.partition());
            if records.blocking_send(Ok(Record::copy_of(&partition, &Raw(&message)))).is_err() {
                return Ok(());
            }
        }
        if last {
            left.remove(&message.partition());
        }
        heard = Instant::now();
    }
    Ok(())
}

/// A record in the client's buffer.
struct Raw<'a, 'b>(&'a BorrowedMessage<'b>);

impl RawRecord for Raw<'_, '_> {
    fn offset(&self) -> i64 {
        self.0.offset()
    }

    fn timestamp(&self) -> Option<i64> {
        self.0.timestamp().to_millis()
    }

    fn key(&self) -> Option<&[u8]> {
        self.0.key()
    }

    fn value(&self) -> Option<&[u8]> {
        self.0.payload()
    }

    fn headers(&self, each: &mut dyn FnMut(&str, Option<&[u8]>)) {
        for header in self.0.headers().into_iter().flat_map(Headers::iter) {
            each(header.key, header.value);
        }
    }
}
