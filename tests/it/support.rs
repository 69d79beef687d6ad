//! What several tests share.

pub mod app;
pub mod job;
pub mod publisher;
pub mod sidecar;

use std::net::SocketAddr;

use axum::Router;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use worker::{
    config::{Config, Role, Sources},
    http,
};

/// The default configuration with `sets` (`key=value`) over it, and nothing from this machine's environment.
pub fn config(sets: &[&str]) -> Config {
    let sets = sets.iter().map(|set| (*set).to_owned()).collect();
    Config::load(&Sources { sets, role: Some(Role::Producer), ..Sources::default() }).unwrap().config
}

/// A router behind a port of its own.
pub struct Served {
    pub address: SocketAddr,
    pub stop: CancellationToken,
    pub server: JoinHandle<std::io::Result<()>>,
}

impl Served {
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Serves `router` as the roles do.
pub async fn serve(router: Router) -> Served {
    let listener = http::bind("test", "127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let server = tokio::spawn(http::serve(listener, router, stop.clone()));
    Served { address, stop, server }
}

/// A client that no proxy of this machine gets between. It knows no certificates: reading them takes most of a short test's time.
pub fn client() -> reqwest::Client {
    let builder = reqwest::Client::builder().no_proxy();
    #[cfg(feature = "tls")]
    let builder = builder.tls_certs_only([]);
    builder.build().unwrap()
}
