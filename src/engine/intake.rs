//! Poll to lane: what was settled before the restart is skipped by key and offset alone, the rest joins its user's queue.

use super::{
    lane::{Lane, LaneId, Stage, Stub},
    partition::Partition,
    ports::weight,
};
use crate::{
    event::{
        cheap_user,
        record::{RawRecord, Record, RecordBatch},
    },
    progress::Intake,
};

/// Bytes of one lane kept whole; later events wait as stubs.
pub(super) const LANE_BYTES: usize = 256 * 1024;

/// Failures and due time of a head, as the commit map remembers them.
pub(super) struct Hint {
    pub(super) attempts: u32,
    pub(super) due_ms: Option<u64>,
}

impl Partition {
    /// Takes one batch from the Source.
    pub(super) fn intake(&mut self, batch: &dyn RecordBatch) {
        let mut bytes = 0;
        batch.for_each(&mut |raw| {
            bytes += weight(raw);
            self.take(raw);
        });
        self.gate.subtract(bytes);
        self.shared.metrics.events_consumed.with_label_values(&[&*self.id.topic]).inc_by(batch.len() as u64);
    }

    /// Takes one record, unless it was settled before.
    fn take(&mut self, raw: &dyn RawRecord) {
        self.counts.newest = raw.timestamp().or(self.counts.newest);
        match self.tracker.intake(raw.offset(), raw.key()) {
            Intake::Skip => return,
            Intake::Rewound => self.forget_log(),
            Intake::Take { attempts: 0, due_ms: None } => {}
            Intake::Take { attempts, due_ms } => {
                self.hints.insert(raw.offset(), Hint { attempts, due_ms });
            }
        }
        self.note_gap();
        self.counts.taken += 1;
        let record = Record::copy_of(&self.id, raw);
        let id = match raw.key() {
            _ if !self.shared.rules.one_at_a_time => self.lanes.of(None),
            Some(key) => self.lanes.of(Some(key)),
            None => self.lanes.of(cheap_user(raw).as_deref().map(str::as_bytes)),
        };
        self.enqueue(id, record);
    }

    /// Says what the log dropped before it was handled. A gap above the log's start is compaction, or a transaction's marker.
    fn note_gap(&mut self) {
        let Some(gap) = self.tracker.take_gap().filter(|gap| gap.unsettled > 0 && gap.from < self.log_start) else { return };
        tracing::error!(kafka.partition = %self.id, kafka.offset = gap.from, records = gap.unsettled, "records left the log before they were handled; raise the topic's retention");
        self.shared.metrics.lost_to_retention.with_label_values(&[&*self.id.topic]).inc_by(gap.unsettled);
    }

    fn enqueue(&mut self, id: LaneId, record: Record) {
        let idle = self.lanes[id].len() == 0;
        if self.spills(&self.lanes[id], record.footprint()) {
            let subject = self.shared.decode(record);
            let member = self.shared.identify(&subject);
            self.lanes[id].spill(subject.record(), member);
            self.gate.add(size_of::<Stub>());
            self.counts.stubs += 1;
        } else {
            let bytes = record.footprint();
            self.gate.add(bytes);
            self.lanes[id].queued_bytes += bytes;
            if idle {
                // Its turn has come, and its bytes are still in the processor's cache.
                self.lanes[id].next = Some(self.shared.decode(record));
            } else {
                self.lanes[id].queue.push_back(record);
            }
        }
        if idle {
            self.make_ready(id);
        } else {
            self.check_overflow(id);
        }
    }

    fn spills(&self, lane: &Lane, bytes: usize) -> bool {
        let waiting = lane.queue.len() + usize::from(lane.next.is_some());
        let full = waiting >= self.shared.options.lane_events || (waiting > 0 && lane.queued_bytes + bytes > LANE_BYTES);
        self.shared.reader.is_some() && (!lane.stubs.is_empty() || full)
    }

    /// Puts a lane whose head is next in line for the ledger.
    pub(super) fn make_ready(&mut self, id: LaneId) {
        let lane = &mut self.lanes[id];
        if lane.work.is_none() && lane.next.is_none() && lane.queue.is_empty() {
            lane.stage = Stage::Fetching;
            self.to_refetch.push_back(id);
        } else {
            lane.stage = Stage::Ready;
            self.ready.push_back(id);
        }
    }
}
