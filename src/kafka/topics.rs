//! Looks at and changes topics: for `worker topics plan|apply` and `worker doctor`.

use std::{collections::BTreeMap, time::Duration};

use rdkafka::{
    Offset,
    admin::{AdminClient, AdminOptions, ConfigSource, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication},
    consumer::{BaseConsumer, Consumer},
    error::RDKafkaErrorCode,
};

use super::{
    KafkaError,
    access::{self, Access},
    client::{Clients, Logs},
    lookup, native,
};
use crate::{engine::ports::Committed, event::record::TopicPartition};

/// Time for one answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A topic as the brokers know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicDescription {
    /// Its name.
    pub name: String,
    /// How many partitions.
    pub partitions: usize,
    /// Replicas of its first partition.
    pub replication: usize,
    /// Partitions without a leader: neither written nor read now.
    pub leaderless: usize,
    /// Settings that were made for this topic; what it takes from the broker or the defaults is not here.
    pub config: BTreeMap<String, String>,
    /// Every setting in effect.
    pub effective: BTreeMap<String, String>,
}

/// A topic to be created.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// How many partitions.
    pub partitions: i32,
    /// Copies of each; -1: the broker's default.
    pub replication: i32,
    /// Settings, by Kafka's names.
    pub config: BTreeMap<String, String>,
}

/// A broker of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    /// Its number.
    pub id: i32,
    /// Where clients reach it.
    pub address: String,
}

/// What became of one topic's change: `Ok`, or Kafka's own answer.
pub type TopicResult = (String, Result<(), KafkaError>);

/// The admin client. Its calls block for at most 10 s each inside `spawn_blocking`.
pub struct TopicAdmin {
    admin: AdminClient<super::client::Plain>,
    clients: Clients,
}

impl TopicAdmin {
    /// Connects in the background.
    ///
    /// # Errors
    /// Where the properties make no client.
    pub fn new(clients: &Clients) -> Result<Self, KafkaError> {
        let admin = Clients::create(&clients.admin(), super::client::Plain::default())?;
        Ok(Self { admin, clients: clients.clone() })
    }

