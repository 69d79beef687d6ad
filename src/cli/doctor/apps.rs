//! The apps behind `http` handlers, and who may publish.

use std::net::SocketAddr;

use futures_util::future::join_all;
use reqwest::Url;

use super::{brokers::dial, finding::Finding};
use crate::{
    config::{
        Config,
        handlers::{HandlerConfig, HandlerKind},
    },
    handlers::http::client::shown,
};

/// Each app: whether anything listens there. Nothing is sent, since every request could be an event to it.
pub(super) async fn examine(config: &Config) -> Vec<Finding> {
    if config.handlers.is_empty() {
        return vec![Finding::ok("handlers", "none configured: right for a producer; a consumer needs one")];
    }
    join_all(config.handlers.iter().map(examine_one)).await
}

async fn examine_one(handler: &HandlerConfig) -> Finding {
    let part = format!("handler {}", handler.name);
    if handler.kind != HandlerKind::Http {
        return Finding::ok(part, "in this process");
    }
    let Some(url) = handler.url.as_ref().or(handler.discover.as_ref()) else {
        return Finding::fail(part, "has neither url nor discover", "set one of them");
    };
    let Ok(url) = url.parse::<Url>() else { return Finding::fail(part, "its address is no URL", "write it as http://host:port/path") };
    let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
        return Finding::fail(part, "its address names no host", "write it as http://host:port/path");
    };
    match dial(&format!("{host}:{port}")).await {
        Ok(()) => Finding::ok(part, format!("{} accepts connections; nothing was posted", shown(&url))),
        Err(error) => Finding::fail(
            part,
            format!("{}: {error}", shown(&url)),
            "start the app, or correct the address; until then its events are retried",
        ),
    }
}

/// Whether more than this machine may publish without a token.
pub(super) fn publish_listener(config: &Config) -> Finding {
    let listen = &config.publish.listen;
    let local = listen.parse::<SocketAddr>().map_or_else(|_| listen.starts_with("localhost:"), |address| address.ip().is_loopback());
    match (local, config.publish.api_token.is_empty()) {
        (_, false) => Finding::ok("publish.listen", format!("{listen}, with a token")),
        (true, true) => Finding::ok("publish.listen", format!("{listen}: this machine only, without a token")),
        (false, true) => Finding::warn(
            "publish.listen",
            format!("{listen}: who reaches it may publish, without a token"),
            "set publish.api_token (or DAPR_API_TOKEN), or listen on 127.0.0.1",
        ),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::finding::Level;
    use super::*;
    use crate::config::Sources;

    #[test]
    fn a_listener_for_all_without_a_token_is_a_warning() {
        let level = |sets: &[&str]| {
            let sets = sets.iter().map(|set| (*set).to_owned()).collect();
            publish_listener(&Config::load(&Sources { sets, ..Sources::default() }).unwrap().config).level
        };
        assert_eq!(level(&[]), Level::Ok);
        assert_eq!(level(&["publish.listen=0.0.0.0:3500"]), Level::Warn);
        assert_eq!(level(&["publish.listen=0.0.0.0:3500", "publish.api_token=secret"]), Level::Ok);
    }
}
