//! What every `DedupeStore` promises, written once. `tests/it` runs it on the store in memory, `tests/e2e` on Redis.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::future::{BoxFuture, join_all};
use worker::{
    engine::{
        member::member,
        ports::{Acquired, Check, DedupeStore, EventRecord, HandlerRecord, HandlerState, Lease, Member, Remembered, Renewed, StoreError},
    },
    event::record::TopicPartition,
    outcome::DeadReason,
};

/// One store with nothing in it, and the things that happen to stores.
pub trait Bench: Sync {
    /// The store as one worker sees it.
    fn store(&self) -> &dyn DedupeStore;
    /// The same store as another worker sees it.
    fn other(&self) -> &dyn DedupeStore;
    /// As though nobody had renewed the lease of `partition` for a lease time.
    fn expire<'a>(&'a self, partition: &'a TopicPartition) -> BoxFuture<'a, ()>;
    /// Loses everything.
    fn flush(&self) -> BoxFuture<'_, ()>;
}

/// A test for each promise, run on what `$bench` makes: an async function that answers a bench, or `None` where there is none here.
#[macro_export]
macro_rules! store_contract {
    ($attribute:meta, $bench:path) => {
        $crate::store_contract!(@each $attribute, $bench,
            a_finished_event_is_found_and_no_other_is,
            answers_come_in_the_order_asked_also_for_thousands,
            an_event_finished_twice_is_counted_once,
            the_ledger_is_shared_by_every_partition,
            what_another_worker_finishes_is_found_by_one_that_has_looked_before,
            a_held_partition_is_granted_to_nobody_else_and_its_owner_learns_who_waits,
            a_released_partition_is_had_at_once_and_clean,
            an_owner_that_missed_the_answer_asks_again_and_is_told_the_same,
            an_expired_lease_goes_to_the_next_uncleanly,
            an_expired_lease_that_nobody_took_is_still_its_owners,
            a_zombie_writes_nothing_after_a_takeover,
            a_released_lease_writes_nothing,
            of_many_calls_at_once_each_is_answered_by_its_own_lease,
            of_many_that_race_for_a_partition_one_gets_it,
            epochs_only_grow,
            a_flushed_store_leaves_a_partition_with_its_owner,
            a_flushed_store_makes_others_wait_where_the_map_carries_an_epoch,
            a_flushed_store_grants_at_once_where_nobody_ever_ran,
            a_flush_between_any_two_steps_costs_no_more_than_memory,
            records_come_back_as_they_were_saved,
            a_save_is_all_or_nothing,
            a_start_counts_once_per_owner_until_it_is_answered,
            a_start_of_another_event_at_the_same_offset_begins_anew,
            a_mark_never_goes_back,
            renewals_are_answered_in_order,
            giving_up_what_is_anothers_changes_nothing,
        );
    };
    (@each $attribute:meta, $bench:path, $($name:ident),* $(,)?) => {
        $(#[$attribute]
        async fn $name() {
            if let Some(bench) = $bench().await {
                $crate::contract::$name(&bench).await;
            }
        })*
    };
}

pub fn partition(number: i32) -> TopicPartition {
    TopicPartition::new("task-events", number)
}

pub fn event(number: usize) -> Member {
    member("task-events", &format!("user-{}", number % 97), &format!("event-{number}"), 0, None)
}

/// Gets a lease that must be free.
pub async fn take(store: &dyn DedupeStore, partition: &TopicPartition, owner: &str, map_epoch: u64) -> (Lease, bool) {
    match store.acquire(partition, &owner.into(), map_epoch).await.unwrap() {
        Acquired::Granted { lease, clean, .. } => (lease, clean),
        Acquired::Held(wait) => panic!("held for {wait:?}"),
    }
}

async fn is_held(store: &dyn DedupeStore, partition: &TopicPartition, owner: &str, map_epoch: u64) -> bool {
    matches!(store.acquire(partition, &owner.into(), map_epoch).await.unwrap(), Acquired::Held(_))
}

async fn renew_one(store: &dyn DedupeStore, lease: &Lease) -> Renewed {
    store.renew(std::slice::from_ref(lease)).await.unwrap().0[0]
}

