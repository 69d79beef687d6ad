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
};

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
    client: Arc<BaseConsumer<Logs>>,
    clients: Clients,
}

impl TopicAdmin {
    /// Connects in the background.
    ///
    /// # Errors
    /// Where the properties make no client.
    pub fn new(clients: &Clients) -> Result<Self, KafkaError> {
        let client = Arc::new(Clients::create(&clients.admin(), Logs::quiet())?);
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
        let (client, brokers) = (Arc::clone(&self.client), self.clients.brokers().to_owned());
        blocking(move || ask(&client).map_err(|error| KafkaError::from_native(&error, &brokers))).await
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
