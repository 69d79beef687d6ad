//! An app in this process that answers by an event's headers: for rows that do not measure the app's side.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};

type Answer = Arc<dyn Fn(&HeaderMap) -> StatusCode + Send + Sync>;

/// Listens on a thread of its own until the process ends; answers its port.
///
/// # Errors
/// Where it cannot listen.
pub fn start(answer: impl Fn(&HeaderMap) -> StatusCode + Send + Sync + 'static) -> anyhow::Result<u16> {
    let route = async |State(answer): State<Answer>, headers: HeaderMap| answer(&headers);
    let router = Router::new().route("/event", post(route)).with_state(Arc::new(answer) as Answer);
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let port = listener.local_addr()?.port();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            axum::serve(listener, router).await
        })
    });
    Ok(port)
}
