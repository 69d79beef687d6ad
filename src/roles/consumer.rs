//! The consumer role: Source, store, handlers and engine put together, and taken down in the order that loses nothing.

use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Options, RunError, alerts, brokers::Brokers, dead_reminders::TellsUsers, reminders, retention, service::Service, sync};
use crate::{
    config::{Config, Role, engine::UnknownType, redis::WhenDown},
    engine::{self, Clock, Drained, Engine, EngineError, Parts},
    event::{Catalog, Decoder},
    handler::Registry,
    handlers::{self, Handlers, stats::Stats},
    health::{Health, Part},
    kafka::{
        reader::KafkaReader,
        source::{Source, SourceHandle},
    },
    publish::Publishing,
    retry::Schedules,
    shutdown::Shutdown,
    store,
    telemetry::{self, Metrics},
};

/// The group is left within this time, or left to find out by itself.
pub(super) const LEAVE: Duration = Duration::from_secs(5);
/// The polling thread beats every 100 ms; silent for this long it is dead.
const POLL_SILENCE: Duration = Duration::from_secs(30);
/// Between two looks at the parts' health.
const WATCH: Duration = Duration::from_millis(250);

/// A consumer in the making.
pub(crate) struct Consumer {
    config: Config,
    catalog: Arc<Catalog>,
    options: Options,
    health: Health,
    metrics: Metrics,
    stats: Stats,
}

impl Consumer {
    /// A consumer of that configuration and catalogue.
    pub(crate) fn new(config: Config, catalog: Arc<Catalog>, options: Options) -> Self {
        let (health, metrics) = (Health::new(), Metrics::new(Role::Consumer.name()));
        Self { config, catalog, options, health, metrics, stats: Stats::default() }
    }

    /// Its configuration.
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// Shares the metrics, the health page and the statistics of another role in this process.
    #[must_use]
    pub(crate) fn sharing(mut self, health: Health, metrics: Metrics, stats: Stats) -> Self {
        (self.health, self.metrics, self.stats) = (health, metrics, stats);
        self
    }

    /// Runs until `shutdown`, then drains. Serves `/metrics`, `/livez` and `/readyz` meanwhile.
    ///
    /// # Errors
    /// A port in use, a refused store, a fatal client, or runs left behind at the drain's deadline.
    pub(super) async fn run(mut self, shutdown: Shutdown) -> Result<(), RunError> {
        let service = Service::bind(&self.config, Role::Consumer).await?;
        (self.health, self.metrics, self.stats) = (service.health.clone(), service.metrics.clone(), service.stats.clone());
        tracing::info!(kafka.brokers = self.config.kafka.brokers, catalog = %self.catalog.origin(), http.listen = service.address(), "consumer started");
        self.announce_parts();
        let work = async {
            let Some(handlers) = self.wanted(&shutdown).await? else { return Ok(()) };
            let (_, topics) = self.reading(&handlers);
            let brokers = Brokers::connect(&self.config, &self.catalog, &topics).map_err(anyhow::Error::from)?;
            brokers.wait(self.options.exit_if_unreachable, &shutdown).await?;
            self.work(&brokers, handlers, &shutdown).await
        };
        service.run(&shutdown, work).await
    }

    /// Puts every part on the health page before anyone can ask: not ready until each has said that it is well.
    pub(super) fn announce_parts(&self) {
        for part in [Part::Brokers, Part::Group, Part::Store, Part::Engine] {
            self.health.part(part);
        }
    }

    /// The handlers, once every app has told what it wants; `None`: told to stop before.
    pub(crate) async fn wanted(&self, shutdown: &Shutdown) -> Result<Option<Handlers>, RunError> {
        tokio::select! {
            handlers = handlers::build(&self.config, &self.catalog, &self.health, &self.metrics) => {
                let handlers = handlers.map_err(anyhow::Error::from)?;
                self.stats.open(handlers.pages());
                Ok(Some(handlers))
            }
            () = shutdown.draining() => Ok(None),
        }
    }

