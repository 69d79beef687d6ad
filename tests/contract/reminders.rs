//! What every `Reminders` promises, written once. `tests/it` runs it on the store in memory, `tests/e2e` on Redis.

use std::time::Duration;

use chrono::DateTime;
use futures_util::future::{BoxFuture, join_all};
use serde_json::json;
use worker::reminders::{Change, Key, MOST_OF_A_TASK, Reminders, apply, fact::Fact, task::Task};

pub const KEEP: Duration = Duration::from_secs(60);

/// One store with nothing in it.
pub trait ReminderBench: Sync {
    /// As many workers see it.
    fn stores(&self) -> [&dyn Reminders; 2];
    /// Its clock, milliseconds since 1970.
    fn now(&self) -> BoxFuture<'_, i64>;
    /// As though nobody had renewed any claim for a claim time.
    fn expire(&self) -> BoxFuture<'_, ()>;
    /// As though a kept time had passed for what nothing is due of.
    fn forget(&self) -> BoxFuture<'_, ()>;
    /// Loses everything.
    fn flush(&self) -> BoxFuture<'_, ()>;
}

/// A test for each promise, run on what `$bench` makes, or `None` where there is none here.
#[macro_export]
macro_rules! reminder_contract {
    ($attribute:meta, $bench:path) => {
        $crate::reminder_contract!(@each $attribute, $bench,
            what_is_due_is_claimed_by_one_of_many_workers,
            what_is_not_due_is_nobodys_and_the_next_time_is_told,
            a_claim_whose_owner_died_goes_to_who_asks_next,
            a_renewed_claim_stays_its_owners,
            a_record_is_replaced_only_where_it_still_is_what_was_read,
            what_was_fired_is_not_due_again_and_what_was_moved_meanwhile_is,
            a_change_of_a_claimed_record_leaves_it_claimed,
            what_is_over_is_forgotten_after_its_time_and_what_is_to_come_never,
            a_task_whose_reminders_change_at_once_in_many_places_loses_none,
            a_batch_is_bounded_and_the_rest_comes_with_the_next,
            a_flushed_store_says_that_it_is_blank_once,
        );
    };
    (@each $attribute:meta, $bench:path, $($name:ident),* $(,)?) => {
        $(#[$attribute]
        async fn $name() {
            if let Some(bench) = $bench().await {
                $crate::reminder_contract::$name(&bench).await;
            }
        })*
    };
}

/// What a `reminder.scheduled` of that task says.
pub fn scheduled(task: i64, kind: &str, remind: i64) -> Task {
    let (at, remind) = (DateTime::from_timestamp_millis(1).unwrap(), DateTime::from_timestamp_millis(remind).unwrap());
    // Long ago, and so never too far ahead.
    let at = at.max(remind - chrono::TimeDelta::days(365));
    let data = json!({ "task_id": task, "remind_at": remind.to_rfc3339(), "due_date": remind.to_rfc3339(), "reminder_type": kind });
    let id = format!("{task} {kind}");
    Fact { name: "reminder.scheduled", id: &id, user: &format!("user-{task}"), at, correlation: None, data: &data }.said().unwrap().unwrap()
}

fn completed(task: i64, at: i64) -> Task {
    let at = DateTime::from_timestamp_millis(at).unwrap();
    let data = json!({ "task_id": task });
    Fact { name: "task.completed", id: "done", user: &format!("user-{task}"), at, correlation: None, data: &data }.said().unwrap().unwrap()
}

async fn put(store: &dyn Reminders, task: &Task) {
    assert!(apply(store, task, KEEP).await.unwrap());
}

async fn claimed(store: &dyn Reminders) -> Vec<(Key, Vec<u8>)> {
    store.claim(1000).await.unwrap().tasks
}

/// What its firer writes: every reminder of it up to `now` was fired.
fn fired(key: Key, record: &[u8], now: i64) -> Change {
    let mut task = Task::decode(record).unwrap();
    task.due(now).iter().for_each(|due| task.told(&due.slot, due.remind));
    Change { key, old: Some(record.to_vec()), new: task.encode(), next: task.next(), keep: KEEP, claimed: true }
}

