//! Dead letters of a partition: published as the breaker lets them, acknowledged before their events settle.

use std::sync::Arc;

use tokio::time::Instant;

use super::{
    dead::{self, Cause},
    io::Io,
    lane::{LaneId, Stage},
    limits::Breaker,
    partition::Partition,
    ports::Acked,
};
use crate::outcome::DeadReason;

impl Partition {
    /// Its dead letter waits for its turn.
    pub(super) fn bury(&mut self, id: LaneId) {
        self.lanes[id].stage = Stage::Burying;
        self.to_bury.push_back(id);
    }

    /// Publishes dead letters that the breaker lets through.
    pub(super) fn start_bury(&mut self) {
        let now = Instant::now();
        // The next owner writes what is not written under this lease (F71).
        if !self.to_bury.is_empty() && !self.may_run(now) {
            self.stalled = true;
            return;
        }
        while self.bury_again_at.is_none() {
            let Some(&id) = self.to_bury.front() else { return };
            let Some(work) = &mut self.lanes[id].work else { return };
            let cause = Cause::of(work);
            if cause.reason != DeadReason::UserOverflow {
                match Breaker::admit(&self.shared.breaker, now) {
                    Ok(admission) => work.admission = Some(admission),
                    Err(at) => {
                        self.bury_again_at = Some(at);
                        return;
                    }
                }
            }
            self.to_bury.pop_front();
            let schedule = self.shared.schedules.schedule_for(work.subject.event_type().unwrap_or_default());
            let wall = self.shared.clock.now();
            let ago = self.shared.keeper.store_ms(now).saturating_sub(work.first_failed_ms);
            let first = if work.failed() { wall - chrono::TimeDelta::milliseconds(i64::try_from(ago).unwrap_or_default()) } else { wall };
            let topic = dead::letter_topic(work, &self.shared.registry, &self.shared.origin.topic);
            let letter = dead::letter(work, &cause, &self.shared.origin, topic, &schedule.to_string(), wall, first);
            let (shared, held) = (Arc::clone(&self.shared), self.held().cloned());
            let last = self.last_letters.clone();
            self.burying += 1;
            if !self.shared.rules.letter_before_settle {
                self.finish(id);
            }
            self.io.push(Box::pin(async move {
                let acked = dead::bury(&shared, held.as_deref(), letter, &last).await;
                let reason = if acked.is_some_and(|(_, stub)| stub) { DeadReason::Oversize } else { cause.reason };
                Io::Buried { lane: id, cause: Cause { reason, ..cause }, acked: acked.map(|(acked, _)| acked) }
            }));
        }
    }

    pub(super) fn on_buried(&mut self, id: LaneId, cause: &Cause, acked: Option<Acked>) {
        self.burying -= 1;
        let Some(acked) = acked else {
            // Not written under this lease: under the next one the ledger is asked first, another owner may have done it.
            if self.mode.works() {
                self.lanes[id].work.iter_mut().for_each(|work| work.admission = None);
                self.make_ready(id);
            }
            return;
        };
        if !self.shared.rules.letter_before_settle {
            return;
        }
        let Some(work) = &self.lanes[id].work else { return };
        let label = self.meters.label(work.kind);
        self.shared.metrics.dead_letters.with_label_values(&[&*self.id.topic, label, cause.reason.code()]).inc();
        tracing::error!(
            event.id = work.subject.id(), event.r#type = &**label, dlq.reason = cause.reason.code(), dlq.partition = acked.partition, dlq.offset = acked.offset,
            kafka.partition = %self.id, kafka.offset = work.offset, retry.attempts = cause.attempts, handler = cause.handlers, error = cause.error, "event dead-lettered"
        );
        self.shared.alerts.dead_letter(label, cause, &self.id, work.offset);
        self.finish(id);
    }
}
