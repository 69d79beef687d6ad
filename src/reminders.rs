//! Reminders that wait for their time: what each event changes ([`fact`], [`task`]: pure), and the trait of where they wait.
//!
//! A task's reminders are one record. What an event says of them is a record of the same shape, merged into the one that waits: the latest event by its
//! own time counts, whatever order they come in, since no order is given between topics.

pub mod fact;
pub mod task;

use std::time::Duration;

use futures_util::future::BoxFuture;
use uuid::Uuid;

use self::task::Task;
use crate::engine::ports::StoreError;

/// Parts of a store, by user: a user's reminders wait in one of them.
pub const SHARDS: u8 = 16;

/// How long a reminder that somebody fires is nobody else's, after it was claimed or renewed. Past it, its firer has died.
pub const CLAIM_TIME: Duration = Duration::from_secs(15);

/// Most reminders of one task: each has a `reminder_type` of its own.
pub const MOST_OF_A_TASK: usize = 32;

/// How often a change is made again that others came before.
const TRIES: usize = 32;

/// A user's task, as a store knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Less than [`SHARDS`].
    pub shard: u8,
    /// UUIDv5 of user and task, one per line.
    pub id: Uuid,
}

impl Key {
    /// Of the user's task with that id, integer or UUID as text.
    pub fn new(user: &str, task: &str) -> Self {
        let hash = |name: &str| Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes());
        Self { shard: hash(user).as_bytes()[0] % SHARDS, id: hash(&format!("{user}\n{task}")) }
    }
}

/// A record that is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Whose.
    pub key: Key,
    /// What it must still be; `None`: nothing.
    pub old: Option<Vec<u8>>,
    /// What it becomes.
    pub new: Vec<u8>,
    /// When something of it is due, milliseconds since 1970; `None`: nothing is.
    pub next: Option<i64>,
    /// How long a record that nothing is due of is kept.
    pub keep: Duration,
    /// Whether it was claimed, and no longer is.
    pub claimed: bool,
}

/// What is due, and the caller's alone for [`CLAIM_TIME`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claimed {
    /// The store's clock, milliseconds since 1970: the only one that says what is due.
    pub now: i64,
    /// Records.
    pub tasks: Vec<(Key, Vec<u8>)>,
    /// When the next one is due that nobody has claimed.
    pub next: Option<i64>,
    /// Reminders whose records are gone: the store evicted them.
    pub missing: u64,
    /// Whether the store had never been asked before: it is new, or has lost everything.
    pub blank: bool,
}

/// Where reminders wait. Everything may be repeated after an answer that got lost.
pub trait Reminders: Send + Sync + 'static {
    /// The record of a task.
    fn load<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<Vec<u8>>, StoreError>>;
    /// Writes each record that still is what it must be; answers which.
    fn replace<'a>(&'a self, changes: &'a [Change]) -> BoxFuture<'a, Result<Vec<bool>, StoreError>>;
    /// At most about so many records of which something is due, and which nobody else has claimed, or whose claims have ended.
    fn claim(&self, most: usize) -> BoxFuture<'_, Result<Claimed, StoreError>>;
    /// Renews claims for [`CLAIM_TIME`].
    fn renew<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Result<(), StoreError>>;
    /// Tasks of which something is still to come.
    fn pending(&self) -> BoxFuture<'_, Result<u64, StoreError>>;
}

/// Why a change was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Others changed the task again and again in between.
    #[error("the task's reminders are being changed by others")]
    Contended,
    /// The task has as many reminders as are allowed.
    #[error("data.reminder_type: the task has {MOST_OF_A_TASK} reminders of other types")]
    TooMany,
}

/// Merges what an event says into what waits. Answers whether that changed anything: an event that comes again, or late, does not.
///
/// # Errors
/// Why nothing was changed.
pub async fn apply(store: &dyn Reminders, said: &Task, keep: Duration) -> Result<bool, ApplyError> {
    let key = said.key();
    for _ in 0..TRIES {
        let old = store.load(&key).await?;
        let known = old.as_deref().and_then(Task::decode);
        let task = match known.clone() {
            Some(known) => known.merge(said.clone()),
            None => said.clone(),
        };
        if known.as_ref() == Some(&task) {
            return Ok(false);
        }
        if task.len() > MOST_OF_A_TASK {
            return Err(ApplyError::TooMany);
        }
        let change = Change { key, old, new: task.encode(), next: task.next(), keep, claimed: false };
        if store.replace(&[change]).await?.first() == Some(&true) {
            return Ok(true);
        }
    }
    Err(ApplyError::Contended)
}
