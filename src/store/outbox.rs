//! What is to go out later: items by user, each user's due together; and how much went out lately.

mod memory;

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;

pub use self::memory::MemoryOutbox;
use super::redis::{RedisOptions, RedisStore};
use crate::{
    config::redis::StoreConfig,
    engine::ports::{DedupeStore, StoreError},
};

/// How long a claim lasts: then another replica gets what the first did not finish.
pub const CLAIM_TIME: Duration = Duration::from_secs(30);
/// Items of one user that are kept until they are due; more are counted only.
pub const MOST_ITEMS: usize = 100;

/// One item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Of one user's items, one per id.
    pub id: String,
    /// What it is.
    pub body: String,
    /// When it is due by itself, milliseconds since 1970. A user's items are due together, with the first of them.
    pub due_ms: i64,
}

/// A user's items that are due. Until they are taken, whoever claims them again gets the same ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// Whose.
    pub user: String,
    /// By id.
    pub items: Vec<(String, String)>,
    /// How many more there were.
    pub more: u64,
    /// Tells these items from the user's later ones.
    pub token: String,
}

/// Answer to [`Outbox::admit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// There is room in the window; it counts now.
    Granted,
    /// There is none before that time, milliseconds since 1970.
    Full(i64),
}

/// Keeps items until they are due, and counts what went out. Each name (a handler's) has users of its own.
pub trait Outbox: Send + Sync + 'static {
    /// Asks whether `id` may go out now, as one of at most `limit` of this user in any `window`. Asking again for the same id is answered the same.
    fn admit<'a>(&'a self, user: &'a str, id: &'a str, limit: usize, window: Duration) -> BoxFuture<'a, Result<Admission, StoreError>>;
    /// Keeps an item; one with the same id is replaced.
    fn defer<'a>(&'a self, user: &'a str, item: Item) -> BoxFuture<'a, Result<(), StoreError>>;
    /// Claims what is due, of at most so many users, for [`CLAIM_TIME`].
    fn claim(&self, users: usize) -> BoxFuture<'_, Result<Vec<Due>, StoreError>>;
    /// What was claimed with that token has gone out; what was claimed since stays.
    fn take<'a>(&'a self, user: &'a str, token: &'a str) -> BoxFuture<'a, Result<(), StoreError>>;
    /// Users of whom something waits, or is on its way out.
    fn waiting(&self) -> BoxFuture<'_, Result<u64, StoreError>>;
}

/// The outbox of that name in the store that `store.url` names, for every replica of the group, or for this process alone.
///
/// # Errors
/// As [`super::connect`].
pub async fn connect(config: &StoreConfig, group: &str, name: &str) -> Result<Arc<dyn Outbox>, StoreError> {
    if config.is_memory() {
        return Ok(Arc::new(MemoryOutbox::default()));
    }
    let store = RedisStore::new(RedisOptions::new(config, group))?;
    match store.ping().await {
        Err(error @ StoreError::Refused(_)) => Err(error),
        Ok(()) | Err(_) => Ok(Arc::new(store.outbox(name))),
    }
}