pub async fn what_is_due_is_claimed_by_one_of_many_workers(bench: &impl ReminderBench) {
    let (now, [one, two]) = (bench.now().await, bench.stores());
    for task in 0..100 {
        put([one, two][task as usize % 2], &scheduled(task, "due_soon", now - 1 - task)).await;
    }
    let claims = join_all((0..8).map(|n| claimed([one, two][n % 2]))).await;
    let mut keys: Vec<_> = claims.into_iter().flatten().map(|(key, _)| key).collect();
    assert_eq!(keys.len(), 100);
    keys.sort_unstable();
    keys.dedup();
    assert_eq!((keys.len(), one.pending().await.unwrap()), (100, 100));
}

pub async fn what_is_not_due_is_nobodys_and_the_next_time_is_told(bench: &impl ReminderBench) {
    let (now, [one, two]) = (bench.now().await, bench.stores());
    for (task, after) in [(1, 500_000), (2, 300_000), (3, 400_000)] {
        put(one, &scheduled(task, "due_soon", now + after)).await;
    }
    let claimed = two.claim(10).await.unwrap();
    assert_eq!((claimed.tasks, claimed.next), (vec![], Some(now + 300_000)));
    assert!((now..now + 60_000).contains(&claimed.now));
    assert_eq!(two.pending().await.unwrap(), 3);
}

pub async fn a_claim_whose_owner_died_goes_to_who_asks_next(bench: &impl ReminderBench) {
    let (now, [one, two]) = (bench.now().await, bench.stores());
    put(one, &scheduled(1, "due_soon", now - 1)).await;
    assert_eq!(claimed(one).await.len(), 1);
    assert_eq!(claimed(two).await.len(), 0);
    bench.expire().await;
    assert_eq!(claimed(two).await.len(), 1);
    assert_eq!(claimed(one).await.len(), 0);
}

pub async fn a_renewed_claim_stays_its_owners(bench: &impl ReminderBench) {
    let (now, [one, two]) = (bench.now().await, bench.stores());
    put(one, &scheduled(1, "due_soon", now - 1)).await;
    let (key, _) = claimed(one).await.remove(0);
    bench.expire().await;
    one.renew(&[key, Key::new("nobody", "1")]).await.unwrap();
    assert_eq!((claimed(two).await.len(), two.pending().await.unwrap()), (0, 1), "and what nobody claimed is not claimed by that");
}

pub async fn a_record_is_replaced_only_where_it_still_is_what_was_read(bench: &impl ReminderBench) {
    let (now, [one, two]) = (bench.now().await, bench.stores());
    let task = scheduled(1, "due_soon", now + 300_000);
    let (key, next) = (task.key(), task.next());
    let change =
        |old: Option<&[u8]>, new: &[u8]| Change { key, old: old.map(<[u8]>::to_vec), new: new.to_vec(), next, keep: KEEP, claimed: false };
    assert_eq!(one.replace(&[change(Some(b"a"), b"b"), change(None, b"a"), change(None, b"c")]).await.unwrap(), [false, true, false]);
    assert_eq!(two.load(&key).await.unwrap().as_deref(), Some(&b"a"[..]));
    assert_eq!(two.replace(&[change(Some(b"a"), b"b")]).await.unwrap(), [true]);
    assert_eq!(one.replace(&[change(Some(b"a"), b"b")]).await.unwrap(), [false], "an answer that got lost");
    assert_eq!(one.load(&Key::new("user-1", "2")).await.unwrap(), None);
}

pub async fn what_was_fired_is_not_due_again_and_what_was_moved_meanwhile_is(bench: &impl ReminderBench) {
    let (now, [one, two]) = (bench.now().await, bench.stores());
    put(one, &scheduled(1, "due_soon", now - 1)).await;
    put(one, &scheduled(2, "due_soon", now - 1)).await;
    let all = claimed(one).await;
    // While it is fired, the second is given another reminder.
    put(two, &scheduled(2, "overdue", now + 300_000)).await;
    let changes: Vec<_> = all.iter().map(|(key, record)| fired(*key, record, now)).collect();
    let done = one.replace(&changes).await.unwrap();
    assert_eq!(done.iter().filter(|done| **done).count(), 1);
    let key = changes[done.iter().position(|done| !done).unwrap()].key;
    let record = one.load(&key).await.unwrap().unwrap();
    assert_eq!(one.replace(&[fired(key, &record, now)]).await.unwrap(), [true]);
    bench.expire().await;
    let left = two.claim(10).await.unwrap();
    assert_eq!((left.tasks, left.next, two.pending().await.unwrap()), (vec![], Some(now + 300_000), 1));
}

