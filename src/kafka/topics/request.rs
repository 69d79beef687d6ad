//! Requests about topics, each answered topic by topic in Kafka's own words: rdkafka drops the words, and an operator needs them.
//!
//! # Safety
//! As `native`: every pointer is made here, checked, and destroyed by its owner after the last use. Texts are copied by the calls that
//! take them; parts of an answer belong to its event and are copied before it goes.

use std::{
    collections::BTreeMap,
    ffi::{CStr, c_char},
    ptr,
    time::Duration,
};

use rdkafka::{
    ClientContext,
    client::Client,
    error::{KafkaError as Native, RDKafkaErrorCode},
};
use rdkafka_sys as sys;

use super::TopicSpec;
use crate::kafka::native::{Owned, c_name, code, text};

/// Longest text of librdkafka's about an argument that it refuses.
const WORDS: usize = 512;

/// A topic and what Kafka answered about it: the code, and its words.
pub(super) type Answer = (String, Result<(), (RDKafkaErrorCode, String)>);

/// One topic's settings, or why they may not be looked at.
pub(super) type Settings = Result<Vec<Setting>, (RDKafkaErrorCode, String)>;

/// Creates topics. What librdkafka refuses by itself is among the answers.
pub(super) fn create<C: ClientContext>(client: &Client<C>, topics: &[TopicSpec], timeout: Duration) -> Result<Vec<Answer>, Native> {
    let mut refused = Vec::new();
    let mut wanted = Vec::with_capacity(topics.len());
    for topic in topics {
        match new_topic(topic) {
            Ok(new) => wanted.push(new),
            Err(error) => refused.push((topic.name.clone(), Err(error))),
        }
    }
    // SAFETY: see above; the answers are of the kind that was asked for, or null.
    let mut answers = unsafe {
        ask(
            client,
            sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_CREATETOPICS,
            &wanted,
            timeout,
            sys::rd_kafka_CreateTopics,
            |event, count| {
                let result = sys::rd_kafka_event_CreateTopics_result(event);
                if result.is_null() { ptr::null_mut() } else { sys::rd_kafka_CreateTopics_result_topics(result, count) }
            },
        )
    }?;
    answers.append(&mut refused);
    Ok(answers)
}

/// Gives topics more partitions: name, new total.
pub(super) fn add_partitions<C: ClientContext>(
    client: &Client<C>,
    topics: &[(String, usize)],
    timeout: Duration,
) -> Result<Vec<Answer>, Native> {
    let mut wanted = Vec::with_capacity(topics.len());
    for (topic, total) in topics {
        let mut words = [0; WORDS];
        // SAFETY: the name outlives the call, the words are a buffer of that size.
        let new = unsafe { sys::rd_kafka_NewPartitions_new(c_name(topic).as_ptr(), *total, words.as_mut_ptr(), words.len()) };
        wanted.push(Owned::new(new, sys::rd_kafka_NewPartitions_destroy).map_err(|_| Native::AdminOpCreation(said(&words)))?);
    }
    let op = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_CREATEPARTITIONS;
    // SAFETY: see above; the answers are of the kind that was asked for, or null.
    unsafe {
        ask(client, op, &wanted, timeout, sys::rd_kafka_CreatePartitions, |event, count| {
            let result = sys::rd_kafka_event_CreatePartitions_result(event);
            if result.is_null() { ptr::null_mut() } else { sys::rd_kafka_CreatePartitions_result_topics(result, count) }
        })
    }
}

/// Deletes topics with all their records.
pub(super) fn delete<C: ClientContext>(client: &Client<C>, topics: &[String], timeout: Duration) -> Result<Vec<Answer>, Native> {
    let mut wanted = Vec::with_capacity(topics.len());
    for topic in topics {
        // SAFETY: the name outlives the call.
        let gone = unsafe { sys::rd_kafka_DeleteTopic_new(c_name(topic).as_ptr()) };
        wanted.push(Owned::new(gone, sys::rd_kafka_DeleteTopic_destroy)?);
    }
    // SAFETY: see above; the answers are of the kind that was asked for, or null.
    unsafe {
        ask(
            client,
            sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DELETETOPICS,
            &wanted,
            timeout,
            sys::rd_kafka_DeleteTopics,
            |event, count| {
                let result = sys::rd_kafka_event_DeleteTopics_result(event);
                if result.is_null() { ptr::null_mut() } else { sys::rd_kafka_DeleteTopics_result_topics(result, count) }
            },
        )
    }
}

