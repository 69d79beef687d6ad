//! Exceptional records: what the store has to know of a failed event before its backoff or its dead letter.

use std::sync::Arc;

use tokio::time::Instant;

use super::{
    guard::NoAnswer,
    io::Io,
    lane::{LaneId, Stage},
    partition::Partition,
    work::Verdict,
};

impl Partition {
    /// Writes the head's record before what comes next: its backoff, or its dead letter.
    pub(super) fn save(&mut self, id: LaneId) {
        self.lanes[id].stage = Stage::Saving;
        if self.shared.rules.save_before_next {
            self.note(id);
        } else {
            self.on_saved(vec![id], Err(NoAnswer::Bypassed), 0);
        }
    }

    /// Queues the head's record to be written, if it is not queued.
    pub(super) fn note(&mut self, id: LaneId) {
        let Some(lane) = self.lanes.get_mut(id).filter(|lane| lane.work.is_some() && !lane.to_save) else { return };
        if self.shared.rules.save_before_next {
            lane.to_save = true;
            self.to_save.push(id);
        }
    }

    /// Sends the next save, if none is under way; what a commit has covered since the last one goes before it.
    pub(super) fn start_save(&mut self) {
        if self.saving {
            return;
        }
        if let Some(committed) = self.sweep_to.take() {
            self.sweep(committed);
        }
        if self.saving || self.to_save.is_empty() || !self.may_write() {
            return;
        }
        let mut lanes = std::mem::take(&mut self.to_save);
        let now = Instant::now();
        let store_ms = self.shared.keeper.store_ms(now);
        let mut changes = Vec::with_capacity(lanes.len());
        // A lane that has moved on meanwhile, or is another one under the same number, has nothing to save.
        lanes.retain(|&id| {
            let Some(lane) = self.lanes.get_mut(id).filter(|lane| lane.to_save) else { return false };
            lane.to_save = false;
            let Some(work) = &mut lane.work else { return false };
            work.recorded = true;
            changes.push((work.offset, Some(work.to_record(now, store_ms))));
            true
        });
        if lanes.is_empty() {
            return;
        }
        self.saving = true;
        let Some(held) = self.held().cloned() else {
            return self.on_saved(lanes, Err(NoAnswer::Bypassed), 0);
        };
        let shared = Arc::clone(&self.shared);
        self.io.push(Box::pin(async move {
            let result = shared.guard.ask_under(&held, |store| store.save(&held.lease, changes.clone())).await;
            Io::Saved { lanes, result, epoch: held.lease.epoch }
        }));
    }

    /// Removes the records of settled events that the commit up to `committed` covers.
    fn sweep(&mut self, committed: i64) {
        let Some(held) = self.held().cloned() else { return };
        let mut covered: Vec<i64> = Vec::new();
        self.removable.retain(|&offset| {
            let goes = offset < committed;
            if goes {
                covered.push(offset);
            }
            !goes
        });
        if covered.is_empty() {
            return;
        }
        self.saving = true;
        let shared = Arc::clone(&self.shared);
        self.io.push(Box::pin(async move {
            let changes = covered.iter().map(|&offset| (offset, None)).collect();
            let left = match shared.guard.store().save(&held.lease, changes).await {
                Ok(()) => Vec::new(),
                Err(error) => {
                    tracing::debug!(error = %error, "records of settled events not removed; trying again after the next commit");
                    covered
                }
            };
            Io::Swept { left }
        }));
    }

    pub(super) fn on_saved(&mut self, lanes: Vec<LaneId>, result: Result<(), NoAnswer>, epoch: u64) {
        self.saving = false;
        if result == Err(NoAnswer::Fenced) || !self.is_current(epoch) {
            // Another owner may have had the events in between: under the next lease the ledger is asked first, then they are written again (!).
            for id in lanes {
                match self.lanes.get(id).filter(|lane| !lane.to_save).map(|lane| lane.stage) {
                    Some(Stage::Saving) => self.make_ready(id),
                    Some(_) if result.is_err() => self.note(id),
                    _ => {}
                }
            }
            return self.fenced(epoch);
        }
        let now = Instant::now();
        for id in lanes {
            // Written while a run went on, or to be written again with what another run has answered since.
            let Some(lane) = self.lanes.get(id).filter(|lane| lane.stage == Stage::Saving && !lane.to_save) else { continue };
            match lane.work.as_ref().map(|work| work.verdict(now)) {
                Some(Verdict::Wait(due)) => self.wait(id, due),
                Some(Verdict::Run) => self.make_ready(id),
                Some(Verdict::Dead) => self.bury(id),
                Some(Verdict::Finished { .. }) => self.finish(id),
                Some(Verdict::Running) | None => {}
            }
        }
    }
}
