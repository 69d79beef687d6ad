//! Accounts: what a handler keeps about a user, an address or whatever else, and changes once per event, however often the event is handled.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt, ready};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use super::measured::Measured;
use crate::engine::ports::StoreError;

/// Most subjects on a book's board; the lowest scores go.
pub const LONGEST_BOARD: usize = 10_000;
/// How often a change that others were quicker than is tried.
const TRIES: usize = 32;
/// Subjects of one process that are changed side by side.
const STRIPES: usize = 64;
/// Accounts, and answers, that a memory store keeps; the oldest go.
const MOST_IN_MEMORY: usize = 100_000;

/// One event's turn at one subject's account.
#[derive(Debug, Clone, Copy)]
pub struct Turn<'a> {
    /// Whose accounts: the handler's name.
    pub book: &'a str,
    /// Which account.
    pub subject: &'a str,
    /// The event's id.
    pub event: &'a str,
}

/// An account before a turn.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Account {
    /// What was posted last; `None`: nothing yet, or it ended.
    pub state: Option<Bytes>,
    /// Grows with each posting.
    pub version: u64,
    /// What this event was answered when it had its turn.
    pub answer: Option<Bytes>,
}

/// What a turn does to an account.
#[derive(Debug, Clone)]
pub struct Posting {
    /// The version that the account must still have.
    pub version: u64,
    /// The new state.
    pub state: Bytes,
    /// How long the state is kept after this; `None`: for ever.
    pub keep: Option<Duration>,
    /// What the event is answered from now on.
    pub answer: Bytes,
    /// How long that is known.
    pub remember: Duration,
    /// The subject's score on the book's board; `None`: it stays as it is.
    pub score: Option<i64>,
}

/// Answer to a [`Posting`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Posted {
    /// The account is as posted.
    Done,
    /// The event had its turn before, and was answered this.
    Before(Bytes),
    /// Another event was quicker: look again.
    Moved,
}

/// Keeps accounts. A posting is one step: all of it or nothing, and never twice for one event.
pub trait AccountStore: Send + Sync + 'static {
    /// The account, and what the event was answered.
    fn look<'a>(&'a self, turn: Turn<'a>) -> BoxFuture<'a, Result<Account, StoreError>>;
    /// Posts, unless the event was answered, or the account moved on.
    fn post<'a>(&'a self, turn: Turn<'a>, posting: Posting) -> BoxFuture<'a, Result<Posted, StoreError>>;
    /// The highest scores of a book, highest first; equal ones by subject, last first.
    fn top<'a>(&'a self, book: &'a str, count: usize) -> BoxFuture<'a, Result<Vec<(String, i64)>, StoreError>>;
}

/// What one turn makes of a state.
#[derive(Debug)]
pub struct Change<A> {
    /// What the event is answered.
    pub answer: A,
    /// How long the state is kept; `None`: for ever.
    pub keep: Option<Duration>,
    /// The subject's new score.
    pub score: Option<i64>,
}

/// Accounts with states and answers as JSON.
pub struct Accounts {
    store: Arc<dyn AccountStore>,
    remember: Duration,
    stripes: Vec<tokio::sync::Mutex<()>>,
}

impl Accounts {
    /// Of `store`; an event's answer is known for `remember`.
    pub fn new(store: Arc<dyn AccountStore>, remember: Duration) -> Self {
        Self { store, remember, stripes: (0..STRIPES).map(|_| tokio::sync::Mutex::default()).collect() }
    }

