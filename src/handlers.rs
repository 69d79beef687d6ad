//! The handler kinds that configuration can bind.

pub mod http;
pub mod log;

use std::{collections::BTreeSet, sync::Arc};

use reqwest::{Client, Url};

use self::{
    http::{
        HttpHandler, Target,
        answer::Table,
        client::client,
        discover::{Routes, discover},
    },
    log::LogHandler,
};
use crate::{
    config::{
        Config,
        handlers::{HandlerConfig, HandlerKind},
    },
    event::{catalog::Catalog, pattern::matches},
    handler::{Binding, DynHandler, Registry},
    health::{Health, Part, Reporter},
};

/// A handler that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The configuration does not make sense.
    #[error("handler `{name}`: {problem}")]
    Config {
        /// The handler.
        name: String,
        /// What is wrong, without secrets.
        problem: String,
    },
    /// The TLS library cannot be set up.
    #[error("handler `{name}`: {error}")]
    Client {
        /// The handler.
        name: String,
        /// What the library says.
        error: String,
    },
}

impl BuildError {
    /// A short name of the kind of error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Config { .. } => "config",
            Self::Client { .. } => "client",
        }
    }
}

/// Makes every configured handler, in the order of the file, names and patterns resolved through the catalogue's aliases.
///
/// Waits for the apps of `discover` handlers to tell their routes, for ever and side by side: what they want to read is not known before. Drop the future to stop
/// waiting. While it waits, `health` shows which app is away.
///
/// # Errors
/// Where an entry lacks what its kind needs, or a name is taken twice.
pub async fn build(config: &Config, catalog: &Catalog, health: &Health) -> Result<Registry, BuildError> {
    let mut names = BTreeSet::new();
    for entry in &config.handlers {
        if !names.insert(&entry.name) {
            return Err(BuildError::Config { name: entry.name.clone(), problem: "two handlers have this name".to_owned() });
        }
    }
    let bindings = config.handlers.iter().map(|entry| bind(entry, config, catalog, health));
    let bindings = futures_util::future::try_join_all(bindings).await?;
    Ok(bindings.into_iter().flatten().fold(Registry::new(), Registry::bind))
}

/// The topics that carry what these handlers want: their own (`discover`), else those of the catalogue for their types. Sorted.
pub fn topics(registry: &Registry, catalog: &Catalog) -> BTreeSet<Arc<str>> {
    let mut topics = BTreeSet::new();
    for binding in registry.bindings() {
        match binding.topics.is_empty() {
            true => topics.extend(catalog.topics_needed(binding.events.iter().map(String::as_str))),
            false => topics.extend(binding.topics.iter().map(|topic| Arc::from(topic.as_str()))),
        }
    }
    topics
}

/// `None`: the app of a `discover` handler wants nothing.
async fn bind(entry: &HandlerConfig, config: &Config, catalog: &Catalog, health: &Health) -> Result<Option<Binding>, BuildError> {
    let (handler, topics): (Arc<dyn DynHandler>, Vec<String>) = match entry.kind {
        HandlerKind::Log => (Arc::new(LogHandler::new(entry.name.as_str())), Vec::new()),
        HandlerKind::Http => {
            let report = health.part(Part::App(entry.name.as_str().into()));
            let http = client().map_err(|error| BuildError::Client { name: entry.name.clone(), error: error.to_string() })?;
            let target = target(entry, &http, &report).await?;
            let topics: Vec<_> = match &target {
                // Until the first event shows it, an app is taken to be there.
                Target::Url(_) => {
                    report.ok();
                    Vec::new()
                }
                Target::Routes(routes) => routes.topics().map(str::to_owned).collect(),
            };
            if topics.is_empty() && matches!(target, Target::Routes(_)) {
                tracing::warn!(handler = entry.name, "the app subscribes to nothing: this handler gets no events");
                return Ok(None);
            }
            let table = if entry.strict_dapr { Table::Dapr } else { Table::Forgiving };
            (Arc::new(HttpHandler::new(http, target, entry.body, table, report)), topics)
        }
    };
    Ok(Some(Binding {
        name: entry.name.as_str().into(),
        events: resolve(&entry.events, catalog),
        topics,
        timeout: entry.timeout,
        concurrency: entry.concurrency.unwrap_or(config.engine.concurrency),
        handler,
    }))
}

/// Where an `http` handler's events go.
async fn target(entry: &HandlerConfig, http: &Client, report: &Reporter) -> Result<Target, BuildError> {
    let problem = |problem: &str| BuildError::Config { name: entry.name.clone(), problem: problem.to_owned() };
    match (&entry.url, &entry.discover) {
        (Some(url), None) => Ok(Target::Url(parse_url(url).map_err(|error| problem(&format!("`url` {error}")))?)),
        (None, Some(app)) => {
            let app = parse_url(app).map_err(|error| problem(&format!("`discover` {error}")))?;
            let routes: Routes = discover(http, &app, &entry.name, report).await;
            Ok(Target::Routes(routes))
        }
        (Some(_), Some(_)) => Err(problem("`url` and `discover` exclude each other")),
        (None, None) => Err(problem("kind `http` needs `url`, or `discover` for an app that tells its routes")),
    }
}

fn parse_url(text: &str) -> Result<Url, String> {
    let url: Url = text.parse().map_err(|error| format!("is no URL: {error}"))?;
    match url.scheme() {
        "http" => Ok(url),
        "https" if cfg!(feature = "tls") => Ok(url),
        "https" => Err("is https, but this binary was built without the feature `tls`".to_owned()),
        _ => Err("must begin with http:// or https://".to_owned()),
    }
}

/// Patterns with the catalogue's own names: an alias becomes its type, and a pattern with a star also covers types one of whose aliases it covers.
fn resolve(patterns: &[String], catalog: &Catalog) -> Vec<String> {
    let mut resolved: Vec<String> = Vec::new();
    let mut add = |pattern: &str| {
        if !resolved.iter().any(|known| known == pattern) {
            resolved.push(pattern.to_owned());
        }
    };
    for pattern in patterns {
        add(catalog.canonical_pattern(pattern));
        if pattern.ends_with(".*") {
            let meant = catalog.types().filter(|kind| kind.aliases.iter().any(|alias| matches(pattern, alias)));
            meant.filter(|kind| !matches(pattern, &kind.name)).for_each(|kind| add(&kind.name));
        }
    }
    resolved
}
