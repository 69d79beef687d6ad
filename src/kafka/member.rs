//! The group member: hears the group's events and answers them. It is assigned nothing in librdkafka's own books, so a rebalance has
//! nothing to pause or to empty; what it owns is read by the fetcher.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use rdkafka::{
    ClientContext, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::KafkaError as Native,
    types::RDKafkaRespErr,
};

use super::{client, native, rebalance::Event};
use crate::event::record::TopicPartition;

/// Keeps the group's events for the Source's thread; never answers by itself while the Source lives.
#[derive(Debug, Default)]
pub(super) struct Membership {
    heard: Mutex<VecDeque<Event>>,
    closing: Arc<AtomicBool>,
}

impl Membership {
    /// A member that answers everything by itself once `closing` is set.
    pub(super) fn new(closing: Arc<AtomicBool>) -> Self {
        Self { heard: Mutex::default(), closing }
    }

    /// The next event.
    pub(super) fn next(&self) -> Option<Event> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

impl ClientContext for Membership {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client::log(level, facility, message, false);
    }

    fn error(&self, error: Native, reason: &str) {
        client::report(&error, reason);
    }
}

impl ConsumerContext for Membership {
    /// Called inside `poll`. The list belongs to the event: it is read, never kept, never assigned to.
    fn rebalance(&self, consumer: &BaseConsumer<Self>, error: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let partitions: Vec<_> = list.elements().iter().map(|entry| TopicPartition::new(entry.topic(), entry.partition())).collect();
        let event = match error {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => Event::Assign(partitions),
            _ if consumer.assignment_lost() => Event::Lost(partitions),
            _ => Event::Revoke(partitions),
        };
        tracing::info!(kafka.partitions = %names(&event), "group {}", kind(&event));
        if self.closing.load(Ordering::Acquire) {
            let answered = if matches!(event, Event::Assign(_)) { accept_assignment(consumer) } else { accept_revocation(consumer) };
            if let Err(error) = answered {
                tracing::debug!(%error, "the closing consumer's answer was not wanted");
            }
            return;
        }
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).push_back(event);
    }
}

fn kind(event: &Event) -> &'static str {
    match event {
        Event::Assign(_) => "assigns partitions",
        Event::Lost(_) => "gave our partitions away",
        _ => "revokes partitions",
    }
}

fn names(event: &Event) -> String {
    match event {
        Event::Assign(partitions) | Event::Revoke(partitions) | Event::Lost(partitions) => {
            partitions.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        }
        _ => String::new(),
    }
}

/// Tells the group that its assignment is taken.
pub(super) fn accept_assignment(consumer: &BaseConsumer<Membership>) -> Result<(), Native> {
    let nothing = TopicPartitionList::new();
    if native::cooperative(consumer) { consumer.incremental_assign(&nothing) } else { consumer.assign(&nothing) }
}

/// Tells the group that what it revoked is let go.
pub(super) fn accept_revocation(consumer: &BaseConsumer<Membership>) -> Result<(), Native> {
    if native::cooperative(consumer) { consumer.incremental_unassign(&TopicPartitionList::new()) } else { consumer.unassign() }
}
