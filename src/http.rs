//! HTTP listeners of both roles.

pub mod auth;
pub mod body;
pub mod ops;
pub mod publish;
pub mod sidecar;
pub mod sync;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    extract::{Request, State},
    middleware::{self, Next},
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// An address that could not be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {key} = \"{address}\": {}", reason(.source))]
pub struct BindError {
    /// The configuration key that names the address.
    pub key: &'static str,
    /// The address.
    pub address: String,
    /// What the system says.
    pub source: io::Error,
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "the port is in use; choose another, or end the program that holds it".to_owned(),
        _ => error.to_string(),
    }
}

/// Listens on `address` (`host:port`; port 0 takes any free one), the value of the configuration key `key`.
///
/// # Errors
/// Where the port is in use, forbidden, or the host does not resolve; the error names the key.
pub async fn bind(key: &'static str, address: &str) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|source| BindError { key, address: address.to_owned(), source })
}

/// Answers requests until `stop`, then takes no more connections and finishes the requests in flight.
///
/// Dropping the future closes every connection at once.
///
/// # Errors
/// Where the listener fails for good.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) -> io::Result<()> {
    axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await
}

/// How many requests a router is answering.
#[derive(Debug, Clone, Default)]
pub struct Requests(Arc<AtomicUsize>);

impl Requests {
    /// Counts the requests of `router` from now on.
    pub fn count(&self, router: Router) -> Router {
        router.layer(middleware::from_fn_with_state(self.clone(), async |State(requests): State<Self>, request: Request, next: Next| {
            requests.0.fetch_add(1, Ordering::Relaxed);
            // A caller that goes away drops the future: counted down all the same.
            let _answered = Answered(requests);
            next.run(request).await
        }))
    }

    /// Requests that are being answered.
    pub fn open(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

struct Answered(Requests);

impl Drop for Answered {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_in_use_is_an_error_that_names_its_key() {
        let first = bind("http.listen", "127.0.0.1:0").await.unwrap();
        let address = first.local_addr().unwrap().to_string();
        let error = bind("http.listen", &address).await.unwrap_err().to_string();
        assert!(error.contains("http.listen") && error.contains(&address) && error.contains("in use"), "{error}");
    }
}
