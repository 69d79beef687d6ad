//! Users that hold too much: too many events behind a failing one, for too long, or in too much of the partition's memory.

use tokio::time::Instant;

use super::{
    OnOverflow,
    lane::{Lane, LaneId, Stage},
    partition::Partition,
    work::{Work, millis},
};

/// Of what keeps a partition from being read, a lane that holds less than one part in so many is not to blame: where so many fail, it is an
/// outage.
const LEAST_PART: usize = 4;

impl Partition {
    /// Whether a lane's backlog has grown past what one user may hold.
    pub(super) fn check_overflow(&mut self, id: LaneId) {
        let options = &self.shared.options;
        let lane = &self.lanes[id];
        let Some(work) = failing(lane).filter(|_| !lane.overflowing) else { return };
        let too_many = lane.len() as u64 > options.max_held_events;
        if too_many || work.since.elapsed() >= options.max_hold_age {
            self.overflow(id);
        }
    }

    /// Makes room where failing users' backlogs fill half of the partition's share: once it was held it would not be read again, and
    /// everybody else would wait behind them. The largest gives way, one after another; unless nobody's events are handled either (F68).
    pub(super) fn relieve(&mut self) {
        let most = self.gate.resume_at();
        if self.gate.held() < most || self.paused.is_some() {
            return;
        }
        let (mut all, mut largest) = (0, None::<(usize, LaneId)>);
        for (id, lane) in self.lanes.iter() {
            if lane.overflowing {
                // What it gives back may be enough.
                return;
            }
            if failing(lane).is_some() {
                let bytes = lane.footprint();
                all += bytes;
                largest = largest.max(Some((bytes, id)));
            }
        }
        let Some((_, id)) = largest.filter(|(bytes, _)| all >= most && bytes * LEAST_PART >= most) else { return };
        if failing(&self.lanes[id]).is_some_and(|work| self.others_get_on(work)) {
            self.overflow(id);
        }
    }

    /// Whether an event was handled whose turn came after `work` had failed.
    fn others_get_on(&self, work: &Work) -> bool {
        let now = Instant::now();
        let began_ms = |at| self.shared.keeper.store_ms(now).saturating_sub(millis(now.duration_since(at)));
        self.handled_from.is_some_and(|at| began_ms(at) > work.first_failed_ms)
    }

    fn overflow(&mut self, id: LaneId) {
        match self.shared.options.on_overflow {
            OnOverflow::Dlq => {
                let lane = &mut self.lanes[id];
                tracing::error!(
                    kafka.partition = %self.id, events = lane.len(), bytes = lane.footprint(),
                    "a failing event holds up too much of its user's backlog; it goes to the dlq in order"
                );
                lane.overflowing = true;
                // What runs may still succeed; what waits is given up at its turn.
                if lane.stage == Stage::Waiting {
                    self.make_ready(id);
                }
            }
            OnOverflow::PausePartition => {
                self.paused = Some(id);
                self.gate.set_paused(true);
            }
        }
    }
}

/// The event that a lane waits for because it has failed. A dead letter that is under way, or held back by the breaker, is none any more.
fn failing(lane: &Lane) -> Option<&Work> {
    lane.work.as_deref().filter(|work| work.failed() && !matches!(lane.stage, Stage::Burying | Stage::Finishing))
}
