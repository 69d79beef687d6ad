//! The few calls of librdkafka that rdkafka does not wrap, or wraps with a panic.
//!
//! # Safety
//! Each call borrows a client (`rd_kafka_t`, thread-safe) or a list for its own duration, and gives back what it was given: nothing here
//! outlives its function.

use std::{
    ffi::{CStr, CString, c_char, c_void},
    ptr::{self, NonNull},
    slice,
    time::Duration,
};

use rdkafka::{
    ClientContext, TopicPartitionList,
    client::Client,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError as Native, RDKafkaErrorCode},
};
use rdkafka_sys as sys;

/// The answer of a call as a result.
pub(super) fn code(error: sys::rd_kafka_resp_err_t) -> Result<(), RDKafkaErrorCode> {
    match RDKafkaErrorCode::from(error) {
        RDKafkaErrorCode::NoError => Ok(()),
        error => Err(error),
    }
}

/// Asks any broker for its cluster's members: answered means that the brokers are there.
pub(super) fn ping<C: ClientContext>(client: &Client<C>, timeout: Duration) -> Result<(), Native> {
    let mut metadata: *const sys::rd_kafka_metadata = ptr::null();
    let ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the client lives as long as its borrow; the answer is written only on success and destroyed below.
    let error = unsafe { sys::rd_kafka_metadata(client.native_ptr(), 0, ptr::null_mut(), &mut metadata, ms) };
    if !metadata.is_null() {
        // SAFETY: given to us by the call above, once.
        unsafe { sys::rd_kafka_metadata_destroy(metadata) };
    }
    code(error).map_err(Native::MetadataFetch)
}

/// Whether this member's group hands out partitions one by one; `false` also before it has joined.
pub(super) fn cooperative<C: ConsumerContext>(consumer: &BaseConsumer<C>) -> bool {
    // SAFETY: the client lives as long as its borrow; the answer is a static text or null.
    unsafe {
        let name = sys::rd_kafka_rebalance_protocol(consumer.client().native_ptr());
        !name.is_null() && CStr::from_ptr(name).to_bytes() == b"COOPERATIVE"
    }
}

/// The log's end as the last fetch of that partition saw it; asks nobody.
pub(super) fn cached_log_end<C: ConsumerContext>(consumer: &BaseConsumer<C>, topic: &CStr, partition: i32) -> Option<i64> {
    let (mut low, mut high) = (-1, -1);
    // SAFETY: the client lives as long as its borrow, the name is a C string, both results are written by the call.
    let error =
        unsafe { sys::rd_kafka_get_watermark_offsets(consumer.client().native_ptr(), topic.as_ptr(), partition, &mut low, &mut high) };
    (code(error).is_ok() && high >= 0).then_some(high)
}

/// Each entry's metadata as bytes: another program's may be no text, on which rdkafka's own accessor panics.
pub(super) fn metadata_of(list: &TopicPartitionList) -> Vec<Option<Vec<u8>>> {
    let count = list.count();
    if count == 0 {
        return Vec::new();
    }
    // SAFETY: a list of `count` entries owned by `list`; metadata is null or `metadata_size` readable bytes.
    unsafe {
        let entries = slice::from_raw_parts((*list.ptr()).elems, count);
        entries
            .iter()
            .map(|entry| {
                (!entry.metadata.is_null()).then(|| slice::from_raw_parts(entry.metadata.cast::<u8>(), entry.metadata_size).to_vec())
            })
            .collect()
    }
}

/// The partition that librdkafka's partitioner gives a key.
pub(super) fn partition_of(fnv1a: bool, key: &[u8], partitions: i32) -> i32 {
    let partitioner = if fnv1a { sys::rd_kafka_msg_partitioner_fnv1a } else { sys::rd_kafka_msg_partitioner_murmur2 };
    // SAFETY: these two look at the key and the count only; topic and opaques are unused.
    unsafe { partitioner(ptr::null(), key.as_ptr().cast::<c_void>(), key.len(), partitions, ptr::null_mut(), ptr::null_mut()) }
}

/// Makes groups of an in-process cluster start without the usual wait for more members.
pub(super) fn no_initial_rebalance_delay<C: ClientContext>(client: &Client<C>) -> bool {
    // SAFETY: the client lives as long as its borrow and owns the cluster.
    unsafe {
        let cluster = sys::rd_kafka_handle_mock_cluster(client.native_ptr());
        if !cluster.is_null() {
            sys::rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, 0);
        }
        !cluster.is_null()
    }
}

/// A topic's name for the calls above; Kafka's names hold no NUL.
pub(super) fn c_name(topic: &str) -> CString {
    CString::new(topic).unwrap_or_default()
}

/// Deletes what a call made, once, when it goes out of scope.
pub(super) struct Owned<T>(NonNull<T>, unsafe extern "C" fn(*mut T));

impl<T> Owned<T> {
    pub(super) fn new(pointer: *mut T, destroy: unsafe extern "C" fn(*mut T)) -> Result<Self, Native> {
        NonNull::new(pointer).map(|pointer| Self(pointer, destroy)).ok_or_else(|| Native::AdminOpCreation("out of memory".to_owned()))
    }

    pub(super) fn ptr(&self) -> *mut T {
        self.0.as_ptr()
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: made by the matching constructor, destroyed here only.
        unsafe { (self.1)(self.0.as_ptr()) };
    }
}

/// Words of librdkafka's, copied.
///
/// # Safety
/// `words` is null or a C string.
pub(super) unsafe fn text(words: *const c_char) -> String {
    if words.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(words) }.to_string_lossy().into_owned()
}