async fn release_one(store: &dyn DedupeStore, lease: &Lease) {
    store.release(std::slice::from_ref(lease)).await.unwrap();
}

pub async fn known(store: &dyn DedupeStore, lease: &Lease, members: Vec<Member>) -> Vec<bool> {
    store.check(lease, Check { members, ..Check::default() }).await.unwrap()
}

fn marked(mark: i64) -> Check {
    Check { mark: Some(mark), ..Check::default() }
}

fn started(offset: i64, id: [u8; 16]) -> Check {
    Check { starts: vec![(offset, id)], ..Check::default() }
}

fn failed(id: u8) -> EventRecord {
    let dead = HandlerState::Dead { reason: DeadReason::Permanent, error: String::from("400 — näh") };
    let states = [HandlerState::Done, HandlerState::Dropped, HandlerState::Retry, dead];
    let handlers = states.into_iter().zip(0..).map(|(state, at)| HandlerRecord {
        handler: format!("handler-{at}"),
        attempts: at,
        due_ms: if state == HandlerState::Retry { 1_700_000_000_123 } else { 0 },
        state,
    });
    EventRecord { id: [id; 16], starts: 2, first_failed_ms: 1_700_000_000_000, handlers: handlers.collect() }
}

pub async fn remembered(store: &dyn DedupeStore, lease: &Lease) -> Remembered {
    store.load(lease).await.unwrap()
}

/// F83: only a finished event is known; a check, a mark, a start and a failed event's record are no verdicts.
pub async fn a_finished_event_is_found_and_no_other_is(bench: &impl Bench) {
    let store = bench.store();
    let (lease, _) = take(store, &partition(0), "a", 0).await;
    assert_eq!(known(store, &lease, vec![event(1), event(2)]).await, [false, false]);
    let check = Check { members: vec![event(2)], mark: Some(7), starts: vec![(7, event(2).id)] };
    assert_eq!(store.check(&lease, check).await.unwrap(), [false]);
    store.save(&lease, vec![(7, Some(EventRecord { id: event(2).id, ..failed(2) }))]).await.unwrap();
    assert_eq!(store.finish(&lease, vec![event(1)]).await.unwrap(), 1);
    assert_eq!(known(store, &lease, vec![event(1), event(2)]).await, [true, false]);
    assert_eq!(known(store, &lease, vec![]).await, [false; 0]);
    assert_eq!(store.finish(&lease, vec![]).await.unwrap(), 0);
}

pub async fn answers_come_in_the_order_asked_also_for_thousands(bench: &impl Bench) {
    let store = bench.store();
    let (lease, _) = take(store, &partition(0), "a", 0).await;
    let odd: Vec<_> = (0..10_000).filter(|number| number % 2 == 1).map(event).collect();
    assert_eq!(store.finish(&lease, odd).await.unwrap(), 5000);
    let mut asked: Vec<usize> = (0..10_000).rev().collect();
    asked.push(1);
    let answers = known(store, &lease, asked.iter().copied().map(event).collect()).await;
    assert!(asked.iter().zip(&answers).all(|(number, known)| *known == (number % 2 == 1)));
    assert_eq!(answers.len(), asked.len());
    let of_one_user: Vec<_> = (0..9000).map(|number| member("task-events", "hot", &format!("event-{number}"), 0, None)).collect();
    assert_eq!(store.finish(&lease, of_one_user.clone()).await.unwrap(), 9000);
    assert!(known(store, &lease, of_one_user).await.iter().all(|known| *known));
}

/// The same id in two partitions at once runs twice; the second one's answer shows it.
pub async fn an_event_finished_twice_is_counted_once(bench: &impl Bench) {
    let (one, _) = take(bench.store(), &partition(0), "a", 0).await;
    let (two, _) = take(bench.other(), &partition(1), "b", 0).await;
    let both =
        tokio::join!(bench.store().finish(&one, vec![event(1), event(2)]), bench.other().finish(&two, vec![event(2), event(3), event(4)]));
    assert_eq!(both.0.unwrap() + both.1.unwrap(), 4);
    assert_eq!(bench.store().finish(&one, vec![event(4), event(4), event(5)]).await.unwrap(), 1);
}

