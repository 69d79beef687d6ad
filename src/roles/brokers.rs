//! The brokers of a process: the configured ones, or the embedded cluster, behind one set of handles.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{
    config::Config,
    engine::ports::{OffsetSink, Publisher},
    event::Catalog,
    kafka::{
        KafkaError,
        client::Clients,
        embedded::{Embedded, Guard, GuardedPublisher},
        publisher::KafkaPublisher,
    },
};

/// `kafka.brokers` of the in-process cluster.
const EMBEDDED: &str = "embedded";
/// Partitions of a topic that the catalogue does not declare, on the embedded cluster.
const PARTITIONS: i32 = 3;

/// What publishes: on the embedded cluster, with a guard against what it forgets.
enum Writer {
    Plain(Arc<KafkaPublisher>),
    Guarded(Arc<GuardedPublisher>, Guard),
}

/// Handles to the brokers; the embedded cluster lives as long as they do.
pub struct Brokers {
    config: Config,
    clients: Clients,
    writer: Writer,
    _embedded: Option<Embedded>,
}

impl Brokers {
    /// Makes the clients. `read`: the topics that a consumer of this process reads; on the embedded cluster their unsettled records are kept
    /// from being dropped.
    ///
    /// # Errors
    /// Where the properties make no client.
    pub fn connect(config: &Config, catalog: &Catalog, read: &[String]) -> Result<Self, KafkaError> {
        let mut config = config.clone();
        if config.kafka.brokers != EMBEDDED {
            let clients = Clients::new(&config)?;
            let writer = Writer::Plain(Arc::new(KafkaPublisher::new(&clients)?));
            return Ok(Self { config, clients, writer, _embedded: None });
        }
        let topics = embedded_topics(&config, catalog, read);
        let listed: Vec<(&str, i32)> = topics.iter().map(|(name, partitions)| (name.as_str(), *partitions)).collect();
        let embedded = Embedded::start(&listed)?;
        embedded.brokers().clone_into(&mut config.kafka.brokers);
        let clients = Clients::new(&config)?;
        let guarded: Vec<(&str, i32)> = listed.iter().copied().filter(|(name, _)| read.iter().any(|topic| topic == name)).collect();
        let (publisher, guard) = embedded.publisher(&clients, &guarded)?;
        Ok(Self { config, clients, writer: Writer::Guarded(publisher, guard), _embedded: Some(embedded) })
    }

    /// The configuration, with the embedded cluster's address where that is used.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Makes further clients.
    pub fn clients(&self) -> &Clients {
        &self.clients
    }

    /// Whether everything is gone with this process.
    pub fn embedded(&self) -> bool {
        self._embedded.is_some()
    }

    /// Writes records.
    pub fn publisher(&self) -> Arc<dyn Publisher> {
        match &self.writer {
            Writer::Plain(publisher) => Arc::clone(publisher) as Arc<dyn Publisher>,
            Writer::Guarded(publisher, _) => Arc::clone(publisher) as Arc<dyn Publisher>,
        }
    }

    /// Commits through `sink`; on the embedded cluster, what is committed may be dropped.
    pub fn offsets(&self, sink: Arc<dyn OffsetSink>) -> Arc<dyn OffsetSink> {
        match &self.writer {
            Writer::Plain(_) => sink,
            Writer::Guarded(_, guard) => guard.sink(sink),
        }
    }

    /// Whether the brokers answer.
    pub fn up(&self) -> bool {
        match &self.writer {
            Writer::Plain(publisher) => publisher.brokers_up(),
            Writer::Guarded(publisher, _) => publisher.brokers_up(),
        }
    }

    /// Waits until everything published is acknowledged, at most `deadline`; answers how many records are left behind.
    pub async fn close(&self, deadline: Duration) -> usize {
        match &self.writer {
            Writer::Plain(publisher) => publisher.close(deadline).await,
            Writer::Guarded(publisher, _) => publisher.close(deadline).await,
        }
    }
}

/// The catalogue's topics as a laptop has them, the DLQ, and whatever else is configured.
fn embedded_topics(config: &Config, catalog: &Catalog, read: &[String]) -> BTreeMap<String, i32> {
    let declared = catalog.topic_specs("local").unwrap_or_default();
    let mut topics: BTreeMap<String, i32> = declared.into_iter().map(|spec| (spec.name.to_string(), spec.partitions)).collect();
    for topic in read.iter().chain([&config.dlq.topic]) {
        topics.entry(topic.clone()).or_insert(PARTITIONS);
    }
    topics
}
