//! One assignment of one partition: what to take, what to skip, what to commit.

use super::{Map, MapHead, MapLimits, Rules, Tier, replay::Replay};

/// Follows one partition from its assignment on. Single-threaded: the task that owns the lanes owns it.
#[derive(Debug)]
pub struct Tracker {
    /// Lowest offset that was not seen yet.
    next: i64,
    /// Highest settled offset; whatever lies at or below it was seen, unless the replay still runs.
    frontier: i64,
    /// Until the scan has met every head of the loaded map.
    replay: Option<Replay>,
    /// Nothing was seen yet.
    fresh: bool,
    gap: Option<Gap>,
    /// Grows with every change of what a snapshot would say. Not a flag: what settles during a commit must stay dirty after it.
    version: u64,
    acked: u64,
    rules: Rules,
}

/// What to do with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intake {
    /// It was settled before the restart.
    Skip,
    /// It goes to its lane.
    Take {
        /// Failures that the commit map remembers.
        attempts: u32,
        /// When it runs again, milliseconds since 1970, as it was written: to be clamped by the reader's clock and schedule.
        due_ms: Option<u64>,
    },
    /// It goes to its lane, but the log has turned back: it was recreated or truncated. The tracker starts anew at this record; what the
    /// lanes hold is of a log that no longer exists and must be dropped first.
    Rewound,
}

/// The lowest unsettled event of a lane, whatever it waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Where it stands.
    pub offset: i64,
    /// The lane's lowest unsettled event that **has a key**: `Some(offset)` itself, except in a lane whose head has none. Replay knows
    /// a lane by its key only, so it has to meet that one.
    pub first_keyed: Option<i64>,
    /// Finished failures.
    pub attempts: u32,
    /// When it runs again, milliseconds since 1970.
    pub due_ms: Option<u64>,
}

/// A commit in the making: offset and map of one moment. Taken apart, they would name events as settled that are not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Lowest unsettled offset: the one to commit.
    pub offset: i64,
    /// The commit map as text, within the limits.
    pub metadata: String,
    /// How much of the map found room.
    pub tier: Tier,
    version: u64,
}

/// Offsets that the log no longer has, and that were not settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// First offset that did not come.
    pub from: i64,
    /// The record that came instead. Below the log's start lies what retention took; above it compaction and transaction markers leave
    /// holes where nothing is lost.
    pub to: i64,
    /// How many of them were unsettled events, at most.
    pub unsettled: u64,
}

impl Tracker {
    /// Starts at `start`, the committed offset or where `start_at` points, with the map read beside the commit. Without one everything
    /// from `start` on is unsettled, `start` included.
    pub fn new(start: i64, loaded: Option<Map>) -> Self {
        Self::with_rules(start, loaded, Rules::ALL)
    }

    /// As [`Tracker::new`], with a rule switched off to see what it is good for.
    #[doc(hidden)]
    pub fn with_rules(start: i64, loaded: Option<Map>, rules: Rules) -> Self {
        // A scan that starts above the map's offset finds the heads between gone; one that starts below was moved by hand.
        let replay = loaded.filter(|map| map.committed <= start).map(|map| Replay::new(map, rules));
        let next = replay.as_ref().map_or(start, |replay| replay.loaded.committed);
        let mut tracker = Self { next, frontier: next - 1, replay, fresh: true, gap: None, version: 1, acked: 0, rules };
        tracker.thaw();
        tracker
    }

    /// Judges the next record by its offset and its lane (key bytes; `None`: no key, never skipped).
    pub fn intake(&mut self, offset: i64, lane: Option<&[u8]>) -> Intake {
        if offset < self.next {
            self.rewind(offset);
            return Intake::Rewound;
        }
        let (expected, fresh) = (self.next, std::mem::replace(&mut self.fresh, false));
        self.next = offset + 1;
        let met = self.replay.as_mut().map(|replay| replay.meet(offset, lane));
        if offset > expected {
            self.note_gap(expected, offset, fresh, met.as_ref().and_then(|met| met.jumped));
        }
        self.thaw();
        match met {
            Some(met) if met.settled => Intake::Skip,
            met => {
                let head = met.and_then(|met| met.head);
                Intake::Take { attempts: head.map_or(0, |head| head.attempts), due_ms: head.and_then(|head| head.due_ms) }
            }
        }
    }

    /// An event's verdict is durable. Each taken event settles once, those of one lane in order.
    pub fn settle(&mut self, offset: i64) {
        // A run of a log that was turned back may end late; its offset is another event's now, or nobody's yet.
        if offset >= self.next {
            return;
        }
        self.frontier = self.frontier.max(offset);
        self.touch();
        if let Some(replay) = &mut self.replay {
            replay.settle(offset);
        }
    }

