//! The handler kinds that configuration can bind.

pub mod forward;
pub mod http;
pub mod log;
pub mod notify;
pub mod outlet;
pub mod recurrence;
pub mod reminder;

use std::{collections::BTreeSet, sync::Arc};

use futures_util::stream::{FuturesUnordered, StreamExt};
use reqwest::{Client, Url, header::HeaderValue};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::{
    forward::ForwardHandler,
    http::{HttpHandler, Manner, Target, answer::Table, client::client, discover::App, routes::Current},
    log::LogHandler,
    notify::{NotifyHandler, Postman},
    outlet::Outlet,
    recurrence::RecurrenceHandler,
    reminder::{ReminderHandler, Shelf},
};
use crate::{
    calendar,
    config::{
        Config,
        handlers::{HandlerConfig, HandlerKind},
        notify::NotifyConfig,
    },
    event::{catalog::Catalog, pattern::matches},
    handler::{Binding, DynHandler, Registry},
    health::{Health, Part, Reporter},
    reminders::fact,
    retry::Schedules,
    store::outbox::{self, Outbox},
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

/// Every configured handler, and the apps among them that may change what they want.
pub struct Handlers {
    made: Vec<Made>,
    outlet: Outlet,
    shelf: Option<Shelf>,
}

/// A handler; with routes, of an app that told them.
struct Made {
    binding: Binding,
    app: Option<(App, Current)>,
    postman: Option<Postman>,
}

/// Makes every configured handler, in the order of the file, names and patterns resolved through the catalogue's aliases.
///
/// Waits for the apps of `discover` handlers to tell their routes, for ever and side by side: what they want to read is not known before. Drop the future to stop
/// waiting. While it waits, `health` shows which app is away.
///
/// # Errors
/// Where an entry lacks what its kind needs, or a name is taken twice.
pub async fn build(config: &Config, catalog: &Catalog, health: &Health) -> Result<Handlers, BuildError> {
    let mut names = BTreeSet::new();
    for entry in &config.handlers {
        if !names.insert(&entry.name) {
            return Err(BuildError::Config { name: entry.name.clone(), problem: "two handlers have this name".to_owned() });
        }
    }
    let outlet = Outlet::default();
    let shelf = Shelf::wanted(&config.handlers);
    let made = config.handlers.iter().map(|entry| make(entry, config, catalog, health, &outlet, shelf.as_ref()));
    Ok(Handlers { made: futures_util::future::try_join_all(made).await?, outlet, shelf })
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

async fn make(
    entry: &HandlerConfig,
    config: &Config,
    catalog: &Catalog,
    health: &Health,
    outlet: &Outlet,
    shelf: Option<&Shelf>,
) -> Result<Made, BuildError> {
    let mut postman = None;
    let (handler, app): (Arc<dyn DynHandler>, _) = match entry.kind {
        HandlerKind::Log => (Arc::new(LogHandler::new(entry.name.as_str())), None),
        HandlerKind::Forward => {
            let missing = || BuildError::Config { name: entry.name.clone(), problem: "kind `forward` needs `to`, a topic".to_owned() };
            let to = entry.to.as_deref().ok_or_else(missing)?;
            (Arc::new(ForwardHandler::new(catalog.topic(to).unwrap_or(to), outlet.clone())), None)
        }
        HandlerKind::Recurrence => {
            let zone = calendar::zone(&entry.timezone);
            let zone = zone.map_err(|problem| BuildError::Config { name: entry.name.clone(), problem: format!("`timezone` {problem}") })?;
            (Arc::new(RecurrenceHandler::new(zone, entry.repeat_from, outlet.clone())), None)
        }
        HandlerKind::Reminder => (Arc::new(ReminderHandler::new(shelf.cloned().unwrap_or_default())), None),
        HandlerKind::Notify => {
            let problem = |problem: String| BuildError::Config { name: entry.name.clone(), problem };
            let outbox = outbox(entry, config, catalog).await.map_err(problem)?;
            postman = outbox.clone().map(|outbox| Postman::new(entry.name.as_str().into(), outbox, outlet.clone()));
            let made = NotifyHandler::new(entry, Schedules::new(&config.retry), catalog, outlet.clone(), outbox);
            (Arc::new(made.map_err(problem)?), None)
        }
        HandlerKind::Http => {
            let report = health.part(Part::App(entry.name.as_str().into()));
            let http = client().map_err(|error| BuildError::Client { name: entry.name.clone(), error: error.to_string() })?;
            let (target, app) = target(entry, config, &http, &report).await?;
            let table = if entry.strict_dapr { Table::Dapr } else { Table::Forgiving };
            let manner = Manner { body: entry.body, table, token: token(entry)?, timeout: entry.timeout };
            (Arc::new(HttpHandler::new(http, target, manner, report)), app)
        }
    };
    let binding = Binding {
        name: entry.name.as_str().into(),
        events: wanted(entry, catalog),
        topics: Vec::new(),
        timeout: entry.timeout,
        concurrency: entry.concurrency.unwrap_or(match entry.kind {
            HandlerKind::Notify => notify::CONCURRENCY.min(config.engine.concurrency),
            _ => config.engine.concurrency,
        }),
        handler,
    };
    Ok(Made { binding, app, postman })
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
    let problem = |problem: &str| BuildError::Config { name: entry.name.clone(), problem: problem.to_owned() };
    match (&entry.url, &entry.discover) {
        (Some(url), None) => {
            // Until the first event shows it, an app is taken to be there.
            report.ok();
            Ok((Target::Url(parse_url(url).map_err(|error| problem(&format!("`url` {error}")))?), None))
        }
        (None, Some(url)) => {
            let app = app(entry, url, config, http, report)?;
            let current = Current::new(app.discover().await);
            Ok((Target::Routes(current.clone()), Some((app, current))))
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

/// The types that a handler reacts to: its kind's own, else those of its patterns.
pub fn wanted(entry: &HandlerConfig, catalog: &Catalog) -> Vec<String> {
    match entry.kind {
        HandlerKind::Recurrence => vec![recurrence::CAUSE.to_owned()],
        HandlerKind::Reminder => fact::CAUSES.map(str::to_owned).to_vec(),
        HandlerKind::Notify => {
            let defaults = entry.events == ["*"];
            let events = if defaults { NotifyConfig::EVENTS.map(str::to_owned).to_vec() } else { patterns(&entry.events, catalog) };
            let puts_off = entry.notify.as_ref().is_some_and(NotifyConfig::puts_off);
            events.into_iter().chain(puts_off.then(|| notify::DUE.to_owned())).collect()
        }
        _ => patterns(&entry.events, catalog),
    }
}

/// Patterns with the catalogue's own names: an alias becomes its type, and a pattern with a star also covers types one of whose aliases it covers.
pub fn patterns(events: &[String], catalog: &Catalog) -> Vec<String> {
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
