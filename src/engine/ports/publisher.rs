//! Records to be written, and what the brokers say to them.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;

/// A record to be written.
#[derive(Debug, Clone)]
pub struct Message {
    /// The topic.
    pub topic: Arc<str>,
    /// Key bytes.
    pub key: Option<Bytes>,
    /// Value bytes; `None`: a tombstone.
    pub value: Option<Bytes>,
    /// Headers in order.
    pub headers: Vec<(String, Option<Bytes>)>,
    /// An explicit partition; `None`: the partitioner decides by key.
    pub partition: Option<i32>,
}

/// Where an acknowledged record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acked {
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
}

/// Writes records and answers only after all in-sync replicas have them.
pub trait Publisher: Send + Sync + 'static {
    /// Resolves with the brokers' acknowledgement. Dropping the future does not take the record back.
    fn publish(&self, message: Message) -> BoxFuture<'_, Result<Acked, PublishError>>;
}

/// Why a record was not written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The local queue is full: slow down.
    #[error("the local queue to the brokers is full")]
    QueueFull,
    /// Larger than the topic or the client takes.
    #[error("the record is larger than the topic takes")]
    TooLarge,
    /// No such topic.
    #[error("topic {0} does not exist; create it with `worker topics apply`")]
    TopicMissing(String),
    /// The brokers' access rules forbid it.
    #[error("not allowed to write to topic {0}")]
    Forbidden(String),
    /// The brokers are away, or did not acknowledge in time. It may have been written all the same.
    #[error("the brokers did not acknowledge: {0}")]
    Unreachable(String),
    /// Refused for good: invalid record, unknown partition, policy.
    #[error("the brokers refused the record: {0}")]
    Refused(String),
    /// The client is beyond repair.
    #[error("the producer failed for good: {0}")]
    Fatal(String),
}

impl PublishError {
    /// The metric label `result`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::TooLarge => "too_large",
            Self::TopicMissing(_) => "topic_missing",
            Self::Forbidden(_) => "forbidden",
            Self::Unreachable(_) => "unreachable",
            Self::Refused(_) => "refused",
            Self::Fatal(_) => "fatal",
        }
    }
}
