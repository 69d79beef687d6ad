//! What reacts to events: the [`Handler`] trait, and the [`Registry`] that binds event types to handlers.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use crate::{
    event::{Event, pattern},
    outcome::HandlerResult,
};

/// One run of one event: what a handler is given.
#[derive(Debug, Clone)]
pub struct Run {
    /// The event, decoded, valid, at the catalogue's current version.
    pub event: Arc<Event>,
    /// Which run of this handler this is: 1 for the first.
    pub attempt: u32,
    /// Fencing token: grows with every owner of the partition. A store that remembers the highest it saw can refuse a woken zombie.
    pub epoch: u64,
    /// Set when the partition is gone or the shutdown's deadline has passed: nobody waits for the answer any more.
    pub cancelled: Arc<CancellationToken>,
}

impl Run {
    /// Names this event's effect whatever run makes it: for receivers that dedupe.
    pub fn idempotency_key(&self) -> &str {
        self.event.id()
    }
}

/// Reacts to events. Runs of one user's events come one at a time, in order; different users' runs come concurrently.
///
/// At least once: an event whose run was answered can run again after a crash. The run is dropped at the handler's timeout.
pub trait Handler: Send + Sync + 'static {
    /// Handles one event. A panic counts as a transient failure.
    fn handle(&self, run: Run) -> impl Future<Output = HandlerResult> + Send;

    /// Where events from that topic go that this handler gave up; `None`: to the configured dead-letter topic.
    fn dead_letter_topic(&self, _topic: &str) -> Option<Arc<str>> {
        None
    }
}

/// A [`Handler`] behind a pointer.
pub trait DynHandler: Send + Sync + 'static {
    /// As [`Handler::handle`].
    fn handle_boxed(self: Arc<Self>, run: Run) -> BoxFuture<'static, HandlerResult>;

    /// As [`Handler::dead_letter_topic`].
    fn dead_letter_topic(&self, topic: &str) -> Option<Arc<str>>;
}

impl<H: Handler> DynHandler for H {
    fn handle_boxed(self: Arc<Self>, run: Run) -> BoxFuture<'static, HandlerResult> {
        Box::pin(async move { self.handle(run).await })
    }

    fn dead_letter_topic(&self, topic: &str) -> Option<Arc<str>> {
        Handler::dead_letter_topic(self, topic)
    }
}

/// A handler with its name, its event types and its limits.
#[derive(Clone)]
pub struct Binding {
    /// Unique; a metric label, and what the store and the DLQ know it by.
    pub name: Arc<str>,
    /// Type patterns: `task.created`, `task.*`, `*`.
    pub events: Vec<String>,
    /// Only records of these topics; empty: of any.
    pub topics: Vec<String>,
    /// Longest run.
    pub timeout: Duration,
    /// Runs at once.
    pub concurrency: usize,
    /// What runs.
    pub handler: Arc<dyn DynHandler>,
}

impl fmt::Debug for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Binding")
            .field("name", &self.name)
            .field("events", &self.events)
            .field("topics", &self.topics)
            .finish_non_exhaustive()
    }
}

impl Binding {
    /// Binds `handler` to the types that match `events`, with the default timeout of 30 s and no limit of its own.
    pub fn new<H: Handler>(name: &str, events: &[&str], handler: H) -> Self {
        Self {
            name: name.into(),
            events: events.iter().map(|&pattern| pattern.to_owned()).collect(),
            topics: Vec::new(),
            timeout: Duration::from_secs(30),
            concurrency: usize::MAX,
            handler: Arc::new(handler),
        }
    }

    /// Whether this handler wants that type from that topic.
    pub fn wants(&self, event_type: &str, topic: &str) -> bool {
        (self.topics.is_empty() || self.topics.iter().any(|wanted| wanted == topic))
            && self.events.iter().any(|wanted| pattern::matches(wanted, event_type))
    }
}

/// Every handler of this process, in the order of the configuration.
#[derive(Clone, Default)]
pub struct Registry {
    bindings: Vec<Binding>,
}

impl Registry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a handler; its name must be unique.
    pub fn bind(mut self, binding: Binding) -> Self {
        self.bindings.push(binding);
        self
    }

    /// Every handler.
    pub fn bindings(&self) -> &[Binding] {
        &self.bindings
    }

    /// Positions (in [`Registry::bindings`]) of the handlers that an event of that type from that topic goes to.
    pub fn route<'a>(&'a self, event_type: &'a str, topic: &'a str) -> impl Iterator<Item = usize> + 'a {
        self.bindings.iter().enumerate().filter(move |(_, binding)| binding.wants(event_type, topic)).map(|(index, _)| index)
    }
}
