//! Tallies: what a handler counts by day, each event once, and how many users there were.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::{BoxFuture, FutureExt, ready};
use tokio::time::Instant;

use super::measured::Measured;
use crate::engine::ports::StoreError;

/// Days, ids and notes that a memory store keeps of a book, each; where there are more, what comes then is not remembered.
const MOST_IN_MEMORY: usize = 1_000_000;

/// What one event adds to a day.
#[derive(Debug, Clone)]
pub struct Count<'a> {
    /// Whose figures: the handler's name.
    pub book: &'a str,
    /// The day, as `2026-03-28`.
    pub day: &'a str,
    /// Who the event is: counted once per day, however often it comes.
    pub event: u128,
    /// Each figure with what is added to it.
    pub adds: Vec<(String, i64)>,
    /// How long the day's events are known after the last one of them.
    pub remember: Duration,
    /// How long the day's figures are kept after the last change.
    pub keep: Duration,
}

/// A day's figures.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row {
    /// By name.
    pub figures: BTreeMap<String, i64>,
    /// Users of the day.
    pub users: u64,
}

/// Keeps tallies. Counting is one step: a figure is never added to without the event being known.
pub trait TallyStore: Send + Sync + 'static {
    /// Counts an event; `false`: it was counted before, and nothing is added.
    fn count<'a>(&'a self, count: Count<'a>) -> BoxFuture<'a, Result<bool, StoreError>>;
    /// Notes a user of a day, kept for `keep` after the last one.
    fn user<'a>(&'a self, book: &'a str, day: &'a str, user: u128, keep: Duration) -> BoxFuture<'a, Result<(), StoreError>>;
    /// Keeps a number under a name.
    fn note<'a>(&'a self, book: &'a str, name: u128, value: i64, keep: Duration) -> BoxFuture<'a, Result<(), StoreError>>;
    /// The number under a name.
    fn noted<'a>(&'a self, book: &'a str, name: u128) -> BoxFuture<'a, Result<Option<i64>, StoreError>>;
    /// Forgets the number under a name.
    fn forget<'a>(&'a self, book: &'a str, name: u128) -> BoxFuture<'a, Result<(), StoreError>>;
    /// The figures of days, in their order.
    fn rows<'a>(&'a self, book: &'a str, days: &'a [String]) -> BoxFuture<'a, Result<Vec<Row>, StoreError>>;
    /// Users of all these days together, each once; of many, an estimate with a standard error of 0.81 %.
    fn users<'a>(&'a self, book: &'a str, days: &'a [String]) -> BoxFuture<'a, Result<u64, StoreError>>;
}

impl<S: TallyStore> TallyStore for Measured<S> {
    fn count<'a>(&'a self, count: Count<'a>) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(self.seen("tally_count", self.inner().count(count)))
    }

    fn user<'a>(&'a self, book: &'a str, day: &'a str, user: u128, keep: Duration) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(self.seen("tally_user", self.inner().user(book, day, user, keep)))
    }

    fn note<'a>(&'a self, book: &'a str, name: u128, value: i64, keep: Duration) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(self.seen("tally_note", self.inner().note(book, name, value, keep)))
    }

    fn noted<'a>(&'a self, book: &'a str, name: u128) -> BoxFuture<'a, Result<Option<i64>, StoreError>> {
        Box::pin(self.seen("tally_noted", self.inner().noted(book, name)))
    }

    fn forget<'a>(&'a self, book: &'a str, name: u128) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(self.seen("tally_forget", self.inner().forget(book, name)))
    }

    fn rows<'a>(&'a self, book: &'a str, days: &'a [String]) -> BoxFuture<'a, Result<Vec<Row>, StoreError>> {
        Box::pin(self.seen("tally_rows", self.inner().rows(book, days)))
    }

    fn users<'a>(&'a self, book: &'a str, days: &'a [String]) -> BoxFuture<'a, Result<u64, StoreError>> {
        Box::pin(self.seen("tally_users", self.inner().users(book, days)))
    }
}

/// A [`TallyStore`] in this process's memory. Time is tokio's.
#[derive(Debug, Default)]
pub struct MemoryTally {
    books: Mutex<HashMap<String, Book>>,
}

#[derive(Debug, Default)]
struct Book {
    days: BTreeMap<String, Day>,
    notes: HashMap<u128, (i64, Instant)>,
}

