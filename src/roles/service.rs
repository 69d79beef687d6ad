//! The frame of a long-running role: the ops listener from the first moment to the last, and "not ready" from the signal on.

use std::{future::Future, time::Duration};

use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{RunError, footprint};
use crate::{
    config::{Config, Role},
    handlers::stats::Stats,
    health::Health,
    http::{self, ops},
    shutdown::Shutdown,
    telemetry::Metrics,
};

/// Time for the last scrape of the ops listener at the end.
const LAST_SCRAPE: Duration = Duration::from_secs(1);
/// Between two looks whether the start is over.
const LOOK: Duration = Duration::from_secs(1);

/// A role's health page, metrics and statistics, and the listener that shows them.
pub(super) struct Service {
    pub(super) health: Health,
    pub(super) metrics: Metrics,
    pub(super) stats: Stats,
    ops: TcpListener,
}

impl Service {
    /// Listens on `http.listen`.
    pub(super) async fn bind(config: &Config, role: Role) -> Result<Self, RunError> {
        let ops = http::bind("http.listen", &config.http.listen).await.map_err(anyhow::Error::from)?;
        Ok(Self { health: Health::new(), metrics: Metrics::new(role.name()), stats: Stats::default(), ops })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> String {
        address(&self.ops)
    }

    /// Serves the ops pages while `work` goes on.
    pub(super) async fn run(self, shutdown: &Shutdown, work: impl Future<Output = Result<(), RunError>>) -> Result<(), RunError> {
        let last = CancellationToken::new();
        let mut background = JoinSet::new();
        background.spawn(http::serve(self.ops, ops::router(self.health.clone(), self.metrics, self.stats), last.clone()));
        let not_ready = async {
            shutdown.draining().await;
            self.health.drain();
            std::future::pending::<()>().await;
        };
        let ready = async {
            while !self.health.readiness().ok {
                sleep(LOOK).await;
            }
            footprint::let_go_of_code();
            std::future::pending::<()>().await;
        };
        let result = tokio::select! {
            result = work => result,
            () = ready => Ok(()),
            () = not_ready => Ok(()),
            Some(ended) = background.join_next() => Err(anyhow::anyhow!("the http listener ended: {ended:?}").into()),
        };
        last.cancel();
        let _slow_scraper = timeout(LAST_SCRAPE, async { while background.join_next().await.is_some() {} }).await;
        result
    }
}

/// A listener's address, for the log.
pub(super) fn address(listener: &TcpListener) -> String {
    listener.local_addr().map(|address| address.to_string()).unwrap_or_default()
}
