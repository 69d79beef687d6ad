//! What a loaded map says about the records scanned after an assignment. Needs a record's offset and key, nothing else.

use std::collections::HashMap;

use xxhash_rust::xxh3::xxh3_64;

use super::{Map, MapHead, Rules};

/// The scan from the committed offset up to the loaded map's frontier.
#[derive(Debug)]
pub(super) struct Replay {
    /// As it was read, for the freeze.
    pub(super) loaded: Map,
    /// Last offset that may be skipped: the loaded frontier, or the first head that turned out to be gone.
    pub(super) until: i64,
    /// How many of the loaded heads the scan has met or passed.
    reached: usize,
    /// Lanes with an unsettled head behind the scan, by hash of the key, with that head. A collision takes a settled event of another
    /// lane, and the ledger knows it; it can never skip one, so the keys need not be kept.
    blocked: HashMap<u64, i64>,
    rules: Rules,
}

/// What the scan finds out about one record.
pub(super) struct Met {
    /// The head that the record is.
    pub(super) head: Option<MapHead>,
    /// Whether the map says that it is settled.
    pub(super) settled: bool,
    /// The first of the heads that this record jumps over: unsettled events that the log no longer has.
    pub(super) jumped: Option<i64>,
}

impl Replay {
    pub(super) fn new(loaded: Map, rules: Rules) -> Self {
        Self { until: loaded.frontier, loaded, reached: 0, blocked: HashMap::new(), rules }
    }

    /// Heads that the scan has not met yet, ascending.
    pub(super) fn ahead(&self) -> &[MapHead] {
        &self.loaded.heads[self.reached..]
    }

    /// Judges the next record. Offsets come ascending.
    pub(super) fn meet(&mut self, offset: i64, lane: Option<&[u8]>) -> Met {
        let jumped = self.jump(offset);
        let head = self.ahead().first().copied().filter(|head| head.offset == offset);
        self.reached += usize::from(head.is_some());
        if offset > self.until {
            return Met { head, settled: false, jumped };
        }
        let settled = match (head, lane) {
            (Some(_), Some(key)) => {
                self.blocked.insert(xxh3_64(key), offset);
                false
            }
            // Without a key nobody knows whose it is: the ledger decides.
            (_, None) => !self.rules.keyless_taken,
            (None, Some(key)) => self.blocked.is_empty() || !self.blocked.contains_key(&xxh3_64(key)),
        };
        Met { head, settled, jumped }
    }

    /// Passes the heads below `offset`, which the log no longer has (retention, compaction). Whose they were nobody can tell any more,
    /// so whichever lane it was, its later events must not be skipped.
    fn jump(&mut self, offset: i64) -> Option<i64> {
        let first = self.ahead().first().map(|head| head.offset).filter(|head| *head < offset)?;
        if self.rules.vanished_heads {
            self.until = self.until.min(first);
        }
        self.reached += self.ahead().iter().take_while(|head| head.offset < offset).count();
        Some(first)
    }

    /// A head settled. Its lane stays blocked: later events of it may lie ahead of the scan, unsettled.
    pub(super) fn settle(&mut self, offset: i64) {
        if !self.rules.stay_blocked {
            self.blocked.retain(|_, head| *head != offset);
        }
    }
}
