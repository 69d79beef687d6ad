//! The brokers of a process: the configured ones, or the embedded cluster, behind one set of handles.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};

use super::RunError;
use crate::{
    config::{Config, handlers::HandlerConfig},
    engine::ports::{OffsetSink, Publisher},
    event::Catalog,
    health::Reporter,
    kafka::{
        KafkaError,
        client::Clients,
        embedded::{Embedded, Guard, GuardedPublisher},
        publisher::KafkaPublisher,
    },
    shutdown::Shutdown,
};

/// Between two looks at the brokers' health.
const WATCH: Duration = Duration::from_millis(250);
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
        if !config.kafka.is_embedded() {
            let clients = Clients::new(&config)?;
            let writer = Writer::Plain(Arc::new(KafkaPublisher::new(&clients)?));
            return Ok(Self { config, clients, writer, _embedded: None });
        }
        let topics = embedded_topics(&config, catalog, read);
        let listed: Vec<(&str, i32)> = topics.iter().map(|(name, partitions)| (name.as_str(), *partitions)).collect();
        let embedded = Embedded::start(&listed)?;
        embedded.brokers().clone_into(&mut config.kafka.brokers);
        // It answers an empty fetch only when the wait is over, also where a record comes meanwhile.
        config.kafka.consumer.0.entry("fetch.wait.max.ms".to_owned()).or_insert_with(|| "10".to_owned());
        tracing::warn!(
            kafka.brokers = config.kafka.brokers,
            "the brokers are embedded in this process: what is published ends with it; a partition keeps 5 MiB or 100 000 batches, and publishing is refused before an unsettled event would be dropped"
        );
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

    /// With a limit, an error where no broker answers in time; else nothing is waited for: callers are told what is the case.
    pub async fn wait(&self, limit: Option<Duration>, shutdown: &Shutdown) -> Result<(), RunError> {
        if limit.is_some() {
            tokio::select! {
                answer = self.clients.wait_for_brokers(limit) => answer.map_err(anyhow::Error::from)?,
                () = shutdown.draining() => {}
            }
        }
        Ok(())
    }

    /// Mirrors the producer's view of the brokers into the health page, for ever.
    pub async fn watch(&self, part: &Reporter) -> Infallible {
        let mut ticks = tokio::time::interval(WATCH);
        loop {
            ticks.tick().await;
            if self.up() {
                part.ok();
            } else {
                part.fail(self.clients.away());
            }
        }
    }

    fn up(&self) -> bool {
        match &self.writer {
            Writer::Plain(publisher) => publisher.brokers_up(),
            Writer::Guarded(publisher, _) => publisher.brokers_up(),
        }
    }

    /// Waits until everything published is acknowledged.
    ///
    /// # Errors
    /// [`RunError::DrainDeadline`] where something is left behind after `limit`.
    pub async fn flush(&self, limit: Duration) -> Result<(), RunError> {
        let left = match &self.writer {
            Writer::Plain(publisher) => publisher.close(limit).await,
            Writer::Guarded(publisher, _) => publisher.close(limit).await,
        };
        if left == 0 { Ok(()) } else { Err(RunError::DrainDeadline { running: left, after: limit }) }
    }
}

/// The catalogue's topics as a laptop has them, the DLQ, and whatever else is configured.
fn embedded_topics(config: &Config, catalog: &Catalog, read: &[String]) -> BTreeMap<String, i32> {
    let declared = catalog.topic_specs("local").unwrap_or_default();
    let mut topics: BTreeMap<String, i32> = declared.into_iter().map(|spec| (spec.name.to_string(), spec.partitions)).collect();
    let forwarded = config.handlers.iter().filter_map(HandlerConfig::writes_to);
    let synced = config.sync.is_on().then_some(&config.sync.topic);
    for topic in read.iter().chain([&config.dlq.topic]).chain(forwarded).chain(synced) {
        topics.entry(topic.clone()).or_insert(PARTITIONS);
    }
    topics
}