/// Sets the named settings of topics and leaves their others alone (KIP-339). rdkafka has only the older request, which replaces all
/// settings, and never reports a refusal of it.
pub(super) fn set_config<C: ClientContext>(
    client: &Client<C>,
    topics: &[(String, BTreeMap<String, String>)],
    timeout: Duration,
) -> Result<Vec<Answer>, Native> {
    let mut refused = Vec::new();
    let mut wanted = Vec::with_capacity(topics.len());
    for (topic, settings) in topics {
        match resource(topic, settings)? {
            Ok(resource) => wanted.push(resource),
            Err(words) => refused.push((topic.clone(), Err((RDKafkaErrorCode::InvalidConfig, words)))),
        }
    }
    if wanted.is_empty() {
        return Ok(refused);
    }
    let op = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_INCREMENTALALTERCONFIGS;
    let event = send(client, op, &wanted, timeout, sys::rd_kafka_IncrementalAlterConfigs)?;
    // SAFETY: the answer's parts belong to the event, which lives to the end of this function.
    unsafe {
        let result = sys::rd_kafka_event_IncrementalAlterConfigs_result(event.ptr());
        if result.is_null() {
            return Err(another_answer());
        }
        let mut count = 0;
        let answers = sys::rd_kafka_IncrementalAlterConfigs_result_resources(result, &mut count);
        for at in 0..count {
            let answer = *answers.add(at);
            let outcome = code(sys::rd_kafka_ConfigResource_error(answer));
            refused.push((
                text(sys::rd_kafka_ConfigResource_name(answer)),
                outcome.map_err(|code| (code, text(sys::rd_kafka_ConfigResource_error_string(answer)))),
            ));
        }
    }
    Ok(refused)
}

/// One setting in effect.
pub(super) struct Setting {
    pub(super) name: String,
    pub(super) value: String,
    /// Whether it was made for the topic; else it is the broker's, or Kafka's default.
    pub(super) own: bool,
}

/// Every setting of each topic, in order. rdkafka takes a refusal for a topic without settings.
pub(super) fn settings<C: ClientContext>(client: &Client<C>, topics: &[String], timeout: Duration) -> Result<Vec<Settings>, Native> {
    let none = BTreeMap::new();
    let wanted = topics.iter().map(|topic| resource(topic, &none)?.map_err(Native::AdminOpCreation));
    let wanted = wanted.collect::<Result<Vec<_>, _>>()?;
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let op = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS;
    let event = send(client, op, &wanted, timeout, sys::rd_kafka_DescribeConfigs)?;
    let mut found: BTreeMap<String, _> = BTreeMap::new();
    // SAFETY: the answer's parts belong to the event, which lives to the end of this function.
    unsafe {
        let result = sys::rd_kafka_event_DescribeConfigs_result(event.ptr());
        if result.is_null() {
            return Err(another_answer());
        }
        let mut count = 0;
        let answers = sys::rd_kafka_DescribeConfigs_result_resources(result, &mut count);
        for at in 0..count {
            let answer = *answers.add(at);
            let outcome = code(sys::rd_kafka_ConfigResource_error(answer));
            let outcome = outcome.map_err(|code| (code, text(sys::rd_kafka_ConfigResource_error_string(answer))));
            found.insert(text(sys::rd_kafka_ConfigResource_name(answer)), outcome.map(|()| entries(answer)));
        }
    }
    let silent = || Err((RDKafkaErrorCode::Unknown, "no answer about its settings".to_owned()));
    Ok(topics.iter().map(|topic| found.remove(topic).unwrap_or_else(silent)).collect())
}

/// The settings in one topic's answer.
///
/// # Safety
/// `answer` belongs to a living event.
unsafe fn entries(answer: *const sys::rd_kafka_ConfigResource_t) -> Vec<Setting> {
    // SAFETY: the caller's promise; the entries live as long as the answer.
    unsafe {
        let mut count = 0;
        let entries = sys::rd_kafka_ConfigResource_configs(answer, &mut count);
        let setting = |at| {
            let entry = *entries.add(at);
            Setting {
                name: text(sys::rd_kafka_ConfigEntry_name(entry)),
                value: text(sys::rd_kafka_ConfigEntry_value(entry)),
                own: sys::rd_kafka_ConfigEntry_source(entry) as u32
                    == sys::rd_kafka_ConfigSource_t::RD_KAFKA_CONFIG_SOURCE_DYNAMIC_TOPIC_CONFIG as u32,
            }
        };
        (0..count).map(setting).collect()
    }
}

fn new_topic(topic: &TopicSpec) -> Result<Owned<sys::rd_kafka_NewTopic_t>, (RDKafkaErrorCode, String)> {
    let mut words = [0; WORDS];
    let name = c_name(&topic.name);
    // SAFETY: the name outlives the call, the words are a buffer of that size.
    let new = unsafe { sys::rd_kafka_NewTopic_new(name.as_ptr(), topic.partitions, topic.replication, words.as_mut_ptr(), words.len()) };
    let new = Owned::new(new, sys::rd_kafka_NewTopic_destroy).map_err(|_| (RDKafkaErrorCode::InvalidArgument, said(&words)))?;
    for (key, value) in &topic.config {
        // SAFETY: the new topic and both texts outlive the call.
        let set = unsafe { sys::rd_kafka_NewTopic_set_config(new.ptr(), c_name(key).as_ptr(), c_name(value).as_ptr()) };
        code(set).map_err(|code| (code, format!("{key}={value}")))?;
    }
    Ok(new)
}

