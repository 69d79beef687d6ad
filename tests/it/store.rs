//! The store in memory keeps the contract; and what only it promises: its bounds.

use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use worker::{
    engine::ports::{DedupeStore, EventRecord, Renewed, StoreError},
    event::record::TopicPartition,
    store::memory::{MemoryLimits, MemoryStore},
};

use crate::contract::{self, Bench, event, known, partition, remembered, take};

struct Memory(MemoryStore);

impl Bench for Memory {
    fn store(&self) -> &dyn DedupeStore {
        &self.0
    }

    fn other(&self) -> &dyn DedupeStore {
        &self.0
    }

    fn expire<'a>(&'a self, _: &'a TopicPartition) -> BoxFuture<'a, ()> {
        tokio::time::advance(self.0.lease_time() + Duration::from_millis(1)).boxed()
    }

    fn flush(&self) -> BoxFuture<'_, ()> {
        self.0.flush();
        async {}.boxed()
    }
}

async fn empty() -> Option<Memory> {
    Some(Memory(MemoryStore::default()))
}

crate::store_contract!(tokio::test(start_paused = true), empty);

#[tokio::test(start_paused = true)]
async fn a_full_ledger_forgets_the_oldest_events_and_loses_none() {
    let store = MemoryStore::new(MemoryLimits { members: 100, ..MemoryLimits::default() });
    let (lease, _) = take(&store, &partition(0), "a", 0).await;
    assert_eq!(store.finish(&lease, (0..150).map(event).collect()).await.unwrap(), 150);
    let known = known(&store, &lease, (0..150).map(event).collect()).await;
    assert!(known[..50].iter().all(|known| !known) && known[50..].iter().all(|known| *known));
}

#[tokio::test(start_paused = true)]
async fn an_event_is_forgotten_after_the_retention_and_not_before() {
    let store = MemoryStore::new(MemoryLimits { retention: Duration::from_secs(3600), ..MemoryLimits::default() });
    let (lease, _) = take(&store, &partition(0), "a", 0).await;
    store.finish(&lease, vec![event(1)]).await.unwrap();
    tokio::time::advance(Duration::from_secs(3600)).await;
    assert_eq!(known(&store, &lease, vec![event(1)]).await, [true]);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(known(&store, &lease, vec![event(1)]).await, [false]);
}

#[tokio::test(start_paused = true)]
async fn a_full_book_of_failed_events_forgets_the_ones_written_longest_ago() {
    let store = MemoryStore::new(MemoryLimits { records: 3, ..MemoryLimits::default() });
    let (lease, _) = take(&store, &partition(0), "a", 0).await;
    let record = || Some(EventRecord::default());
    store.save(&lease, vec![(1, record()), (2, record()), (3, record())]).await.unwrap();
    store.save(&lease, vec![(1, record()), (4, record())]).await.unwrap();
    let offsets: Vec<_> = remembered(&store, &lease).await.records.into_iter().map(|(offset, _)| offset).collect();
    assert_eq!(offsets, [1, 3, 4]);
}

/// A worker restarted with the store in memory must not wait for an owner that died with it.
#[tokio::test(start_paused = true)]
async fn a_new_process_has_its_partitions_at_once_whatever_the_map_says() {
    let (lease, clean) = take(&MemoryStore::default(), &partition(0), "a", 5).await;
    assert!(!clean && lease.epoch > 5);
}

#[tokio::test(start_paused = true)]
async fn an_owner_past_its_time_does_not_take_a_lost_lease_back() {
    let bench = Memory(MemoryStore::default());
    let (lease, _) = take(&bench.0, &partition(0), "a", 0).await;
    bench.flush().await;
    bench.expire(&partition(0)).await;
    assert_eq!(bench.0.renew(std::slice::from_ref(&lease)).await.unwrap().0, [Renewed::Gone]);
    assert!(matches!(bench.0.finish(&lease, vec![]).await, Err(StoreError::Unavailable(_))));
    contract::a_flushed_store_grants_at_once_where_nobody_ever_ran(&bench).await;
}
