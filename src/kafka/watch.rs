//! Watches from outside the polling thread: which topics exist, and how far the logs of unread partitions have grown.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rdkafka::{
    Offset,
    consumer::{BaseConsumer, Consumer},
    error::RDKafkaErrorCode,
};

use super::{client::Logs, lookup};
use crate::{engine::ports::Gate, event::record::TopicPartition};

/// Time for one answer.
const PATIENCE: Duration = Duration::from_secs(4);

/// What is known of the configured topics.
#[derive(Debug)]
struct Topics {
    /// Partitions of each; `None`: it does not exist.
    partitions: BTreeMap<String, Option<usize>>,
    asked: bool,
}

/// Shared by the pulse's thread, which asks, and the polling thread, which reads.
#[derive(Debug)]
pub(super) struct Watch {
    topics: Mutex<Topics>,
    unread: Mutex<Vec<(TopicPartition, Arc<Gate>)>>,
}

impl Watch {
    pub(super) fn new(topics: Vec<String>) -> Arc<Self> {
        let partitions = topics.into_iter().map(|topic| (topic, None)).collect();
        Arc::new(Self { topics: Mutex::new(Topics { partitions, asked: false }), unread: Mutex::default() })
    }

    /// Topics that exist, with how many partitions they have together.
    pub(super) fn existing(&self) -> (Vec<String>, usize) {
        let topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        let names = topics.partitions.iter().filter(|(_, count)| count.is_some()).map(|(topic, _)| topic.clone()).collect();
        (names, topics.partitions.values().flatten().sum())
    }

    /// Topics that do not exist; none while nobody could be asked.
    pub(super) fn missing(&self) -> Vec<String> {
        let topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        if !topics.asked {
            return Vec::new();
        }
        topics.partitions.iter().filter(|(_, count)| count.is_none()).map(|(topic, _)| topic.clone()).collect()
    }

    /// Partitions whose log's end no fetch will tell.
    pub(super) fn set_unread(&self, unread: Vec<(TopicPartition, Arc<Gate>)>) {
        *self.unread.lock().unwrap_or_else(PoisonError::into_inner) = unread;
    }

    /// Asks the brokers.
    pub(super) fn refresh(&self, probe: &BaseConsumer<Logs>) {
        self.refresh_topics(probe);
        let unread = self.unread.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if unread.is_empty() {
            return;
        }
        let partitions: Vec<_> = unread.iter().map(|(partition, _)| partition.clone()).collect();
        match lookup::log_ends(probe, &partitions, Offset::End, PATIENCE) {
            Ok(ends) => unread.iter().zip(ends).for_each(|((_, gate), end)| gate.set_log_end(end)),
            Err(error) => tracing::debug!(%error, "the ends of unread partitions are not known now"),
        }
    }

    fn refresh_topics(&self, probe: &BaseConsumer<Logs>) {
        let unknown: Vec<String> = {
            let topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
            topics.partitions.iter().filter(|(_, count)| count.is_none()).map(|(topic, _)| topic.clone()).collect()
        };
        let mut answers = Vec::new();
        for topic in unknown {
            match probe.fetch_metadata(Some(&topic), PATIENCE) {
                Ok(metadata) => {
                    let found = metadata.topics().iter().find(|found| found.name() == topic);
                    let error = found.and_then(|found| found.error()).map(RDKafkaErrorCode::from);
                    let count =
                        found.filter(|found| found.error().is_none()).map(|found| found.partitions().len()).filter(|count| *count > 0);
                    answers.push((topic, count, error));
                }
                Err(error) => {
                    tracing::debug!(%error, kafka.topic = topic, "the topic's metadata is not known now");
                    return;
                }
            }
        }
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        for (topic, count, error) in answers {
            match count {
                Some(_) if topics.asked => tracing::info!(kafka.topic = topic, "the topic exists now"),
                None if !topics.asked => match error {
                    Some(RDKafkaErrorCode::TopicAuthorizationFailed) => {
                        tracing::error!(kafka.topic = topic, "not allowed to see the topic; grant DESCRIBE and READ on it");
                    }
                    _ => tracing::error!(kafka.topic = topic, "topic {topic} does not exist; create it with `worker topics apply`"),
                },
                _ => {}
            }
            topics.partitions.insert(topic, count);
        }
        topics.asked = true;
    }
}
