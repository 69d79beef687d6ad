//! State in this process: bounded, gone with it.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::{BoxFuture, ready};
use tokio::time::Instant;

use super::{Change, Read, StateStore, Stored, Ttl};
use crate::engine::ports::StoreError;

/// Bytes of keys and values kept at most, with [`OVERHEAD`] for each.
const CAPACITY: usize = 64 << 20;
/// What an entry takes besides its key and value.
const OVERHEAD: usize = 128;

/// A [`StateStore`] in this process' memory, of at most 64 MiB. Time is tokio's.
#[derive(Debug)]
pub struct MemoryState {
    capacity: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    entries: HashMap<String, Entry>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    data: Bytes,
    version: u64,
    first_write: bool,
    ends: Option<Instant>,
}

impl Default for MemoryState {
    fn default() -> Self {
        Self::new(CAPACITY)
    }
}

impl MemoryState {
    /// Keeps at most `capacity` bytes; more is refused until something ends or is removed.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, kept: Mutex::default() }
    }

    fn with<T>(&self, then: impl FnOnce(&mut Kept, Instant) -> T) -> T {
        then(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner), Instant::now())
    }

    fn write(&self, kept: &mut Kept, change: Change, now: Instant) -> Result<bool, StoreError> {
        let Change { key, data, version, first_write, ttl } = change;
        kept.forget(&key, now);
        let old = kept.entries.get(&key);
        if old.is_some_and(|old| version.map_or(old.first_write, |version| version != old.version)) {
            return Ok(false);
        }
        let added = weight(&key, &data).saturating_sub(old.map_or(0, |old| weight(&key, &old.data)));
        if kept.bytes + added > self.capacity {
            kept.forget_ended(now);
            if kept.bytes + added > self.capacity {
                let why = format!("the state in memory is full ({} bytes); use a Redis (store.url)", self.capacity);
                return Err(StoreError::Unavailable(why));
            }
        }
        let old = kept.remove(&key);
        let (version, was_first, ends) = old.map_or((0, false, None), |old| (old.version, old.first_write, old.ends));
        let ends = match ttl {
            Ttl::Keep => ends,
            Ttl::Never => None,
            Ttl::Seconds(seconds) => Some(now + Duration::from_secs(seconds.into())),
        };
        kept.bytes += weight(&key, &data);
        kept.entries.insert(key, Entry { data, version: version + 1, first_write: first_write || was_first, ends });
        Ok(true)
    }
}

impl Kept {
    fn remove(&mut self, key: &str) -> Option<Entry> {
        let entry = self.entries.remove(key)?;
        self.bytes -= weight(key, &entry.data);
        Some(entry)
    }

    /// Drops the key if its time is over.
    fn forget(&mut self, key: &str, now: Instant) {
        if self.entries.get(key).is_some_and(|entry| entry.is_over(now)) {
            self.remove(key);
        }
    }

    fn forget_ended(&mut self, now: Instant) {
        self.entries.retain(|key, entry| {
            let over = entry.is_over(now);
            if over {
                self.bytes -= weight(key, &entry.data);
            }
            !over
        });
    }
}

impl Entry {
    fn is_over(&self, now: Instant) -> bool {
        self.ends.is_some_and(|ends| ends <= now)
    }
}

fn weight(key: &str, data: &Bytes) -> usize {
    key.len() + data.len() + OVERHEAD
}

impl StateStore for MemoryState {
    fn get<'a>(&'a self, keys: &'a [String]) -> BoxFuture<'a, Result<Vec<Read>, StoreError>> {
        let read = self.with(|kept, now| {
            let stored = |entry: &Entry| Stored { data: entry.data.clone(), etag: Some(entry.version.to_string()) };
            keys.iter().map(|key| Ok(kept.entries.get(key).filter(|entry| !entry.is_over(now)).map(stored))).collect()
        });
        Box::pin(ready(Ok(read)))
    }

    fn save(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<Vec<bool>, StoreError>> {
        let saved = self.with(|kept, now| changes.into_iter().map(|change| self.write(kept, change, now)).collect());
        Box::pin(ready(saved))
    }

    fn delete<'a>(&'a self, key: &'a str, etag: Option<&'a str>) -> BoxFuture<'a, Result<bool, StoreError>> {
        let gone = self.with(|kept, now| {
            kept.forget(key, now);
            let other = kept.entries.get(key).is_some_and(|entry| etag.is_some_and(|etag| etag != entry.version.to_string()));
            if !other {
                kept.remove(key);
            }
            !other
        });
        Box::pin(ready(Ok(gone)))
    }
}