#[derive(Debug)]
struct Day {
    figures: BTreeMap<String, i64>,
    users: HashSet<u128>,
    events: HashSet<u128>,
    end: Instant,
    events_end: Instant,
}

impl MemoryTally {
    fn books(&self) -> MutexGuard<'_, HashMap<String, Book>> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    /// The day, kept for at least that long from now on.
    fn day(&mut self, day: &str, keep: Duration) -> &mut Day {
        let now = Instant::now();
        self.days.retain(|_, day| day.end > now);
        let (figures, users, events) = Default::default();
        let day = self.days.entry(day.to_owned()).or_insert(Day { figures, users, events, end: now, events_end: now });
        day.end = day.end.max(now + keep);
        day
    }

    fn known<'a>(&'a self, days: &'a [String]) -> impl Iterator<Item = Option<&'a Day>> {
        let now = Instant::now();
        days.iter().map(move |day| self.days.get(day).filter(|day| day.end > now))
    }
}

impl TallyStore for MemoryTally {
    fn count<'a>(&'a self, count: Count<'a>) -> BoxFuture<'a, Result<bool, StoreError>> {
        let mut books = self.books();
        let day = books.entry(count.book.to_owned()).or_default().day(count.day, count.keep);
        let now = Instant::now();
        if day.events_end <= now {
            day.events.clear();
        }
        let is_new = !day.events.contains(&count.event);
        if is_new && day.events.len() < MOST_IN_MEMORY {
            day.events.insert(count.event);
        }
        day.events_end = now + count.remember;
        for (figure, amount) in count.adds.into_iter().filter(|_| is_new) {
            *day.figures.entry(figure).or_default() += amount;
        }
        ready(Ok(is_new)).boxed()
    }

    fn user<'a>(&'a self, book: &'a str, day: &'a str, user: u128, keep: Duration) -> BoxFuture<'a, Result<(), StoreError>> {
        let mut books = self.books();
        let users = &mut books.entry(book.to_owned()).or_default().day(day, keep).users;
        if users.len() < MOST_IN_MEMORY {
            users.insert(user);
        }
        ready(Ok(())).boxed()
    }

    fn note<'a>(&'a self, book: &'a str, name: u128, value: i64, keep: Duration) -> BoxFuture<'a, Result<(), StoreError>> {
        let mut books = self.books();
        let (notes, now) = (&mut books.entry(book.to_owned()).or_default().notes, Instant::now());
        if notes.len() >= MOST_IN_MEMORY {
            notes.retain(|_, (_, end)| *end > now);
        }
        if notes.len() < MOST_IN_MEMORY {
            notes.insert(name, (value, now + keep));
        }
        ready(Ok(())).boxed()
    }

    fn noted<'a>(&'a self, book: &'a str, name: u128) -> BoxFuture<'a, Result<Option<i64>, StoreError>> {
        let books = self.books();
        let note = books.get(book).and_then(|book| book.notes.get(&name)).filter(|(_, end)| *end > Instant::now());
        ready(Ok(note.map(|(value, _)| *value))).boxed()
    }

    fn forget<'a>(&'a self, book: &'a str, name: u128) -> BoxFuture<'a, Result<(), StoreError>> {
        if let Some(book) = self.books().get_mut(book) {
            book.notes.remove(&name);
        }
        ready(Ok(())).boxed()
    }

    fn rows<'a>(&'a self, book: &'a str, days: &'a [String]) -> BoxFuture<'a, Result<Vec<Row>, StoreError>> {
        let books = self.books();
        let row = |day: &Day| Row { figures: day.figures.clone(), users: day.users.len() as u64 };
        let rows = match books.get(book) {
            Some(book) => book.known(days).map(|day| day.map(row).unwrap_or_default()).collect(),
            None => vec![Row::default(); days.len()],
        };
        ready(Ok(rows)).boxed()
    }

    fn users<'a>(&'a self, book: &'a str, days: &'a [String]) -> BoxFuture<'a, Result<u64, StoreError>> {
        let books = self.books();
        let users: HashSet<_> =
            books.get(book).into_iter().flat_map(|book| book.known(days).flatten()).flat_map(|day| &day.users).collect();
        ready(Ok(users.len() as u64)).boxed()
    }
}
