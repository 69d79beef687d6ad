//! Both roles in one process, by default on the embedded broker and the store in memory: for trying it, and for development.

use std::sync::Arc;

use super::{Options, RunError, brokers::Brokers, consumer::Consumer, intake::Intake, schedules, service::Service};
use crate::{
    config::{Config, Role},
    event::Catalog,
    shutdown::Shutdown,
};

/// Runs both roles until `shutdown`: first no more events are taken in, then the engine drains.
///
/// # Errors
/// As each role.
pub(super) async fn run(config: Config, catalog: Arc<Catalog>, options: Options, shutdown: Shutdown) -> Result<(), RunError> {
    let service = Service::bind(&config, Role::Standalone).await?;
    let intake = Intake::bind(&config).await?;
    tracing::info!(
        kafka.brokers = config.kafka.brokers,
        catalog = %catalog.origin(),
        http.listen = service.address(),
        publish.listen = intake.http_address(),
        publish.grpc_listen = intake.grpc_address(),
        "standalone started"
    );
    intake.warn_if_open(&config);
    if config.store.is_memory() {
        tracing::warn!("the store is in memory: which events were handled, and their retries, are forgotten with this process");
    }
    let (health, metrics) = (service.health.clone(), service.metrics.clone());
    let consumer =
        Consumer::new(config, Arc::clone(&catalog), options.clone()).sharing(health.clone(), metrics.clone(), service.stats.clone());
    consumer.announce_parts();
    let work = async {
        let Some(handlers) = consumer.wanted(&shutdown).await? else { return Ok(()) };
        let (_, topics) = consumer.reading(&handlers);
        let brokers = Brokers::connect(consumer.config(), &catalog, &topics).map_err(anyhow::Error::from)?;
        brokers.wait(options.exit_if_unreachable, &shutdown).await?;
        // The consumer drains once the last request has its answer: what it published may still be handled.
        let accepted = shutdown.later();
        let accept = async {
            let ticks = schedules::run(&brokers, Arc::clone(&catalog), &health, &metrics, &shutdown);
            let intake = intake.serve(&brokers, Arc::clone(&catalog), &health, metrics.clone(), &shutdown);
            let result = tokio::try_join!(intake, ticks);
            accepted.drain();
            result.map(drop)
        };
        let consume = consumer.work(&brokers, handlers, &accepted);
        tokio::pin!(accept, consume);
        tokio::select! {
            // Before it was asked to: the process cannot go on.
            consumed = &mut consume => consumed,
            result = &mut accept => result.and(consume.await),
        }
    };
    // Boxed: it holds both roles.
    Box::pin(service.run(&shutdown, work)).await
}
