//! When lanes wake: a heap of due times of one partition. Entries are never changed, only pushed and popped (F64).

use std::{cmp::Reverse, collections::BinaryHeap};

use tokio::time::Instant;

use super::lane::LaneId;

/// Lanes in backoff, by due time; equal times wake in the order they were put in.
#[derive(Debug, Default)]
pub(super) struct Timer {
    heap: BinaryHeap<Reverse<(Instant, u64, LaneId, i64)>>,
    sequence: u64,
}

impl Timer {
    /// Wakes `lane` at `due` for the head at `offset`; an entry whose lane has moved on meanwhile means nothing.
    pub(super) fn push(&mut self, due: Instant, lane: LaneId, offset: i64) {
        self.sequence += 1;
        self.heap.push(Reverse((due, self.sequence, lane, offset)));
    }

    /// The earliest due time.
    pub(super) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((due, ..))| *due)
    }

    /// The next lane that is due by `now`, and the head that it was to wake for.
    pub(super) fn pop(&mut self, now: Instant) -> Option<(LaneId, i64)> {
        self.next().filter(|due| *due <= now)?;
        self.heap.pop().map(|Reverse((.., lane, offset))| (lane, offset))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn lanes_wake_by_due_time_and_equal_times_in_order() {
        let now = Instant::now();
        let mut timer = Timer::default();
        timer.push(now + Duration::from_secs(2), 1, 10);
        timer.push(now + Duration::from_secs(1), 2, 20);
        timer.push(now + Duration::from_secs(1), 3, 30);
        assert_eq!(timer.pop(now), None);
        let later = now + Duration::from_secs(1);
        assert_eq!((timer.pop(later), timer.pop(later), timer.pop(later)), (Some((2, 20)), Some((3, 30)), None));
    }
}
