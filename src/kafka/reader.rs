//! Reads single old records again: the backlog of a user that was kept as stubs.

use std::{
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use rdkafka::{Offset, TopicPartitionList, consumer::Consumer, error::RDKafkaErrorCode};
use tokio::sync::oneshot;

use super::{
    KafkaError,
    batch::{Message, Queue, Shared},
    client::{Clients, Logs},
    lookup, native,
};
use crate::{
    engine::ports::{LogReader, ReadError},
    event::record::{RawRecord, Record, TopicPartition},
};

/// Time for one reading, however many records it is about.
const PATIENCE: Duration = Duration::from_secs(10);
/// Readings that may wait; the engine asks one per partition at most.
const WAITING: usize = 1024;
/// Records taken from the client at once.
const READ: usize = 128;
/// Without a word for this long, the position is set anew.
const SILENCE: Duration = Duration::from_secs(1);
/// A hole between two wanted offsets that is read over; beyond it the position is set anew (about 2 ms).
const STRIDE: i64 = 2_000;

/// What is to be read, up to how many bytes, and who waits for it.
type Request = (TopicPartition, Vec<i64>, usize, oneshot::Sender<Result<Vec<Record>, ReadError>>);

/// A second consumer, outside the group, on a thread of its own. It is assigned anew for each run of offsets: a seek after a pause
/// takes up to a second, this 2 to 3 ms.
pub struct KafkaReader {
    requests: mpsc::SyncSender<Request>,
}

impl KafkaReader {
    /// Starts the thread; it ends when the reader is dropped.
    ///
    /// # Errors
    /// Where the properties make no client.
    pub fn start(clients: &Clients) -> Result<Self, KafkaError> {
        let consumer = clients.create(&clients.reader(), Logs::default())?;
        let client = Shared::new(consumer);
        let common = Queue::common(&client).ok_or_else(|| KafkaError::Refused("no queue".to_owned()))?;
        let (requests, queue) = mpsc::sync_channel::<Request>(WAITING);
        thread::Builder::new()
            .name("kafka-reread".to_owned())
            .spawn(move || {
                while let Ok((partition, offsets, bytes, answer)) = queue.recv() {
                    // Nobody waits any more where the partition was lost meanwhile.
                    if !answer.is_closed() {
                        let _ = answer.send(read(&client, &common, &partition, &offsets, bytes));
                    }
                }
            })
            .map_err(|error| KafkaError::Refused(format!("no thread: {error}")))?;
        Ok(Self { requests })
    }
}

impl LogReader for KafkaReader {
    fn read_up_to<'a>(
        &'a self,
        bytes: usize,
        partition: &'a TopicPartition,
        offsets: &'a [i64],
    ) -> BoxFuture<'a, Result<Vec<Record>, ReadError>> {
        Box::pin(async move {
            if offsets.is_empty() {
                return Ok(Vec::new());
            }
            let (answer, answered) = oneshot::channel();
            self.requests
                .try_send((partition.clone(), offsets.to_vec(), bytes, answer))
                .map_err(|_| ReadError("too many readings wait".to_owned()))?;
            answered.await.unwrap_or_else(|_| Err(ReadError("the reader was closed".to_owned())))
        })
    }
}

/// What was read so far, and how much of it is enough.
struct Found {
    records: Vec<Record>,
    /// Bytes still wanted.
    room: usize,
}

