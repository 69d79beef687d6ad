//! The store: whether this Redis may hold it.

use super::finding::Finding;
use crate::{
    config::Config,
    engine::ports::StoreError,
    store::redis::{Probe, RedisOptions, RedisStore},
};

/// The findings about `store.url`.
pub(super) async fn examine(config: &Config) -> Vec<Finding> {
    if config.store.is_memory() {
        let found = "in memory: which events were handled is forgotten with the process, and no other process knows";
        return vec![Finding::warn("store", found, "for more than trying it, set store.url to a Redis: redis://host:6379/0")];
    }
    let part = format!("redis {}", config.store.url.masked());
    let store = RedisStore::new(RedisOptions::new(&config.store, config.group_id()));
    let probe = match store {
        Ok(store) => store.probe().await,
        Err(error) => Err(error),
    };
    match probe {
        Ok(probe) => judge(&part, &probe, config.store.allow_eviction),
        Err(error @ StoreError::Refused(_)) => vec![Finding::fail(part, error.to_string(), "correct store.url, or what the message names")],
        Err(error) => vec![Finding::fail(part, error.to_string(), "start Redis, or correct store.url")],
    }
}

fn judge(part: &str, probe: &Probe, allow_eviction: bool) -> Vec<Finding> {
    let facts = format!(
        "version {}, maxmemory-policy {}, appendonly {}, answers in {:.1} ms",
        probe.version,
        if probe.policy.is_empty() { "unknown" } else { &probe.policy },
        if probe.append_only { "on" } else { "off" },
        probe.round_trip.as_secs_f64() * 1000.0
    );
    let clock = Finding::ok("redis clock", format!("{} ms away from this machine's", probe.clock_difference_ms));
    match probe.judge(allow_eviction) {
        Err(error) => vec![Finding::fail(part, format!("{facts}: {error}"), "as it says")],
        Ok(warnings) => {
            // Each warning is a sentence that ends with its fix.
            let warned = warnings.iter().map(|warning| {
                let (what, fix) = warning.rsplit_once("; ").unwrap_or((warning, "set maxmemory-policy to noeviction"));
                Finding::warn(part, what, fix)
            });
            let clock_is_off = warnings.iter().any(|warning| warning.contains("clock"));
            std::iter::once(Finding::ok(part, facts)).chain(warned).chain((!clock_is_off).then_some(clock)).collect()
        }
    }
}
