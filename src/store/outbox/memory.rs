//! The outbox in this process: gone with it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::future::{BoxFuture, FutureExt, ready};
use tokio::time::Instant;

use super::{Admission, CLAIM_TIME, Due, Item, MOST_ITEMS, Outbox};
use crate::engine::ports::StoreError;

/// An [`Outbox`] in this process's memory. Time is tokio's.
#[derive(Debug)]
pub struct MemoryOutbox {
    started: Instant,
    started_ms: i64,
    users: Mutex<HashMap<String, User>>,
    /// The last token; no two claims have the same, also of users who were forgotten in between.
    claims: AtomicU64,
}

#[derive(Debug, Default)]
struct User {
    /// What went out: when, by id.
    went: BTreeMap<String, i64>,
    /// How long that counts.
    counts_until: i64,
    kept: BTreeMap<String, Item>,
    more: u64,
    claimed: Option<Due>,
    due_ms: Option<i64>,
}

impl Default for MemoryOutbox {
    fn default() -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started: Instant::now(), started_ms: millis(since_1970), users: Mutex::default(), claims: AtomicU64::new(0) }
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl MemoryOutbox {
    fn now(&self) -> i64 {
        self.started_ms.saturating_add(millis(self.started.elapsed()))
    }

    fn users(&self) -> MutexGuard<'_, HashMap<String, User>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl User {
    fn is_idle(&self, now: i64) -> bool {
        self.kept.is_empty() && self.more == 0 && self.claimed.is_none() && self.counts_until <= now
    }
}

impl Outbox for MemoryOutbox {
    fn admit<'a>(&'a self, user: &'a str, id: &'a str, limit: usize, window: Duration) -> BoxFuture<'a, Result<Admission, StoreError>> {
        let (now, window) = (self.now(), millis(window));
        let mut users = self.users();
        // Whoever has nothing here any more is forgotten by the way.
        users.retain(|name, known| name == user || !known.is_idle(now));
        let known = users.entry(user.to_owned()).or_default();
        known.went.retain(|_, at| *at > now - window);
        let admission = match known.went.values().min() {
            _ if known.went.contains_key(id) => Admission::Granted,
            Some(first) if known.went.len() >= limit => Admission::Full(first + window),
            _ => {
                known.went.insert(id.to_owned(), now);
                known.counts_until = now + window;
                Admission::Granted
            }
        };
        ready(Ok(admission)).boxed()
    }

    fn defer<'a>(&'a self, user: &'a str, item: Item) -> BoxFuture<'a, Result<(), StoreError>> {
        let mut users = self.users();
        let known = users.entry(user.to_owned()).or_default();
        known.due_ms = Some(known.due_ms.map_or(item.due_ms, |due| due.min(item.due_ms)));
        if known.kept.len() < MOST_ITEMS || known.kept.contains_key(&item.id) {
            known.kept.insert(item.id.clone(), item);
        } else {
            known.more += 1;
        }
        ready(Ok(())).boxed()
    }

    fn claim(&self, count: usize) -> BoxFuture<'_, Result<Vec<Due>, StoreError>> {
        let now = self.now();
        let mut users = self.users();
        let due = users.iter_mut().filter(|(_, known)| known.due_ms.is_some_and(|due| due <= now)).take(count);
        let claimed = due.map(|(name, known)| {
            known.due_ms = Some(now + millis(CLAIM_TIME));
            if known.claimed.is_none() {
                let items = std::mem::take(&mut known.kept).into_values().map(|item| (item.id, item.body)).collect();
                let token = self.claims.fetch_add(1, Ordering::Relaxed).to_string();
                let more = std::mem::take(&mut known.more);
                known.claimed = Some(Due { user: name.clone(), items, more, token });
            }
            known.claimed.clone()
        });
        ready(Ok(claimed.flatten().collect())).boxed()
    }

    fn take<'a>(&'a self, user: &'a str, token: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
        let now = self.now();
        let mut users = self.users();
        if let Some(known) = users.get_mut(user)
            && known.claimed.as_ref().is_some_and(|claimed| claimed.token == token)
        {
            known.claimed = None;
            known.due_ms = known.kept.values().map(|item| item.due_ms).min();
            if known.is_idle(now) {
                users.remove(user);
            }
        }
        ready(Ok(())).boxed()
    }

    fn waiting(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
        let waiting = self.users().values().filter(|known| known.due_ms.is_some()).count();
        ready(Ok(waiting as u64)).boxed()
    }
}