pub async fn a_change_of_a_claimed_record_leaves_it_claimed(bench: &impl ReminderBench) {
    let (now, [one, two]) = (bench.now().await, bench.stores());
    put(one, &scheduled(1, "due_soon", now - 1)).await;
    assert_eq!(claimed(one).await.len(), 1);
    put(two, &scheduled(1, "overdue", now - 1)).await;
    assert_eq!(claimed(two).await.len(), 0);
    put(two, &completed(1, now + 1)).await;
    bench.expire().await;
    let (key, record) = claimed(two).await.remove(0);
    assert_eq!(Task::decode(&record).unwrap().next(), None, "removed while its firer was dead");
    assert_eq!(two.replace(&[fired(key, &record, now)]).await.unwrap(), [true]);
    assert_eq!(two.pending().await.unwrap(), 0);
}

pub async fn what_is_over_is_forgotten_after_its_time_and_what_is_to_come_never(bench: &impl ReminderBench) {
    let (now, [one, two]) = (bench.now().await, bench.stores());
    put(one, &scheduled(1, "due_soon", now + 300_000_000)).await;
    put(one, &scheduled(2, "due_soon", now + 300_000_000)).await;
    put(one, &completed(2, now)).await;
    put(one, &completed(3, now)).await;
    let known = async |task: i64| two.load(&Key::new(&format!("user-{task}"), &task.to_string())).await.unwrap().is_some();
    assert!(known(1).await && known(2).await && known(3).await);
    bench.forget().await;
    assert_eq!((known(1).await, known(2).await, known(3).await), (true, false, false));
    assert_eq!(two.pending().await.unwrap(), 1);
    put(two, &scheduled(3, "due_soon", now + 300_000_000)).await;
    assert_eq!(two.pending().await.unwrap(), 2);
}

pub async fn a_task_whose_reminders_change_at_once_in_many_places_loses_none(bench: &impl ReminderBench) {
    let (now, stores) = (bench.now().await, bench.stores());
    let kinds: Vec<_> = (0..MOST_OF_A_TASK.min(10)).map(|n| format!("kind-{n}")).collect();
    let all = kinds
        .iter()
        .zip(stores.into_iter().cycle())
        .map(|(kind, store)| async move { put(store, &scheduled(1, kind, now + 300_000)).await });
    join_all(all).await;
    let record = stores[0].load(&Key::new("user-1", "1")).await.unwrap().unwrap();
    assert_eq!(Task::decode(&record).unwrap().count(), kinds.len());
    assert!(!apply(stores[1], &scheduled(1, "kind-0", now + 300_000), KEEP).await.unwrap(), "it says nothing new");
}

pub async fn a_batch_is_bounded_and_the_rest_comes_with_the_next(bench: &impl ReminderBench) {
    let (now, [one, _]) = (bench.now().await, bench.stores());
    for task in 0..200 {
        put(one, &scheduled(task, "due_soon", now - 1)).await;
    }
    let mut found = 0;
    for _ in 0..200 {
        let claimed = one.claim(16).await.unwrap().tasks;
        assert!(claimed.len() <= 32, "{}", claimed.len());
        found += claimed.len();
        let changes: Vec<_> = claimed.iter().map(|(key, record)| fired(*key, record, now)).collect();
        assert!(one.replace(&changes).await.unwrap().into_iter().all(|done| done));
        if found == 200 {
            break;
        }
    }
    assert_eq!((found, one.pending().await.unwrap()), (200, 0));
}

pub async fn a_flushed_store_says_that_it_is_blank_once(bench: &impl ReminderBench) {
    let (now, [one, two]) = (bench.now().await, bench.stores());
    bench.flush().await;
    assert!(one.claim(10).await.unwrap().blank);
    put(one, &scheduled(1, "due_soon", now + 300_000)).await;
    assert!(!two.claim(10).await.unwrap().blank);
    bench.flush().await;
    assert!(two.claim(10).await.unwrap().blank && !one.claim(10).await.unwrap().blank);
    assert_eq!(one.pending().await.unwrap(), 0);
}