pub async fn the_ledger_is_shared_by_every_partition(bench: &impl Bench) {
    let (one, _) = take(bench.store(), &partition(0), "a", 0).await;
    let (two, _) = take(bench.other(), &partition(1), "b", 0).await;
    bench.store().finish(&one, vec![event(1)]).await.unwrap();
    assert_eq!(known(bench.other(), &two, vec![event(1)]).await, [true]);
}

/// F80.
pub async fn what_another_worker_finishes_is_found_by_one_that_has_looked_before(bench: &impl Bench) {
    let (store, other) = (bench.store(), bench.other());
    let ((ours, _), (theirs, _)) = (take(store, &partition(0), "a", 0).await, take(other, &partition(1), "b", 0).await);
    let asked: Vec<_> = (0..40).map(event).collect();
    assert_eq!(known(store, &ours, asked.clone()).await, [false; 40]);
    for number in 0..40 {
        assert_eq!(other.finish(&theirs, vec![event(number)]).await.unwrap(), 1);
        let found = known(store, &ours, asked.clone()).await;
        assert!(found.iter().enumerate().all(|(asked, known)| *known == (asked <= number)), "after {number}");
    }
}

pub async fn a_held_partition_is_granted_to_nobody_else_and_its_owner_learns_who_waits(bench: &impl Bench) {
    let (store, other) = (bench.store(), bench.other());
    let (lease, clean) = take(store, &partition(0), "a", 0).await;
    assert!(clean, "there was no owner before");
    assert_eq!(renew_one(store, &lease).await, Renewed::Ours { waiter: false });
    match other.acquire(&partition(0), &"b".into(), 0).await.unwrap() {
        Acquired::Held(wait) => assert!(wait <= store.lease_time()),
        Acquired::Granted { .. } => panic!("granted twice"),
    }
    assert_eq!(renew_one(store, &lease).await, Renewed::Ours { waiter: true });
    assert_eq!(renew_one(store, &lease).await, Renewed::Ours { waiter: false }, "a waiter that no longer asks is no waiter");
    assert!(!is_held(other, &partition(1), "b", 0).await);
}

pub async fn a_released_partition_is_had_at_once_and_clean(bench: &impl Bench) {
    let (first, _) = take(bench.store(), &partition(0), "a", 0).await;
    assert!(is_held(bench.other(), &partition(0), "b", 0).await);
    release_one(bench.store(), &first).await;
    let (second, clean) = take(bench.other(), &partition(0), "b", 0).await;
    assert!(clean && second.epoch > first.epoch);
    assert_eq!(renew_one(bench.other(), &second).await, Renewed::Ours { waiter: false });
}

pub async fn an_owner_that_missed_the_answer_asks_again_and_is_told_the_same(bench: &impl Bench) {
    let store = bench.store();
    let (first, _) = take(store, &partition(0), "a", 0).await;
    let (again, clean) = take(store, &partition(0), "a", 0).await;
    assert!(clean && again == first);
    bench.expire(&partition(0)).await;
    let (next, clean) = take(store, &partition(0), "b", 0).await;
    assert!(!clean);
    let (again, clean) = take(store, &partition(0), "b", 0).await;
    assert!(!clean && again == next, "a request that comes late does not fence its own sender");
    assert_eq!(store.finish(&next, vec![event(1)]).await, Ok(1));
    assert_eq!(renew_one(store, &again).await, Renewed::Ours { waiter: false });
}

pub async fn an_expired_lease_goes_to_the_next_uncleanly(bench: &impl Bench) {
    let (first, _) = take(bench.store(), &partition(0), "a", 0).await;
    bench.expire(&partition(0)).await;
    let (second, clean) = take(bench.other(), &partition(0), "b", 0).await;
    assert!(!clean && second.epoch > first.epoch);
    assert_eq!(renew_one(bench.store(), &first).await, Renewed::Gone);
    assert_eq!(renew_one(bench.other(), &second).await, Renewed::Ours { waiter: false });
}

pub async fn an_expired_lease_that_nobody_took_is_still_its_owners(bench: &impl Bench) {
    let (lease, _) = take(bench.store(), &partition(0), "a", 0).await;
    bench.expire(&partition(0)).await;
    bench.store().finish(&lease, vec![event(1)]).await.unwrap();
    assert_eq!(renew_one(bench.store(), &lease).await, Renewed::Ours { waiter: false });
    assert!(is_held(bench.other(), &partition(0), "b", 0).await);
}