    /// The handlers as they are now, with the program's own, and the topics that they want.
    pub(crate) fn reading(&self, handlers: &Handlers) -> (Registry, Vec<String>) {
        let registry = self.options.bindings.iter().cloned().fold(handlers.registry(), Registry::bind);
        let topics = match &self.config.kafka.topics {
            Some(topics) => topics.clone(),
            None => handlers::topics(&registry, &self.catalog).iter().map(|topic| topic.to_string()).collect(),
        };
        (registry, topics)
    }

    /// Works until `shutdown`, or until an error that a restart must mend: handles events, and fires reminders where a handler has any.
    pub(crate) async fn work(&self, brokers: &Brokers, handlers: Handlers, shutdown: &Shutdown) -> Result<(), RunError> {
        let publishing = Arc::new(Publishing::new(brokers.config(), Arc::clone(&self.catalog), brokers.publisher(), self.metrics.clone()));
        handlers.outlet().open(Arc::clone(&publishing));
        let stop = shutdown.token().child_token();
        let firing = reminders::run(brokers, &handlers, &publishing, &self.health, &self.metrics, stop.clone());
        let syncing = sync::run(brokers, &self.catalog, &self.health, &self.metrics, stop.clone()).await?;
        let delivering = async {
            handlers.deliver(stop.clone()).await;
            Ok(())
        };
        let sessions = async {
            let result = self.sessions(brokers, &handlers, &publishing, shutdown).await;
            stop.cancel();
            Ok(result)
        };
        // Boxed: it holds a whole engine.
        let (result, fired, (), ()) = tokio::try_join!(Box::pin(sessions), firing, delivering, syncing)?;
        let flushed = brokers.flush(LEAVE).await;
        result.and(fired).and(flushed)
    }

    /// Where apps want other topics than before, what is in flight is drained, and the group joined anew for the topics that are wanted now.
    async fn sessions(&self, brokers: &Brokers, handlers: &Handlers, publishing: &Publishing, shutdown: &Shutdown) -> Result<(), RunError> {
        let reloads = shutdown.reloads();
        loop {
            let stop = shutdown.token().child_token();
            let session = self.session(brokers, handlers, stop.clone());
            tokio::pin!(session);
            let changed = handlers.changed(&reloads);
            return tokio::select! {
                result = &mut session => result,
                error = publishing.fatal() => Err(RunError::KafkaFatal(error)),
                () = changed => {
                    tracing::info!("the apps want other topics: draining, then joining the group for them");
                    stop.cancel();
                    match session.await {
                        // What was left behind comes again; it is no reason to end.
                        Err(RunError::DrainDeadline { running, .. }) => tracing::warn!(running, "runs left behind at the drain's deadline"),
                        result => result?,
                    }
                    if !shutdown.is_draining() {
                        continue;
                    }
                    Ok(())
                }
            };
        }
    }

    /// Source, store and engine, from the first to the last, for what the handlers want now.
    async fn session(&self, brokers: &Brokers, handlers: &Handlers, stop: CancellationToken) -> Result<(), RunError> {
        let (registry, topics) = self.reading(handlers);
        if topics.is_empty() {
            self.health.part(Part::Group).fail("no handler wants any topic".to_owned());
            tracing::warn!("no handler wants any topic: nothing is read until one does");
            stop.cancelled().await;
            return Ok(());
        }
        let config = brokers.config();
        let metrics = &self.metrics;
        let store = store::connect(&config.store, brokers.clients().group_id(), metrics).await.map_err(anyhow::Error::from)?;
        let (events, source) = mpsc::channel(64);
        let read = topics.clone();
        let handle = Source::start(config, topics, events).map_err(anyhow::Error::from)?;
        let reader = KafkaReader::start(brokers.clients()).map_err(anyhow::Error::from)?;
        let options = options(config, brokers.clients().group_id());
        let (alerts, webhook) = alerts::start(config, &options.group, &options.worker)?;
        let decoder = Decoder::new(Arc::clone(&self.catalog), config.catalog.validate)
            .delivering_unknown(config.catalog.unknown_type == UnknownType::Deliver);
        let publisher = match config.dlq.tell_users {
            true => TellsUsers::around(brokers.publisher(), handlers.outlet().clone(), &self.catalog),
            false => brokers.publisher(),
        };
        let engine = Engine::new(
            Parts {
                decoder: decoder.with_opaque(handlers.raw_topics()).map_err(anyhow::Error::msg)?,
                registry,
                schedules: Schedules::new(&config.retry),
                store,
                publisher,
                offsets: brokers.offsets(handle.offsets()),
                reader: Some(Arc::new(reader)),
                metrics: metrics.clone(),
                clock: Clock::System,
                alerts,
            },
            options,
        );
        let watch = watch(&handle, brokers, &engine, &self.health);
        // The embedded cluster keeps as much as it has room for.
        let asked = if self.config.kafka.is_embedded() { Vec::new() } else { read };
        let result = tokio::select! {
            result = engine.run(source, stop) => result,
            never = watch => match never {},
            never = retention::warn(brokers.clients(), asked, config.store.retention) => match never {},
        };
        if !handle.close(LEAVE).await {
            tracing::warn!("the group was not left in time; its coordinator finds out after the session timeout");
        }
        if let Some(webhook) = webhook {
            webhook.close(LEAVE).await;
        }
        match result {
            Ok(Drained::Clean) => Ok(()),
            Ok(Drained::DeadlineExceeded { runs }) => Err(RunError::DrainDeadline { running: runs, after: config.engine.drain_timeout }),
            Err(EngineError::Source(error)) => Err(RunError::KafkaFatal(error)),
            Err(error) => Err(anyhow::Error::from(error).into()),
        }
    }
}

