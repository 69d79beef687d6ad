//! Fires reminders at their time: claims what is due, publishes it, notes it; a batch at a time, so that any number may wait.

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    engine::ports::{Message, PublishError, StoreError},
    health::Reporter,
    publish::Publishing,
    reminders::{
        CLAIM_TIME, Change, Claimed, Key, Reminders,
        task::{Due, Task},
    },
    telemetry::Metrics,
};

/// Tasks in a batch: what a worker holds in memory of all reminders, and what is late by [`CLAIM_TIME`] where it dies. About: see [`Reminders::claim`].
const BATCH: usize = 512;
/// Longest pause between two looks: a reminder that is scheduled for now is late by as much.
const LOOK: Duration = Duration::from_millis(500);
/// Between two attempts to reach the store, or the brokers.
const PAUSE: Duration = Duration::from_secs(1);
/// How often those that wait are counted.
const COUNT: Duration = Duration::from_secs(10);

/// What fires reminders.
pub struct Firing {
    /// Where they wait.
    pub store: Arc<dyn Reminders>,
    /// How long what is over is kept.
    pub remember: Duration,
    /// Publishes `reminder.due`.
    pub publishing: Arc<Publishing>,
    /// Told while the store is away.
    pub report: Reporter,
    /// Counts.
    pub metrics: Metrics,
}

/// A reminder on its way out.
struct Going {
    key: Key,
    due: Due,
    message: Message,
    acked: bool,
}

/// A task whose reminders are being fired.
struct Fired {
    key: Key,
    /// How many.
    wanted: usize,
    /// Its record as it was read last.
    record: Vec<u8>,
}

impl Firing {
    /// Fires until `stop`; then finishes what is claimed, for at most `limit`. Answers whether it was: what was not is fired by another replica, or after
    /// the restart, with the same id.
    pub async fn run(self, stop: CancellationToken, limit: Duration) -> bool {
        let deadline = async {
            stop.cancelled().await;
            tokio::time::sleep(limit).await;
        };
        tokio::select! {
            () = self.work(&stop) => true,
            () = deadline => false,
        }
    }

