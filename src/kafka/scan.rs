//! Reads topics without a group: once, as they are now, or on and on, as records come. For tools that look at them.

mod pass;
mod spans;

use std::{collections::BTreeMap, sync::Arc, thread};

use rdkafka::consumer::BaseConsumer;
use tokio::sync::{mpsc, oneshot};

use self::{pass::Pass, spans::Spans};
use super::{
    KafkaError,
    batch::Shared,
    client::{Clients, Logs},
    token::Supplied,
};
use crate::event::record::{Record, TopicPartition};

/// Records that wait for the reader of a scan.
const WAITING: usize = 64;

/// Where in each partition a scan begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// At the first record that the log has.
    #[default]
    Beginning,
    /// At the first record that comes after the scan began.
    End,
    /// At that offset, or the nearest that the log has.
    Offset(i64),
    /// So many offsets before the end.
    Last(i64),
    /// At the first record whose timestamp is not before it, milliseconds since 1970.
    Since(i64),
}

/// What is read.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// These topics.
    pub topics: Vec<String>,
    /// Only this partition of each.
    pub partition: Option<i32>,
    /// From there.
    pub start: Start,
    /// Beyond the end that each partition had at the start, and partitions that are added meanwhile; for ever.
    pub follow: bool,
}

/// One pass over topics.
///
/// Records come in offset order within a partition. At most 64 of them and 16 MiB of the client's own wait; dropping the scan ends it.
pub struct Scan {
    records: mpsc::Receiver<Result<Record, KafkaError>>,
    spans: Spans,
}

/// What is known once a scan has begun.
type Begun = Result<Spans, KafkaError>;

impl Scan {
    /// Begins.
    ///
    /// # Errors
    /// Where no broker answers, reading is not allowed, or all of the topics are missing.
    pub async fn start(clients: &Clients, selection: Selection) -> Result<Self, KafkaError> {
        let clients = clients.clone();
        let (records, receiver) = mpsc::channel(WAITING);
        let (begun, answer) = oneshot::channel::<Begun>();
        thread::Builder::new()
            .name("kafka-scan".to_owned())
            .spawn(move || {
                let opened = clients.create(&clients.scanner(), Logs::default()).and_then(|consumer: Supplied<BaseConsumer<Logs>>| {
                    let spans = Spans::find(&consumer, &selection).map_err(|error| clients.sort(&error))?;
                    spans.check(&selection)?;
                    Ok((Shared::new(consumer), spans))
                });
                let (consumer, spans) = match opened {
                    Ok(opened) => opened,
                    Err(error) => return drop(begun.send(Err(error))),
                };
                if begun.send(Ok(spans.clone())).is_ok()
                    && let Err(error) = Pass::new(Arc::clone(&consumer), selection, clients).run(spans, &records)
                {
                    let _nobody_reads = records.blocking_send(Err(error));
                }
            })
            .map_err(|error| KafkaError::Refused(format!("no thread: {error}")))?;
        let spans = answer.await.unwrap_or_else(|_| Err(KafkaError::Refused("the reading thread died".to_owned())))?;
        Ok(Self { records: receiver, spans })
    }

    /// Offsets between the beginning and the end; a little more than there are records where some were compacted away.
    pub fn total(&self) -> u64 {
        self.spans.total()
    }

    /// Each partition's first offset that is meant, and its end when the scan began.
    pub fn spans(&self) -> &BTreeMap<TopicPartition, (i64, i64)> {
        &self.spans.found
    }

    /// Topics that are not there, or hidden from this client.
    pub fn missing(&self) -> &[String] {
        &self.spans.missing
    }

    /// The next record; `None` at the end.
    ///
    /// # Errors
    /// Where the brokers stop answering before the end: the scan is over then.
    pub async fn next(&mut self) -> Result<Option<Record>, KafkaError> {
        self.records.recv().await.transpose()
    }
}
