//! The scheduler beside a producer: fires `[[schedules]]` until told to stop.

use std::sync::Arc;

use super::{RunError, brokers::Brokers};
use crate::{
    engine::Clock,
    event::Catalog,
    health::{Health, Part},
    publish::Publishing,
    shutdown::Shutdown,
    store,
    telemetry::Metrics,
    ticks::{Parts, Ticker},
};

/// Fires ticks until `shutdown`, then gives runs in flight `engine.drain_timeout`. Without schedules it only waits, and asks no store.
///
/// # Errors
/// A schedule or a store that cannot work, a fatal producer, runs past the deadline.
pub(super) async fn run(
    brokers: &Brokers,
    catalog: Arc<Catalog>,
    health: &Health,
    metrics: &Metrics,
    shutdown: &Shutdown,
) -> Result<(), RunError> {
    let config = brokers.config();
    if config.schedules.is_empty() {
        shutdown.draining().await;
        return Ok(());
    }
    let store = store::ticks(&config.store, brokers.clients().group_id()).await.map_err(anyhow::Error::from)?;
    let publishing = Arc::new(Publishing::new(config, catalog, brokers.publisher(), metrics.clone()));
    let parts = Parts {
        publishing: Arc::clone(&publishing),
        store,
        report: health.part(Part::Schedules),
        metrics: metrics.clone(),
        clock: Clock::System,
    };
    let ticker = Ticker::new(config, parts).map_err(anyhow::Error::from)?;
    tracing::info!(schedules = config.schedules.len(), "schedules started");
    let limit = config.engine.drain_timeout;
    tokio::select! {
        left = ticker.run(shutdown.token(), limit) => match left {
            0 => Ok(()),
            running => Err(RunError::DrainDeadline { running, after: limit }),
        },
        error = publishing.fatal() => Err(RunError::KafkaFatal(error)),
    }
}