/// The engine's options as configured.
fn options(config: &Config, group: &str) -> engine::Options {
    let limits = &config.engine;
    engine::Options {
        group: group.into(),
        worker: format!("{}-{}", telemetry::host(), std::process::id()).into(),
        dlq_topic: config.dlq.topic.as_str().into(),
        concurrency: limits.concurrency,
        memory: limits.memory,
        lane_events: limits.lane_events,
        drain_timeout: limits.drain_timeout,
        commit_interval: limits.commit_interval,
        commit_map_chars: config.commit_map.max_chars,
        max_held_events: limits.max_held_events,
        max_hold_age: limits.max_hold_age,
        on_overflow: limits.on_overflow,
        skip_unknown: config.catalog.unknown_type == UnknownType::Skip,
        breaker_ratio: config.dlq.breaker_ratio,
        when_down: match config.store.when_down {
            WhenDown::Hold => engine::WhenDown::Hold,
            WhenDown::Bypass => engine::WhenDown::BypassAfter(config.store.bypass_after),
        },
        seed: fastrand::u64(..),
    }
}

/// Mirrors what the parts know of themselves into the health page, for ever.
fn watch<'a>(
    source: &'a SourceHandle,
    brokers: &'a Brokers,
    engine: &Engine,
    health: &Health,
) -> impl Future<Output = std::convert::Infallible> + use<'a> {
    let (broker_part, group, store, books) =
        (health.part(Part::Brokers), health.part(Part::Group), health.part(Part::Store), health.part(Part::Engine));
    let poll = health.heartbeat(Part::Poll, POLL_SILENCE);
    let (store_is_up, conserves) = (engine.store_is_up(), engine.conserves());
    let clients = brokers.clients();
    async move {
        let mut ticks = tokio::time::interval(WATCH);
        loop {
            ticks.tick().await;
            let report =
                |part: &crate::health::Reporter, ok: bool, detail: &dyn Fn() -> String| if ok { part.ok() } else { part.fail(detail()) };
            report(&broker_part, source.brokers_up(), &|| clients.away());
            report(&group, source.joined(), &|| match source.missing_topics() {
                missing if missing.is_empty() && source.conflicts() => {
                    "has members with another partition.assignment.strategy; stop them".to_owned()
                }
                missing if missing.is_empty() => "has not joined its group yet".to_owned(),
                missing => format!("missing topics: {}; create them with `worker topics apply`", missing.join(", ")),
            });
            report(&store, store_is_up(), &|| "the dedupe store does not answer".to_owned());
            report(&books, conserves(), &|| "records are neither settled nor held: a bug".to_owned());
            if source.last_poll_age() < POLL_SILENCE {
                poll.beat();
            }
        }
    }
}
