//! Backlogs kept as stubs: at their turn the ledger is asked, then the log is read again.

use std::{sync::Arc, time::Duration};

use super::{
    guard::NoAnswer,
    intake::LANE_BYTES,
    io::Io,
    lane::{LaneId, Stub},
    partition::Partition,
    ports::{Check, LogReader},
};
use crate::{
    event::record::{Record, TopicPartition},
    outcome::Settled,
};

/// After this long without the log, a re-fetch is tried again.
const PAUSE: Duration = Duration::from_millis(500);

/// Answer to a re-fetch.
pub(super) struct Refetched {
    lane: LaneId,
    /// How many of the first of them the ledger has: they are not read again.
    known: usize,
    stubs: Vec<Stub>,
    records: Vec<Record>,
    /// The lease that the ledger was asked under is another's: nothing was read.
    fenced: Option<u64>,
}

impl Partition {
    /// Reads a lane's next stubs from the log; one lane of a partition at a time, outside the budget, so that it cannot block itself. Of those
    /// whose turn has come the ledger is asked first: what it has is not read.
    pub(super) fn start_refetch(&mut self) {
        if self.refetching {
            return;
        }
        let (Some(id), Some(reader)) = (self.to_refetch.pop_front(), self.shared.reader.clone()) else { return };
        self.refetching = true;
        let lane = &self.lanes[id];
        // The stubs stay in the lane meanwhile: its head must be known to every snapshot.
        let stubs: Vec<Stub> = lane.stubs.iter().take(self.shared.options.lane_events.max(1)).copied().collect();
        let members = lane.members(&stubs);
        let (shared, held, partition) = (Arc::clone(&self.shared), self.held().cloned(), self.id.clone());
        self.io.push(Box::pin(async move {
            let mut refetched = Refetched { lane: id, known: 0, stubs, records: Vec::new(), fenced: None };
            if let Some(held) = held.filter(|_| !members.is_empty()) {
                let check = Check { members, mark: None, starts: Vec::new() };
                match shared.guard.ask_under(&held, |store| store.check(&held.lease, check.clone())).await {
                    // Only a beginning: behind an event that is not through, none of its lane settles.
                    Ok(known) => refetched.known = known.iter().take_while(|known| **known).count(),
                    Err(NoAnswer::Fenced) => {
                        refetched.fenced = Some(held.lease.epoch);
                        return Io::Refetched(refetched);
                    }
                    Err(NoAnswer::Bypassed) => {}
                }
            }
            let offsets: Vec<i64> = refetched.stubs[refetched.known..].iter().map(Stub::offset).collect();
            if !offsets.is_empty() {
                refetched.records = read(&*reader, &partition, &offsets).await;
            }
            Io::Refetched(refetched)
        }));
    }

    /// Puts re-read records into their lane. What the log no longer has, or has something else for, is lost to retention.
    pub(super) fn on_refetched(&mut self, refetched: Refetched) {
        self.refetching = false;
        let id = refetched.lane;
        if let Some(epoch) = refetched.fenced {
            self.to_refetch.push_front(id);
            return self.fenced(epoch);
        }
        let read: usize = refetched.records.iter().map(Record::footprint).sum();
        // Behind the record that filled the lane nothing was asked for.
        let until = refetched.records.last().filter(|_| read >= LANE_BYTES).map_or(i64::MAX, Record::offset);
        let mut records = refetched.records.into_iter().peekable();
        for (number, stub) in refetched.stubs.into_iter().enumerate().take_while(|(_, stub)| stub.offset() <= until) {
            if number < refetched.known {
                self.drop_stub(id, stub);
                let metrics = &self.shared.metrics;
                metrics.events_settled.with_label_values(&[&*self.id.topic, self.shared.unknown(), Settled::Duplicate.code()]).inc();
                continue;
            }
            while records.next_if(|record| record.offset() < stub.offset()).is_some() {}
            let found = records.next_if(|record| record.offset() == stub.offset());
            let found = found.filter(|record| self.shared.identify(&self.shared.decode(record.clone())).id == stub.id);
            let Some(record) = found else {
                tracing::error!(kafka.partition = %self.id, kafka.offset = stub.offset(), "record left the log before its turn; raise the topic's retention");
                self.shared.metrics.lost_to_retention.with_label_values(&[&*self.id.topic]).inc();
                self.drop_stub(id, stub);
                continue;
            };
            let (lane, bytes) = (&mut self.lanes[id], record.footprint());
            lane.stubs.pop_front();
            lane.queued_bytes += bytes;
            lane.queue.push_back(record);
            self.counts.stubs -= 1;
            self.gate.add(bytes);
            self.gate.subtract(size_of::<Stub>());
        }
        if self.lanes[id].len() == 0 {
            self.lanes.remove(id);
        } else {
            self.make_ready(id);
        }
    }

    /// The lane's first stub is settled without having been read again.
    fn drop_stub(&mut self, id: LaneId, stub: Stub) {
        self.lanes[id].stubs.pop_front();
        self.counts.stubs -= 1;
        self.gate.subtract(size_of::<Stub>());
        self.hints.remove(&stub.offset());
        self.tracker.settle(stub.offset());
        self.counts.settled += 1;
    }
}

/// Reads until the log answers.
async fn read(reader: &dyn LogReader, partition: &TopicPartition, offsets: &[i64]) -> Vec<Record> {
    loop {
        match reader.read_up_to(LANE_BYTES, partition, offsets).await {
            Ok(records) => return records,
            Err(error) => {
                tracing::warn!(kafka.partition = %partition, error = %error, "backlog not read from the log; trying again")
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}