/// F80, F43.
pub async fn a_zombie_writes_nothing_after_a_takeover(bench: &impl Bench) {
    let (zombie, _) = take(bench.store(), &partition(0), "a", 0).await;
    bench.store().check(&zombie, marked(5)).await.unwrap();
    bench.expire(&partition(0)).await;
    let (owner, _) = take(bench.other(), &partition(0), "b", 0).await;
    bench.other().save(&owner, vec![(6, Some(failed(6)))]).await.unwrap();

    let store = bench.store();
    assert_eq!(store.check(&zombie, marked(900)).await, Err(StoreError::Fenced));
    assert_eq!(store.check(&zombie, started(6, [6; 16])).await, Err(StoreError::Fenced));
    assert_eq!(store.finish(&zombie, vec![event(1)]).await, Err(StoreError::Fenced));
    assert_eq!(store.save(&zombie, vec![(6, None), (7, Some(failed(7)))]).await, Err(StoreError::Fenced));
    assert!(matches!(store.load(&zombie).await, Err(StoreError::Fenced)));
    release_one(store, &zombie).await;

    let kept = remembered(bench.other(), &owner).await;
    assert_eq!((kept.records, kept.mark), (vec![(6, failed(6))], Some(5)));
    assert_eq!(known(bench.other(), &owner, vec![event(1)]).await, [false]);
    assert_eq!(renew_one(bench.other(), &owner).await, Renewed::Ours { waiter: false });
}

pub async fn a_released_lease_writes_nothing(bench: &impl Bench) {
    let store = bench.store();
    let (lease, _) = take(store, &partition(0), "a", 0).await;
    release_one(store, &lease).await;
    assert_eq!(store.finish(&lease, vec![event(1)]).await, Err(StoreError::Fenced));
    assert_eq!(store.save(&lease, vec![(1, Some(failed(1)))]).await, Err(StoreError::Fenced));
    assert_eq!(renew_one(store, &lease).await, Renewed::Gone);
}

/// Calls that meet may share an exchange with the store: a zombie's among them writes nothing and holds up nobody.
pub async fn of_many_calls_at_once_each_is_answered_by_its_own_lease(bench: &impl Bench) {
    let (store, other) = (bench.store(), bench.other());
    let (mut leases, mut owners) = (Vec::new(), Vec::new());
    for number in 0..24 {
        let (lease, _) = take(store, &partition(number), "a", 0).await;
        let zombie = number % 3 == 0;
        owners.push(if zombie {
            bench.expire(&partition(number)).await;
            take(other, &partition(number), "b", 0).await.0
        } else {
            lease.clone()
        });
        leases.push((lease, zombie));
    }
    let events = |number: usize, round: usize| vec![event(number * 100 + round * 2), event(number * 100 + round * 2 + 1)];
    for round in 0..3 {
        let finished = join_all(leases.iter().enumerate().map(|(number, (lease, _))| store.finish(lease, events(number, round)))).await;
        for ((_, zombie), answer) in leases.iter().zip(finished) {
            assert_eq!(answer, if *zombie { Err(StoreError::Fenced) } else { Ok(2) });
        }
        let checked = join_all(leases.iter().enumerate().map(|(number, (lease, _))| {
            let (mut members, start) = (events(number, round), events(number, 7)[0]);
            members.push(start);
            let starts = vec![(number as i64, start.id)];
            store.check(lease, Check { members, mark: Some((number * 10 + round) as i64), starts })
        }));
        for ((_, zombie), answer) in leases.iter().zip(checked.await) {
            assert_eq!(answer, if *zombie { Err(StoreError::Fenced) } else { Ok(vec![true, true, false]) });
        }
    }
    for (number, (owner, (_, zombie))) in owners.iter().zip(&leases).enumerate() {
        let kept = remembered(other, owner).await;
        assert_eq!((kept.mark, kept.records.len()), if *zombie { (None, 0) } else { (Some(number as i64 * 10 + 2), 1) });
        assert_eq!(known(other, owner, events(number, 1)).await, [!zombie; 2]);
    }
}

