//! A record as Kafka keeps it: bytes, untouched.

use std::{fmt, ops::Range, sync::Arc};

use bytes::Bytes;

/// One partition of one topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// The topic's name, shared by every record of it.
    pub topic: Arc<str>,
    /// The partition's number.
    pub partition: i32,
}

impl TopicPartition {
    /// `topic` and number.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.topic, self.partition)
    }
}

/// A record still in its reader's buffer: to look at, or to copy out with [`Record::copy_of`].
pub trait RawRecord {
    /// Position in the partition.
    fn offset(&self) -> i64;
    /// The record's timestamp, milliseconds since 1970; `None` where the topic keeps none.
    fn timestamp(&self) -> Option<i64>;
    /// Key bytes.
    fn key(&self) -> Option<&[u8]>;
    /// Value bytes; `None`: a tombstone.
    fn value(&self) -> Option<&[u8]>;
    /// Shows each header in order: name, value.
    fn headers(&self, each: &mut dyn FnMut(&str, Option<&[u8]>));
}

/// Records of one partition in offset order, handed over in one piece. Dropping it gives the reader's memory back.
pub trait RecordBatch: Send {
    /// How many records.
    fn len(&self) -> usize;
    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Shows each record in order.
    fn for_each(&self, each: &mut dyn FnMut(&dyn RawRecord));
}

/// Where a header's name and value stand in the record's buffer.
type HeaderRange = (Range<usize>, Option<Range<usize>>);

/// An owned record: key, value and headers in one shared allocation.
#[derive(Clone)]
pub struct Record {
    partition: TopicPartition,
    offset: i64,
    timestamp: Option<i64>,
    buffer: Bytes,
    key: Option<Range<usize>>,
    value: Option<Range<usize>>,
    headers: Box<[HeaderRange]>,
}

impl Record {
    /// Copies a raw record out of its reader's buffer: one allocation, one more where there are headers.
    pub fn copy_of(partition: &TopicPartition, raw: &dyn RawRecord) -> Self {
        let mut size = raw.key().map_or(0, <[u8]>::len) + raw.value().map_or(0, <[u8]>::len);
        let mut count = 0;
        raw.headers(&mut |name, value| {
            size += name.len() + value.map_or(0, <[u8]>::len);
            count += 1;
        });
        let mut buffer = Vec::with_capacity(size);
        let mut put = |bytes: &[u8]| {
            let start = buffer.len();
            buffer.extend_from_slice(bytes);
            start..buffer.len()
        };
        let key = raw.key().map(&mut put);
        let value = raw.value().map(&mut put);
        let mut headers = Vec::with_capacity(count);
        raw.headers(&mut |name, value| {
            let name = put(name.as_bytes());
            headers.push((name, value.map(&mut put)));
        });
        Self {
            partition: partition.clone(),
            offset: raw.offset(),
            timestamp: raw.timestamp(),
            buffer: buffer.into(),
            key,
            value,
            headers: headers.into_boxed_slice(),
        }
    }

    /// Topic and partition.
    pub fn partition(&self) -> &TopicPartition {
        &self.partition
    }

    /// The topic.
    pub fn topic(&self) -> &Arc<str> {
        &self.partition.topic
    }

    /// Position in the partition.
    pub fn offset(&self) -> i64 {
        self.offset
    }

    /// Milliseconds since 1970; `None` where the topic keeps no timestamps.
    pub fn timestamp(&self) -> Option<i64> {
        self.timestamp
    }

    /// Key bytes.
    pub fn key(&self) -> Option<&[u8]> {
        self.key.clone().map(|range| &self.buffer[range])
    }

    /// Value bytes; `None`: a tombstone.
    pub fn value(&self) -> Option<&[u8]> {
        self.value.clone().map(|range| &self.buffer[range])
    }

    /// The key, sharing this record's memory.
    pub fn key_bytes(&self) -> Option<Bytes> {
        self.key.clone().map(|range| self.buffer.slice(range))
    }

    /// The value, sharing this record's memory.
    pub fn value_bytes(&self) -> Option<Bytes> {
        self.value.clone().map(|range| self.buffer.slice(range))
    }

    /// Headers in order, names as they were written.
    pub fn headers(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        self.headers.iter().map(|(name, value)| {
            // Every name was copied from a `&str`; a name that is none cannot be here.
            let name = std::str::from_utf8(&self.buffer[name.clone()]).unwrap_or_default();
            (name, value.clone().map(|range| &self.buffer[range]))
        })
    }

    /// The last header of that name, as Kafka's clients read it.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers().filter(|(found, _)| *found == name).last().and_then(|(_, value)| value)
    }

    /// Bytes that this record holds, for the memory budget.
    pub fn footprint(&self) -> usize {
        size_of::<Self>() + self.buffer.len() + self.headers.len() * size_of::<HeaderRange>()
    }
}

impl RawRecord for Record {
    fn offset(&self) -> i64 {
        self.offset
    }

    fn timestamp(&self) -> Option<i64> {
        self.timestamp
    }

    fn key(&self) -> Option<&[u8]> {
        Self::key(self)
    }

    fn value(&self) -> Option<&[u8]> {
        Self::value(self)
    }

    fn headers(&self, each: &mut dyn FnMut(&str, Option<&[u8]>)) {
        for (name, value) in Self::headers(self) {
            each(name, value);
        }
    }
}

impl fmt::Debug for Record {
    /// Never the payload: records end up in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Record({}@{}, {} bytes)", self.partition, self.offset, self.buffer.len())
    }
}

/// A record made by hand: for producers in process, simulations and tests.
#[derive(Debug, Clone, Default)]
pub struct RecordParts {
    /// Position in the partition.
    pub offset: i64,
    /// Milliseconds since 1970.
    pub timestamp: Option<i64>,
    /// Key bytes.
    pub key: Option<Vec<u8>>,
    /// Value bytes.
    pub value: Option<Vec<u8>>,
    /// Headers in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl RawRecord for RecordParts {
    fn offset(&self) -> i64 {
        self.offset
    }

    fn timestamp(&self) -> Option<i64> {
        self.timestamp
    }

    fn key(&self) -> Option<&[u8]> {
        self.key.as_deref()
    }

    fn value(&self) -> Option<&[u8]> {
        self.value.as_deref()
    }

    fn headers(&self, each: &mut dyn FnMut(&str, Option<&[u8]>)) {
        for (name, value) in &self.headers {
            each(name, value.as_deref());
        }
    }
}

impl RecordBatch for Vec<RecordParts> {
    fn len(&self) -> usize {
        Vec::len(self)
    }

    fn for_each(&self, each: &mut dyn FnMut(&dyn RawRecord)) {
        for record in self {
            each(record);
        }
    }
}