    fn options() -> AdminOptions {
        AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(PATIENCE))
    }

    fn sort(&self, error: &rdkafka::error::KafkaError) -> KafkaError {
        KafkaError::from_native(error, self.clients.brokers())
    }

    /// The cluster's brokers.
    ///
    /// # Errors
    /// Where none answers.
    pub async fn brokers(&self) -> Result<Vec<Broker>, KafkaError> {
        self.probe(|probe| {
            let metadata = probe.fetch_metadata(None, PATIENCE)?;
            Ok(metadata
                .brokers()
                .iter()
                .map(|broker| Broker { id: broker.id(), address: format!("{}:{}", broker.host(), broker.port()) })
                .collect())
        })
        .await
    }

    /// Every topic that this client may see, without settings.
    ///
    /// # Errors
    /// Where no broker answers.
    pub async fn list(&self) -> Result<Vec<TopicDescription>, KafkaError> {
        self.probe(|probe| {
            let metadata = probe.fetch_metadata(None, PATIENCE)?;
            let topics = metadata.topics().iter().filter(|topic| topic.error().is_none());
            Ok(topics.map(|topic| describe(topic, BTreeMap::new(), BTreeMap::new())).collect())
        })
        .await
    }

    /// These topics with their settings, in order; `None`: there is no such topic.
    ///
    /// # Errors
    /// Where no broker answers or one topic may not be looked at.
    pub async fn describe(&self, names: &[String]) -> Result<Vec<Option<TopicDescription>>, KafkaError> {
        let wanted = names.to_vec();
        let found = self
            .probe(move |probe| {
                let metadata = probe.fetch_metadata(None, PATIENCE)?;
                let topic = |name: &String| {
                    let topic = metadata.topics().iter().find(|topic| topic.name() == name)?;
                    topic.error().is_none().then(|| describe(topic, BTreeMap::new(), BTreeMap::new()))
                };
                Ok(wanted.iter().map(topic).collect::<Vec<_>>())
            })
            .await?;
        let existing: Vec<_> = found.iter().flatten().map(|topic| ResourceSpecifier::Topic(&topic.name)).collect();
        if existing.is_empty() {
            return Ok(found);
        }
        let configs = self.admin.describe_configs(existing.iter(), &Self::options()).await.map_err(|error| self.sort(&error))?;
        let mut configs = configs.into_iter();
        let mut described = Vec::with_capacity(found.len());
        for topic in found {
            let Some(mut topic) = topic else {
                described.push(None);
                continue;
            };
            match configs.next() {
                Some(Ok(config)) => {
                    for entry in config.entries {
                        let value = entry.value.unwrap_or_default();
                        if entry.source == ConfigSource::DynamicTopic {
                            topic.config.insert(entry.name.clone(), value.clone());
                        }
                        topic.effective.insert(entry.name, value);
                    }
                }
                Some(Err(code)) => return Err(answer(code, &topic.name)),
                None => {}
            }
            described.push(Some(topic));
        }
        Ok(described)
    }

    /// Creates topics, each by itself: one that is refused leaves the others.
    ///
    /// # Errors
    /// Where no broker answers; refusals are in the results.
    pub async fn create(&self, topics: &[TopicSpec]) -> Result<Vec<TopicResult>, KafkaError> {
        let new: Vec<_> = topics
            .iter()
            .map(|topic| {
                let new = NewTopic::new(&topic.name, topic.partitions, TopicReplication::Fixed(topic.replication));
                topic.config.iter().fold(new, |new, (key, value)| new.set(key, value))
            })
            .collect();
        if new.is_empty() {
            return Ok(Vec::new());
        }
        let results = self.admin.create_topics(new.iter(), &Self::options()).await.map_err(|error| self.sort(&error))?;
        Ok(results.into_iter().map(by_name).collect())
    }

    /// Gives topics more partitions: name, new total.
    ///
    /// # Errors
    /// Where no broker answers; refusals are in the results.
    pub async fn add_partitions(&self, topics: &[(String, usize)]) -> Result<Vec<TopicResult>, KafkaError> {
        let new: Vec<_> = topics.iter().map(|(topic, total)| NewPartitions::new(topic, *total)).collect();
        if new.is_empty() {
            return Ok(Vec::new());
        }
        let results = self.admin.create_partitions(new.iter(), &Self::options()).await.map_err(|error| self.sort(&error))?;
        Ok(results.into_iter().map(by_name).collect())
    }

    /// Changes the named settings of topics and leaves their others as they are.
    ///
    /// # Errors
    /// Where no broker answers; refusals are in the results.
    pub async fn set_config(&self, changes: &[(String, BTreeMap<String, String>)]) -> Result<Vec<TopicResult>, KafkaError> {
        let mut results = Vec::with_capacity(changes.len());
        for (topic, changed) in changes {
            results.push((topic.clone(), self.set_config_of(topic, changed).await?));
        }
        Ok(results)
    }

    async fn set_config_of(&self, topic: &str, changed: &BTreeMap<String, String>) -> Result<Result<(), KafkaError>, KafkaError> {
        let (topic, changed) = (topic.to_owned(), changed.clone());
        self.probe(move |probe| {
            let settings = changed.iter().map(|(key, value)| (key.as_str(), value.as_str()));
            let answered = native::set_topic_config(probe.client(), &topic, settings, PATIENCE)?;
            Ok(answered.map_err(|(code, words)| match answer(code, &topic) {
                KafkaError::Refused(_) => KafkaError::Refused(format!("topic {topic}: {words}")),
                other => other,
            }))
        })
        .await
    }

    /// The group's commits of these partitions, in order.
    ///
    /// # Errors
    /// Where the group's coordinator does not answer or does not allow it.
    pub async fn committed(&self, partitions: &[TopicPartition]) -> Result<Vec<Option<Committed>>, KafkaError> {
        let partitions = partitions.to_vec();
        let clients = self.clients.clone();
        blocking(move || {
            let consumer: BaseConsumer<Logs> = Clients::create(&clients.reader(), Logs::quiet())?;
            lookup::committed(&consumer, &partitions).map_err(|error| KafkaError::from_native(&error, clients.brokers()))
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

    /// Whether a broker answers, and in what time.
    ///
    /// # Errors
    /// Where none does.
    pub async fn ping(&self) -> Result<Duration, KafkaError> {
        self.probe(|probe| {
            let asked = std::time::Instant::now();
            native::ping(probe.client(), PATIENCE)?;
            Ok(asked.elapsed())
        })
        .await
    }

    /// The cluster's own name for itself; `None`: it has none.
    ///
    /// # Errors
    /// Where no client can be made.
    pub async fn cluster_id(&self) -> Result<Option<String>, KafkaError> {
        self.probe(|probe| Ok(probe.client().fetch_cluster_id(PATIENCE))).await
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

    /// What this client may do with those topics, in order.
    ///
    /// # Errors
    /// Where no broker answers; what is forbidden is in the results.
    pub async fn access(&self, topics: &[String]) -> Result<Vec<Result<Option<Access>, KafkaError>>, KafkaError> {
        let topics = topics.to_vec();
        self.probe(move |probe| {
            let answers = access::access(probe.client(), &topics, PATIENCE)?;
            Ok(answers.into_iter().zip(&topics).map(|(found, topic)| found.map_err(|code| answer(code, topic))).collect())
        })
        .await
    }

    /// Asks with a client of its own, on a thread that may wait.
    async fn probe<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&BaseConsumer<Logs>) -> Result<T, rdkafka::error::KafkaError> + Send + 'static,
    ) -> Result<T, KafkaError> {
        let clients = self.clients.clone();
        blocking(move || {
            let probe: BaseConsumer<Logs> = Clients::create(&clients.admin(), Logs::quiet())?;
            ask(&probe).map_err(|error| KafkaError::from_native(&error, clients.brokers()))
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, KafkaError> + Send + 'static) -> Result<T, KafkaError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(KafkaError::Refused("the asking thread died".to_owned())))
}

fn describe(
    topic: &rdkafka::metadata::MetadataTopic,
    config: BTreeMap<String, String>,
    effective: BTreeMap<String, String>,
) -> TopicDescription {
    let partitions = topic.partitions();
    TopicDescription {
        name: topic.name().to_owned(),
        partitions: partitions.len(),
        replication: partitions.first().map_or(0, |partition| partition.replicas().len()),
        leaderless: partitions.iter().filter(|partition| partition.leader() < 0).count(),
        config,
        effective,
    }
}

fn by_name(result: Result<String, (String, RDKafkaErrorCode)>) -> TopicResult {
    match result {
        Ok(topic) => (topic, Ok(())),
        Err((topic, code)) => {
            let error = answer(code, &topic);
            (topic, Err(error))
        }
    }
}

/// Kafka's own answer about one topic.
fn answer(code: RDKafkaErrorCode, topic: &str) -> KafkaError {
    match code {
        RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed => {
            KafkaError::Forbidden(format!("topic {topic}: {code}"))
        }
        _ => KafkaError::Refused(format!("topic {topic}: {code}")),
    }
}
