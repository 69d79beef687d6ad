//! Values that apps keep under keys, each with a version: what the sidecar's state API stands on. In Redis, or in this process.

pub mod memory;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::{measured::Measured, redis::state::RedisState};
use crate::{config::redis::StoreConfig, engine::ports::StoreError, telemetry::Metrics};

/// A value as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The value.
    pub data: Bytes,
    /// Its version; `None`: something older than versions wrote it.
    pub etag: Option<String>,
}

/// A value to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Under this key.
    pub key: String,
    /// The value.
    pub data: Bytes,
    /// The version that it must have now; `None`: any, unless the key was ever written with `first_write`. A key that is not there takes any.
    pub version: Option<u64>,
    /// From now on, nobody writes this key without its version.
    pub first_write: bool,
    /// For how long.
    pub ttl: Ttl,
}

/// What a write does to the time that a key has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ttl {
    /// Nothing: a new key has no end.
    Keep,
    /// The key has no end any more.
    Never,
    /// It ends in so many seconds.
    Seconds(u32),
}

/// One key, as read: the error says why what stands there is no state.
pub type Read = Result<Option<Stored>, String>;

/// Keeps values. Every call is one step for the store: nobody comes between a check and its write.
pub trait StateStore: Send + Sync + 'static {
    /// Reads keys, in order.
    fn get<'a>(&'a self, keys: &'a [String]) -> BoxFuture<'a, Result<Vec<Read>, StoreError>>;
    /// Writes values, each on its own; answers in order whether it was written, or another version stood in its way.
    fn save(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<Vec<bool>, StoreError>>;
    /// Removes a key, if it has that version (`None`: any); answers whether it is gone.
    fn delete<'a>(&'a self, key: &'a str, etag: Option<&'a str>) -> BoxFuture<'a, Result<bool, StoreError>>;
}

/// The state store that `store.url` names, measured. Connects when first used.
///
/// # Errors
/// [`StoreError::Refused`]: the address is none, or needs what this build lacks.
pub fn connect(config: &StoreConfig, metrics: &Metrics) -> Result<Arc<dyn StateStore>, StoreError> {
    Ok(match config.is_memory() {
        true => Arc::new(Measured::new(memory::MemoryState::default(), metrics)),
        false => Arc::new(Measured::new(RedisState::new(&config.url)?, metrics)),
    })
}

impl<S: StateStore> StateStore for Measured<S> {
    fn get<'a>(&'a self, keys: &'a [String]) -> BoxFuture<'a, Result<Vec<Read>, StoreError>> {
        Box::pin(self.seen("state_get", self.inner().get(keys)))
    }

    fn save(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<Vec<bool>, StoreError>> {
        Box::pin(self.seen("state_save", self.inner().save(changes)))
    }

    fn delete<'a>(&'a self, key: &'a str, etag: Option<&'a str>) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(self.seen("state_delete", self.inner().delete(key, etag)))
    }
}
