//! The handler kinds that configuration can bind.

pub mod analytics;
pub mod audit;
pub mod forward;
pub mod http;
pub mod log;
pub mod notify;
pub mod outlet;
pub mod points;
pub mod recurrence;
pub mod reminder;
pub mod security;
pub mod stats;

use std::{collections::BTreeSet, sync::Arc};

use chrono_tz::Tz;
use futures_util::stream::{FuturesUnordered, StreamExt};
use reqwest::{Client, Url, header::HeaderValue};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::{
    analytics::AnalyticsHandler,
    audit::AuditHandler,
    forward::ForwardHandler,
    http::{HttpHandler, Manner, Target, answer::Table, client::client, discover::App, endpoint::Endpoint, routes::Current},
    log::LogHandler,
    notify::{NotifyHandler, Postman},
    outlet::Outlet,
    points::PointsHandler,
    recurrence::RecurrenceHandler,
    reminder::{ReminderHandler, Shelf},
    security::SecurityHandler,
    stats::{Page, Pages},
};
use crate::{
    calendar,
    config::{
        Config,
        handlers::{HandlerConfig, HandlerKind},
        notify::NotifyConfig,
    },
    engine::ports::StoreError,
    event::{catalog::Catalog, pattern::matches},
    handler::{Binding, DynHandler, Registry},
    health::{Health, Part, Reporter},
    retry::Schedules,
    store::{
        self,
        accounts::Accounts,
        outbox::{self, Outbox},
    },
    telemetry::Metrics,
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
    /// The store's address is none.
    #[error("handler `{name}`: {error}")]
    Store {
        /// The handler.
        name: String,
        /// What is wrong with it, without secrets.
        error: StoreError,
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
            Self::Store { .. } => "store",
            Self::Client { .. } => "client",
        }
    }
}

/// Every configured handler, and the apps among them that may change what they want.
pub struct Handlers {
    made: Vec<Made>,
    outlet: Outlet,
    shelf: Option<Shelf>,
}

/// A handler; with routes, of an app that told them; with what it shows on `/stats`.
struct Made {
    binding: Binding,
    app: Option<(App, Current)>,
    postman: Option<Postman>,
    page: Option<Arc<dyn Page>>,
}

/// What handlers are made with.
struct Workshop<'a> {
    config: &'a Config,
    catalog: &'a Catalog,
    health: &'a Health,
    metrics: &'a Metrics,
    outlet: &'a Outlet,
    shelf: Option<&'a Shelf>,
}

/// Makes every configured handler, in the order of the file, names and patterns resolved through the catalogue's aliases.
///
/// Waits for the apps of `discover` handlers to tell their routes, for ever and side by side: what they want to read is not known before. Drop the future to stop
/// waiting. While it waits, `health` shows which app is away.
///
/// # Errors
/// Where an entry lacks what its kind needs, or a name is taken twice.
pub async fn build(config: &Config, catalog: &Catalog, health: &Health, metrics: &Metrics) -> Result<Handlers, BuildError> {
    let mut names = BTreeSet::new();
    for entry in &config.handlers {
        if !names.insert(&entry.name) {
            return Err(BuildError::Config { name: entry.name.clone(), problem: "two handlers have this name".to_owned() });
        }
    }
    let outlet = Outlet::default();
    let shelf = Shelf::wanted(&config.handlers);
    let workshop = Workshop { config, catalog, health, metrics, outlet: &outlet, shelf: shelf.as_ref() };
    let made = futures_util::future::try_join_all(config.handlers.iter().map(|entry| workshop.make(entry))).await?;
    Ok(Handlers { made, outlet, shelf })
}

impl Handlers {
    /// Where these handlers publish; to be opened before the first run.
    pub fn outlet(&self) -> &Outlet {
        &self.outlet
    }

    /// Where these handlers' reminders wait, where one of them has any; to be opened before the first run.
    pub fn shelf(&self) -> Option<&Shelf> {
        self.shelf.as_ref()
    }

    /// What the handlers show on `/stats`, by their names.
    pub fn pages(&self) -> Pages {
        self.made.iter().filter_map(|made| Some((Arc::clone(&made.binding.name), Arc::clone(made.page.as_ref()?)))).collect()
    }

    /// The handlers with the topics that their apps want now; one whose app wants nothing is left out.
    pub fn registry(&self) -> Registry {
        let bindings = self.made.iter().filter_map(|made| {
            let mut binding = made.binding.clone();
            if let Some((_, current)) = &made.app {
                binding.topics = current.get().topics().map(str::to_owned).collect();
                if binding.topics.is_empty() {
                    return None;
                }
            }
            Some(binding)
        });
        bindings.fold(Registry::new(), Registry::bind)
    }

    /// Topics whose values an app takes as opaque bytes.
    pub fn raw_topics(&self) -> BTreeSet<Arc<str>> {
        self.made.iter().filter_map(|made| made.app.as_ref()).flat_map(|(_, current)| current.get().raw_topics()).collect()
    }

