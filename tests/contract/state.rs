//! What every `StateStore` promises, written once. `tests/it` runs it on the store in memory, `tests/e2e` on Redis.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};
use worker::store::state::{Change, StateStore, Stored, Ttl};

/// A store with nothing in it, and time that passes.
pub trait Bench: Sync {
    /// The store.
    fn store(&self) -> &dyn StateStore;
    /// Lets time pass for it.
    fn pass(&self, time: Duration) -> BoxFuture<'_, ()>;
}

/// A test for each promise, run on what `$bench` makes: an async function that answers a bench, or `None` where there is none here.
#[macro_export]
macro_rules! state_contract {
    ($attribute:meta, $bench:path) => {
        $crate::state_contract!(@each $attribute, $bench,
            a_value_is_read_as_it_was_written_with_a_version_that_grows,
            a_version_that_is_not_the_current_one_stands_in_the_way,
            a_first_write_succeeds_once_and_guards_the_key_from_then_on,
            of_many_first_writes_at_once_one_succeeds,
            a_key_goes_with_its_version_or_with_any,
            each_value_of_one_call_is_written_or_refused_on_its_own,
            a_value_ends_with_its_time_and_not_before,
            many_keys_are_answered_in_order,
        );
    };
    (@each $attribute:meta, $bench:path, $($name:ident),* $(,)?) => {
        $(#[$attribute]
        async fn $name() {
            if let Some(bench) = $bench().await {
                $crate::contract_state::$name(&bench).await;
            }
        })*
    };
}

pub fn change(key: &str, data: &str) -> Change {
    Change { key: key.to_owned(), data: Bytes::copy_from_slice(data.as_bytes()), version: None, first_write: false, ttl: Ttl::Keep }
}

async fn save(bench: &impl Bench, change: Change) -> bool {
    bench.store().save(vec![change]).await.unwrap() == [true]
}

async fn get(bench: &impl Bench, key: &str) -> Option<(String, String)> {
    let read = bench.store().get(&[key.to_owned()]).await.unwrap().remove(0).unwrap();
    read.map(|Stored { data, etag }| (String::from_utf8(data.to_vec()).unwrap(), etag.unwrap()))
}

fn stored(data: &str, etag: &str) -> Option<(String, String)> {
    Some((data.to_owned(), etag.to_owned()))
}

pub async fn a_value_is_read_as_it_was_written_with_a_version_that_grows(bench: &impl Bench) {
    assert_eq!(get(bench, "k").await, None);
    assert!(save(bench, change("k", r#"{"processed": true}"#)).await);
    assert_eq!(get(bench, "k").await, stored(r#"{"processed": true}"#, "1"));
    assert!(save(bench, change("k", "")).await);
    assert_eq!((get(bench, "k").await, get(bench, "other").await), (stored("", "2"), None));
}

pub async fn a_version_that_is_not_the_current_one_stands_in_the_way(bench: &impl Bench) {
    assert!(save(bench, Change { version: Some(7), ..change("k", "a") }).await, "a key that is not there takes any version");
    assert!(!save(bench, Change { version: Some(7), ..change("k", "b") }).await);
    assert_eq!(get(bench, "k").await, stored("a", "1"));
    assert!(save(bench, Change { version: Some(1), ..change("k", "b") }).await);
    assert!(save(bench, change("k", "c")).await, "without a version the last write wins");
    assert_eq!(get(bench, "k").await, stored("c", "3"));
}

pub async fn a_first_write_succeeds_once_and_guards_the_key_from_then_on(bench: &impl Bench) {
    let first = |data| Change { first_write: true, ..change("k", data) };
    assert!(save(bench, first("a")).await);
    assert!(!save(bench, first("b")).await);
    assert!(!save(bench, change("k", "b")).await, "also against a write that does not ask for it");
    assert!(save(bench, Change { version: Some(1), ..change("k", "b") }).await);
    assert!(!save(bench, change("k", "c")).await);
    assert_eq!(get(bench, "k").await, stored("b", "2"));
}

pub async fn of_many_first_writes_at_once_one_succeeds(bench: &impl Bench) {
    let writes = (0..50).map(|n| save(bench, Change { first_write: true, ..change("k", &n.to_string()) }));
    assert_eq!(join_all(writes).await.into_iter().filter(|saved| *saved).count(), 1);
}

pub async fn a_key_goes_with_its_version_or_with_any(bench: &impl Bench) {
    let store = bench.store();
    save(bench, change("k", "a")).await;
    assert!(!store.delete("k", Some("2")).await.unwrap());
    assert_eq!(get(bench, "k").await, stored("a", "1"));
    assert!(store.delete("k", Some("1")).await.unwrap());
    assert_eq!(get(bench, "k").await, None);
    assert!(store.delete("k", Some("1")).await.unwrap(), "what is not there is gone");
    save(bench, Change { first_write: true, ..change("k", "a") }).await;
    assert!(store.delete("k", None).await.unwrap());
    assert!(save(bench, Change { first_write: true, ..change("k", "b") }).await, "a key that went leaves nothing behind");
    assert_eq!(get(bench, "k").await, stored("b", "1"));
}

pub async fn each_value_of_one_call_is_written_or_refused_on_its_own(bench: &impl Bench) {
    save(bench, change("b", "old")).await;
    let changes = vec![change("a", "new"), Change { version: Some(9), ..change("b", "new") }, change("c", "new"), change("a", "again")];
    assert_eq!(bench.store().save(changes).await.unwrap(), [true, false, true, true]);
    assert_eq!((get(bench, "a").await, get(bench, "b").await), (stored("again", "2"), stored("old", "1")));
}

pub async fn a_value_ends_with_its_time_and_not_before(bench: &impl Bench) {
    for (key, ttl) in [("short", Ttl::Seconds(1)), ("long", Ttl::Seconds(60)), ("kept", Ttl::Seconds(1)), ("saved", Ttl::Seconds(1))] {
        save(bench, Change { ttl, ..change(key, "a") }).await;
    }
    save(bench, change("kept", "b")).await;
    save(bench, Change { ttl: Ttl::Never, ..change("saved", "b") }).await;
    assert_eq!(get(bench, "short").await, stored("a", "1"));
    bench.pass(Duration::from_millis(1100)).await;
    assert_eq!((get(bench, "short").await, get(bench, "long").await), (None, stored("a", "1")));
    assert_eq!((get(bench, "kept").await, get(bench, "saved").await), (None, stored("b", "2")), "a write without a time keeps the old one");
    assert!(save(bench, Change { first_write: true, ..change("short", "b") }).await);
}

pub async fn many_keys_are_answered_in_order(bench: &impl Bench) {
    let keys: Vec<_> = (0..700).map(|n| format!("k{n}")).collect();
    let changes: Vec<_> = keys.iter().step_by(2).map(|key| change(key, key)).collect();
    assert!(bench.store().save(changes).await.unwrap().into_iter().all(|saved| saved));
    let read = bench.store().get(&keys).await.unwrap();
    for (index, (key, read)) in keys.iter().zip(read).enumerate() {
        let data = read.unwrap().map(|stored| stored.data);
        assert_eq!(data.as_deref(), (index % 2 == 0).then_some(key.as_bytes()));
    }
}