    /// Gives the event its turn: `change` alters the state and says what the event is answered. Where the event had its turn before, nothing
    /// is changed, and it is answered what it was answered then. `change` may be asked more than once; only one of its answers counts.
    ///
    /// # Errors
    /// Where the store is away, the state is not what this program writes, or others are quicker time and again.
    pub async fn once<S, A>(&self, turn: Turn<'_>, change: impl Fn(&mut S) -> Change<A>) -> Result<A, StoreError>
    where
        S: Default + Serialize + DeserializeOwned,
        A: Serialize + DeserializeOwned,
    {
        let stripe = usize::try_from(xxh3_64(turn.subject.as_bytes()) % STRIPES as u64).unwrap_or_default();
        let _one_at_a_time = self.stripes[stripe].lock().await;
        for _ in 0..TRIES {
            let account = self.store.look(turn).await?;
            if let Some(answer) = account.answer {
                return read(&answer);
            }
            let mut state = account.state.as_deref().map_or_else(|| Ok(S::default()), read)?;
            let Change { answer, keep, score } = change(&mut state);
            let posting =
                Posting { version: account.version, state: write(&state)?, keep, answer: write(&answer)?, remember: self.remember, score };
            match self.store.post(turn, posting).await? {
                Posted::Done => return Ok(answer),
                Posted::Before(answer) => return read(&answer),
                Posted::Moved => {}
            }
        }
        Err(StoreError::Unavailable("an account that others change all the time".to_owned()))
    }

    /// As [`AccountStore::top`].
    ///
    /// # Errors
    /// Where the store is away.
    pub async fn top(&self, book: &str, count: usize) -> Result<Vec<(String, i64)>, StoreError> {
        self.store.top(book, count).await
    }
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StoreError> {
    // The error's own text could repeat what stands there.
    serde_json::from_slice(bytes).map_err(|_| StoreError::Refused("an account that another version wrote".to_owned()))
}

fn write<T: Serialize>(value: &T) -> Result<Bytes, StoreError> {
    serde_json::to_vec(value).map(Bytes::from).map_err(|error| StoreError::Refused(format!("an account that cannot be written: {error}")))
}

impl<S: AccountStore> AccountStore for Measured<S> {
    fn look<'a>(&'a self, turn: Turn<'a>) -> BoxFuture<'a, Result<Account, StoreError>> {
        Box::pin(self.seen("account_look", self.inner().look(turn)))
    }

    fn post<'a>(&'a self, turn: Turn<'a>, posting: Posting) -> BoxFuture<'a, Result<Posted, StoreError>> {
        Box::pin(self.seen("account_post", self.inner().post(turn, posting)))
    }

    fn top<'a>(&'a self, book: &'a str, count: usize) -> BoxFuture<'a, Result<Vec<(String, i64)>, StoreError>> {
        Box::pin(self.seen("account_top", self.inner().top(book, count)))
    }
}

/// An [`AccountStore`] in this process's memory. Time is tokio's.
#[derive(Debug, Default)]
pub struct MemoryAccounts {
    books: Mutex<HashMap<String, Book>>,
}

#[derive(Debug, Default)]
struct Book {
    accounts: HashMap<String, (u64, Bytes, Option<Instant>)>,
    answers: HashMap<(String, String), (Bytes, Instant)>,
    board: BTreeMap<String, i64>,
}

impl MemoryAccounts {
    fn books(&self) -> MutexGuard<'_, HashMap<String, Book>> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look_now(&self, turn: Turn<'_>) -> Account {
        let mut books = self.books();
        let Some(book) = books.get_mut(turn.book) else { return Account::default() };
        book.forget(turn);
        let (version, state) = book.accounts.get(turn.subject).map(|(version, state, _)| (*version, state.clone())).unzip();
        let answer = book.answers.get(&(turn.subject.to_owned(), turn.event.to_owned())).map(|(answer, _)| answer.clone());
        Account { state, version: version.unwrap_or_default(), answer }
    }

    fn post_now(&self, turn: Turn<'_>, posting: Posting) -> Posted {
        let now = Instant::now();
        let mut books = self.books();
        let book = books.entry(turn.book.to_owned()).or_default();
        book.forget(turn);
        let event = (turn.subject.to_owned(), turn.event.to_owned());
        if let Some((answer, _)) = book.answers.get(&event) {
            return Posted::Before(answer.clone());
        }
        if book.accounts.get(turn.subject).map_or(0, |(version, ..)| *version) != posting.version {
            return Posted::Moved;
        }
        let end = posting.keep.map(|keep| now + keep);
        book.accounts.insert(turn.subject.to_owned(), (posting.version + 1, posting.state, end));
        book.answers.insert(event, (posting.answer, now + posting.remember));
        if let Some(score) = posting.score {
            book.board.insert(turn.subject.to_owned(), score);
        }
        book.shrink();
        Posted::Done
    }
}

impl Book {
    /// What of this turn has ended.
    fn forget(&mut self, turn: Turn<'_>) {
        let now = Instant::now();
        if self.accounts.get(turn.subject).is_some_and(|(.., end)| end.is_some_and(|end| end <= now)) {
            self.accounts.remove(turn.subject);
        }
        let event = (turn.subject.to_owned(), turn.event.to_owned());
        if self.answers.get(&event).is_some_and(|(_, end)| *end <= now) {
            self.answers.remove(&event);
        }
    }

    /// Where there are too many, the half that ends first goes.
    fn shrink(&mut self) {
        if self.answers.len() > MOST_IN_MEMORY {
            let mut ends: Vec<_> = self.answers.values().map(|(_, end)| *end).collect();
            let (_, median, _) = ends.select_nth_unstable(MOST_IN_MEMORY / 2);
            let median = *median;
            self.answers.retain(|_, (_, end)| *end > median);
        }
        if self.accounts.len() > MOST_IN_MEMORY {
            let mut ends: Vec<_> = self.accounts.values().filter_map(|(.., end)| *end).collect();
            ends.sort_unstable();
            let median = ends.get(ends.len() / 2).copied();
            self.accounts.retain(|_, (.., end)| end.is_none() || *end > median);
        }
        if self.board.len() > LONGEST_BOARD
            && let Some(lowest) = self.board.iter().min_by_key(|(_, score)| **score).map(|(subject, _)| subject.clone())
        {
            self.board.remove(&lowest);
        }
    }
}

impl AccountStore for MemoryAccounts {
    fn look<'a>(&'a self, turn: Turn<'a>) -> BoxFuture<'a, Result<Account, StoreError>> {
        ready(Ok(self.look_now(turn))).boxed()
    }

    fn post<'a>(&'a self, turn: Turn<'a>, posting: Posting) -> BoxFuture<'a, Result<Posted, StoreError>> {
        ready(Ok(self.post_now(turn, posting))).boxed()
    }

    fn top<'a>(&'a self, book: &'a str, count: usize) -> BoxFuture<'a, Result<Vec<(String, i64)>, StoreError>> {
        let books = self.books();
        let mut board: Vec<_> = books.get(book).map(|book| book.board.clone()).unwrap_or_default().into_iter().collect();
        board.sort_by(|(one, low), (two, high)| (high, two).cmp(&(low, one)));
        board.truncate(count);
        ready(Ok(board)).boxed()
    }
}