pub async fn of_many_that_race_for_a_partition_one_gets_it(bench: &impl Bench) {
    for round in 0..20 {
        let place = partition(round);
        let owners: Vec<Arc<str>> = (0..10).map(|owner| format!("owner-{owner}").into()).collect();
        let race = owners.iter().enumerate().map(|(at, owner)| {
            let store = if at % 2 == 0 { bench.store() } else { bench.other() };
            store.acquire(&place, owner, 0)
        });
        let granted = join_all(race).await.into_iter().filter(|answer| matches!(answer, Ok(Acquired::Granted { .. }))).count();
        assert_eq!(granted, 1);
    }
}

/// A fencing token that turned back would let a woken zombie through at the handler's own store.
pub async fn epochs_only_grow(bench: &impl Bench) {
    let store = bench.store();
    let mut last = 0;
    for round in 0..5 {
        let Acquired::Granted { lease, now_ms, .. } = store.acquire(&partition(0), &format!("{round}").into(), 0).await.unwrap() else {
            panic!("held");
        };
        assert!(lease.epoch > last && lease.epoch >= now_ms, "{} after {last}, at {now_ms}", lease.epoch);
        last = lease.epoch;
        release_one(store, &lease).await;
    }
    let far = last + 1_000_000_000;
    let (from_map, _) = take(store, &partition(0), "map", far).await;
    assert_eq!(from_map.epoch, far + 1);
    bench.flush().await;
    assert!(is_held(store, &partition(0), "flushed", from_map.epoch).await);
    bench.expire(&partition(0)).await;
    let (after, _) = take(store, &partition(0), "flushed", from_map.epoch).await;
    assert_eq!(after.epoch, far + 2);
}

/// F81.
pub async fn a_flushed_store_leaves_a_partition_with_its_owner(bench: &impl Bench) {
    let store = bench.store();
    let (lease, _) = take(store, &partition(0), "a", 0).await;
    bench.flush().await;
    // Not fenced: nobody else has it. What is asked before the renewal is asked again after it.
    assert!(matches!(store.finish(&lease, vec![event(1)]).await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.save(&lease, vec![(1, Some(failed(1)))]).await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.check(&lease, marked(1)).await, Err(StoreError::Unavailable(_))));
    assert_eq!(renew_one(store, &lease).await, Renewed::Ours { waiter: false });
    assert!(is_held(bench.other(), &partition(0), "b", lease.epoch).await);
    store.check(&lease, marked(3)).await.unwrap();
    store.finish(&lease, vec![event(1)]).await.unwrap();
    store.save(&lease, vec![(1, Some(failed(1)))]).await.unwrap();
    let kept = remembered(store, &lease).await;
    assert_eq!((kept.records, kept.mark), (vec![(1, failed(1))], Some(3)));
}

/// F81.
pub async fn a_flushed_store_makes_others_wait_where_the_map_carries_an_epoch(bench: &impl Bench) {
    let (lease, _) = take(bench.store(), &partition(0), "a", 0).await;
    bench.flush().await;
    assert!(is_held(bench.other(), &partition(0), "b", lease.epoch).await);
    assert!(is_held(bench.other(), &partition(0), "c", lease.epoch).await);
    // The owner is back within its time and is told of the waiter, or gives its lease up.
    assert!(matches!(renew_one(bench.store(), &lease).await, Renewed::Ours { .. }));
    assert!(is_held(bench.other(), &partition(0), "b", lease.epoch).await);
    bench.flush().await;
    assert!(is_held(bench.other(), &partition(0), "b", lease.epoch).await);
    release_one(bench.store(), &lease).await;
    let (next, clean) = take(bench.other(), &partition(0), "b", lease.epoch).await;
    assert!(clean && next.epoch > lease.epoch);

    bench.flush().await;
    assert!(is_held(bench.store(), &partition(0), "c", next.epoch).await);
    bench.expire(&partition(0)).await;
    let (last, clean) = take(bench.store(), &partition(0), "c", next.epoch).await;
    assert!(!clean, "what the owner before left half done is unknown");
    assert!(last.epoch > next.epoch);
    assert_eq!(renew_one(bench.other(), &next).await, Renewed::Gone);
}

