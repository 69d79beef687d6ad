//! What every outbox must do.

use std::time::Duration;

use futures_util::future::BoxFuture;
use worker::store::outbox::{Admission, Due, Item, MOST_ITEMS, Outbox};

/// Two replicas' views of one outbox, and its time.
pub trait OutboxBench: Send + Sync {
    fn outboxes(&self) -> [&dyn Outbox; 2];
    /// Lets time pass.
    fn pass(&self, time: Duration) -> BoxFuture<'_, ()>;
    /// Lets a user's claim run out.
    fn expire<'a>(&'a self, user: &'a str) -> BoxFuture<'a, ()>;
}

fn item(id: &str, due_ms: i64) -> Item {
    Item { id: id.to_owned(), body: format!("body: of {id}"), due_ms }
}

fn ids(due: &[Due]) -> Vec<(String, Vec<String>, u64)> {
    let mut ids: Vec<_> =
        due.iter().map(|due| (due.user.clone(), due.items.iter().map(|(id, _)| id.clone()).collect(), due.more)).collect();
    ids.sort();
    ids
}

fn of(user: &str, ids: &[&str], more: u64) -> (String, Vec<String>, u64) {
    (user.to_owned(), ids.iter().map(|id| (*id).to_owned()).collect(), more)
}

fn now() -> i64 {
    chrono::Utc::now().timestamp_millis()
}

/// A user's items are due together with the first of them, once, whoever asks; what is claimed and not taken comes again as it was.
pub async fn items_are_due_together_and_claimed_by_one(bench: &dyn OutboxBench) {
    let [first, second] = bench.outboxes();
    let (past, future) = (now() - 1000, now() + 3_600_000);
    for (user, id, due) in [("ada", "a", past), ("ada", "b", future), ("bob", "c", future), ("cyd:x", "d", past)] {
        first.defer(user, item(id, due)).await.unwrap();
    }
    second.defer("ada", item("a", past)).await.unwrap();
    let claimed = first.claim(10).await.unwrap();
    assert_eq!(ids(&claimed), [of("ada", &["a", "b"], 0), of("cyd:x", &["d"], 0)]);
    assert_eq!(second.waiting().await.unwrap(), 3, "also of what is on its way out");
    assert_eq!(claimed.iter().find(|due| due.user == "ada").unwrap().items[0].1, "body: of a");
    assert_eq!(ids(&second.claim(10).await.unwrap()), [], "the first has them");
    first.take("cyd:x", token(&claimed, "cyd:x")).await.unwrap();
    assert_eq!(first.waiting().await.unwrap(), 2);

    second.defer("ada", item("e", future)).await.unwrap();
    bench.expire("ada").await;
    let again = second.claim(10).await.unwrap();
    assert_eq!(ids(&again), [of("ada", &["a", "b"], 0)], "the same ones, so that they make the same event");
    second.take("ada", token(&again, "ada")).await.unwrap();
    assert_eq!(ids(&first.claim(10).await.unwrap()), [], "what came meanwhile is due when it is due");
    first.defer("ada", item("f", past)).await.unwrap();
    let third = first.claim(10).await.unwrap();
    assert_eq!(ids(&third), [of("ada", &["e", "f"], 0)]);
    first.take("ada", token(&claimed, "ada")).await.unwrap();
    bench.expire("ada").await;
    assert_eq!(ids(&second.claim(10).await.unwrap()), [of("ada", &["e", "f"], 0)], "who is late takes nothing of what came after");
    second.take("ada", token(&third, "ada")).await.unwrap();
    bench.expire("ada").await;
    assert_eq!(ids(&first.claim(10).await.unwrap()), []);
    first.defer("ada", item("a", past)).await.unwrap();
    let later = first.claim(10).await.unwrap();
    assert!(![token(&claimed, "ada"), token(&third, "ada")].contains(&token(&later, "ada")), "what waits once more makes another event");
}

fn token<'a>(claimed: &'a [Due], user: &str) -> &'a str {
    &claimed.iter().find(|due| due.user == user).unwrap().token
}

/// No user's items grow without end: what is beyond is counted.
pub async fn what_is_too_much_is_counted(bench: &dyn OutboxBench) {
    let [first, second] = bench.outboxes();
    for n in 0..MOST_ITEMS + 7 {
        first.defer("much", item(&format!("{n:03}"), 1)).await.unwrap();
    }
    first.defer("much", item("000", 1)).await.unwrap();
    let claimed = second.claim(10).await.unwrap();
    assert_eq!((claimed[0].items.len(), claimed[0].more), (MOST_ITEMS, 7));
    second.take("much", token(&claimed, "much")).await.unwrap();
}

/// At most so many go out in any window; the same one asked for again is no other.
pub async fn no_more_are_admitted_than_the_window_takes(bench: &dyn OutboxBench) {
    let [first, second] = bench.outboxes();
    let window = Duration::from_millis(1500);
    let admit = async |outbox: &dyn Outbox, user: &str, id: &str| outbox.admit(user, id, 2, window).await.unwrap();
    let before = now();
    assert_eq!(admit(first, "rate", "a").await, Admission::Granted);
    bench.pass(window / 3).await;
    assert_eq!(admit(second, "rate", "b").await, Admission::Granted);
    let Admission::Full(until) = admit(first, "rate", "c").await else { panic!("two are enough") };
    assert!((before..before + 60_000).contains(&until), "{until} is near {before}");
    assert_eq!(admit(second, "rate", "a").await, Admission::Granted, "it has its place");
    assert_eq!(admit(first, "other", "c").await, Admission::Granted, "another user's is another");
    bench.pass(window * 3 / 4).await;
    assert_eq!(admit(first, "rate", "c").await, Admission::Granted, "the first has left the window");
    assert!(matches!(admit(first, "rate", "d").await, Admission::Full(_)), "the second has not");
}

/// The contract as tests.
#[macro_export]
macro_rules! outbox_contract {
    ($test:meta, $bench:expr) => {
        $crate::outbox_contract!(@ $test, $bench, items_are_due_together_and_claimed_by_one, what_is_too_much_is_counted,
            no_more_are_admitted_than_the_window_takes);
    };
    (@ $test:meta, $bench:expr, $($name:ident),*) => {
        $(
            #[$test]
            async fn $name() {
                if let Some(bench) = $bench().await {
                    $crate::outbox_contract::$name(&bench).await;
                }
            }
        )*
    };
}
