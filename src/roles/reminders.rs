//! Beside a consumer that stores reminders: fires them when they are due.

use std::sync::Arc;

use anyhow::Context;
use chrono::Utc;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{RunError, brokers::Brokers};
use crate::{
    handlers::{Handlers, reminder::fire::Firing},
    health::{Health, Part},
    publish::Publishing,
    reminders::fact::Fact,
    store,
    telemetry::Metrics,
};

/// Lets handlers store reminders, and fires them until `stop`; the inner answer is how that ended. Without such a handler it only waits.
///
/// # Errors
/// A store that must not be used, a catalogue that does not take `reminder.due`.
pub(super) async fn run(
    brokers: &Brokers,
    handlers: &Handlers,
    publishing: &Arc<Publishing>,
    health: &Health,
    metrics: &Metrics,
    stop: CancellationToken,
) -> Result<Result<(), RunError>, RunError> {
    let Some(shelf) = handlers.shelf() else {
        stop.cancelled().await;
        return Ok(Ok(()));
    };
    try_out(publishing).context("reminders cannot be published as reminder.due")?;
    let config = brokers.config();
    let store = store::reminders(&config.store, brokers.clients().group_id()).await.map_err(anyhow::Error::from)?;
    if config.store.is_memory() {
        tracing::warn!("the store is in memory: reminders that wait are forgotten with this process");
    }
    shelf.open(Arc::clone(&store));
    let firing = Firing {
        store,
        remember: shelf.remember(),
        publishing: Arc::clone(publishing),
        report: health.part(Part::Reminders),
        metrics: metrics.clone(),
    };
    let limit = config.engine.drain_timeout;
    Ok(if firing.run(stop, limit).await { Ok(()) } else { Err(RunError::DrainDeadline { running: 1, after: limit }) })
}

/// Whether the catalogue takes what will be published.
fn try_out(publishing: &Publishing) -> anyhow::Result<()> {
    let at = Utc::now();
    let data = json!({ "task_id": 1, "remind_at": at, "due_date": at });
    let fact = Fact { name: "reminder.scheduled", id: "1", user: "1", at, correlation: None, data: &data };
    for due in fact.said().map_err(anyhow::Error::msg)?.map(|task| task.due(i64::MAX)).unwrap_or_default() {
        publishing.prepare(due.event.to_string().as_bytes(), None, None).map_err(|rejection| anyhow::Error::msg(rejection.error))?;
    }
    Ok(())
}
