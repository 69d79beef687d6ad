//! Who fires which tick of a schedule: one of many replicas, and another one where it dies.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::{BoxFuture, FutureExt, ready};
use tokio::time::Instant;

use crate::engine::ports::StoreError;

/// How long a claim lasts after it was made or renewed.
pub const CLAIM_TIME: Duration = Duration::from_secs(15);

/// What is known of a schedule when a replica starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entered {
    /// The latest tick that was ever claimed, milliseconds since 1970; of a schedule that nobody knew, the time given.
    pub last: i64,
    /// Ticks that were claimed and not finished.
    pub open: Vec<i64>,
}

/// One replica's wish to fire one tick.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// The schedule's name.
    pub schedule: &'a str,
    /// One per process and start.
    pub owner: &'a str,
    /// The tick, milliseconds since 1970.
    pub tick: i64,
    /// Whether two ticks must not run at once.
    pub exclusive: bool,
}

/// Answer to a [`Wish`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Fire it. Until it is finished the claim must be renewed.
    Granted,
    /// It was fired, or skipped.
    Done,
    /// Somebody fires it, or (with [`Wish::exclusive`]) a later one; ask again after this long.
    Held(Duration),
    /// With [`Wish::exclusive`]: another tick still runs, so nobody fires this one.
    Overlaps,
}

/// Remembers which ticks were claimed. A tick is new when it is later than every one claimed before.
pub trait TickStore: Send + Sync + 'static {
    /// What is known of the schedule; where nothing is, ticks up to `now` count as claimed.
    fn enter<'a>(&'a self, schedule: &'a str, now: i64) -> BoxFuture<'a, Result<Entered, StoreError>>;
    /// Asks for a tick. Asking again, after an answer that got lost, is answered the same.
    fn claim<'a>(&'a self, wish: Wish<'a>) -> BoxFuture<'a, Result<Claim, StoreError>>;
    /// Renews a claim for [`CLAIM_TIME`]; `false`: it is another's, or the store lost it.
    fn renew<'a>(&'a self, wish: Wish<'a>) -> BoxFuture<'a, Result<bool, StoreError>>;
    /// The tick was fired. Of a claim that is another's nothing changes.
    fn finish<'a>(&'a self, wish: Wish<'a>) -> BoxFuture<'a, Result<(), StoreError>>;
}

/// A [`TickStore`] in this process's memory. Time is tokio's.
#[derive(Debug, Default)]
pub struct MemoryTicks {
    schedules: Mutex<HashMap<String, Known>>,
}

#[derive(Debug, Default)]
struct Known {
    last: i64,
    /// Claimed and not finished: by whom, until when.
    runs: BTreeMap<i64, (Arc<str>, Instant)>,
}

impl MemoryTicks {
    fn state(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.schedules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets everything, as a flushed Redis does.
    pub fn flush(&self) {
        self.state().clear();
    }

    fn claim_now(&self, wish: Wish<'_>) -> Claim {
        let mut state = self.state();
        let known = state.entry(wish.schedule.to_owned()).or_insert_with(|| Known { last: i64::MIN, ..Known::default() });
        let now = Instant::now();
        let is_new = wish.tick > known.last;
        let held = known.runs.get(&wish.tick);
        match held {
            None if !is_new => return Claim::Done,
            Some((owner, until)) if *until > now && **owner != *wish.owner => return Claim::Held(*until - now),
            _ => {}
        }
        let others = known.runs.iter().filter(|(tick, (_, until))| **tick != wish.tick && *until > now);
        let busy = others.map(|(_, (_, until))| *until - now).max().filter(|_| wish.exclusive);
        known.last = known.last.max(wish.tick);
        match busy {
            Some(_) if is_new => Claim::Overlaps,
            Some(left) => Claim::Held(left),
            None => {
                known.runs.insert(wish.tick, (wish.owner.into(), now + CLAIM_TIME));
                Claim::Granted
            }
        }
    }

    fn with_own<T>(&self, wish: Wish<'_>, then: impl FnOnce(&mut Known) -> T) -> Option<T> {
        let mut state = self.state();
        let known = state.get_mut(wish.schedule)?;
        let own = known.runs.get(&wish.tick).is_some_and(|(owner, _)| **owner == *wish.owner);
        own.then(|| then(known))
    }
}

impl TickStore for MemoryTicks {
    fn enter<'a>(&'a self, schedule: &'a str, now: i64) -> BoxFuture<'a, Result<Entered, StoreError>> {
        let mut state = self.state();
        let known = state.entry(schedule.to_owned()).or_insert_with(|| Known { last: now, ..Known::default() });
        ready(Ok(Entered { last: known.last, open: known.runs.keys().copied().collect() })).boxed()
    }

    fn claim<'a>(&'a self, wish: Wish<'a>) -> BoxFuture<'a, Result<Claim, StoreError>> {
        ready(Ok(self.claim_now(wish))).boxed()
    }

    fn renew<'a>(&'a self, wish: Wish<'a>) -> BoxFuture<'a, Result<bool, StoreError>> {
        let until = Instant::now() + CLAIM_TIME;
        let renewed = self.with_own(wish, |known| known.runs.entry(wish.tick).and_modify(|(_, end)| *end = until).key().to_owned());
        ready(Ok(renewed.is_some())).boxed()
    }

    fn finish<'a>(&'a self, wish: Wish<'a>) -> BoxFuture<'a, Result<(), StoreError>> {
        self.with_own(wish, |known| known.runs.remove(&wish.tick));
        ready(Ok(())).boxed()
    }
}
