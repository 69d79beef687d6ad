//! What every `AccountStore` promises, written once. `tests/it` runs it on the store in memory, `tests/e2e` on Redis.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};
use serde::{Deserialize, Serialize};
use worker::store::accounts::{Account, AccountStore, Accounts, Change, Posted, Posting, Turn};

/// A store that two replicas see, with nothing in it, and time that passes.
pub trait AccountBench: Sync {
    /// As many replicas see it.
    fn stores(&self) -> [Arc<dyn AccountStore>; 2];
    /// Lets time pass for it.
    fn pass(&self, time: Duration) -> BoxFuture<'_, ()>;
}

/// A test for each promise, run on what `$bench` makes, or `None` where there is none here.
#[macro_export]
macro_rules! account_contract {
    ($attribute:meta, $bench:path) => {
        $crate::account_contract!(@each $attribute, $bench,
            what_was_posted_is_found_with_the_events_answer,
            an_event_is_posted_once_and_answered_the_same_for_ever,
            a_posting_on_an_older_version_changes_nothing,
            subjects_and_books_know_nothing_of_each_other,
            the_board_shows_the_highest_scores_first,
            a_state_and_an_answer_end_with_their_time,
            turns_of_many_replicas_at_once_all_count_and_each_once,
        );
    };
    (@each $attribute:meta, $bench:path, $($name:ident),* $(,)?) => {
        $(#[$attribute]
        async fn $name() {
            if let Some(bench) = $bench().await {
                $crate::account_contract::$name(&bench).await;
            }
        })*
    };
}

const LONG: Duration = Duration::from_secs(3600);

fn turn<'a>(subject: &'a str, event: &'a str) -> Turn<'a> {
    Turn { book: "points", subject, event }
}

fn posting(version: u64, state: &'static str, answer: &'static str) -> Posting {
    Posting { version, state: Bytes::from(state), keep: None, answer: Bytes::from(answer), remember: LONG, score: None }
}

fn account(state: &'static str, version: u64, answer: Option<&'static str>) -> Account {
    Account { state: Some(Bytes::from(state)), version, answer: answer.map(Bytes::from) }
}

pub async fn what_was_posted_is_found_with_the_events_answer(bench: &impl AccountBench) {
    let [one, two] = bench.stores();
    assert_eq!(one.look(turn("ada", "e1")).await.unwrap(), Account::default());
    assert_eq!(one.post(turn("ada", "e1"), posting(0, "s1", "a1")).await.unwrap(), Posted::Done);
    assert_eq!(two.look(turn("ada", "e1")).await.unwrap(), account("s1", 1, Some("a1")));
    assert_eq!(two.look(turn("ada", "e2")).await.unwrap(), account("s1", 1, None));
}

pub async fn an_event_is_posted_once_and_answered_the_same_for_ever(bench: &impl AccountBench) {
    let [one, two] = bench.stores();
    one.post(turn("ada", "e1"), posting(0, "s1", "a1")).await.unwrap();
    one.post(turn("ada", "e2"), posting(1, "s2", "a2")).await.unwrap();
    for store in [&one, &two] {
        assert_eq!(store.post(turn("ada", "e1"), posting(2, "s3", "a3")).await.unwrap(), Posted::Before(Bytes::from("a1")));
    }
    assert_eq!(one.look(turn("ada", "e2")).await.unwrap(), account("s2", 2, Some("a2")));
}

pub async fn a_posting_on_an_older_version_changes_nothing(bench: &impl AccountBench) {
    let [one, two] = bench.stores();
    one.post(turn("ada", "e1"), Posting { score: Some(7), ..posting(0, "s1", "a1") }).await.unwrap();
    let late = Posting { score: Some(9), ..posting(0, "s2", "a2") };
    assert_eq!(two.post(turn("ada", "e2"), late).await.unwrap(), Posted::Moved);
    assert_eq!(two.look(turn("ada", "e2")).await.unwrap(), account("s1", 1, None));
    assert_eq!(two.top("points", 9).await.unwrap(), [("ada".to_owned(), 7)]);
}

pub async fn subjects_and_books_know_nothing_of_each_other(bench: &impl AccountBench) {
    let [one, _] = bench.stores();
    one.post(turn("ada", "e1"), Posting { score: Some(1), ..posting(0, "s1", "a1") }).await.unwrap();
    for other in [turn("bob", "e1"), Turn { book: "other", ..turn("ada", "e1") }] {
        assert_eq!(one.look(other).await.unwrap(), Account::default());
    }
    assert!(one.top("other", 9).await.unwrap().is_empty());
}

pub async fn the_board_shows_the_highest_scores_first(bench: &impl AccountBench) {
    let [one, two] = bench.stores();
    for (subject, score) in [("ada", 30), ("bob", 10), ("cyd", 20), ("dan", 20)] {
        one.post(turn(subject, "e1"), Posting { score: Some(score), ..posting(0, "s", "a") }).await.unwrap();
    }
    two.post(turn("bob", "e2"), Posting { score: Some(40), ..posting(1, "s", "a") }).await.unwrap();
    let top = two.top("points", 3).await.unwrap();
    assert_eq!(top, [("bob".to_owned(), 40), ("ada".to_owned(), 30), ("dan".to_owned(), 20)]);
    assert!(two.top("points", 0).await.unwrap().is_empty());
}

pub async fn a_state_and_an_answer_end_with_their_time(bench: &impl AccountBench) {
    let [one, _] = bench.stores();
    let short = Duration::from_millis(300);
    one.post(turn("ada", "e1"), Posting { keep: Some(short), ..posting(0, "s1", "a1") }).await.unwrap();
    one.post(turn("bob", "e1"), Posting { remember: short, ..posting(0, "s1", "a1") }).await.unwrap();
    bench.pass(2 * short).await;
    assert_eq!(one.look(turn("ada", "e1")).await.unwrap(), Account { answer: Some(Bytes::from("a1")), ..Account::default() });
    assert_eq!(one.look(turn("bob", "e1")).await.unwrap(), account("s1", 1, None));
}

#[derive(Default, Serialize, Deserialize)]
struct Sum(i64);

pub async fn turns_of_many_replicas_at_once_all_count_and_each_once(bench: &impl AccountBench) {
    let [one, two] = bench.stores().map(|store| Accounts::new(store, LONG));
    let events: Vec<_> = (0..20).map(|n| format!("e{n}")).collect();
    let add = |sum: &mut Sum| {
        sum.0 += 1;
        Change { answer: sum.0, keep: None, score: Some(sum.0) }
    };
    // Each event three times, over both.
    let turns = events.iter().flat_map(|event| [&one, &two, &one].map(|accounts| (event, accounts)));
    let answers = join_all(turns.map(|(event, accounts)| accounts.once(turn("ada", event), add))).await;
    let mut answers: Vec<i64> = answers.into_iter().map(Result::unwrap).collect();
    answers.sort_unstable();
    assert_eq!(answers, (1..=20).flat_map(|n| [n, n, n]).collect::<Vec<_>>());
    assert_eq!(two.top("points", 1).await.unwrap(), [("ada".to_owned(), 20)]);
}