    async fn work(&self, stop: &CancellationToken) {
        let (mut count_at, mut known) = (Instant::now(), false);
        while !stop.is_cancelled() {
            let pause = match self.store.claim(BATCH).await {
                Ok(claimed) => {
                    self.report.ok();
                    told(&claimed, std::mem::replace(&mut known, true));
                    let pause = pause(&claimed);
                    self.fire(claimed, stop).await;
                    pause
                }
                Err(error) => {
                    self.failed(&error);
                    PAUSE
                }
            };
            if Instant::now() >= count_at {
                count_at = Instant::now() + COUNT;
                if let Ok(pending) = self.store.pending().await {
                    self.metrics.reminders_pending.set(i64::try_from(pending).unwrap_or(i64::MAX));
                }
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Fires what was claimed, and keeps it claimed meanwhile.
    async fn fire(&self, claimed: Claimed, stop: &CancellationToken) {
        if claimed.tasks.is_empty() {
            return;
        }
        let keys: Vec<_> = claimed.tasks.iter().map(|(key, _)| *key).collect();
        tokio::select! {
            () = self.publish(claimed, stop) => {}
            never = self.keep(&keys) => match never {},
        }
    }

    async fn keep(&self, keys: &[Key]) -> Infallible {
        loop {
            tokio::time::sleep(CLAIM_TIME / 3).await;
            if let Err(error) = self.store.renew(keys).await {
                self.failed(&error);
            }
        }
    }

    async fn publish(&self, claimed: Claimed, stop: &CancellationToken) {
        let begun = Instant::now();
        let mut tasks = Vec::with_capacity(claimed.tasks.len());
        let mut due = Vec::new();
        for (key, record) in claimed.tasks {
            let Some(task) = Task::decode(&record) else {
                tracing::error!("a reminder's record in the store is damaged; it stays there, and is tried again");
                continue;
            };
            let of_it = task.due(claimed.now);
            tasks.push(Fired { key, wanted: of_it.len(), record });
            due.extend(of_it.into_iter().map(|due| (key, due)));
        }
        // One user's reminders go out in the order of their times.
        due.sort_by_key(|(_, due)| due.remind);
        let mut going: Vec<_> = due.into_iter().filter_map(|(key, due)| self.ready(key, due)).collect();
        while !self.send(&mut going).await {
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
        going.retain(|going| going.acked);
        let now = claimed.now + i64::try_from(begun.elapsed().as_millis()).unwrap_or_default();
        for Going { due, .. } in &going {
            self.metrics.reminders_fired.with_label_values(&[due.kind]).inc();
            #[expect(clippy::cast_precision_loss, reason = "a lateness in milliseconds")]
            self.metrics.reminder_lateness.observe((now - due.remind).max(0) as f64 / 1000.0);
        }
        let mut fired: HashMap<Key, Vec<Due>> = HashMap::new();
        going.into_iter().for_each(|going| fired.entry(going.key).or_default().push(going.due));
        self.note(tasks, &fired, stop).await;
    }

    /// The record of a reminder; `None`: the catalogue does not take it. It stays claimed and is tried again, and said again, until somebody mends that.
    fn ready(&self, key: Key, due: Due) -> Option<Going> {
        match self.publishing.prepare(due.event.to_string().as_bytes(), None, None) {
            Ok(ready) => Some(Going { key, due, message: ready.message, acked: false }),
            Err(rejection) => {
                refused(&due.event, &rejection.error);
                None
            }
        }
    }

    /// Publishes what is not acknowledged yet; answers whether all that can be is.
    async fn send(&self, going: &mut [Going]) -> bool {
        let waiting: Vec<_> = going.iter_mut().filter(|going| !going.acked).collect();
        let sending: Vec<_> = waiting.iter().map(|going| self.publishing.send(going.message.clone())).collect();
        let mut failed = None;
        for (going, answer) in waiting.into_iter().zip(join_all(sending).await) {
            match answer {
                Ok(_) => going.acked = true,
                Err(error @ (PublishError::TooLarge | PublishError::Refused(_))) => refused(&going.due.event, &error.to_string()),
                Err(error) => failed = Some(error),
            }
        }
        if let Some(error) = &failed {
            tracing::warn!(%error, "reminders are not acknowledged yet; they are published again");
        }
        failed.is_none()
    }

    /// Notes what was fired, in records that others may have changed meanwhile, until the store has it. Of what could not be published the claim stays:
    /// it is tried again when that ends.
    async fn note(&self, mut tasks: Vec<Fired>, fired: &HashMap<Key, Vec<Due>>, stop: &CancellationToken) {
        loop {
            let changes: Vec<_> =
                tasks.iter().filter_map(|task| self.change(task, fired.get(&task.key).map_or(&[], Vec::as_slice))).collect();
            if changes.is_empty() {
                return;
            }
            let answer = self.store.replace(&changes).await;
            if let Err(error) = &answer {
                self.failed(error);
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(PAUSE) => {}
                }
            }
            let done: HashSet<_> =
                changes.iter().zip(answer.unwrap_or_default()).filter(|(_, done)| *done).map(|(change, _)| change.key).collect();
            tasks.retain(|task| !done.contains(&task.key));
            tasks = self.reload(tasks).await;
        }
    }

    fn change(&self, task: &Fired, fired: &[Due]) -> Option<Change> {
        let whole = fired.len() == task.wanted;
        if fired.is_empty() && !whole {
            return None;
        }
        let mut known = Task::decode(&task.record)?;
        fired.iter().for_each(|due| known.told(&due.slot, due.remind));
        Some(Change {
            key: task.key,
            old: Some(task.record.clone()),
            new: known.encode(),
            next: known.next(),
            keep: self.remember,
            claimed: whole,
        })
    }

    /// The records as they are now; what is gone needs no note.
    async fn reload(&self, tasks: Vec<Fired>) -> Vec<Fired> {
        let mut loaded = Vec::with_capacity(tasks.len());
        for task in tasks {
            match self.store.load(&task.key).await {
                Ok(Some(record)) => loaded.push(Fired { record, ..task }),
                Ok(None) => {}
                Err(_) => loaded.push(task),
            }
        }
        loaded
    }

    fn failed(&self, error: &StoreError) {
        self.metrics.store_errors.with_label_values(&["reminder"]).inc();
        self.report.fail(format!("reminders wait: {error}"));
    }
}

/// How long nothing need be done.
fn pause(claimed: &Claimed) -> Duration {
    let until = |next: i64| Duration::from_millis(u64::try_from(next - claimed.now).unwrap_or_default());
    if claimed.tasks.is_empty() { claimed.next.map_or(LOOK, until).min(LOOK) } else { Duration::ZERO }
}

/// Says what the store has lost.
fn told(claimed: &Claimed, known: bool) {
    match (claimed.blank, known) {
        (true, true) => tracing::error!("the store has lost its reminders; `worker reminders rebuild` reads them from the log again"),
        (true, false) => {
            tracing::warn!(
                "the store knows of no reminders yet; if there were any, `worker reminders rebuild` reads them from the log again"
            );
        }
        _ => {}
    }
    if claimed.missing > 0 {
        tracing::error!(
            reminders = claimed.missing,
            "the store has evicted reminders; `worker reminders rebuild` reads them from the log again"
        );
    }
}

fn refused(event: &Value, error: &str) {
    tracing::error!(
        event.id = event["event_id"].as_str(),
        event.r#type = "reminder.due",
        error,
        "a reminder cannot be published; it is tried again"
    );
}
