//! Looks at and changes topics: for `worker topics plan|apply` and `worker doctor`.

mod answer;
mod change;
mod cluster;
mod group;
mod request;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use rdkafka::{
    consumer::{BaseConsumer, Consumer},
    metadata::MetadataTopic,
};

use self::answer::{Asked, readable};
pub use self::cluster::Broker;
use super::{
    KafkaError,
    client::{Clients, Logs},
    token::Supplied,
};
use crate::config::units::show;

/// Time for one answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A topic as the brokers know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicDescription {
    /// Its name.
    pub name: String,
    /// How many partitions.
    pub partitions: usize,
    /// Copies of the partition that has fewest.
    pub replication: usize,
    /// Partitions without a leader: neither written nor read now.
    pub leaderless: usize,
    /// Settings that were made for this topic; what it takes from the broker or the defaults is not here.
    pub config: BTreeMap<String, String>,
    /// Every setting in effect; empty where they were not asked for, or are hidden.
    pub effective: BTreeMap<String, String>,
    /// Why its settings may not be looked at, where they may not.
    pub hidden: Option<KafkaError>,
}

impl TopicDescription {
    /// How long it keeps records, where that is longer than `remembered`: a sentence for people. `None` also where its settings were not
    /// asked for, or are hidden.
    pub fn outlives(&self, remembered: Duration) -> Option<String> {
        // Compaction keeps the last record of each key for ever, unless old ones are deleted too.
        let for_ever = self.effective.get("cleanup.policy").is_some_and(|policy| !policy.contains("delete"));
        let ms: i64 = self.effective.get("retention.ms")?.parse().ok()?;
        let kept = u64::try_from(ms).ok().filter(|_| !for_ever).map(Duration::from_millis);
        if kept.is_some_and(|kept| kept <= remembered) {
            return None;
        }
        let kept = kept.map_or_else(|| "for ever".to_owned(), show);
        Some(format!("keeps records {kept}, duplicates are recognised for {}: a rewind beyond that repeats effects", show(remembered)))
    }
}

/// A topic to be created.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// How many partitions; -1: the broker's default.
    pub partitions: i32,
    /// Copies of each; -1: the broker's default.
    pub replication: i32,
    /// Settings, by Kafka's names.
    pub config: BTreeMap<String, String>,
}

/// What became of one topic's change: `Ok`, or Kafka's own answer.
pub type TopicResult = (String, Result<(), KafkaError>);

/// Asks and changes, with a client that joins no group. Its calls block for at most 10 s per answer inside `spawn_blocking`.
pub struct TopicAdmin {
    client: Arc<Supplied<BaseConsumer<Logs>>>,
    clients: Clients,
}

impl TopicAdmin {
    /// Connects in the background.
    ///
    /// # Errors
    /// Where the properties make no client.
    pub fn new(clients: &Clients) -> Result<Self, KafkaError> {
        let client = Arc::new(clients.create(&clients.admin(), Logs::quiet())?);
        Ok(Self { client, clients: clients.clone() })
    }

    /// Every topic that this client may see, without settings.
    ///
    /// # Errors
    /// Where no broker answers.
    pub async fn list(&self) -> Result<Vec<TopicDescription>, KafkaError> {
        self.probe(|probe| {
            let metadata = probe.fetch_metadata(None, PATIENCE)?;
            Ok(metadata.topics().iter().filter(|topic| topic.error().is_none()).map(bare).collect())
        })
        .await
    }

    /// These topics with their settings, in order; `None`: there is no such topic, or it is hidden from this client.
    ///
    /// # Errors
    /// Where no broker answers.
    pub async fn describe(&self, names: &[String]) -> Result<Vec<Option<TopicDescription>>, KafkaError> {
        let listed: BTreeMap<_, _> = self.list().await?.into_iter().map(|topic| (topic.name.clone(), topic)).collect();
        let mut found: Vec<_> = names.iter().map(|name| listed.get(name).cloned()).collect();
        let there: Vec<_> = found.iter().flatten().map(|topic| topic.name.clone()).collect();
        let answered = self.probe(move |probe| request::settings(probe.client(), &there, PATIENCE)).await?;
        for (topic, answer) in found.iter_mut().flatten().zip(answered) {
            match answer {
                Ok(settings) => {
                    topic.config = settings.iter().filter(|one| one.own).map(|one| (one.name.clone(), one.value.clone())).collect();
                    topic.effective = settings.into_iter().map(|one| (one.name, one.value)).collect();
                }
                Err((code, words)) => topic.hidden = Some(readable(Asked::DescribeConfigs, &topic.name, code, &words)),
            }
        }
        Ok(found)
    }

    /// Asks on a thread that may wait.
    async fn probe<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&BaseConsumer<Logs>) -> Result<T, rdkafka::error::KafkaError> + Send + 'static,
    ) -> Result<T, KafkaError> {
        let (client, clients) = (Arc::clone(&self.client), self.clients.clone());
        blocking(move || ask(&client).map_err(|error| clients.sort(&error))).await
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, KafkaError> + Send + 'static) -> Result<T, KafkaError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(KafkaError::Refused("the asking thread died".to_owned())))
}

/// What the cluster's metadata says of a topic.
fn bare(topic: &MetadataTopic) -> TopicDescription {
    let partitions = topic.partitions();
    TopicDescription {
        name: topic.name().to_owned(),
        partitions: partitions.len(),
        replication: partitions.iter().map(|partition| partition.replicas().len()).min().unwrap_or(0),
        leaderless: partitions.iter().filter(|partition| partition.leader() < 0).count(),
        config: BTreeMap::new(),
        effective: BTreeMap::new(),
        hidden: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_that_keeps_records_for_longer_than_duplicates_are_recognised_says_so() {
        let topic = |settings: &[(&str, &str)]| TopicDescription {
            name: "t".to_owned(),
            partitions: 1,
            replication: 1,
            leaderless: 0,
            config: BTreeMap::new(),
            effective: settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            hidden: None,
        };
        let days = |days: u64| Duration::from_secs(days * 86_400);
        let week = topic(&[("retention.ms", "604800000"), ("cleanup.policy", "delete")]);
        assert_eq!((week.outlives(days(7)), week.outlives(days(8))), (None, None));
        assert_eq!(
            week.outlives(days(6)).as_deref(),
            Some("keeps records 7days, duplicates are recognised for 6days: a rewind beyond that repeats effects")
        );
        assert!(topic(&[("retention.ms", "-1")]).outlives(days(8)).is_some_and(|said| said.starts_with("keeps records for ever")));
        assert!(topic(&[("retention.ms", "1"), ("cleanup.policy", "compact")]).outlives(days(8)).is_some());
        assert_eq!(topic(&[("retention.ms", "1"), ("cleanup.policy", "compact,delete")]).outlives(days(8)), None);
        assert_eq!(topic(&[]).outlives(days(8)), None, "hidden");
    }
}
