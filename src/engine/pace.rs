//! When the store is asked: at once, unless more events are through with it already than may run. Then nobody runs later for it, and an
//! exchange costs the store and the worker much the same for one event as for twenty.

use std::time::Duration;

use tokio::time::Instant;

use super::{check::BATCH, partition::Partition};

/// Events of a partition that wait for nothing but a permit: with fewer of them the store is asked at once.
const AHEAD: usize = 16;
/// Longest that a head waits to be asked for: a retry, which has permits of its own, is as late at most.
const CHECK: Duration = Duration::from_millis(20);
/// Longest that a verdict waits to be written: a crash meanwhile repeats its event.
const VERDICT: Duration = Duration::from_millis(5);

/// A beat that all partitions have in common, so that those who wait ask together.
#[derive(Debug)]
pub(super) struct Beat(Instant);

impl Default for Beat {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Beat {
    /// The next one after `now`, of those that are so far apart.
    fn next(&self, now: Instant, apart: Duration) -> Instant {
        let since = now.saturating_duration_since(self.0).as_nanos();
        let left = apart.as_nanos() - since % apart.as_nanos();
        now + Duration::from_nanos(u64::try_from(left).unwrap_or(u64::MAX))
    }
}

/// Until when what waits for the store may wait for company; `None`: it does not wait for that.
#[derive(Default)]
pub(super) struct Pace {
    check_by: Option<Instant>,
    verdict_by: Option<Instant>,
}

impl Pace {
    /// Whether heads that could be asked for wait for others.
    pub(super) fn holds_heads(&self) -> bool {
        self.check_by.is_some()
    }

    /// When something has waited for long enough. Heads are not asked for any more where nothing is to begin (`works`).
    pub(super) fn ends(&self, works: bool) -> Option<Instant> {
        [self.check_by.filter(|_| works), self.verdict_by].into_iter().flatten().min()
    }
}

impl Partition {
    /// Whether the next ledger check waits: there is none to send, or heads wait for others to be asked for with them.
    pub(super) fn check_waits(&mut self, now: Instant) -> bool {
        let idle = self.checking > 0 || self.ready.is_empty();
        let more = !idle && self.permits_are_out() && self.ready.len() < BATCH;
        still(&mut self.pace.check_by, more, now, || self.shared.beat.next(now, CHECK)) || idle
    }

    /// The same of verdicts.
    pub(super) fn verdicts_wait(&mut self, now: Instant) -> bool {
        let idle = self.finishing > 0 || self.to_finish.is_empty();
        let more = !idle && self.permits_are_out();
        still(&mut self.pace.verdict_by, more, now, || self.shared.beat.next(now, VERDICT)) || idle
    }

    /// Whether events wait that could run but for the limits, and no other could run before them.
    pub(super) fn permits_are_out(&self) -> bool {
        self.mode.works() && self.queues.stuck(&self.shared.permits) >= AHEAD
    }
}

/// Whether what would wait still may: until the `beat` that followed when it first did.
fn still(by: &mut Option<Instant>, waits: bool, now: Instant, beat: impl FnOnce() -> Instant) -> bool {
    let waits = waits && now < *by.get_or_insert_with(beat);
    if !waits {
        *by = None;
    }
    waits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_began_to_wait_at_different_times_end_at_the_same_beat() {
        let beat = Beat::default();
        let ends = |micros| beat.next(beat.0 + Duration::from_micros(micros), VERDICT) - beat.0;
        assert_eq!([0, 1, 4_999].map(ends), [VERDICT; 3]);
        assert_eq!([5_000, 9_999].map(ends), [2 * VERDICT; 2]);
    }
}
