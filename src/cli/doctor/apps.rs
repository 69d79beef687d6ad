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
    handlers::{
        self,
        http::client::{client, shown},
    },
    health::{Health, Part},
};

/// A topic that an app wants, and where its dead letters go, if not to `dlq.topic`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) topic: String,
    pub(super) dead_letters: Option<String>,
}

/// What the apps of `discover` handlers want, and a finding about each app. One with a `url` is sent nothing, since every request could be
/// an event to it.
pub(super) async fn examine(config: &Config) -> (Vec<Wanted>, Vec<Finding>) {
    if config.handlers.is_empty() {
        return (Vec::new(), vec![Finding::ok("handlers", "none configured: right for a producer; a consumer needs one")]);
    }
    let looked =
        join_all(config.handlers.iter().map(async |handler| (handler, examine_one(handler).await, ask(handler, config).await))).await;
    let (mut wanted, mut findings) = (Vec::new(), Vec::new());
    for (handler, found, told) in looked {
        findings.push(found);
        match told {
            None => {}
            Some(Ok(told)) => wanted.extend(told),
            Some(Err(error)) => {
                let fix = "let the app tell them in /dapr/subscribe; until it does the consumer waits, and only declared routes are looked at here";
                findings.push(Finding::warn(format!("routes of {}", handler.name), error, fix));
                let declared = handler.routes.iter();
                wanted.extend(declared.map(|route| Wanted { topic: route.topic.clone(), dead_letters: route.dead_letter_topic.clone() }));
            }
        }
    }
    (wanted, findings)
}

/// What an app of `discover` tells when it is asked once; `None` for other handlers.
async fn ask(handler: &HandlerConfig, config: &Config) -> Option<Result<Vec<Wanted>, String>> {
    let url = handler.discover.as_ref().filter(|_| handler.kind == HandlerKind::Http)?;
    Some(routes(handler, url, config).await)
}

async fn routes(handler: &HandlerConfig, url: &str, config: &Config) -> Result<Vec<Wanted>, String> {
    let http = client().map_err(|error| error.to_string())?;
    let report = Health::new().part(Part::App(handler.name.as_str().into()));
    let app = handlers::app(handler, url, config, &http, &report).map_err(|error| error.to_string())?;
    let routes = app.ask().await.map_err(|error| error.to_string())?;
    let dead = |topic: &str| routes.of(topic)?.dead_letters.as_deref().map(str::to_owned);
    Ok(routes.topics().map(|topic| Wanted { topic: topic.to_owned(), dead_letters: dead(topic) }).collect())
}

async fn examine_one(handler: &HandlerConfig) -> Finding {
    let part = format!("handler {}", handler.name);
    if handler.kind != HandlerKind::Http {
        return Finding::ok(part, "in this process");
    }
    let Some(url) = handler.url.as_ref().or(handler.discover.as_ref()) else {
        return Finding::fail(part, "has neither url nor discover", "set one of them");
    };
    reach(part, url, "no event was posted", "start the app, or correct the address; until then its events are retried").await
}

/// Whether anything listens where `url` leads. `kept`: what was not done to it.
pub(super) async fn reach(part: String, url: &str, kept: &str, fix: &str) -> Finding {
    let Ok(url) = url.parse::<Url>() else { return Finding::fail(part, "its address is no URL", "write it as http://host:port/path") };
    let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
        return Finding::fail(part, "its address names no host", "write it as http://host:port/path");
    };
    match dial(&format!("{host}:{port}")).await {
        Ok(()) => Finding::ok(part, format!("{} accepts connections; {kept}", shown(&url))),
        Err(error) => Finding::fail(part, format!("{}: {error}", shown(&url)), fix),
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
