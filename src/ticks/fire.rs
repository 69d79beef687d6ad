//! One tick from claimed to fired: runs, retries, and the claim kept meanwhile.

use std::{convert::Infallible, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use tokio_util::sync::CancellationToken;

use super::{
    Entry,
    target::{Run, Target},
};
use crate::{
    engine::Clock,
    health::Reporter,
    outcome::Failure,
    retry::{Next, Schedule},
    store::ticks::{CLAIM_TIME, TickStore, Wish},
    telemetry::Metrics,
};

/// Between two attempts to reach the store.
pub(super) const STORE_PAUSE: Duration = Duration::from_secs(1);

/// Least pause before an event is published again, where its schedule knows no more delay.
const LEAST_PAUSE: Duration = Duration::from_secs(5);

/// What all schedules of a process share.
pub(super) struct Shared {
    pub(super) store: Arc<dyn TickStore>,
    pub(super) report: Reporter,
    pub(super) metrics: Metrics,
    pub(super) clock: Clock,
    pub(super) retries: Schedule,
    pub(super) owner: String,
    /// With the store away, tick that are so much late are fired without a claim; `None`: they wait.
    pub(super) bypass_after: Option<Duration>,
}

impl Shared {
    pub(super) fn wish<'a>(&'a self, entry: &'a Entry, tick: DateTime<Utc>) -> Wish<'a> {
        Wish { schedule: &entry.name, owner: &self.owner, tick: tick.timestamp_millis(), exclusive: entry.exclusive }
    }
}

/// Fires a tick until it succeeds or is given up; then its claim is finished. Stopped while it waits for a retry, it leaves the claim open: whoever
/// watches it goes on.
pub(super) async fn fire(shared: Arc<Shared>, entry: Arc<Entry>, tick: DateTime<Utc>, claimed: bool, stop: CancellationToken) {
    let Some(target) = entry.target() else { return };
    let late = (shared.clock.now() - entry.due_at(tick)).to_std().unwrap_or_default();
    shared.metrics.schedule_lateness.with_label_values(&[&*entry.name]).observe(late.as_secs_f64());
    let ended = match claimed {
        true => tokio::select! {
            ended = attempts(&shared, &entry, target, tick, &stop) => ended,
            never = keep(&shared, &entry, tick) => match never {},
        },
        false => attempts(&shared, &entry, target, tick, &stop).await,
    };
    if ended && claimed {
        finish(&shared, &entry, tick, &stop).await;
    }
}

/// Runs and retries. `false`: stopped before the end.
async fn attempts(shared: &Shared, entry: &Entry, target: &Target, tick: DateTime<Utc>, stop: &CancellationToken) -> bool {
    for attempt in 1.. {
        let failure = match target.fire(entry, Run { tick, attempt, now: shared.clock.now() }).await {
            Ok(()) => {
                shared.metrics.schedule_ticks.with_label_values(&[&*entry.name]).inc();
                tracing::debug!(schedule = %entry.name, schedule.tick = %tick, retry.attempt = attempt, "tick fired");
                return true;
            }
            Err(failure) => failure,
        };
        let Some(pause) = pause(shared, target, attempt, &failure) else {
            shared.metrics.schedule_failures.with_label_values(&[&*entry.name]).inc();
            tracing::error!(schedule = %entry.name, schedule.tick = %tick, retry.attempt = attempt, error = failure.error(), "tick given up");
            return true;
        };
        tracing::warn!(schedule = %entry.name, schedule.tick = %tick, retry.attempt = attempt, retry.delay = ?pause, error = failure.error(), "tick failed");
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return false,
        }
    }
    true
}

/// How long to wait for the next attempt; `None`: there is none. An event is tried until the brokers have it.
fn pause(shared: &Shared, target: &Target, failures: u32, failure: &Failure) -> Option<Duration> {
    let Failure::Transient { after, .. } = failure else { return None };
    match shared.retries.next(failures, *after, &mut fastrand::Rng::new()) {
        Next::Delay(delay) => Some(delay),
        Next::Exhausted if target.repeats_safely() => Some(shared.retries.max_delay().max(LEAST_PAUSE)),
        Next::Exhausted => None,
    }
}

/// Renews the claim, for ever.
async fn keep(shared: &Shared, entry: &Entry, tick: DateTime<Utc>) -> Infallible {
    loop {
        tokio::time::sleep(CLAIM_TIME / 3).await;
        match shared.store.renew(shared.wish(entry, tick)).await {
            Ok(true) => {}
            Ok(false) => {
                tracing::warn!(schedule = %entry.name, schedule.tick = %tick, "the store lost this tick's claim: it may fire twice")
            }
            Err(error) => tracing::warn!(schedule = %entry.name, %error, "a tick's claim is not renewed"),
        }
    }
}

/// Tells the store, again and again for as long as the claim lasts: later another replica has taken the tick over.
async fn finish(shared: &Shared, entry: &Entry, tick: DateTime<Utc>, stop: &CancellationToken) {
    let told = async {
        while let Err(error) = shared.store.finish(shared.wish(entry, tick)).await {
            tracing::warn!(schedule = %entry.name, %error, "a fired tick is not finished in the store yet");
            tokio::select! {
                () = tokio::time::sleep(STORE_PAUSE) => {}
                () = stop.cancelled() => return,
            }
        }
    };
    let _taken_over = tokio::time::timeout(CLAIM_TIME, told).await;
}
