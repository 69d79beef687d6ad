//! What this client may do with topics, as the brokers themselves say it (KIP-430); rdkafka does not wrap the request.
//!
//! # Safety
//! As `native`: every pointer is made here, checked, and destroyed by its owner after the last use.

use std::{ptr, slice, time::Duration};

use rdkafka::{
    ClientContext,
    client::Client,
    error::{KafkaError as Native, RDKafkaErrorCode},
};
use rdkafka_sys as sys;

use super::native::{Owned, c_name, code};

/// Operations on one topic that are allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Access {
    /// Its records may be read.
    pub read: bool,
    /// Records may be written to it.
    pub write: bool,
}

/// One topic's answer: `None` where the brokers do not tell what is allowed, `Err` where it may not even be looked at or is missing.
pub(super) type Answer = Result<Option<Access>, RDKafkaErrorCode>;

/// Asks about `topics`; the answers are in their order.
pub(super) fn access<C: ClientContext>(client: &Client<C>, topics: &[String], timeout: Duration) -> Result<Vec<Answer>, Native> {
    let ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    let rk = client.native_ptr();
    let names: Vec<_> = topics.iter().map(|topic| c_name(topic)).collect();
    let mut pointers: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
    // SAFETY: the names outlive the collection, which copies them; the answer's parts belong to the event and are copied before it goes.
    unsafe {
        let collection = Owned::new(
            sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len()),
            sys::rd_kafka_TopicCollection_destroy,
        )?;
        let options = Owned::new(
            sys::rd_kafka_AdminOptions_new(rk, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS),
            sys::rd_kafka_AdminOptions_destroy,
        )?;
        code(sys::rd_kafka_AdminOptions_set_request_timeout(options.ptr(), ms, ptr::null_mut(), 0)).map_err(Native::AdminOp)?;
        let error = sys::rd_kafka_AdminOptions_set_include_authorized_operations(options.ptr(), 1);
        if let Ok(error) = Owned::new(error, sys::rd_kafka_error_destroy) {
            return Err(Native::AdminOp(sys::rd_kafka_error_code(error.ptr()).into()));
        }
        let queue = Owned::new(sys::rd_kafka_queue_new(rk), sys::rd_kafka_queue_destroy)?;
        sys::rd_kafka_DescribeTopics(rk, collection.ptr(), options.ptr(), queue.ptr());
        let event = Owned::new(sys::rd_kafka_queue_poll(queue.ptr(), ms.saturating_add(1000)), sys::rd_kafka_event_destroy)
            .map_err(|_| Native::AdminOp(RDKafkaErrorCode::OperationTimedOut))?;
        code(sys::rd_kafka_event_error(event.ptr())).map_err(Native::AdminOp)?;
        let result = sys::rd_kafka_event_DescribeTopics_result(event.ptr());
        if result.is_null() {
            return Err(Native::AdminOpCreation("an answer to something else".to_owned()));
        }
        let mut count = 0;
        let described = sys::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        if described.is_null() || count != topics.len() {
            return Err(Native::AdminOpCreation("an answer about other topics".to_owned()));
        }
        Ok(slice::from_raw_parts(described, count).iter().map(|topic| of(*topic)).collect())
    }
}

/// What one description says.
///
/// # Safety
/// `topic` belongs to a living event.
unsafe fn of(topic: *const sys::rd_kafka_TopicDescription_t) -> Answer {
    use sys::rd_kafka_AclOperation_t as Operation;
    // SAFETY: the caller's promise; the operations live as long as the description.
    unsafe {
        let error = sys::rd_kafka_TopicDescription_error(topic);
        if !error.is_null() {
            code(sys::rd_kafka_error_code(error))?;
        }
        let mut count = 0;
        let operations = sys::rd_kafka_TopicDescription_authorized_operations(topic, &mut count);
        if operations.is_null() {
            return Ok(None);
        }
        let operations = slice::from_raw_parts(operations, count);
        let may = |wanted: Operation| operations.iter().any(|found| *found == wanted || *found == Operation::RD_KAFKA_ACL_OPERATION_ALL);
        Ok(Some(Access { read: may(Operation::RD_KAFKA_ACL_OPERATION_READ), write: may(Operation::RD_KAFKA_ACL_OPERATION_WRITE) }))
    }
}