    /// Publishes what handlers put off, when it is due, until `stop`.
    pub async fn deliver(&self, stop: CancellationToken) {
        let postmen = self.made.iter().filter_map(|made| made.postman.as_ref());
        futures_util::future::join_all(postmen.map(|postman| postman.run(stop.clone()))).await;
    }

    /// Asks the apps again, each at its interval and at each of `reloads`. Resolves when what is to be read is no longer what
    /// [`Handlers::registry`] and [`Handlers::raw_topics`] said; other changes of their routes are in force at once.
    pub async fn changed(&self, reloads: &watch::Receiver<u64>) {
        let apps = self.made.iter().filter_map(|made| made.app.as_ref());
        let mut changes: FuturesUnordered<_> = apps.map(|(app, current)| app.changed(current, reloads.clone())).collect();
        if changes.next().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
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

impl Workshop<'_> {
    async fn make(&self, entry: &HandlerConfig) -> Result<Made, BuildError> {
        let (mut app, mut page, mut postman) = (None, None, None);
        let handler: Arc<dyn DynHandler> = match entry.kind {
            HandlerKind::Log => Arc::new(LogHandler::new(entry.name.as_str())),
            HandlerKind::Forward => {
                let to = entry.to.as_deref().ok_or_else(|| problem(entry, "kind `forward` needs `to`, a topic"))?;
                Arc::new(ForwardHandler::new(self.catalog.topic(to).unwrap_or(to), self.outlet.clone()))
            }
            HandlerKind::Recurrence => Arc::new(RecurrenceHandler::new(zone(entry)?, entry.repeat_from, self.outlet.clone())),
            HandlerKind::Reminder => Arc::new(ReminderHandler::new(self.shelf.cloned().unwrap_or_default())),
            HandlerKind::Notify => {
                let outbox = outbox(entry, self.config, self.catalog).await.map_err(|why| problem(entry, &why))?;
                postman = outbox.clone().map(|outbox| Postman::new(entry.name.as_str().into(), outbox, self.outlet.clone()));
                let made = NotifyHandler::new(entry, Schedules::new(&self.config.retry), self.catalog, self.outlet.clone(), outbox);
                Arc::new(made.map_err(|why| problem(entry, &why))?)
            }
            HandlerKind::Points => {
                let config = entry.points.clone().unwrap_or_default();
                let points = PointsHandler::new(&entry.name, config, zone(entry)?, self.accounts(entry)?, self.outlet.clone());
                let points = Arc::new(points.map_err(|why| problem(entry, &why))?);
                page = Some(Arc::clone(&points) as Arc<dyn Page>);
                points
            }
            HandlerKind::Audit => {
                let config = entry.audit.clone().unwrap_or_default();
                Arc::new(AuditHandler::new(&entry.name, &config, self.outlet.clone()).map_err(|why| problem(entry, &why))?)
            }
            HandlerKind::Analytics => {
                let tally = store::tally(&self.config.store, self.config.group_id(), self.metrics);
                let tally = tally.map_err(|error| BuildError::Store { name: entry.name.clone(), error })?;
                let config = entry.analytics.clone().unwrap_or_default();
                let analytics = Arc::new(AnalyticsHandler::new(&entry.name, config, zone(entry)?, tally, self.metrics.clone()));
                page = Some(Arc::clone(&analytics) as Arc<dyn Page>);
                analytics
            }
            HandlerKind::Security => {
                let (config, outlet, metrics) = (entry.security.clone().unwrap_or_default(), self.outlet.clone(), self.metrics.clone());
                Arc::new(SecurityHandler::new(&entry.name, &config, &self.config.app_id, self.accounts(entry)?, outlet, metrics))
            }
            HandlerKind::Http => {
                let report = self.health.part(Part::App(entry.name.as_str().into()));
                let http = client().map_err(|error| BuildError::Client { name: entry.name.clone(), error: error.to_string() })?;
                let (target, found) = target(entry, self.config, &http, &report).await?;
                app = found;
                let table = if entry.strict_dapr { Table::Dapr } else { Table::Forgiving };
                let manner = Manner { body: entry.body, table, token: token(entry)?, timeout: entry.timeout };
                Arc::new(HttpHandler::new(http, target, manner, report))
            }
        };
        let binding = Binding {
            name: entry.name.as_str().into(),
            events: wanted(entry, self.catalog),
            topics: Vec::new(),
            timeout: entry.timeout,
            concurrency: entry.concurrency.unwrap_or(match entry.kind {
                HandlerKind::Notify => notify::CONCURRENCY.min(self.config.engine.concurrency),
                _ => self.config.engine.concurrency,
            }),
            handler,
        };
        Ok(Made { binding, app, page, postman })
    }

    fn accounts(&self, entry: &HandlerConfig) -> Result<Accounts, BuildError> {
        let store = store::accounts(&self.config.store, self.config.group_id(), self.metrics);
        let store = store.map_err(|error| BuildError::Store { name: entry.name.clone(), error })?;
        Ok(Accounts::new(store, self.config.store.retention))
    }
}

fn problem(entry: &HandlerConfig, problem: &str) -> BuildError {
    BuildError::Config { name: entry.name.clone(), problem: problem.to_owned() }
}

fn zone(entry: &HandlerConfig) -> Result<Tz, BuildError> {
    calendar::zone(&entry.timezone).map_err(|why| problem(entry, &format!("`timezone` {why}")))
}

/// Where a `notify` handler's messages wait, where they do.
async fn outbox(entry: &HandlerConfig, config: &Config, catalog: &Catalog) -> Result<Option<Arc<dyn Outbox>>, String> {
    if !entry.notify.as_ref().is_some_and(NotifyConfig::puts_off) {
        return Ok(None);
    }
    let topics = catalog.topics_for(notify::DUE);
    let topic = topics.first().ok_or_else(|| format!("rate, digest and quiet need the type {} in the catalogue", notify::DUE))?;
    if config.kafka.topics.as_ref().is_some_and(|read| !read.iter().any(|read| **read == **topic)) {
        return Err(format!(
            "rate, digest and quiet need {topic} among kafka.topics: what was put off comes back there, as {}",
            notify::DUE
        ));
    }
    if config.store.is_memory() {
        tracing::warn!(handler = entry.name, "the store is in memory: messages that wait to go out later are forgotten with this process");
    }
    outbox::connect(&config.store, config.group_id(), &entry.name).await.map(Some).map_err(|error| error.to_string())
}

/// Where an `http` handler's events go, and the app to ask again.
async fn target(
    entry: &HandlerConfig,
    config: &Config,
    http: &Client,
    report: &Reporter,
) -> Result<(Target, Option<(App, Current)>), BuildError> {
    let problem = |text: &str| problem(entry, text);
    match (&entry.url, &entry.discover) {
        (Some(url), None) => {
            // Until the first event shows it, an app is taken to be there.
            report.ok();
            let endpoint = parse_url(url).and_then(Endpoint::new).map_err(|error| problem(&format!("`url` {error}")))?;
            Ok((Target::Url(Arc::new(endpoint)), None))
        }
        (None, Some(url)) => {
            let app = app(entry, url, config, http, report)?;
            let current = Current::new(app.discover().await);
            Ok((Target::Routes(app.url.clone(), current.clone()), Some((app, current))))
        }
        (Some(_), Some(_)) => Err(problem("`url` and `discover` exclude each other")),
        (None, None) => Err(problem("kind `http` needs `url`, or `discover` for an app that tells its routes")),
    }
}

/// The app at `url`, to be asked for its routes.
///
/// # Errors
/// Where the URL is none, or its token fits no header.
pub fn app(entry: &HandlerConfig, url: &str, config: &Config, http: &Client, report: &Reporter) -> Result<App, BuildError> {
    let url = parse_url(url).map_err(|error| BuildError::Config { name: entry.name.clone(), problem: format!("`discover` {error}") })?;
    Ok(App {
        name: entry.name.clone(),
        url,
        http: http.clone(),
        token: token(entry)?,
        app_id: HeaderValue::try_from(config.app_id.as_str()).ok(),
        declared: entry.routes.clone(),
        dlq: config.dlq.topic.clone(),
        every: entry.discover_every,
        report: report.clone(),
    })
}

/// What the app is sent as `dapr-api-token`.
fn token(entry: &HandlerConfig) -> Result<Option<HeaderValue>, BuildError> {
    if entry.api_token.is_empty() {
        return Ok(None);
    }
    let mut token = HeaderValue::try_from(entry.api_token.expose()).map_err(|_| BuildError::Config {
        name: entry.name.clone(),
        problem: "`api_token` has a character that no header takes".to_owned(),
    })?;
    token.set_sensitive(true);
    Ok(Some(token))
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

/// The types that a handler reacts to: those of its patterns, else its kind's own.
pub fn wanted(entry: &HandlerConfig, catalog: &Catalog) -> Vec<String> {
    let puts_off = entry.notify.as_ref().is_some_and(NotifyConfig::puts_off);
    patterns(&entry.events(), catalog).into_iter().chain(puts_off.then(|| notify::DUE.to_owned())).collect()
}

/// Patterns with the catalogue's own names: an alias becomes its type, and a pattern with a star also covers types one of whose aliases it covers.
pub fn patterns(events: &[&str], catalog: &Catalog) -> Vec<String> {
    let mut resolved: Vec<String> = Vec::new();
    let mut add = |pattern: &str| {
        if !resolved.iter().any(|known| known == pattern) {
            resolved.push(pattern.to_owned());
        }
    };
    for pattern in events {
        add(catalog.canonical_pattern(pattern));
        if pattern.ends_with(".*") {
            let meant = catalog.types().filter(|kind| kind.aliases.iter().any(|alias| matches(pattern, alias)));
            meant.filter(|kind| !matches(pattern, &kind.name)).for_each(|kind| add(&kind.name));
        }
    }
    resolved
}
