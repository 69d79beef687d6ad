//! What every `TallyStore` promises, written once. `tests/it` runs it on the store in memory, `tests/e2e` on Redis.

use std::{sync::Arc, time::Duration};

use futures_util::future::{BoxFuture, join_all};
use worker::store::tally::{Count, Row, TallyStore};

/// A store that two replicas see, with nothing in it, and time that passes.
pub trait TallyBench: Sync {
    /// As many replicas see it.
    fn stores(&self) -> [Arc<dyn TallyStore>; 2];
    /// Lets time pass for it.
    fn pass(&self, time: Duration) -> BoxFuture<'_, ()>;
}

/// A test for each promise, run on what `$bench` makes, or `None` where there is none here.
#[macro_export]
macro_rules! tally_contract {
    ($attribute:meta, $bench:path) => {
        $crate::tally_contract!(@each $attribute, $bench,
            an_event_is_counted_once_whoever_counts_it,
            figures_of_days_and_books_stand_apart,
            users_are_counted_once_per_day_and_over_days,
            a_number_is_known_until_it_is_forgotten_or_its_time_is_over,
            figures_and_users_end_with_their_time,
        );
    };
    (@each $attribute:meta, $bench:path, $($name:ident),* $(,)?) => {
        $(#[$attribute]
        async fn $name() {
            if let Some(bench) = $bench().await {
                $crate::tally_contract::$name(&bench).await;
            }
        })*
    };
}

const LONG: Duration = Duration::from_secs(3600);

fn count(day: &str, event: u128) -> Count<'_> {
    Count { book: "stats", day, event, adds: vec![("n".to_owned(), 1), ("sum".to_owned(), 10)], remember: LONG, keep: LONG }
}

fn days(days: &[&str]) -> Vec<String> {
    days.iter().map(|day| (*day).to_owned()).collect()
}

fn row(n: i64, users: u64) -> Row {
    let figures = if n == 0 { [].into() } else { [("n".to_owned(), n), ("sum".to_owned(), 10 * n)].into() };
    Row { figures, users }
}

pub async fn an_event_is_counted_once_whoever_counts_it(bench: &impl TallyBench) {
    let [one, two] = bench.stores();
    let counts = (0..30_u128).flat_map(|event| [&one, &two, &one].map(|store| store.count(count("2026-03-28", event))));
    let counted = join_all(counts).await.into_iter().filter(|counted| *counted == Ok(true)).count();
    assert_eq!(counted, 30);
    assert_eq!(two.rows("stats", &days(&["2026-03-28"])).await.unwrap(), [row(30, 0)]);
}

pub async fn figures_of_days_and_books_stand_apart(bench: &impl TallyBench) {
    let [one, two] = bench.stores();
    for (day, event) in [("2026-03-28", 1), ("2026-03-28", 2), ("2026-03-29", 1)] {
        assert!(one.count(count(day, event)).await.unwrap());
    }
    let wanted = days(&["2026-03-29", "2026-03-27", "2026-03-28"]);
    assert_eq!(two.rows("stats", &wanted).await.unwrap(), [row(1, 0), row(0, 0), row(2, 0)]);
    assert_eq!(two.rows("others", &wanted).await.unwrap(), [row(0, 0), row(0, 0), row(0, 0)]);
}

pub async fn users_are_counted_once_per_day_and_over_days(bench: &impl TallyBench) {
    let [one, two] = bench.stores();
    for (day, user) in [("1", 7), ("1", 8), ("1", 7), ("2", 8), ("2", 9)] {
        one.user("stats", day, user, LONG).await.unwrap();
        two.user("stats", day, user, LONG).await.unwrap();
    }
    assert_eq!(one.users("stats", &days(&["1"])).await, Ok(2));
    assert_eq!(one.users("stats", &days(&["1", "2", "3"])).await, Ok(3));
    assert_eq!(one.users("stats", &[]).await, Ok(0));
    assert_eq!(two.rows("stats", &days(&["1", "2"])).await.unwrap(), [row(0, 2), row(0, 2)]);
}

pub async fn a_number_is_known_until_it_is_forgotten_or_its_time_is_over(bench: &impl TallyBench) {
    let [one, two] = bench.stores();
    let short = Duration::from_millis(300);
    assert_eq!(one.noted("stats", 1).await, Ok(None));
    one.note("stats", 1, -5, LONG).await.unwrap();
    one.note("stats", 2, 6, short).await.unwrap();
    assert_eq!((two.noted("stats", 1).await, two.noted("others", 1).await), (Ok(Some(-5)), Ok(None)));
    two.forget("stats", 1).await.unwrap();
    two.forget("stats", 1).await.unwrap();
    bench.pass(2 * short).await;
    assert_eq!((one.noted("stats", 1).await, one.noted("stats", 2).await), (Ok(None), Ok(None)));
}

pub async fn figures_and_users_end_with_their_time(bench: &impl TallyBench) {
    let [one, _] = bench.stores();
    let short = Duration::from_millis(300);
    one.count(Count { remember: short, ..count("1", 1) }).await.unwrap();
    one.count(Count { keep: short, ..count("2", 1) }).await.unwrap();
    one.user("stats", "3", 1, short).await.unwrap();
    bench.pass(2 * short).await;
    assert_eq!(one.rows("stats", &days(&["1", "2", "3"])).await.unwrap(), [row(1, 0), row(0, 0), row(0, 0)]);
    assert!(one.count(count("1", 1)).await.unwrap(), "not known any more");
}
