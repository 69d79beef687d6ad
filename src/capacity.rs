//! What a load needs: pods, partitions, memory of workers and Redis. Pure; `docs/capacity.md` says where each figure comes from.

use std::time::Duration;

use crate::progress::{Map, MapHead, MapLimits, Tier};

/// Redis memory per remembered event: a 16-byte member of a set.
pub const REDIS_BYTES: f64 = 83.0;
/// Verdicts are dropped by the half retention: at most this many retentions are kept.
pub const KEPT: f64 = 1.5;
/// Redis' only thread, per event: reads before and the write after its run.
pub const REDIS_MICROS: f64 = 2.8;
/// A worker's CPU per event without its handler.
pub const WORKER_MICROS: f64 = 6.0;
/// Besides, where each event is one POST.
pub const POST_MICROS: f64 = 20.0;
/// Part of a CPU, and of the runs at once, that is planned with: the rest is for rebalances, catching up and one pod less.
pub const USED: f64 = 0.5;
/// Besides key, value and headers, what an event costs that is held whole, its lane included.
pub const EVENT_BYTES: f64 = 550.0;
/// What an event costs that is kept as its position only, with the queue's room to grow.
pub const STUB_BYTES: f64 = 48.0;
/// What a process needs that holds nothing.
pub const IDLE_BYTES: f64 = 24.0 * 1024.0 * 1024.0;

/// What is to be handled.
#[derive(Debug, Clone, PartialEq)]
pub struct Load {
    /// Events per second, at the peak.
    pub rate: f64,
    /// Bytes of an event: key, value, headers.
    pub event_bytes: f64,
    /// Users that these come from, evenly.
    pub users: f64,
    /// Part of the events that fail.
    pub failing: f64,
    /// How long one that fails is tried: its schedule's delays together.
    pub hold: Duration,
    /// `store.retention`.
    pub retention: Duration,
    /// Time that a handler takes for one event.
    pub handler: Duration,
    /// Whether the handler is an app behind HTTP.
    pub http: bool,
}

/// What a pod is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pod {
    /// CPUs.
    pub cpus: f64,
    /// `engine.concurrency`.
    pub concurrency: f64,
    /// `engine.lane_events`.
    pub lane_events: f64,
}

/// What it takes.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Needs {
    /// Consumer pods, two at least: one may go.
    pub pods: u32,
    /// What decided on them: `cpu`, `concurrency`, `redundancy`.
    pub pods_by: &'static str,
    /// Partitions of the topic.
    pub partitions: u32,
    /// What decided on them: `pods`, `commit_map`.
    pub partitions_by: &'static str,
    /// Users that wait behind a failing event, at any time.
    pub blocked_users: u64,
    /// Events that wait, the failing ones included.
    pub held_events: u64,
    /// Memory for them, of all pods together: `engine.memory` times the pods must not be less.
    pub held_bytes: u64,
    /// Resident memory of one pod.
    pub pod_bytes: u64,
    /// Redis memory for the ledger, at its fullest.
    pub redis_bytes: u64,
    /// Part of Redis' one CPU.
    pub redis_cpu: f64,
    /// Characters of one partition's commit map, of 3800.
    pub commit_map_chars: usize,
}

impl Load {
    /// Plans for it.
    pub fn plan(&self, pod: Pod) -> Needs {
        let by_cpu = self.rate * (WORKER_MICROS + if self.http { POST_MICROS } else { 0.0 }) / 1e6 / (pod.cpus * USED);
        let by_runs = self.rate * self.handler.as_secs_f64() / (pod.concurrency * USED);
        let (pods, pods_by) = most([(by_cpu, "cpu"), (by_runs, "concurrency"), (2.0, "redundancy")]);
        let blocked = (self.rate * self.failing * self.hold.as_secs_f64()).min(self.users);
        // Twice the pods, so that there can be as many more; and what one commit can tell about its blocked users.
        let (mut partitions, mut partitions_by) = (pods * 2, "pods");
        while !self.fits(blocked, partitions) && partitions < 100_000 {
            (partitions, partitions_by) = (partitions.saturating_mul(5).div_ceil(4), "commit_map");
        }
        // An event that fails has waited for half its time on average, and so have those behind it.
        let behind = self.rate / self.users.max(1.0) * self.hold.as_secs_f64() / 2.0;
        let (whole, stubs) = (1.0 + behind.min(pod.lane_events), (behind - pod.lane_events).max(0.0));
        let held_bytes = blocked * (whole * (self.event_bytes + EVENT_BYTES) + stubs * STUB_BYTES);
        Needs {
            pods,
            pods_by,
            partitions,
            partitions_by,
            blocked_users: round(blocked),
            held_events: round(blocked * (1.0 + behind)),
            held_bytes: round(held_bytes),
            pod_bytes: round(IDLE_BYTES + held_bytes / f64::from(pods)),
            redis_bytes: round(self.rate * self.retention.as_secs_f64() * KEPT * REDIS_BYTES),
            redis_cpu: self.rate * REDIS_MICROS / 1e6,
            commit_map_chars: self.map(blocked, partitions).0,
        }
    }

