//! Reminders in this process's memory: nothing to install, gone with the process.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use futures_util::future::{BoxFuture, FutureExt, ready};

use crate::{
    engine::{Clock, ports::StoreError},
    reminders::{CLAIM_TIME, Change, Claimed, Key, Reminders},
};

/// [`Reminders`] in memory, as many as there are. Records that nothing is due of are forgotten at the next claim after their time.
#[derive(Debug)]
pub struct MemoryReminders {
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    tasks: HashMap<Key, Kept>,
    /// When something is due, of what nobody has claimed.
    due: BTreeSet<(i64, Key)>,
    /// Until when records are somebody's.
    claimed: HashMap<Key, i64>,
    /// When records are forgotten.
    forget: BTreeSet<(i64, Key)>,
    asked: bool,
}

#[derive(Debug)]
struct Kept {
    record: Vec<u8>,
    next: Option<i64>,
    forget: Option<i64>,
}

impl MemoryReminders {
    /// Nothing waits yet, and nothing is lost. Times are `clock`'s.
    pub fn new(clock: Clock) -> Self {
        Self { clock, state: Mutex::new(State { asked: true, ..State::default() }) }
    }

    /// Forgets everything, as a flushed Redis does.
    pub fn flush(&self) {
        *self.state() = State::default();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> i64 {
        self.clock.now().timestamp_millis()
    }

    fn claim_until(now: i64) -> i64 {
        now.saturating_add(millis(CLAIM_TIME))
    }
}

fn millis(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl State {
    fn remove(&mut self, key: Key) {
        if let Some(kept) = self.tasks.remove(&key) {
            kept.next.map(|next| self.due.remove(&(next, key)));
            kept.forget.map(|at| self.forget.remove(&(at, key)));
        }
    }

    fn replace(&mut self, change: &Change, now: i64) -> bool {
        let key = change.key;
        if self.tasks.get(&key).map(|kept| &kept.record) != change.old.as_ref() {
            return false;
        }
        self.remove(key);
        if change.claimed {
            self.claimed.remove(&key);
        }
        let forget = change.next.is_none().then(|| now.saturating_add(millis(change.keep)));
        if let Some(next) = change.next.filter(|_| !self.claimed.contains_key(&key)) {
            self.due.insert((next, key));
        }
        forget.map(|at| self.forget.insert((at, key)));
        self.tasks.insert(key, Kept { record: change.new.clone(), next: change.next, forget });
        true
    }

    fn claim(&mut self, most: usize, now: i64) -> Claimed {
        while let Some((_, key)) = self.forget.first().copied().filter(|(at, _)| *at <= now) {
            self.remove(key);
        }
        let dead = self.claimed.iter().filter(|(_, until)| **until <= now).map(|(key, _)| *key);
        let due = self.due.iter().take_while(|(at, _)| *at <= now).map(|(_, key)| *key);
        let keys: Vec<_> = dead.chain(due).take(most).collect();
        let mut tasks = Vec::with_capacity(keys.len());
        for key in keys {
            self.claimed.remove(&key);
            let Some(kept) = self.tasks.get(&key) else { continue };
            kept.next.map(|next| self.due.remove(&(next, key)));
            self.claimed.insert(key, MemoryReminders::claim_until(now));
            tasks.push((key, kept.record.clone()));
        }
        let blank = !std::mem::replace(&mut self.asked, true);
        Claimed { now, tasks, next: self.due.first().map(|(at, _)| *at), missing: 0, blank }
    }
}

impl Reminders for MemoryReminders {
    fn load<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<Vec<u8>>, StoreError>> {
        let now = self.now();
        let state = self.state();
        let kept = state.tasks.get(key).filter(|kept| kept.forget.is_none_or(|at| at > now));
        ready(Ok(kept.map(|kept| kept.record.clone()))).boxed()
    }

    fn replace<'a>(&'a self, changes: &'a [Change]) -> BoxFuture<'a, Result<Vec<bool>, StoreError>> {
        let (now, mut state) = (self.now(), self.state());
        for (_, key) in state.forget.iter().take_while(|(at, _)| *at <= now).copied().collect::<Vec<_>>() {
            state.remove(key);
        }
        ready(Ok(changes.iter().map(|change| state.replace(change, now)).collect())).boxed()
    }

    fn claim(&self, most: usize) -> BoxFuture<'_, Result<Claimed, StoreError>> {
        ready(Ok(self.state().claim(most, self.now()))).boxed()
    }

    fn renew<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Result<(), StoreError>> {
        let (until, mut state) = (Self::claim_until(self.now()), self.state());
        for key in keys {
            state.claimed.entry(*key).and_modify(|end| *end = until);
        }
        ready(Ok(())).boxed()
    }

    fn pending(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
        let state = self.state();
        ready(Ok((state.due.len() + state.claimed.len()) as u64)).boxed()
    }
}
