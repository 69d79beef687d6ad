//! What every `TickStore` promises, written once. `tests/it` runs it on the store in memory, `tests/e2e` on Redis.

use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use worker::store::ticks::{CLAIM_TIME, Claim, Entered, TickStore, Wish};

/// One store with nothing in it.
pub trait TickBench: Sync {
    /// As many replicas see it.
    fn stores(&self) -> [&dyn TickStore; 2];
    /// As though nobody had renewed the claims of the schedule `hourly` for a claim time.
    fn expire(&self) -> BoxFuture<'_, ()>;
    /// Loses everything.
    fn flush(&self) -> BoxFuture<'_, ()>;
}

/// A test for each promise, run on what `$bench` makes, or `None` where there is none here.
#[macro_export]
macro_rules! tick_contract {
    ($attribute:meta, $bench:path) => {
        $crate::tick_contract!(@each $attribute, $bench,
            of_many_replicas_one_gets_a_tick,
            a_finished_tick_is_done_for_everybody_and_so_is_every_earlier_one,
            a_tick_whose_owner_died_goes_to_who_asks_next,
            a_renewed_claim_stays_its_owners,
            an_owner_that_missed_the_answer_is_told_the_same,
            of_an_exclusive_schedule_a_tick_does_not_start_beside_another,
            ticks_that_may_overlap_run_side_by_side,
            an_interrupted_tick_waits_for_a_later_one_that_runs,
            whoever_enters_learns_the_latest_tick_and_the_unfinished_ones,
            a_flushed_store_knows_no_tick_and_no_owner,
        );
    };
    (@each $attribute:meta, $bench:path, $($name:ident),* $(,)?) => {
        $(#[$attribute]
        async fn $name() {
            if let Some(bench) = $bench().await {
                $crate::tick_contract::$name(&bench).await;
            }
        })*
    };
}