    /// Whether a commit can tell of every blocked user with attempts and due time.
    fn fits(&self, blocked: f64, partitions: u32) -> bool {
        self.map(blocked, partitions).1 == Tier::Full
    }

    /// A partition's commit map with its share of the blocked users, evenly over what came while they waited; by the codec itself.
    fn map(&self, blocked: f64, partitions: u32) -> (usize, Tier) {
        let partitions = f64::from(partitions);
        let window = self.rate * self.hold.as_secs_f64() / partitions;
        let heads = (blocked / partitions).ceil().min(20_000.0);
        let spacing = (window / heads.max(1.0)).max(1.0);
        let offset = |number: f64| i64::try_from(round(number * spacing)).unwrap_or(i64::MAX);
        let due = |number: f64| Some(1_767_225_600_000 + round(number / heads * self.hold.as_secs_f64() * 1000.0));
        let count = u32::try_from(round(heads)).unwrap_or(u32::MAX);
        let heads = (0..count).map(f64::from).map(|number| MapHead { offset: offset(number), attempts: 2, due_ms: due(number) });
        let map = Map { committed: 0, frontier: offset(f64::from(count)), epoch: 1_767_225_600_000, heads: heads.collect() };
        let encoded = map.encode(MapLimits::default());
        (encoded.text.chars().count(), encoded.tier)
    }
}

/// The largest, rounded up, and its name.
fn most<const N: usize>(wants: [(f64, &'static str); N]) -> (u32, &'static str) {
    let (most, by) = wants.into_iter().fold((0.0, ""), |most, want| if want.0 > most.0 { want } else { most });
    (u32::try_from(round(most.ceil())).unwrap_or(u32::MAX), by)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "never below 0, and a float that is too large becomes the most"
)]
fn round(value: f64) -> u64 {
    value.max(0.0).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: Pod = Pod { cpus: 1.0, concurrency: 256.0, lane_events: 64.0 };

    fn load() -> Load {
        Load {
            rate: 100.0,
            event_bytes: 400.0,
            users: 10_000.0,
            failing: 0.001,
            hold: Duration::from_secs(35 * 60),
            retention: Duration::from_secs(8 * 24 * 3600),
            handler: Duration::from_millis(5),
            http: true,
        }
    }

    #[test]
    fn a_small_load_needs_two_pods_and_what_redis_remembers() {
        let needs = load().plan(POD);
        assert_eq!((needs.pods, needs.pods_by, needs.partitions), (2, "redundancy", 4));
        assert_eq!(needs.blocked_users, 210);
        // 100 a second for 8 days and half of them again, 83 bytes each.
        assert_eq!(needs.redis_bytes, 8_605_440_000);
        assert!(needs.commit_map_chars < 3800);
    }

    #[test]
    fn a_slow_app_needs_runs_at_once_and_a_fast_stream_cpu() {
        let slow = Load { rate: 1000.0, handler: Duration::from_secs(1), ..load() }.plan(POD);
        assert_eq!((slow.pods, slow.pods_by), (8, "concurrency"));
        let fast = Load { rate: 100_000.0, handler: Duration::ZERO, failing: 0.0, ..load() }.plan(POD);
        assert_eq!((fast.pods, fast.pods_by), (6, "cpu"));
    }

    #[test]
    fn more_blocked_users_than_a_commit_can_tell_of_need_more_partitions() {
        let many = Load { rate: 1000.0, users: 1e6, failing: 0.01, ..load() }.plan(POD);
        assert_eq!((many.blocked_users, many.partitions_by), (21_000, "commit_map"));
        let few = Load { rate: 1000.0, users: 1e6, failing: 0.0001, ..load() }.plan(POD);
        assert!(many.partitions > few.partitions && few.partitions_by == "pods");
        assert!(many.commit_map_chars <= 3800);
    }

    #[test]
    fn no_more_users_are_blocked_than_there_are() {
        let outage = Load { failing: 1.0, users: 50.0, ..load() }.plan(POD);
        assert_eq!(outage.blocked_users, 50);
        assert!(outage.held_events > 50 * 1000, "what comes meanwhile waits behind them");
    }
}
