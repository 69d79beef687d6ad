//! Partition queues and zero-copy records, through librdkafka's own calls.
//!
//! # Safety
//! Three kinds of pointers of librdkafka are held here; each rests on a documented rule of `rdkafka.h`:
//!
//! * The client (`rd_kafka_t`). Every queue and every batch of records holds an `Arc` of the client it came from, so the client is
//!   destroyed after them. All functions used here are thread-safe on it.
//! * A queue (`rd_kafka_queue_t`) from `rd_kafka_queue_new` or `rd_kafka_queue_get_partition` is one reference of ours and is given
//!   back once, by `rd_kafka_queue_destroy`. Destroying a partition's handle leaves the partition's own queue alone.
//! * A record (`rd_kafka_message_t`) from a consume call is ours until `rd_kafka_message_destroy`, which may be called from any thread.
//!   Payload, key and topic do not move or change meanwhile. Headers are decoded into the record on first use: that mutates it behind a
//!   shared pointer, so a record is `Send` but not `Sync`.

use std::{
    cell::Cell,
    ffi::{CStr, c_char, c_void},
    marker::PhantomData,
    ptr::{self, NonNull},
    slice,
    sync::Arc,
    thread,
    time::Duration,
};

use rdkafka::{
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::RDKafkaErrorCode,
};
use rdkafka_sys as sys;

use super::{native::code, token::Supplied};
use crate::event::record::{RawRecord, RecordBatch};

/// A consumer that many own; whoever lets go last does not wait for it to close.
pub(super) struct Shared<C: ConsumerContext + 'static>(Option<Supplied<BaseConsumer<C>>>);

impl<C: ConsumerContext + 'static> Shared<C> {
    pub(super) fn new(consumer: Supplied<BaseConsumer<C>>) -> Arc<Self> {
        Arc::new(Self(Some(consumer)))
    }

    /// Closes the consumer on this thread, however long it takes.
    pub(super) fn close(mut self) {
        drop(self.0.take());
    }
}

impl<C: ConsumerContext + 'static> std::ops::Deref for Shared<C> {
    type Target = BaseConsumer<C>;

    #[expect(clippy::expect_used, reason = "taken only by close and drop, which nothing can follow")]
    fn deref(&self) -> &BaseConsumer<C> {
        self.0.as_ref().expect("an open consumer")
    }
}

impl<C: ConsumerContext + 'static> Drop for Shared<C> {
    /// Closing can take seconds, and the last owner may be a batch on a runtime's worker.
    fn drop(&mut self) {
        if let Some(consumer) = self.0.take() {
            let _ = thread::Builder::new().name("kafka-drop".to_owned()).spawn(move || drop(consumer));
        }
    }
}

/// A queue of fetched records: a partition's own, or one that many are forwarded to.
pub(super) struct Queue<C: ConsumerContext + 'static> {
    queue: NonNull<sys::rd_kafka_queue_t>,
    _client: Arc<Shared<C>>,
}

// SAFETY: a queue handle is thread-safe in librdkafka, and the client behind the `Arc` is too.
unsafe impl<C: ConsumerContext + 'static> Send for Queue<C> {}

impl<C: ConsumerContext + 'static> Queue<C> {
    /// An empty queue.
    pub(super) fn common(client: &Arc<Shared<C>>) -> Option<Self> {
        // SAFETY: the client is alive; the result is ours or null.
        let queue = NonNull::new(unsafe { sys::rd_kafka_queue_new(client.client().native_ptr()) })?;
        Some(Self { queue, _client: Arc::clone(client) })
    }

    /// The queue of one partition, which needs not be assigned yet.
    pub(super) fn of_partition(client: &Arc<Shared<C>>, topic: &CStr, partition: i32) -> Option<Self> {
        // SAFETY: the client is alive, the name a C string; the result is ours or null.
        let queue = unsafe { sys::rd_kafka_queue_get_partition(client.client().native_ptr(), topic.as_ptr(), partition) };
        Some(Self { queue: NonNull::new(queue)?, _client: Arc::clone(client) })
    }

    /// From now on records go to `to`, and what waits goes there first.
    pub(super) fn forward(&self, to: &Self) {
        // SAFETY: both handles are alive.
        unsafe { sys::rd_kafka_queue_forward(self.queue.as_ptr(), to.queue.as_ptr()) };
    }

    /// From now on records wait here.
    pub(super) fn keep(&self) {
        // SAFETY: the handle is alive; null ends forwarding.
        unsafe { sys::rd_kafka_queue_forward(self.queue.as_ptr(), ptr::null_mut()) };
    }

    /// Up to `max` records, waiting at most `timeout` for the first and not at all for the others.
    ///
    /// (`rd_kafka_consume_batch_queue` alone waits the whole time for a full batch.)
    pub(super) fn read(&self, timeout: Duration, max: usize, into: &mut Vec<Message>) {
        let ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the handle is alive; a record that is returned is ours.
        let first = unsafe { sys::rd_kafka_consume_queue(self.queue.as_ptr(), ms) };
        let Some(first) = NonNull::new(first) else { return };
        into.push(Message::new(first));
        let mut rest: Vec<*mut sys::rd_kafka_message_t> = Vec::with_capacity(max.saturating_sub(1));
        // SAFETY: room for `capacity` pointers, of which the call writes the first `count`; each is ours.
        unsafe {
            let count = sys::rd_kafka_consume_batch_queue(self.queue.as_ptr(), 0, rest.as_mut_ptr(), rest.capacity());
            rest.set_len(usize::try_from(count).unwrap_or(0));
        }
        into.extend(rest.into_iter().filter_map(NonNull::new).map(Message::new));
    }
}