/// Reads `offsets` in one pass, run by run, up to so many bytes.
fn read(
    client: &Arc<Shared<Logs>>,
    common: &Queue<Logs>,
    partition: &TopicPartition,
    offsets: &[i64],
    bytes: usize,
) -> Result<Vec<Record>, ReadError> {
    let deadline = Instant::now() + PATIENCE;
    // What the log has now; a record outside of it, or jumped over within it, is gone for good.
    let one = std::slice::from_ref(partition);
    let low = lookup::log_ends(client, one, Offset::Beginning, PATIENCE).map_err(|error| ReadError(error.to_string()))?;
    let end = lookup::log_ends(client, one, Offset::End, PATIENCE).map_err(|error| ReadError(error.to_string()))?;
    let (Some(low), Some(end)) = (low.first(), end.first()) else { return Err(ReadError("no answer".to_owned())) };
    let wanted: Vec<i64> = offsets.iter().copied().filter(|offset| (*low..*end).contains(offset)).collect();
    let mut found = Found { records: Vec::with_capacity(wanted.len()), room: bytes };
    let mut rest = wanted.as_slice();
    while let Some(first) = rest.first().filter(|_| found.room > 0) {
        let run = rest.windows(2).position(|pair| pair[1] - pair[0] > STRIDE).map_or(rest.len(), |at| at + 1);
        let now = &rest[..run];
        let name = native::c_name(&partition.topic);
        let queue = Queue::of_partition(client, &name, partition.partition).ok_or_else(|| ReadError("no queue".to_owned()))?;
        queue.forward(common);
        let read = assign(client, partition, *first).and_then(|()| read_run(common, partition, now, deadline, &mut found));
        let let_go = client.unassign().map_err(|error| ReadError(error.to_string()));
        drain(common);
        // What a silent log did not show is asked for anew: an assignment that follows another at once can be missed.
        rest = &rest[read?..];
        let_go?;
    }
    Ok(found.records)
}

fn assign(client: &Shared<Logs>, partition: &TopicPartition, offset: i64) -> Result<(), ReadError> {
    let failed = |error: rdkafka::error::KafkaError| ReadError(error.to_string());
    let mut list = TopicPartitionList::with_capacity(1);
    list.add_partition(&partition.topic, partition.partition).set_offset(Offset::Offset(offset)).map_err(failed)?;
    client.assign(&list).map_err(failed)
}

/// One run: everything from its first offset on is looked at, what is wanted is copied out. Answers how many of the wanted are dealt
/// with: fewer than all where the log fell silent, or no more are wanted.
///
/// Only the log itself says that a record is gone: by the next one or by its end. Silence says nothing; it is an error, to be asked again.
fn read_run(
    common: &Queue<Logs>,
    partition: &TopicPartition,
    wanted: &[i64],
    deadline: Instant,
    found: &mut Found,
) -> Result<usize, ReadError> {
    let mut left = wanted;
    let mut read: Vec<Message> = Vec::with_capacity(READ);
    let mut heard = Instant::now();
    while !left.is_empty() && heard.elapsed() < SILENCE {
        if Instant::now() > deadline {
            return Err(ReadError(format!("{partition}: no answer within {} s", PATIENCE.as_secs())));
        }
        common.read(Duration::from_millis(20), READ, &mut read);
        if !read.is_empty() {
            heard = Instant::now();
        }
        for message in read.drain(..) {
            let ours = message.partition() == partition.partition && message.topic() == &*partition.topic;
            match message.error() {
                // The log ends in what is not shown (markers of transactions, compacted records): the position went over the rest.
                Some(RDKafkaErrorCode::PartitionEOF) => {}
                // Retention passed by between the question and the reading.
                Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                    return Err(ReadError(format!("{partition}: the log moved on")));
                }
                Some(error) => return Err(ReadError(error.to_string())),
                None => {}
            }
            if !ours {
                continue;
            }
            // Jumped over, by a record or by the log's end: gone.
            while left.first().is_some_and(|offset| *offset < message.offset()) {
                left = &left[1..];
            }
            if message.error().is_none() && left.first() == Some(&message.offset()) {
                let record = Record::copy_of(partition, &message);
                found.room = found.room.saturating_sub(record.footprint());
                found.records.push(record);
                left = &left[1..];
                if found.room == 0 {
                    return Ok(wanted.len() - left.len());
                }
            }
        }
    }
    Ok(wanted.len() - left.len())
}

/// Forgets what was read ahead.
fn drain(common: &Queue<Logs>) {
    let mut read = Vec::with_capacity(READ);
    loop {
        common.read(Duration::ZERO, READ, &mut read);
        if read.is_empty() {
            return;
        }
        read.clear();
    }
}