pub async fn a_flushed_store_grants_at_once_where_nobody_ever_ran(bench: &impl Bench) {
    bench.flush().await;
    let (_, clean) = take(bench.store(), &partition(0), "a", 0).await;
    assert!(clean);
}

/// F81: at every step of an event's way a flush is followed by one renewal, then the step is done again; no answer is ever wrong.
pub async fn a_flush_between_any_two_steps_costs_no_more_than_memory(bench: &impl Bench) {
    for flushed_before in 0..5 {
        let store = bench.store();
        let place = partition(flushed_before);
        let (lease, _) = take(store, &place, "a", 0).await;
        for step in 0..5 {
            if step == flushed_before {
                bench.flush().await;
                assert!(matches!(renew_one(store, &lease).await, Renewed::Ours { .. }));
            }
            match step {
                0 => assert_eq!(store.check(&lease, Check { members: vec![event(1)], ..marked(1) }).await.unwrap(), [false]),
                1 => store.save(&lease, vec![(1, Some(failed(1)))]).await.unwrap(),
                2 => assert_eq!(store.check(&lease, started(1, [1; 16])).await.unwrap(), [false; 0]),
                3 => assert_eq!(store.finish(&lease, vec![event(1)]).await.unwrap(), 1),
                _ => assert_eq!(known(store, &lease, vec![event(1)]).await, [flushed_before != 4]),
            }
        }
        bench.flush().await;
    }
}

/// F52: attempts and due times are there for the next owner.
pub async fn records_come_back_as_they_were_saved(bench: &impl Bench) {
    let store = bench.store();
    let (lease, _) = take(store, &partition(0), "a", 0).await;
    let empty = remembered(store, &lease).await;
    assert_eq!((empty.records, empty.mark), (vec![], None));
    store.save(&lease, vec![(12, Some(failed(1))), (3, Some(failed(2))), (9_000_000_000, Some(failed(3)))]).await.unwrap();
    store.save(&lease, vec![(12, None), (5, None), (3, Some(failed(4)))]).await.unwrap();
    store.save(&lease, vec![]).await.unwrap();
    release_one(store, &lease).await;
    let (next, _) = take(bench.other(), &partition(0), "b", 0).await;
    assert_eq!(remembered(bench.other(), &next).await.records, [(3, failed(4)), (9_000_000_000, failed(3))]);
    let (elsewhere, _) = take(store, &partition(1), "a", 0).await;
    assert_eq!(remembered(store, &elsewhere).await.records, []);
}

pub async fn a_save_is_all_or_nothing(bench: &impl Bench) {
    let store = bench.store();
    let (lease, _) = take(store, &partition(0), "a", 0).await;
    let all: Vec<_> = (0..500).map(|offset| (offset, Some(failed(1)))).collect();
    store.save(&lease, all.clone()).await.unwrap();
    release_one(store, &lease).await;
    let removed = all.iter().map(|(offset, _)| (*offset, None)).collect();
    assert_eq!(store.save(&lease, removed).await, Err(StoreError::Fenced));
    let (next, _) = take(store, &partition(0), "b", 0).await;
    assert_eq!(remembered(store, &next).await.records.len(), 500);
}

/// A slow store makes its owner ask again and again; that must not look like a process that keeps dying.
pub async fn a_start_counts_once_per_owner_until_it_is_answered(bench: &impl Bench) {
    let store = bench.store();
    let starts = |remembered: Remembered| remembered.records.iter().map(|(offset, record)| (*offset, record.starts)).collect::<Vec<_>>();
    let (mut lease, _) = take(store, &partition(0), "0", 0).await;
    for owner in 1..=3 {
        for _ in 0..4 {
            store.check(&lease, started(8, [8; 16])).await.unwrap();
        }
        assert_eq!(starts(remembered(store, &lease).await), [(8, owner)]);
        bench.expire(&partition(0)).await;
        (lease, _) = take(store, &partition(0), &owner.to_string(), 0).await;
    }
    let answered = EventRecord { id: [8; 16], starts: 0, ..failed(8) };
    store.save(&lease, vec![(8, Some(answered.clone()))]).await.unwrap();
    store.check(&lease, started(8, [8; 16])).await.unwrap();
    assert_eq!(remembered(store, &lease).await.records, [(8, EventRecord { starts: 1, ..answered.clone() })]);
    // A save of the same run's record keeps what it says, and a repeated start still counts once.
    store.save(&lease, vec![(8, Some(EventRecord { starts: 1, ..answered.clone() }))]).await.unwrap();
    store.check(&lease, started(8, [8; 16])).await.unwrap();
    assert_eq!(remembered(store, &lease).await.records, [(8, EventRecord { starts: 1, ..answered.clone() })]);
    // Answered, and begun again by the same owner: that counts.
    store.save(&lease, vec![(8, Some(answered.clone()))]).await.unwrap();
    store.check(&lease, started(8, [8; 16])).await.unwrap();
    assert_eq!(remembered(store, &lease).await.records, [(8, EventRecord { starts: 1, ..answered })]);
}

