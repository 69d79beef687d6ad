//! The reading itself, on a thread of its own.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::Consumer,
    error::{KafkaError as Native, RDKafkaErrorCode},
};
use tokio::sync::mpsc;

use super::{Selection, spans::Spans};
use crate::{
    event::record::{RawRecord, Record, TopicPartition},
    kafka::{
        KafkaError,
        batch::{Message, Queue, Shared},
        client::{Clients, Logs},
        native,
    },
};

/// Longest silence while records are to come.
const SILENCE: Duration = Duration::from_secs(15);
/// Between two looks at which partitions there are.
const LOOK: Duration = Duration::from_secs(10);
/// Records taken from the client at once.
const READ: usize = 64;

/// A pass over what was selected.
pub(super) struct Pass {
    consumer: Arc<Shared<Logs>>,
    selection: Selection,
    clients: Clients,
}

/// Partitions by topic, then number, each with its end: past it, it is done. No end while following.
type Open = HashMap<Arc<str>, HashMap<i32, (TopicPartition, i64)>>;

impl Pass {
    pub(super) fn new(consumer: Arc<Shared<Logs>>, selection: Selection, clients: Clients) -> Self {
        Self { consumer, selection, clients }
    }

    fn sort(&self, error: &Native) -> KafkaError {
        self.clients.sort(error)
    }

    /// Hands records over until all is read, or nobody takes them any more.
    pub(super) fn run(&self, mut known: Spans, records: &mpsc::Sender<Result<Record, KafkaError>>) -> Result<(), KafkaError> {
        let follow = self.selection.follow;
        let no_queue = || KafkaError::Refused("no queue".to_owned());
        let common = Queue::common(&self.consumer).ok_or_else(no_queue)?;
        let mut open = Open::new();
        self.open(&known, &common, &mut open)?;
        let (mut heard, mut looked) = (Instant::now(), Instant::now());
        let mut read: Vec<Message> = Vec::with_capacity(READ);
        while !open.is_empty() && !records.is_closed() {
            common.read(Duration::from_millis(100), READ, &mut read);
            if !read.is_empty() {
                heard = Instant::now();
            }
            for message in read.drain(..) {
                if !self.hand_over(&message, &mut open, records)? {
                    return Ok(());
                }
            }
            // What concerns no partition waits in the client's own queue.
            if let Some(Err(error)) = self.consumer.poll(Duration::ZERO) {
                let error = self.sort(&error);
                if !matches!(error, KafkaError::Unreachable { .. }) {
                    return Err(error);
                }
            }
            if !follow && heard.elapsed() >= SILENCE {
                return Err(KafkaError::Refused(format!("{}: nothing came for {} s", self.selection.topics.join(", "), SILENCE.as_secs())));
            }
            if follow && looked.elapsed() >= LOOK {
                looked = Instant::now();
                self.look(&mut known, &common, &mut open)?;
            }
        }
        Ok(())
    }

    /// Takes up what was added meanwhile. Brokers that are away come back: it is said, and waited for.
    fn look(&self, known: &mut Spans, common: &Queue<Logs>, open: &mut Open) -> Result<(), KafkaError> {
        match Spans::added(&self.consumer, &self.selection, known) {
            Ok(mut added) if !added.found.is_empty() => {
                self.open(&added, common, open)?;
                known.found.append(&mut added.found);
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(kafka.brokers = self.clients.brokers(), error = %error, "kafka does not answer, trying again"),
        }
        Ok(())
    }

    /// Begins to read partitions; those with nothing to read are left out.
    fn open(&self, spans: &Spans, common: &Queue<Logs>, open: &mut Open) -> Result<(), KafkaError> {
        let wanted = spans.found.iter().filter(|(_, (from, end))| self.selection.follow || from < end);
        let mut list = TopicPartitionList::new();
        for (partition, (from, end)) in wanted {
            list.add_partition(&partition.topic, partition.partition)
                .set_offset(Offset::Offset(*from))
                .map_err(|error| self.sort(&error))?;
            let queue = Queue::of_partition(&self.consumer, &native::c_name(&partition.topic), partition.partition);
            queue.ok_or_else(|| KafkaError::Refused("no queue".to_owned()))?.forward(common);
            let end = if self.selection.follow { i64::MAX } else { *end };
            open.entry(Arc::clone(&partition.topic)).or_default().insert(partition.partition, (partition.clone(), end));
        }
        self.consumer.incremental_assign(&list).map_err(|error| self.sort(&error))
    }

    /// One record, or what stands in its place; `false`: nobody takes them any more.
    fn hand_over(
        &self,
        message: &Message,
        open: &mut Open,
        records: &mpsc::Sender<Result<Record, KafkaError>>,
    ) -> Result<bool, KafkaError> {
        let Some(partitions) = open.get_mut(message.topic()) else { return Ok(true) };
        let Some((partition, end)) = partitions.get(&message.partition()) else { return Ok(true) };
        let done = match message.error() {
            // The log's last offsets can be markers that no consumer sees.
            Some(RDKafkaErrorCode::PartitionEOF) => *end < i64::MAX,
            // One broker that went away: the client looks for it by itself.
            Some(error) => match self.sort(&Native::MessageConsumption(error)) {
                KafkaError::Unreachable { .. } => return Ok(true),
                _ => return Err(KafkaError::Refused(format!("{partition}: {error}"))),
            },
            None => {
                if message.offset() < *end && records.blocking_send(Ok(Record::copy_of(partition, message))).is_err() {
                    return Ok(false);
                }
                message.offset() + 1 >= *end
            }
        };
        if done {
            partitions.remove(&message.partition());
            if partitions.is_empty() {
                open.remove(message.topic());
            }
        }
        Ok(true)
    }
}
