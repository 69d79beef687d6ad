//! Dapr's HTTP API: publish, state, health and metadata, as the sidecar's own paths, codes and bodies.

mod about;
mod answer;
mod publish;
mod state;

use std::sync::Arc;

use axum::{
    Router,
    extract::Request,
    http::{Uri, uri::PathAndQuery},
    middleware,
    routing::{any, get, post, put},
};

use super::body::Bodies;
use crate::sidecar::{about::About, pubsub::PubSub, state::States};

/// What the routes work with.
#[derive(Clone)]
pub struct Api {
    /// Publishes.
    pub pubsub: Arc<PubSub>,
    /// Keeps state.
    pub states: Arc<States>,
    /// Says what is running.
    pub about: Arc<About>,
    /// The memory for bodies.
    pub bodies: Bodies,
}

/// The routes that a token guards.
pub fn router(api: Api) -> Router {
    let single = post(publish::one).put(publish::one);
    let bulk = post(publish::bulk).put(publish::bulk);
    Router::new()
        // A request without a topic, or a pubsub, is told so.
        .route("/v1.0/publish", single.clone())
        .route("/v1.0/publish/{pubsub}", single.clone())
        .route("/v1.0/publish/{pubsub}/{*topic}", single)
        .route("/v1.0/publish/bulk/{pubsub}/{*topic}", bulk.clone())
        .route("/v1.0-alpha1/publish/bulk/{pubsub}/{*topic}", bulk)
        .route("/v1.0/state/{store}", post(state::save).put(state::save))
        .route("/v1.0/state/{store}/{key}", get(state::get).delete(state::delete).post(state::bulk).put(state::bulk))
        .route("/v1.0/metadata", get(about::metadata))
        .route("/v1.0/metadata/{key}", put(about::set))
        .route("/v1.0/{*path}", any(about::not_offered))
        .route("/v1.0-alpha1/{*path}", any(about::not_offered))
        .with_state(api)
}

/// The routes that are open to everyone: probes have no token.
pub fn health(about: Arc<About>) -> Router {
    Router::new().route("/v1.0/healthz", get(about::healthz)).route("/v1.0/healthz/outbound", get(about::outbound)).with_state(about)
}

/// Reads paths as Dapr does: doubled slashes are one, a last one is none, a plus is a space.
pub fn tidy(router: Router) -> Router {
    // Routes are matched before a router's own layers run: hence one around the other.
    Router::new().fallback_service(router).layer(middleware::map_request(async |mut request: Request| {
        if let Some(uri) = tidied(request.uri()) {
            *request.uri_mut() = uri;
        }
        request
    }))
}

/// The tidy form of an address that is not.
fn tidied(uri: &Uri) -> Option<Uri> {
    let path = uri.path();
    if !path.contains("//") && !path.contains('+') && (path.len() == 1 || !path.ends_with('/')) {
        return None;
    }
    let segments = path.split('/').filter(|segment| !segment.is_empty());
    let mut tidy: String = segments.flat_map(|segment| ["/", segment]).collect::<String>().replace('+', "%20");
    if tidy.is_empty() {
        tidy.push('/');
    }
    if let Some(query) = uri.query() {
        tidy = format!("{tidy}?{query}");
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(tidy).ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn slashes_that_mean_nothing_are_left_out() {
        for (given, expected) in [
            ("/v1.0/publish/a/b", None),
            ("/", None),
            ("/v1.0//publish///a/b/?x=//+", Some("/v1.0/publish/a/b?x=//+")),
            ("//", Some("/")),
            ("/a+b", Some("/a%20b")),
            ("http://host:1/a//b", Some("http://host:1/a/b")),
        ] {
            assert_eq!(tidied(&given.parse().unwrap()).map(|uri| uri.to_string()).as_deref(), expected, "{given}");
        }
    }
}
