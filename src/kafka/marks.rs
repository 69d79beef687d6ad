//! Text kept with the brokers: the commit metadata of a group that nobody ever joins.

use std::{collections::HashMap, sync::Arc};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
    error::KafkaError as Native,
};

use super::{
    KafkaError,
    client::{Clients, Logs},
    lookup,
    token::Supplied,
};
use crate::event::record::TopicPartition;

/// Commits and reads back offsets with text, in any number of groups; joins none of them.
///
/// The brokers forget a group's commits `offsets.retention.minutes` (7 days by default) after its last one.
pub struct Marks {
    clients: Clients,
    groups: HashMap<String, Arc<Supplied<BaseConsumer<Logs>>>>,
}

impl Marks {
    /// Connects on first use.
    pub fn new(clients: &Clients) -> Self {
        Self { clients: clients.clone(), groups: HashMap::new() }
    }

    fn group(&mut self, group: &str) -> Result<Arc<Supplied<BaseConsumer<Logs>>>, KafkaError> {
        if let Some(known) = self.groups.get(group) {
            return Ok(Arc::clone(known));
        }
        let consumer = Arc::new(self.clients.create(&self.clients.outsider(group), Logs::default())?);
        self.groups.insert(group.to_owned(), Arc::clone(&consumer));
        Ok(consumer)
    }

    /// The text that `group` keeps for a partition; `None`: it keeps none.
    ///
    /// # Errors
    /// Where the group's coordinator does not answer or does not allow it.
    pub async fn read(&mut self, group: &str, partition: &TopicPartition) -> Result<Option<String>, KafkaError> {
        let (consumer, partition) = (self.group(group)?, partition.clone());
        self.ask(move || {
            let found = lookup::committed(&consumer, std::slice::from_ref(&partition))?;
            Ok(found.into_iter().flatten().next().and_then(|committed| committed.metadata).filter(|text| !text.is_empty()))
        })
        .await
    }

    /// Keeps `text`, at most 4096 characters, and an offset for people; returns when the brokers have it.
    ///
    /// # Errors
    /// As [`Marks::read`].
    pub async fn write(&mut self, group: &str, partition: &TopicPartition, offset: i64, text: String) -> Result<(), KafkaError> {
        let (consumer, partition) = (self.group(group)?, partition.clone());
        self.ask(move || {
            let mut list = TopicPartitionList::with_capacity(1);
            let mut entry = list.add_partition(&partition.topic, partition.partition);
            entry.set_offset(Offset::Offset(offset))?;
            entry.set_metadata(text);
            consumer.commit(&list, CommitMode::Sync)
        })
        .await
    }

    async fn ask<T: Send + 'static>(&self, question: impl FnOnce() -> Result<T, Native> + Send + 'static) -> Result<T, KafkaError> {
        match tokio::task::spawn_blocking(question).await {
            Ok(answer) => answer.map_err(|error| self.clients.sort(&error)),
            Err(_) => Err(KafkaError::Refused("the asking thread died".to_owned())),
        }
    }
}
