//! The sync listener beside the consumer: a feed that follows its topic, and the clients of it.

use std::{future::Future, sync::Arc};

use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{RunError, brokers::Brokers, consumer::LEAVE, service::address};
use crate::{
    event::{Catalog, Decoder},
    health::{Health, Part},
    http::{self, sync},
    sync::{
        feed::{Feed, Limits},
        follow,
    },
    telemetry::Metrics,
};

/// Listens on `sync.listen`, and answers until `stop`, which ends every client's stream. With an empty one there is nothing to do.
///
/// # Errors
/// Where the address cannot be listened on.
pub(super) async fn run(
    brokers: &Brokers,
    catalog: &Arc<Catalog>,
    health: &Health,
    metrics: &Metrics,
    stop: CancellationToken,
) -> Result<impl Future<Output = Result<(), RunError>> + use<>, RunError> {
    let options = brokers.config().sync.clone();
    let listener = match options.is_on() {
        true => Some(http::bind("sync.listen", &options.listen).await.map_err(anyhow::Error::from)?),
        false => None,
    };
    let topic: Arc<str> = catalog.topic(&options.topic).unwrap_or(&options.topic).into();
    let limits = Limits { history: options.history, memory: options.memory, connections: options.max_connections };
    let feed = Feed::new(limits, metrics.clone());
    let routes = sync::Sync {
        feed: feed.clone(),
        topic: Arc::clone(&topic),
        secret: options.secret,
        origins: options.origins.into(),
        metrics: metrics.clone(),
        stop: stop.clone(),
    };
    let part = listener.as_ref().map(|_| health.part(Part::Sync));
    let (clients, decoder) = (brokers.clients().clone(), Decoder::new(Arc::clone(catalog), false));
    Ok(async move {
        let (Some(listener), Some(part)) = (listener, part) else { return Ok(()) };
        tracing::info!(sync.listen = address(&listener), kafka.topic = &*topic, "clients can listen to their events");
        // A task of its own: events are decoded in it.
        let following = async move { follow(&clients, &topic, options.history, &decoder, &feed, &part).await };
        let following = AbortOnDropHandle::new(tokio::spawn(following));
        let left = async {
            stop.cancelled().await;
            // Who does not read cannot be told that this is the end.
            tokio::time::sleep(LEAVE).await;
        };
        tokio::select! {
            served = http::serve(listener, sync::router(routes), stop.clone()) => served.map_err(|error| anyhow::Error::from(error).into()),
            () = left => Ok(()),
            ended = following => Err(anyhow::anyhow!("reading for clients ended: {ended:?}").into()),
        }
    })
}
