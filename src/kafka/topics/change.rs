//! Creates, widens, changes and deletes topics.

use std::collections::BTreeMap;

use rdkafka::{client::Client, consumer::Consumer, error::KafkaError as Native};

use super::{
    PATIENCE, TopicAdmin, TopicResult, TopicSpec,
    answer::{Asked, readable},
    request::{self, Answer},
};
use crate::kafka::{KafkaError, client::Logs};

impl TopicAdmin {
    /// Creates topics, each by itself: one that is refused leaves the others. The results are in order.
    ///
    /// # Errors
    /// Where no broker answers; refusals are in the results.
    pub async fn create(&self, topics: &[TopicSpec]) -> Result<Vec<TopicResult>, KafkaError> {
        let topics = topics.to_vec();
        // A request each: brokers limit the partitions of one, and refuse all of its topics for one that is too large.
        self.change(Asked::Create, move |client| one_by_one(&topics, |topic| request::create(client, topic, PATIENCE))).await
    }

    /// Gives topics more partitions: name, new total. The keys of some users then belong to other partitions.
    ///
    /// # Errors
    /// Where no broker answers; refusals are in the results.
    pub async fn add_partitions(&self, topics: &[(String, usize)]) -> Result<Vec<TopicResult>, KafkaError> {
        let topics = topics.to_vec();
        self.change(Asked::Alter, move |client| one_by_one(&topics, |topic| request::add_partitions(client, topic, PATIENCE))).await
    }

    /// Changes the named settings of topics and leaves their others as they are. A topic's settings are changed together or not at all.
    ///
    /// # Errors
    /// Where no broker answers; refusals are in the results.
    pub async fn set_config(&self, changes: &[(String, BTreeMap<String, String>)]) -> Result<Vec<TopicResult>, KafkaError> {
        let changes = changes.to_vec();
        self.change(Asked::AlterConfigs, move |client| request::set_config(client, &changes, PATIENCE)).await
    }

    /// Deletes topics with all their records.
    ///
    /// # Errors
    /// Where no broker answers; refusals are in the results.
    pub async fn delete(&self, topics: &[String]) -> Result<Vec<TopicResult>, KafkaError> {
        let topics = topics.to_vec();
        self.change(Asked::Delete, move |client| request::delete(client, &topics, PATIENCE)).await
    }

    async fn change(
        &self,
        asked: Asked,
        ask: impl FnOnce(&Client<Logs>) -> Result<Vec<Answer>, Native> + Send + 'static,
    ) -> Result<Vec<TopicResult>, KafkaError> {
        let answers = self.probe(move |probe| ask(probe.client())).await?;
        let told = |(topic, outcome): Answer| {
            let outcome = outcome.map_err(|(code, words)| readable(asked, &topic, code, &words));
            (topic, outcome)
        };
        Ok(answers.into_iter().map(told).collect())
    }
}

fn one_by_one<T>(topics: &[T], ask: impl Fn(&[T]) -> Result<Vec<Answer>, Native>) -> Result<Vec<Answer>, Native> {
    let mut answers = Vec::with_capacity(topics.len());
    for topic in topics {
        answers.append(&mut ask(std::slice::from_ref(topic))?);
    }
    Ok(answers)
}
