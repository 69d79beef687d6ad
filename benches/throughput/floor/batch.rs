//! The barest way to read: every partition's queue forwarded to one, read with `rd_kafka_consume_batch_queue`.
//!
//! # Safety
//! Queue and records are librdkafka's: a queue is given back once, after the records read from it; a record is ours until it is destroyed,
//! from whatever thread, and does not change meanwhile. The consumer outlives both.

use std::{ffi::CString, ptr::NonNull, sync::Arc};

use anyhow::Context as _;
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};
use rdkafka_sys as sys;

use crate::stack::{PARTITIONS, Stack, unique};

/// Records of one read, as the worker's.
pub const READ: usize = 512;

/// One record in librdkafka's memory.
pub struct Record(NonNull<sys::rd_kafka_message_t>);

// SAFETY: ours alone and unchanging, see the file's head.
unsafe impl Send for Record {}

impl Record {
    /// Its value; empty where it has none.
    pub fn value(&self) -> &[u8] {
        // SAFETY: ours until dropped; payload is null or `len` bytes of it.
        unsafe {
            let raw = self.0.as_ref();
            if raw.payload.is_null() { &[] } else { std::slice::from_raw_parts(raw.payload.cast::<u8>(), raw.len) }
        }
    }

    /// Its key; empty where it has none.
    pub fn key(&self) -> &[u8] {
        // SAFETY: ours until dropped; key is null or `key_len` bytes of it.
        unsafe {
            let raw = self.0.as_ref();
            if raw.key.is_null() { &[] } else { std::slice::from_raw_parts(raw.key.cast::<u8>(), raw.key_len) }
        }
    }

    /// Its place in the partition.
    pub fn offset(&self) -> i64 {
        // SAFETY: ours until dropped.
        unsafe { self.0.as_ref() }.offset
    }

    /// The partition's number.
    pub fn partition(&self) -> i32 {
        // SAFETY: ours until dropped.
        unsafe { self.0.as_ref() }.partition
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // SAFETY: ours, given back once.
        unsafe { sys::rd_kafka_message_destroy(self.0.as_ptr()) };
    }
}

/// A consumer in no group that reads a whole topic from its start, with the worker's fetch settings.
pub struct Reader {
    queue: NonNull<sys::rd_kafka_queue_t>,
    consumer: Arc<BaseConsumer>,
}

// SAFETY: queue handles are thread-safe.
unsafe impl Send for Reader {}

impl Reader {
    /// Begins to fetch.
    ///
    /// # Errors
    /// Where the client refuses.
    pub fn start(stack: &Stack, topic: &str) -> anyhow::Result<Self> {
        let consumer: BaseConsumer = stack
            .client()
            .set("group.id", unique("floor"))
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set("fetch.message.max.bytes", "262144")
            .set("fetch.wait.max.ms", "100")
            .set("fetch.queue.backoff.ms", "5")
            .set("queued.min.messages", "100000")
            .set("queued.max.messages.kbytes", "5461")
            .create()?;
        let name = CString::new(topic)?;
        // SAFETY: the client is alive.
        let queue = NonNull::new(unsafe { sys::rd_kafka_queue_new(consumer.client().native_ptr()) }).context("no queue")?;
        let mut list = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            list.add_partition_offset(topic, partition, Offset::Beginning)?;
            // SAFETY: client and name are alive; the reference is given back at once, the partition keeps its queue.
            unsafe {
                let own = NonNull::new(sys::rd_kafka_queue_get_partition(consumer.client().native_ptr(), name.as_ptr(), partition));
                let own = own.context("no queue of the partition")?;
                sys::rd_kafka_queue_forward(own.as_ptr(), queue.as_ptr());
                sys::rd_kafka_queue_destroy(own.as_ptr());
            }
        }
        consumer.assign(&list)?;
        Ok(Self { queue, consumer: Arc::new(consumer) })
    }

    /// Appends what there is, up to [`READ`]; waits for the first of them.
    pub fn read(&self, into: &mut Vec<Record>) {
        let _served = self.consumer.poll(std::time::Duration::ZERO);
        // SAFETY: the queue is alive; what is returned is ours.
        let first = unsafe { sys::rd_kafka_consume_queue(self.queue.as_ptr(), 100) };
        let Some(first) = NonNull::new(first) else { return };
        push(into, first);
        let mut rest: Vec<*mut sys::rd_kafka_message_t> = Vec::with_capacity(READ - 1);
        // SAFETY: room for `capacity` pointers, of which the call writes the first `count`; each is ours.
        unsafe {
            let count = sys::rd_kafka_consume_batch_queue(self.queue.as_ptr(), 0, rest.as_mut_ptr(), rest.capacity());
            rest.set_len(usize::try_from(count).unwrap_or(0));
        }
        for record in rest.into_iter().filter_map(NonNull::new) {
            push(into, record);
        }
    }

    /// As [`Reader::read`], sorted into so many groups; what was read is in `batch` meanwhile.
    pub fn read_groups(&self, batch: &mut Vec<Record>, count: usize, group_of: impl Fn(&Record) -> usize) -> Vec<Vec<Record>> {
        self.read(batch);
        let mut groups: Vec<Vec<Record>> = (0..count).map(|_| Vec::new()).collect();
        for record in batch.drain(..) {
            groups[group_of(&record)].push(record);
        }
        groups
    }
}

/// What stands for an error is no record.
fn push(into: &mut Vec<Record>, raw: NonNull<sys::rd_kafka_message_t>) {
    let record = Record(raw);
    // SAFETY: ours.
    if unsafe { raw.as_ref() }.err == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
        into.push(record);
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // SAFETY: our one reference.
        unsafe { sys::rd_kafka_queue_destroy(self.queue.as_ptr()) };
    }
}
