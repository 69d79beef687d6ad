//! `[store]`.

use super::Report;
use crate::config::{Config, Role, redis::WhenDown, text};

/// Schemes of Redis clients, a single server's first; which topologies this build supports, the store says when it connects.
const SCHEMES: &[&str] = &[
    "redis",
    "rediss",
    "valkey",
    "valkeys",
    "redis+sentinel",
    "rediss+sentinel",
    "redis-sentinel",
    "redis+cluster",
    "rediss+cluster",
    "redis-cluster",
];

pub(super) fn check(config: &Config, role: Option<Role>, report: &mut Report<'_>) {
    let store = &config.store;
    if store.is_memory() {
        if role == Some(Role::Producer) && !config.state.stores.is_empty() {
            report.warning(
                "state.stores",
                "with store.url = \"memory\" state is kept in this process, at most 64 MiB of it, and ends with it",
            );
        }
        if role == Some(Role::Consumer) && !config.kafka.is_embedded() {
            report.warning(
                "store.url",
                "\"memory\" forgets at a restart and is not shared: duplicates are handled again, backoffs start anew",
            );
        }
    } else {
        let checked = text::url(&store.url, SCHEMES).map_err(|why| format!("{why}, or \"memory\""));
        report.expect("store.url", checked);
    }
    if store.prefix.is_empty() || store.prefix.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '{' | '}')) {
        report.problem("store.prefix", "must be text without white space and braces, which Redis Cluster reads as a hash tag");
    }
    if store.retention.is_zero() {
        report.problem("store.retention", "must be above zero: it is how long a duplicate is recognised");
    }
    if store.when_down == WhenDown::Hold && !store.bypass_after.is_zero() {
        report.warning("store.bypass_after", "has no effect with store.when_down = \"hold\"");
    }
}