fn wish(owner: &'static str, tick: i64) -> Wish<'static> {
    Wish { schedule: "hourly", owner, tick, exclusive: false }
}

fn alone(owner: &'static str, tick: i64) -> Wish<'static> {
    Wish { exclusive: true, ..wish(owner, tick) }
}

async fn claim(store: &dyn TickStore, wish: Wish<'_>) -> Claim {
    store.claim(wish).await.unwrap()
}

/// Held, for no longer than a claim lasts.
fn is_held(claim: Claim) -> bool {
    matches!(claim, Claim::Held(wait) if wait > Duration::ZERO && wait <= CLAIM_TIME)
}

pub async fn of_many_replicas_one_gets_a_tick(bench: &impl TickBench) {
    let owners = ["a", "b", "c", "d", "e", "f", "g", "h"];
    for tick in [1000, 2000, 3000] {
        let claims = owners.iter().zip(bench.stores().into_iter().cycle()).map(|(owner, store)| claim(store, wish(owner, tick)));
        let claims = join_all(claims).await;
        assert_eq!(claims.iter().filter(|claim| **claim == Claim::Granted).count(), 1, "{claims:?}");
        assert_eq!(claims.into_iter().filter(|claim| is_held(*claim)).count(), owners.len() - 1);
    }
}

pub async fn a_finished_tick_is_done_for_everybody_and_so_is_every_earlier_one(bench: &impl TickBench) {
    let [one, two] = bench.stores();
    assert_eq!(claim(one, wish("a", 2000)).await, Claim::Granted);
    one.finish(wish("a", 2000)).await.unwrap();
    for tick in [1000, 2000] {
        assert_eq!(claim(one, wish("a", tick)).await, Claim::Done);
        assert_eq!(claim(two, wish("b", tick)).await, Claim::Done);
    }
    assert_eq!(claim(two, wish("b", 3000)).await, Claim::Granted);
}

pub async fn a_tick_whose_owner_died_goes_to_who_asks_next(bench: &impl TickBench) {
    let [one, two] = bench.stores();
    assert_eq!(claim(one, wish("a", 1000)).await, Claim::Granted);
    assert!(is_held(claim(two, wish("b", 1000)).await));
    bench.expire().await;
    assert_eq!(claim(two, wish("b", 1000)).await, Claim::Granted);
    assert!(!one.renew(wish("a", 1000)).await.unwrap(), "it is another's");
    one.finish(wish("a", 1000)).await.unwrap();
    assert!(two.renew(wish("b", 1000)).await.unwrap(), "a dead owner that wakes finishes nothing of another's");
    two.finish(wish("b", 1000)).await.unwrap();
    assert_eq!(claim(one, wish("a", 1000)).await, Claim::Done);
}

pub async fn a_renewed_claim_stays_its_owners(bench: &impl TickBench) {
    let [one, two] = bench.stores();
    assert_eq!(claim(one, wish("a", 1000)).await, Claim::Granted);
    bench.expire().await;
    assert!(one.renew(wish("a", 1000)).await.unwrap(), "expired, and still nobody else's");
    assert!(is_held(claim(two, wish("b", 1000)).await));
}

pub async fn an_owner_that_missed_the_answer_is_told_the_same(bench: &impl TickBench) {
    let [one, two] = bench.stores();
    assert_eq!(claim(one, wish("a", 1000)).await, Claim::Granted);
    assert_eq!(claim(one, wish("a", 1000)).await, Claim::Granted);
    assert!(is_held(claim(two, wish("b", 1000)).await));
    one.finish(wish("a", 1000)).await.unwrap();
    one.finish(wish("a", 1000)).await.unwrap();
    assert_eq!(claim(one, wish("a", 1000)).await, Claim::Done);
}

pub async fn of_an_exclusive_schedule_a_tick_does_not_start_beside_another(bench: &impl TickBench) {
    let [one, two] = bench.stores();
    assert_eq!(claim(one, alone("a", 1000)).await, Claim::Granted);
    assert_eq!(claim(two, alone("b", 2000)).await, Claim::Overlaps);
    assert_eq!(claim(one, alone("a", 2000)).await, Claim::Done, "one replica is told, and counts it");
    one.finish(alone("a", 1000)).await.unwrap();
    assert_eq!(claim(two, alone("b", 2000)).await, Claim::Done, "what was skipped stays skipped");
    assert_eq!(claim(two, alone("b", 3000)).await, Claim::Granted);
}

pub async fn ticks_that_may_overlap_run_side_by_side(bench: &impl TickBench) {
    let [one, two] = bench.stores();
    assert_eq!(claim(one, wish("a", 1000)).await, Claim::Granted);
    assert_eq!(claim(two, wish("b", 2000)).await, Claim::Granted);
    assert!(is_held(claim(two, wish("b", 1000)).await));
    assert!(is_held(claim(one, wish("a", 2000)).await));
}

pub async fn an_interrupted_tick_waits_for_a_later_one_that_runs(bench: &impl TickBench) {
    let [one, two] = bench.stores();
    assert_eq!(claim(one, alone("a", 1000)).await, Claim::Granted);
    bench.expire().await;
    assert_eq!(claim(two, alone("b", 2000)).await, Claim::Granted);
    assert!(is_held(claim(one, alone("c", 1000)).await));
    two.finish(alone("b", 2000)).await.unwrap();
    assert_eq!(claim(one, alone("c", 1000)).await, Claim::Granted);
}

pub async fn whoever_enters_learns_the_latest_tick_and_the_unfinished_ones(bench: &impl TickBench) {
    let [one, two] = bench.stores();
    assert_eq!(one.enter("hourly", 500).await.unwrap(), Entered { last: 500, open: vec![] });
    assert_eq!(claim(one, wish("a", 500)).await, Claim::Done, "ticks up to the first entry are nobody's");
    for tick in [1000, 2000, 3000] {
        assert_eq!(claim(one, wish("a", tick)).await, Claim::Granted);
    }
    one.finish(wish("a", 2000)).await.unwrap();
    let mut entered = two.enter("hourly", 9000).await.unwrap();
    entered.open.sort_unstable();
    assert_eq!(entered, Entered { last: 3000, open: vec![1000, 3000] });
    assert_eq!(two.enter("daily", 9000).await.unwrap(), Entered { last: 9000, open: vec![] }, "schedules know nothing of each other");
}

pub async fn a_flushed_store_knows_no_tick_and_no_owner(bench: &impl TickBench) {
    let [one, two] = bench.stores();
    assert_eq!(claim(one, wish("a", 1000)).await, Claim::Granted);
    bench.flush().await;
    assert!(!one.renew(wish("a", 1000)).await.unwrap());
    one.finish(wish("a", 1000)).await.unwrap();
    assert_eq!(claim(two, wish("b", 1000)).await, Claim::Granted);
}
