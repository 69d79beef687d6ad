//! What the cluster says of itself, and of what this client may do with it.

use std::time::Duration;

use rdkafka::consumer::Consumer;

use super::{
    PATIENCE, TopicAdmin,
    answer::{Asked, readable},
};
use crate::kafka::{
    KafkaError,
    access::{self, Access},
    native,
};

/// A broker of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    /// Its number.
    pub id: i32,
    /// Where clients reach it.
    pub address: String,
}

impl TopicAdmin {
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

    /// What this client may do with those topics, in order.
    ///
    /// # Errors
    /// Where no broker answers; what is forbidden is in the results.
    pub async fn access(&self, topics: &[String]) -> Result<Vec<Result<Option<Access>, KafkaError>>, KafkaError> {
        let topics = topics.to_vec();
        self.probe(move |probe| {
            let answers = access::access(probe.client(), &topics, PATIENCE)?;
            Ok(answers
                .into_iter()
                .zip(&topics)
                .map(|(found, topic)| found.map_err(|code| readable(Asked::Describe, topic, code, "")))
                .collect())
        })
        .await
    }
}
