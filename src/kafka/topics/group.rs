//! How far the configured group is.

use rdkafka::{
    Offset,
    consumer::{BaseConsumer, Consumer},
};

use super::{PATIENCE, TopicAdmin, blocking};
use crate::{
    engine::ports::Committed,
    event::record::TopicPartition,
    kafka::{KafkaError, client::Logs, lookup, token::Supplied},
};

impl TopicAdmin {
    /// The group's commits of these partitions, in order.
    ///
    /// # Errors
    /// Where the group's coordinator does not answer or does not allow it.
    pub async fn committed(&self, partitions: &[TopicPartition]) -> Result<Vec<Option<Committed>>, KafkaError> {
        let partitions = partitions.to_vec();
        let clients = self.clients.clone();
        blocking(move || {
            let consumer: Supplied<BaseConsumer<Logs>> = clients.create(&clients.reader(), Logs::quiet())?;
            lookup::committed(&consumer, &partitions).map_err(|error| clients.sort(&error))
        })
        .await
    }

    /// The log's first and next offset of each partition, in order.
    ///
    /// # Errors
    /// Where a partition has no leader or may not be read.
    pub async fn log_bounds(&self, partitions: &[TopicPartition]) -> Result<Vec<(i64, i64)>, KafkaError> {
        let partitions = partitions.to_vec();
        self.probe(move |probe| {
            let lows = lookup::log_ends(probe, &partitions, Offset::Beginning, PATIENCE)?;
            let ends = lookup::log_ends(probe, &partitions, Offset::End, PATIENCE)?;
            Ok(lows.into_iter().zip(ends).collect())
        })
        .await
    }

    /// The group's state in Kafka's words, and how many members it has; `None`: no such group, or not one of the classic protocol.
    ///
    /// # Errors
    /// Where its coordinator does not answer or does not allow it.
    pub async fn group(&self) -> Result<Option<(String, usize)>, KafkaError> {
        let group = self.clients.group_id().to_owned();
        self.probe(move |probe| {
            let groups = probe.fetch_group_list(Some(&group), PATIENCE)?;
            let found = groups.groups().iter().find(|found| found.name() == group && found.state() != "Dead");
            Ok(found.map(|found| (found.state().to_owned(), found.members().len())))
        })
        .await
    }
}
