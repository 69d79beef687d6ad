//! What a partition says of itself: gauges summed by topic, lag by partition, and the conservation of records.

use super::{lane::Stage, partition::Partition};

/// What a partition reports; the engine sums it up by topic.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Counts {
    pub(super) taken: u64,
    pub(super) settled: u64,
    pub(super) held: u64,
    pub(super) held_bytes: usize,
    pub(super) stubs: u64,
    pub(super) waiting: u64,
    pub(super) blocked: u64,
    /// Timestamp of the newest record taken.
    pub(super) newest: Option<i64>,
}

impl Partition {
    /// Brings the gauges up to date; once per commit tick, in time proportional to the lanes.
    pub(super) fn report(&mut self) {
        let mut now = Counts { held_bytes: self.gate.held(), ..self.counts };
        now.held = 0;
        let mut oldest = None::<(i64, Option<i64>)>;
        for (_, lane) in self.lanes.iter() {
            now.held += lane.len() as u64;
            now.waiting += u64::from(lane.stage == Stage::Waiting);
            now.blocked += u64::from(lane.work.as_ref().is_some_and(|work| work.failed()));
            if let Some(head) = lane.head().filter(|head| oldest.is_none_or(|(oldest, _)| *head < oldest)) {
                oldest = Some((head, lane.timestamp()));
            }
        }
        self.publish(now);
        let lost = i128::from(now.taken) - i128::from(now.settled) - i128::from(now.held);
        if lost != 0 {
            tracing::error!(kafka.partition = %self.id, records = %lost, "records are neither settled nor held; this is a bug");
        }
        self.shared.conservation.note(&self.id, lost != 0);
        self.shared.metrics.conservation_error.set(self.shared.conservation.broken());

        let watermark = oldest.map_or(self.tracker.position(), |(offset, _)| offset);
        let lag = self.gate.log_end().map_or(0, |end| (end - watermark).max(0));
        let since = if lag == 0 { None } else { oldest.and_then(|(_, at)| at).or(self.counts.newest) };
        let age_ms = since.map_or(0, |at| (self.shared.clock.now().timestamp_millis() - at).max(0));
        let labels = [&*self.id.topic, &self.id.partition.to_string()];
        self.shared.metrics.consumer_lag_records.with_label_values(&labels).set(lag);
        #[expect(clippy::cast_precision_loss, reason = "an age in milliseconds")]
        self.shared.metrics.consumer_lag_seconds.with_label_values(&labels).set(age_ms as f64 / 1000.0);
    }

    /// Takes this partition out of every sum.
    pub(super) fn clear_report(&mut self) {
        self.publish(Counts::default());
        self.shared.conservation.note(&self.id, false);
        let labels = [&*self.id.topic, &self.id.partition.to_string()];
        let metrics = &self.shared.metrics;
        // A gauge that was never set is not there to remove.
        let _absent = metrics.consumer_lag_records.remove_label_values(&labels);
        let _absent = metrics.consumer_lag_seconds.remove_label_values(&labels);
        let _absent = metrics.commit_map_chars.remove_label_values(&labels);
    }

    /// Several partitions add up to one gauge per topic: each adds what has changed since it last did.
    fn publish(&mut self, now: Counts) {
        let before = std::mem::replace(&mut self.reported, now);
        let topic = [&*self.id.topic];
        let metrics = &self.shared.metrics;
        let change = |now: u64, before: u64| i64::try_from(i128::from(now) - i128::from(before)).unwrap_or_default();
        metrics.held_events.with_label_values(&topic).add(change(now.held, before.held));
        metrics.held_bytes.with_label_values(&topic).add(change(now.held_bytes as u64, before.held_bytes as u64));
        metrics.spilled_events.with_label_values(&topic).add(change(now.stubs, before.stubs));
        metrics.events_waiting_retry.with_label_values(&topic).add(change(now.waiting, before.waiting));
        metrics.users_blocked.with_label_values(&topic).add(change(now.blocked, before.blocked));
    }
}
