//! The way in: the listeners that take events, of the producer role and of standalone.

use std::sync::Arc;

use tokio::net::TcpListener;

use super::{RunError, brokers::Brokers, service};
use crate::{
    config::Config,
    event::Catalog,
    grpc,
    health::{Health, Part},
    http::{
        self, Requests,
        auth::{self, Token},
        body::Bodies,
        publish, sidecar,
    },
    publish::Publishing,
    shutdown::Shutdown,
    sidecar::{about::About, pubsub::PubSub, state::States},
    store,
    telemetry::Metrics,
};

/// Bound addresses that nobody answers on yet.
pub(super) struct Intake {
    http: TcpListener,
    grpc: TcpListener,
}

impl Intake {
    /// Listens on `publish.listen` and `publish.grpc_listen`.
    pub(super) async fn bind(config: &Config) -> Result<Self, RunError> {
        let http = http::bind("publish.listen", &config.publish.listen).await.map_err(anyhow::Error::from)?;
        let grpc = http::bind("publish.grpc_listen", &config.publish.grpc_listen).await.map_err(anyhow::Error::from)?;
        Ok(Self { http, grpc })
    }

    /// Where it listens for HTTP.
    pub(super) fn http_address(&self) -> String {
        service::address(&self.http)
    }

    /// Where it listens for gRPC.
    pub(super) fn grpc_address(&self) -> String {
        service::address(&self.grpc)
    }

    /// Anyone who reaches an address may publish: a warning where that is more than this machine.
    pub(super) fn warn_if_open(&self, config: &Config) {
        let open = |listener: &TcpListener| listener.local_addr().is_ok_and(|address| !address.ip().is_loopback());
        if config.publish.api_token.is_empty() && (open(&self.http) || open(&self.grpc)) {
            tracing::warn!(
                publish.listen = config.publish.listen,
                publish.grpc_listen = config.publish.grpc_listen,
                "anyone who reaches this address can publish: set publish.api_token (or DAPR_API_TOKEN), or listen on 127.0.0.1"
            );
        }
    }

    /// Takes requests until `shutdown`, then gives those in flight `engine.drain_timeout` to finish.
    pub(super) async fn serve(
        self,
        brokers: &Brokers,
        catalog: Arc<Catalog>,
        health: &Health,
        metrics: Metrics,
        shutdown: &Shutdown,
    ) -> Result<(), RunError> {
        let config = brokers.config();
        let states = match config.state.stores.is_empty() {
            true => None,
            false => Some(store::state::connect(&config.store, &metrics).map_err(anyhow::Error::from)?),
        };
        let publishing = Arc::new(Publishing::new(config, catalog, brokers.publisher(), metrics));
        let part = health.part(Part::Brokers);
        let requests = Requests::default();
        let api = sidecar::Api {
            pubsub: Arc::new(PubSub::new(config, Arc::clone(&publishing), part.clone())),
            states: Arc::new(States::new(config, states)),
            about: Arc::new(About::new(config, health.clone(), part.clone())),
            bodies: Bodies::default(),
        };
        let token = Token::new(config.publish.api_token.expose());
        let events = publish::router(Arc::clone(&publishing), part, api.bodies.clone());
        let probes = sidecar::health(Arc::clone(&api.about));
        let grpc = grpc::router(api.clone(), token.clone());
        let router = sidecar::tidy(auth::guard(events.merge(sidecar::router(api)), token).merge(probes));
        let limit = config.engine.drain_timeout;
        let deadline = async {
            shutdown.draining().await;
            tokio::time::sleep(limit).await;
        };
        let served = async {
            tokio::try_join!(
                http::serve(self.http, requests.count(router), shutdown.token()),
                http::serve(self.grpc, requests.count(grpc), shutdown.token()),
            )
        };
        tokio::select! {
            served = served => Ok(served.map(drop).map_err(anyhow::Error::from)?),
            error = publishing.fatal() => Err(RunError::KafkaFatal(error)),
            () = deadline => Err(RunError::DrainDeadline { running: requests.open(), after: limit }),
        }
    }
}
