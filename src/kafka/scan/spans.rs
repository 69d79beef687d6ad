//! From where to where each partition is read.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use rdkafka::{
    Offset,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError as Native,
};

use super::{Selection, Start};
use crate::{
    event::record::TopicPartition,
    kafka::{KafkaError, client::Logs, lookup},
};

/// Time for one answer of a broker.
const PATIENCE: Duration = Duration::from_secs(15);

/// A partition's part: its first offset that is meant, and the log's end.
pub(super) type Span = (i64, i64);

/// What there is to read.
#[derive(Debug, Clone, Default)]
pub(super) struct Spans {
    pub(super) found: BTreeMap<TopicPartition, Span>,
    /// Topics that are not there.
    pub(super) missing: Vec<String>,
}

impl Spans {
    /// Asks the brokers.
    pub(super) fn find(consumer: &BaseConsumer<Logs>, selection: &Selection) -> Result<Self, Native> {
        let (partitions, missing) = partitions(consumer, selection)?;
        Ok(Self { found: bounds(consumer, partitions, selection.start)?, missing })
    }

    /// Partitions that were not `known`, from their first record.
    pub(super) fn added(consumer: &BaseConsumer<Logs>, selection: &Selection, known: &Self) -> Result<Self, Native> {
        let (mut partitions, missing) = partitions(consumer, selection)?;
        partitions.retain(|partition| !known.found.contains_key(partition));
        Ok(Self { found: bounds(consumer, partitions, Start::Beginning)?, missing })
    }

    /// That there is something to read.
    pub(super) fn check(&self, selection: &Selection) -> Result<(), KafkaError> {
        if !self.found.is_empty() {
            return Ok(());
        }
        let names = selection.topics.join(", ");
        Err(KafkaError::Refused(match selection.partition.filter(|_| self.missing.len() < selection.topics.len()) {
            Some(partition) => format!("{names}: there is no partition {partition}"),
            None => format!("topic {names} does not exist, or may not be read"),
        }))
    }

    /// Offsets in all of them.
    pub(super) fn total(&self) -> u64 {
        u64::try_from(self.found.values().map(|(from, end)| end - from).sum::<i64>()).unwrap_or(0)
    }
}

fn partitions(consumer: &BaseConsumer<Logs>, selection: &Selection) -> Result<(Vec<TopicPartition>, Vec<String>), Native> {
    let (mut partitions, mut missing) = (Vec::new(), Vec::new());
    for topic in &selection.topics {
        let metadata = consumer.fetch_metadata(Some(topic), PATIENCE)?;
        let found = metadata.topics().iter().find(|found| found.error().is_none() && !found.partitions().is_empty());
        let Some(found) = found else {
            missing.push(topic.clone());
            continue;
        };
        let name: Arc<str> = topic.as_str().into();
        let numbers = found.partitions().iter().map(|partition| partition.id());
        let wanted = numbers.filter(|number| selection.partition.is_none_or(|only| only == *number));
        partitions.extend(wanted.map(|number| TopicPartition::new(Arc::clone(&name), number)));
    }
    Ok((partitions, missing))
}

fn bounds(consumer: &BaseConsumer<Logs>, partitions: Vec<TopicPartition>, start: Start) -> Result<BTreeMap<TopicPartition, Span>, Native> {
    if partitions.is_empty() {
        return Ok(BTreeMap::new());
    }
    let lows = lookup::log_ends(consumer, &partitions, Offset::Beginning, PATIENCE)?;
    let ends = lookup::log_ends(consumer, &partitions, Offset::End, PATIENCE)?;
    let since = match start {
        Start::Since(since) => lookup::first_since(consumer, &partitions, since, PATIENCE)?,
        _ => vec![None; partitions.len()],
    };
    let logs = lows.into_iter().zip(ends).zip(since);
    let spans = logs.map(|((low, end), since)| {
        let from = match start {
            Start::Beginning => low,
            Start::End => end,
            Start::Offset(offset) => offset,
            Start::Last(count) => end.saturating_sub(count),
            // No record is that young: nothing to read.
            Start::Since(_) => since.unwrap_or(end),
        };
        (from.clamp(low, end.max(low)), end)
    });
    Ok(partitions.into_iter().zip(spans).collect())
}
