//! Where what happened is remembered: finished events, failed events, who owns which partition. In Redis, or in this process.

pub mod accounts;
pub mod measured;
pub mod memory;
pub mod outbox;
mod record;
pub mod redis;
pub mod reminders;
pub mod ticks;
pub mod state;
pub mod tally;

use std::sync::Arc;

use self::{
    accounts::{AccountStore, MemoryAccounts},
    reminders::MemoryReminders,
    tally::{MemoryTally, TallyStore},
    ticks::{MemoryTicks, TickStore},
};
use crate::{
    config::redis::StoreConfig,
    engine::{
        Clock,
        ports::{DedupeStore, StoreError},
    },
    reminders::Reminders,
    telemetry::Metrics,
};

/// The store that `store.url` names, measured; every key in it belongs to the consumer group `group`.
///
/// # Errors
/// [`StoreError::Refused`]: the address is none, needs what this build lacks, or the server must not be used as it is configured. A
/// server that is merely away is no error: the store answers [`StoreError::Unavailable`] until it is there.
pub async fn connect(config: &StoreConfig, group: &str, metrics: &Metrics) -> Result<Arc<dyn DedupeStore>, StoreError> {
    if config.is_memory() {
        let limits = memory::MemoryLimits { retention: config.retention, ..memory::MemoryLimits::default() };
        return Ok(Arc::new(measured::Measured::new(memory::MemoryStore::new(limits), metrics)));
    }
    let store = measured::Measured::new(redis::RedisStore::new(redis::RedisOptions::new(config, group))?, metrics);
    match store.ping().await {
        Err(error @ StoreError::Refused(_)) => Err(error),
        Ok(()) | Err(_) => Ok(Arc::new(store)),
    }
}

/// Where handlers count by day: the store that `store.url` names, measured. Connects when first used.
///
/// # Errors
/// As [`accounts()`].
pub fn tally(config: &StoreConfig, group: &str, metrics: &Metrics) -> Result<Arc<dyn TallyStore>, StoreError> {
    Ok(match config.is_memory() {
        true => Arc::new(measured::Measured::new(MemoryTally::default(), metrics)),
        false => Arc::new(measured::Measured::new(redis::RedisStore::new(redis::RedisOptions::new(config, group))?, metrics)),
    })
}

/// Where handlers keep what they remember of users and others: the store that `store.url` names, measured. Connects when first used.
///
/// # Errors
/// [`StoreError::Refused`]: the address is none, or needs what this build lacks.
pub fn accounts(config: &StoreConfig, group: &str, metrics: &Metrics) -> Result<Arc<dyn AccountStore>, StoreError> {
    Ok(match config.is_memory() {
        true => Arc::new(measured::Measured::new(MemoryAccounts::default(), metrics)),
        false => Arc::new(measured::Measured::new(redis::RedisStore::new(redis::RedisOptions::new(config, group))?, metrics)),
    })
}

/// Where the ticks of schedules are claimed: the store that `store.url` names, for every replica of the group, or this process alone.
///
/// # Errors
/// As [`connect`].
pub async fn ticks(config: &StoreConfig, group: &str) -> Result<Arc<dyn TickStore>, StoreError> {
    Ok(match in_redis(config, group).await? {
        Some(store) => store,
        None => Arc::new(MemoryTicks::default()),
    })
}

/// Where reminders wait: the store that `store.url` names, for every replica of the group, or this process alone.
///
/// # Errors
/// As [`connect`].
pub async fn reminders(config: &StoreConfig, group: &str) -> Result<Arc<dyn Reminders>, StoreError> {
    Ok(match in_redis(config, group).await? {
        Some(store) => store,
        None => Arc::new(MemoryReminders::new(Clock::System)),
    })
}

/// A connection of its own; `None`: the store is in memory.
async fn in_redis(config: &StoreConfig, group: &str) -> Result<Option<Arc<redis::RedisStore>>, StoreError> {
    if config.is_memory() {
        return Ok(None);
    }
    let store = redis::RedisStore::new(redis::RedisOptions::new(config, group))?;
    match store.ping().await {
        Err(error @ StoreError::Refused(_)) => Err(error),
        Ok(()) | Err(_) => Ok(Some(Arc::new(store))),
    }
}
