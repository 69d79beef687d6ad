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

/// Sets the named settings of one topic and leaves its others alone (KIP-339); `Err` inside carries Kafka's own words.
///
/// rdkafka has only the older request, which replaces all settings, and never reports a refusal of it.
pub(super) fn set_topic_config<'a, C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    settings: impl IntoIterator<Item = (&'a str, &'a str)>,
    timeout: Duration,
) -> Result<Result<(), (RDKafkaErrorCode, String)>, Native> {
    let ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    let rk = client.native_ptr();
    let name = c_name(topic);
    // SAFETY: every pointer is made here, checked, and destroyed by its owner after the last use; the strings outlive the calls, which
    // copy them. The answer's parts belong to the event and are copied before it goes.
    unsafe {
        let resource = Owned::new(
            sys::rd_kafka_ConfigResource_new(sys::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC, name.as_ptr()),
            sys::rd_kafka_ConfigResource_destroy,
        )?;
        for (key, value) in settings {
            let (key, value) = (c_name(key), c_name(value));
            let set = sys::rd_kafka_AlterConfigOpType_t::RD_KAFKA_ALTER_CONFIG_OP_TYPE_SET;
            let error = sys::rd_kafka_ConfigResource_add_incremental_config(resource.ptr(), key.as_ptr(), set, value.as_ptr());
            if let Ok(error) = Owned::new(error, sys::rd_kafka_error_destroy) {
                return Ok(Err((RDKafkaErrorCode::InvalidConfig, text(sys::rd_kafka_error_string(error.ptr())))));
            }
        }
        let options = Owned::new(
            sys::rd_kafka_AdminOptions_new(rk, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_INCREMENTALALTERCONFIGS),
            sys::rd_kafka_AdminOptions_destroy,
        )?;
        code(sys::rd_kafka_AdminOptions_set_request_timeout(options.ptr(), ms, ptr::null_mut(), 0)).map_err(Native::AdminOp)?;
        let queue = Owned::new(sys::rd_kafka_queue_new(rk), sys::rd_kafka_queue_destroy)?;
        let mut resources = [resource.ptr()];
        sys::rd_kafka_IncrementalAlterConfigs(rk, resources.as_mut_ptr(), 1, options.ptr(), queue.ptr());
        let event = Owned::new(sys::rd_kafka_queue_poll(queue.ptr(), ms.saturating_add(1000)), sys::rd_kafka_event_destroy)
            .map_err(|_| Native::AdminOp(RDKafkaErrorCode::OperationTimedOut))?;
        code(sys::rd_kafka_event_error(event.ptr())).map_err(Native::AdminOp)?;
        let result = sys::rd_kafka_event_IncrementalAlterConfigs_result(event.ptr());
        if result.is_null() {
            return Err(Native::AdminOpCreation("an answer to something else".to_owned()));
        }
        let mut count = 0;
        let answers = sys::rd_kafka_IncrementalAlterConfigs_result_resources(result, &mut count);
        if count == 0 {
            return Err(Native::AdminOpCreation("an empty answer".to_owned()));
        }
        let answer = *answers;
        Ok(code(sys::rd_kafka_ConfigResource_error(answer)).map_err(|code| (code, text(sys::rd_kafka_ConfigResource_error_string(answer)))))
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
