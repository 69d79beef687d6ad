//! What is running here: health and metadata, as SDKs and probes ask for them.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use crate::{
    config::Config,
    health::{Health, Reporter},
};

/// Attributes that callers may set, and bytes of each: they live in this process' memory.
const MAX_ATTRIBUTES: usize = 64;
const MAX_ATTRIBUTE: usize = 4096;

/// One pubsub or state store, as metadata lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component {
    /// As configured.
    pub name: String,
    /// Dapr's name of what it does the work of.
    pub kind: &'static str,
    /// What of it is offered.
    pub capabilities: &'static [&'static str],
}

/// This process, as apps see it.
pub struct About {
    /// The app id.
    pub app_id: String,
    health: Health,
    brokers: Reporter,
    components: Vec<Component>,
    attributes: Mutex<BTreeMap<String, String>>,
}

impl About {
    /// As configured; ready as `health` says.
    pub fn new(config: &Config, health: Health, brokers: Reporter) -> Self {
        let pubsubs = config.publish.pubsubs.iter().map(|name| Component {
            name: name.clone(),
            kind: "pubsub.kafka",
            capabilities: &["BULK_PUBSUB"],
        });
        let stores =
            config.state.stores.iter().map(|name| Component { name: name.clone(), kind: "state.redis", capabilities: &["ETAG", "TTL"] });
        let components = pubsubs.chain(stores).collect();
        Self { app_id: config.app_id.clone(), health, brokers, components, attributes: Mutex::default() }
    }

    /// Names of the parts that keep this process from being ready; empty: it is.
    pub fn failing(&self) -> Vec<String> {
        let report = self.health.readiness();
        if report.ok || !report.failing.is_empty() { report.failing } else { vec![report.status.to_owned()] }
    }

    /// Whether publishing can be tried: a broker has answered once. One that is away now is told with each publish.
    pub fn outbound(&self) -> bool {
        self.brokers.was_ok()
    }

    /// The pubsubs and state stores that are offered by name.
    pub fn components(&self) -> &[Component] {
        &self.components
    }

    /// This build's version.
    pub fn version(&self) -> &'static str {
        env!("CARGO_PKG_VERSION")
    }

    /// Attributes that were set, and the version.
    pub fn attributes(&self) -> BTreeMap<String, String> {
        let mut all = self.attributes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        all.insert("daprRuntimeVersion".to_owned(), self.version().to_owned());
        all
    }

    /// Sets an attribute, for as long as this process lives.
    ///
    /// # Errors
    /// Where it is too long, or one too many.
    pub fn set(&self, name: &str, value: &str) -> Result<(), String> {
        if name.len() + value.len() > MAX_ATTRIBUTE {
            return Err(format!("name and value are longer than {MAX_ATTRIBUTE} bytes"));
        }
        let mut attributes = self.attributes.lock().unwrap_or_else(PoisonError::into_inner);
        if attributes.len() >= MAX_ATTRIBUTES && !attributes.contains_key(name) {
            return Err(format!("there are {MAX_ATTRIBUTES} attributes already"));
        }
        attributes.insert(name.to_owned(), value.to_owned());
        Ok(())
    }
}