/// One topic's new settings; `Err` inside: librdkafka refuses one of them.
fn resource(topic: &str, settings: &BTreeMap<String, String>) -> Result<Result<Owned<sys::rd_kafka_ConfigResource_t>, String>, Native> {
    let kind = sys::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC;
    let set = sys::rd_kafka_AlterConfigOpType_t::RD_KAFKA_ALTER_CONFIG_OP_TYPE_SET;
    // SAFETY: every text outlives its call; an error is owned and destroyed here.
    unsafe {
        let resource = Owned::new(sys::rd_kafka_ConfigResource_new(kind, c_name(topic).as_ptr()), sys::rd_kafka_ConfigResource_destroy)?;
        for (key, value) in settings {
            let (key, value) = (c_name(key), c_name(value));
            let error = sys::rd_kafka_ConfigResource_add_incremental_config(resource.ptr(), key.as_ptr(), set, value.as_ptr());
            if let Ok(error) = Owned::new(error, sys::rd_kafka_error_destroy) {
                return Ok(Err(text(sys::rd_kafka_error_string(error.ptr()))));
            }
        }
        Ok(Ok(resource))
    }
}

/// What sends `count` of `T`.
type Send<T> =
    unsafe extern "C" fn(*mut sys::rd_kafka_t, *mut *mut T, usize, *const sys::rd_kafka_AdminOptions_t, *mut sys::rd_kafka_queue_t);

/// Sends one request and waits for its answer.
fn send<T, C: ClientContext>(
    client: &Client<C>,
    op: sys::rd_kafka_admin_op_t,
    wanted: &[Owned<T>],
    timeout: Duration,
    send: Send<T>,
) -> Result<Owned<sys::rd_kafka_event_t>, Native> {
    let ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    let rk = client.native_ptr();
    let mut pointers: Vec<_> = wanted.iter().map(Owned::ptr).collect();
    // SAFETY: the client lives as long as its borrow, what is wanted as long as its own; options and queue are owned here.
    unsafe {
        let options = Owned::new(sys::rd_kafka_AdminOptions_new(rk, op), sys::rd_kafka_AdminOptions_destroy)?;
        code(sys::rd_kafka_AdminOptions_set_request_timeout(options.ptr(), ms, ptr::null_mut(), 0)).map_err(Native::AdminOp)?;
        // How long the controller itself waits until a change is everywhere; requests that know no such time refuse the option.
        let _no_such_time = code(sys::rd_kafka_AdminOptions_set_operation_timeout(options.ptr(), ms, ptr::null_mut(), 0));
        let queue = Owned::new(sys::rd_kafka_queue_new(rk), sys::rd_kafka_queue_destroy)?;
        send(rk, pointers.as_mut_ptr(), pointers.len(), options.ptr(), queue.ptr());
        let event = Owned::new(sys::rd_kafka_queue_poll(queue.ptr(), ms.saturating_add(1000)), sys::rd_kafka_event_destroy)
            .map_err(|_| Native::AdminOp(RDKafkaErrorCode::OperationTimedOut))?;
        code(sys::rd_kafka_event_error(event.ptr())).map_err(Native::AdminOp)?;
        Ok(event)
    }
}

/// As [`send`], for requests whose answer is a list of topics, which `list` takes out of the event.
///
/// # Safety
/// `list` answers that many living topic results of the event, or null.
unsafe fn ask<T, C: ClientContext>(
    client: &Client<C>,
    op: sys::rd_kafka_admin_op_t,
    wanted: &[Owned<T>],
    timeout: Duration,
    request: Send<T>,
    list: impl Fn(*mut sys::rd_kafka_event_t, *mut usize) -> *mut *const sys::rd_kafka_topic_result_t,
) -> Result<Vec<Answer>, Native> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let event = send(client, op, wanted, timeout, request)?;
    let mut count = 0;
    let topics = list(event.ptr(), &mut count);
    if topics.is_null() {
        return Err(another_answer());
    }
    let answer = |at| {
        // SAFETY: the caller's promise; the event lives to the end of this function.
        unsafe {
            let topic = *topics.add(at);
            let outcome = code(sys::rd_kafka_topic_result_error(topic));
            (
                text(sys::rd_kafka_topic_result_name(topic)),
                outcome.map_err(|code| (code, text(sys::rd_kafka_topic_result_error_string(topic)))),
            )
        }
    };
    Ok((0..count).map(answer).collect())
}

fn another_answer() -> Native {
    Native::AdminOpCreation("an answer to something else".to_owned())
}

/// What librdkafka wrote into a buffer.
fn said(words: &[c_char]) -> String {
    let bytes: Vec<u8> = words.iter().map(|c| c.cast_unsigned()).collect();
    CStr::from_bytes_until_nul(&bytes).map(|words| words.to_string_lossy().into_owned()).unwrap_or_default()
}