impl<C: ConsumerContext + 'static> Drop for Queue<C> {
    fn drop(&mut self) {
        // SAFETY: our one reference; the client behind `self.client` is still alive.
        unsafe { sys::rd_kafka_queue_destroy(self.queue.as_ptr()) };
    }
}

/// One record, or one error about a partition, in librdkafka's memory. Valid only while its client lives: [`Batch`] sees to that.
pub(super) struct Message {
    record: NonNull<sys::rd_kafka_message_t>,
    /// Known to have no headers: librdkafka forgets that, and allocates each time that it is asked.
    bare: Cell<bool>,
}

// SAFETY: see the file's head: ours alone, immutable but for its headers, destroyable from any thread.
unsafe impl Send for Message {}

impl Message {
    fn new(record: NonNull<sys::rd_kafka_message_t>) -> Self {
        Self { record, bare: Cell::new(false) }
    }

    fn raw(&self) -> &sys::rd_kafka_message_t {
        // SAFETY: ours until dropped.
        unsafe { self.record.as_ref() }
    }

    /// The error that stands in a record's place.
    pub(super) fn error(&self) -> Option<RDKafkaErrorCode> {
        code(self.raw().err).err()
    }

    /// What tells topics apart as long as this record lives.
    pub(super) fn topic_id(&self) -> usize {
        self.raw().rkt as usize
    }

    /// The topic's name; empty for an error about no topic.
    pub(super) fn topic(&self) -> &str {
        if self.raw().rkt.is_null() {
            return "";
        }
        // SAFETY: the record holds its topic; the name is a C string of the topic.
        unsafe { CStr::from_ptr(sys::rd_kafka_topic_name(self.raw().rkt)) }.to_str().unwrap_or_default()
    }

    /// The partition's number.
    pub(super) fn partition(&self) -> i32 {
        self.raw().partition
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        // SAFETY: ours, given back once.
        unsafe { sys::rd_kafka_message_destroy(self.record.as_ptr()) };
    }
}

/// Bytes at `data`, `None` where there are none at all; an empty key or value is not null.
///
/// # Safety
/// `data` is null or points to `len` bytes that outlive `'a`.
unsafe fn bytes<'a>(data: *const c_void, len: usize) -> Option<&'a [u8]> {
    // SAFETY: the caller's promise.
    (!data.is_null()).then(|| unsafe { slice::from_raw_parts(data.cast::<u8>(), len) })
}

impl RawRecord for Message {
    fn offset(&self) -> i64 {
        self.raw().offset
    }

    fn timestamp(&self) -> Option<i64> {
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the record is ours; the kind is written by the call.
        let timestamp = unsafe { sys::rd_kafka_message_timestamp(self.record.as_ptr(), &mut kind) };
        (kind != sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE && timestamp >= 0).then_some(timestamp)
    }

    fn key(&self) -> Option<&[u8]> {
        // SAFETY: the record's own memory.
        unsafe { bytes(self.raw().key, self.raw().key_len) }
    }

    fn value(&self) -> Option<&[u8]> {
        // SAFETY: the record's own memory.
        unsafe { bytes(self.raw().payload, self.raw().len) }
    }

    fn headers(&self, each: &mut dyn FnMut(&str, Option<&[u8]>)) {
        if self.bare.get() {
            return;
        }
        let mut headers = ptr::null_mut();
        // SAFETY: the record is ours and used by one thread at a time; the list found belongs to it.
        if code(unsafe { sys::rd_kafka_message_headers(self.record.as_ptr(), &mut headers) }).is_err() {
            return self.bare.set(true);
        }
        for index in 0.. {
            let (mut name, mut value, mut len): (*const c_char, *const c_void, usize) = (ptr::null(), ptr::null(), 0);
            // SAFETY: the list is alive; the three results are written on success and belong to the record.
            if code(unsafe { sys::rd_kafka_header_get_all(headers, index, &mut name, &mut value, &mut len) }).is_err() {
                return;
            }
            // SAFETY: a header's name is a C string, its value null or `len` bytes.
            let (name, value) = unsafe { (CStr::from_ptr(name), bytes(value, len)) };
            each(&name.to_string_lossy(), value);
        }
    }
}

/// Records of one partition with the client whose memory they are.
pub(super) struct Batch<C: ConsumerContext + 'static> {
    // Declared first, dropped first: the records go before the client.
    messages: Vec<Message>,
    _client: Arc<Shared<C>>,
    _not_sync: PhantomData<*const ()>,
}

// SAFETY: records may move between threads, see the file's head; `PhantomData` only takes `Sync` away.
unsafe impl<C: ConsumerContext + 'static> Send for Batch<C> {}

impl<C: ConsumerContext + 'static> Batch<C> {
    /// All `messages` must come from `client`.
    pub(super) fn new(client: &Arc<Shared<C>>, messages: Vec<Message>) -> Self {
        Self { messages, _client: Arc::clone(client), _not_sync: PhantomData }
    }
}

impl<C: ConsumerContext + 'static> RecordBatch for Batch<C> {
    fn len(&self) -> usize {
        self.messages.len()
    }

    fn for_each(&self, each: &mut dyn FnMut(&dyn RawRecord)) {
        for message in &self.messages {
            each(message);
        }
    }
}