    /// A head's attempts or due time changed.
    pub fn touch(&mut self) {
        if !self.replaying() || !self.rules.freeze {
            self.version += 1;
        }
    }

    /// The epoch that snapshots are asked for with has changed: it is a part of the map, during a freeze too.
    pub fn touch_epoch(&mut self) {
        self.version += 1;
    }

    /// What to commit now. `heads`: the head of **every** lane that holds an unsettled event, in any order.
    ///
    /// While [`Tracker::replaying`] it is the loaded map unchanged: a map made of a half scanned log would name events as settled that
    /// the scan has yet to meet.
    pub fn snapshot(&self, heads: impl IntoIterator<Item = Head>, epoch: u64, limits: MapLimits) -> Snapshot {
        let map = match &self.replay {
            Some(replay) if self.replaying() && self.rules.freeze => Map { epoch, ..replay.loaded.clone() },
            _ => self.map(heads, epoch),
        };
        let encoded = map.encode_by(limits, self.rules);
        Snapshot { offset: map.committed, metadata: encoded.text, tier: encoded.tier, version: self.version }
    }

    /// The broker has stored it. One that comes late, after a newer one, changes nothing.
    pub fn acked(&mut self, snapshot: &Snapshot) {
        self.acked = self.acked.max(snapshot.version);
    }

    /// Whether a newer snapshot than this one was stored: then it must not be sent (again), the offset would go back.
    pub fn is_stale(&self, snapshot: &Snapshot) -> bool {
        snapshot.version < self.acked
    }

    /// Whether there is something that no stored commit says. True at first: an assignment begins with a commit.
    pub fn is_dirty(&self) -> bool {
        self.acked < self.version
    }

    /// Whether the scan is still at or below the loaded map's frontier.
    pub fn replaying(&self) -> bool {
        self.replay.as_ref().is_some_and(|replay| self.next <= replay.until)
    }

    /// Highest settled offset, one below the start where there is none.
    pub fn frontier(&self) -> i64 {
        match &self.replay {
            Some(replay) if self.replaying() => replay.until,
            _ => self.frontier,
        }
    }

    /// Lowest offset that has not been taken in: where the scan goes on.
    pub fn position(&self) -> i64 {
        self.next
    }

    /// The gap that the last [`Tracker::intake`] found, once: before the first record of an assignment, or over a head of the map.
    pub fn take_gap(&mut self) -> Option<Gap> {
        self.gap.take()
    }

    fn map(&self, heads: impl IntoIterator<Item = Head>, epoch: u64) -> Map {
        let settled_to = self.frontier();
        let mut watermark = i64::MAX;
        let mut listed = Vec::new();
        for head in heads {
            watermark = watermark.min(head.offset);
            let keyed = head.first_keyed == Some(head.offset);
            if head.attempts > 0 || head.due_ms.is_some() || keyed && head.offset <= settled_to {
                listed.push(MapHead { offset: head.offset, attempts: head.attempts, due_ms: head.due_ms });
            }
            if let Some(offset) = head.first_keyed.filter(|offset| !keyed && *offset <= settled_to) {
                listed.push(MapHead { offset, attempts: 0, due_ms: None });
            }
        }
        // Those that the scan has yet to meet lie above the frontier and are remembered for their attempts.
        listed.extend(self.replay.iter().flat_map(Replay::ahead));
        listed.sort_unstable_by_key(|head| head.offset);
        let committed = if watermark == i64::MAX { settled_to + 1 } else { watermark };
        Map { committed, frontier: settled_to.max(committed - 1), epoch, heads: listed }
    }

    /// Ends the replay once the scan has passed what can be skipped; what is left of it are heads above.
    fn thaw(&mut self) {
        let Some(replay) = &self.replay else { return };
        if self.next <= replay.until {
            return;
        }
        // True once, on the way past it: nothing above the scan has settled before.
        if self.frontier < replay.until {
            self.frontier = replay.until;
            self.version += 1;
        }
        if replay.ahead().is_empty() {
            self.replay = None;
        }
    }

    fn rewind(&mut self, offset: i64) {
        (self.next, self.frontier, self.replay, self.fresh) = (offset + 1, offset - 1, None, false);
        self.version += 1;
    }

    /// Within an assignment the log only shrinks from below: a hole between two records was there before, unless a head stood in it.
    fn note_gap(&mut self, from: i64, to: i64, fresh: bool, jumped: Option<i64>) {
        let beyond = self.replay.as_ref().map_or(from, |replay| from.max(replay.until.saturating_add(1)));
        let lowest = jumped.into_iter().chain(fresh.then_some(beyond)).min().unwrap_or(to);
        if lowest < to {
            self.gap = Some(Gap { from, to, unsettled: to.abs_diff(lowest) });
        }
    }
}

#[cfg(test)]
mod tests;