/// A recreated topic counts from 0 again.
pub async fn a_start_of_another_event_at_the_same_offset_begins_anew(bench: &impl Bench) {
    let store = bench.store();
    let (lease, _) = take(store, &partition(0), "a", 0).await;
    store.save(&lease, vec![(8, Some(failed(8)))]).await.unwrap();
    store.check(&lease, Check { starts: vec![(8, [9; 16]), (9, [1; 16])], ..Check::default() }).await.unwrap();
    let fresh = |id| EventRecord { id: [id; 16], starts: 1, ..EventRecord::default() };
    assert_eq!(remembered(store, &lease).await.records, [(8, fresh(9)), (9, fresh(1))]);
}

pub async fn a_mark_never_goes_back(bench: &impl Bench) {
    let store = bench.store();
    let (first, _) = take(store, &partition(0), "a", 0).await;
    for mark in [10, 7, 9] {
        store.check(&first, marked(mark)).await.unwrap();
    }
    bench.expire(&partition(0)).await;
    let (second, _) = take(store, &partition(0), "b", 0).await;
    store.check(&second, marked(4)).await.unwrap();
    assert_eq!(remembered(store, &second).await.mark, Some(10));
    store.check(&second, marked(11)).await.unwrap();
    store.check(&second, Check::default()).await.unwrap();
    release_one(store, &second).await;
    let (third, _) = take(store, &partition(0), "c", 0).await;
    assert_eq!(remembered(store, &third).await.mark, Some(11));
}

pub async fn renewals_are_answered_in_order(bench: &impl Bench) {
    let store = bench.store();
    let mut leases = Vec::new();
    for number in 0..12 {
        leases.push(take(store, &partition(number), "a", 0).await.0);
    }
    let gone: BTreeSet<i32> = [3, 4, 11].into();
    for number in &gone {
        release_one(store, &leases[usize::try_from(*number).unwrap()]).await;
    }
    let (renewed, now_ms) = store.renew(&leases).await.unwrap();
    for (lease, renewed) in leases.iter().zip(&renewed) {
        let expected = if gone.contains(&lease.partition.partition) { Renewed::Gone } else { Renewed::Ours { waiter: false } };
        assert_eq!(*renewed, expected, "{}", lease.partition);
    }
    assert_eq!(renewed.len(), 12);
    assert!(now_ms > 1_700_000_000_000);
    assert_eq!(store.renew(&[]).await.unwrap().0, []);
    store.release(&[]).await.unwrap();
    assert!(store.lease_time() > Duration::ZERO);
    store.ping().await.unwrap();
}

pub async fn giving_up_what_is_anothers_changes_nothing(bench: &impl Bench) {
    let (lease, _) = take(bench.store(), &partition(0), "a", 0).await;
    let foreign = Lease { owner: "b".into(), ..lease.clone() };
    let older = Lease { epoch: lease.epoch - 1, ..lease.clone() };
    bench.other().release(&[foreign.clone(), older]).await.unwrap();
    assert_eq!(bench.other().save(&foreign, vec![(1, Some(failed(1)))]).await, Err(StoreError::Fenced));
    assert_eq!(renew_one(bench.other(), &foreign).await, Renewed::Gone);
    assert!(is_held(bench.other(), &partition(0), "c", 0).await);
    assert_eq!(renew_one(bench.store(), &lease).await, Renewed::Ours { waiter: true });
}
