//! What one seed means: a topic, its events, how handlers answer them, and what goes wrong when.

use fastrand::Rng;

/// Faults stop at this time (virtual milliseconds); from then on everything has to come right.
pub const HEAL_MS: u64 = 45_000;
/// Everything is handled and committed by this time, or it never will be; where events killed processes, somewhat later.
pub const END_MS: u64 = 420_000;

/// One thing that goes wrong, or that an operator does.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The process is gone at once, wherever it stands.
    Kill(usize),
    /// The process is gone at its n-th call to the outside from now on.
    KillAtCall(usize, u64),
    /// SIGSTOP, and SIGCONT after this long.
    Freeze(usize, u64),
    /// SIGTERM; the next one runs this version of the configuration.
    Roll(usize, usize),
    /// Kafka is out of reach for one process, the store is not.
    Cut(usize, u64),
    /// The group moves partitions around.
    Rebalance,
    /// The store does not answer.
    StoreDown(u64),
    /// The store takes its time.
    StoreSlow(u64),
    /// The store does what it is asked, and its answers are lost.
    StoreMute(u64),
    /// Requests to the store arrive after their sender has given up.
    StoreLate(u64),
    /// FLUSHALL.
    Flush,
    /// A replica takes over that lacks the writes of the last so many milliseconds.
    Failover(u64),
    /// One shard of the ledger is lost.
    ShardLost(usize),
    /// The store's clock jumps by so many milliseconds.
    StoreClock(i64),
    /// Commits fail.
    CommitsFail(u64),
    /// Commits are stored, the answers are lost.
    CommitsMute(u64),
    /// Nothing can be written to the DLQ.
    DlqDown(u64),
    /// Dead letters are written, the acknowledgements are lost.
    DlqMute(u64),
    /// Old records cannot be read again.
    ReaderFails(u64),
    /// The log's start moves up by so many records.
    Retention(i32, u64),
    /// One record is compacted away.
    Compact(i32),
    /// The topic gets one partition more.
    Grow,
    /// The broker takes shorter metadata from now on.
    MetadataLimit(usize),
}

/// What a produced record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Good,
    /// Its value is no JSON.
    Undecodable,
    /// The catalogue does not know its type.
    UnknownType,
    /// No key; its body says whose it is.
    Keyless,
    /// Its key is not its user.
    OddKey,
    /// The producer's second try of the event before it.
    Twin,
}

/// One record to be produced.
#[derive(Debug, Clone)]
pub struct Produced {
    pub at_ms: u64,
    pub user: usize,
    pub event_type: &'static str,
    pub shape: Shape,
    /// Offsets left out before it: transaction markers.
    pub gap: i64,
}

/// How a handler answers one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    Ok,
    Drop,
    /// So many failures first; some ask for a delay.
    Fails(u32, Option<u64>),
    AlwaysFails,
    Permanent,
    Slow(u64),
    TimesOutOnce,
    PanicsOnce,
    /// Every run ends the process.
    Poison,
}

/// What one seed means.
#[derive(Debug, Clone)]
pub struct Plan {
    pub workers: usize,
    pub partitions: i32,
    pub events: Vec<Produced>,
    pub faults: Vec<(u64, Fault)>,
    pub concurrency: usize,
    pub lane_events: usize,
    pub memory: u64,
    pub max_held_events: u64,
    pub bypass_after_ms: Option<u64>,
    pub metadata_limit: usize,
    /// Whether dead letters are sent back once.
    pub redrive: bool,
    /// Chances in a thousand, by behaviour.
    pub poison: u32,
    pub handler_timeout_ms: u64,
    pub drain_ms: u64,
    /// Runs in a thousand that just succeed.
    pub ok: u32,
    /// Between two small batches from the log; 0: as fast as it goes.
    pub fetch_ms: u64,
    /// How far each worker's wall clock is off.
    pub clocks_ms: Vec<i64>,
    /// A client that is cut off finds out by itself that its session is over (the classic protocol), or is told when it is back (KIP-848).
    pub notices: bool,
}

const TYPES: [&str; 3] = ["task.created", "task.updated", "task.completed"];

impl Plan {
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed ^ 0x51_3a_7e);
        let workers = rng.usize(2..=3);
        // Many users and a broker that takes little metadata: the commit map overflows.
        let crowd = rng.u8(0..16) == 0;
        let users = if crowd { 40 } else { rng.usize(2..=6) };
        let count = if crowd { 70 } else { rng.usize(15..=45) };
        let odd = rng.u32(0..12);
        let mut at_ms = 0;
        let events = (0..count)
            .map(|_| {
                at_ms += if rng.u8(0..4) == 0 { rng.u64(0..4_000) } else { rng.u64(0..300) };
                at_ms = at_ms.min(HEAL_MS - 5_000);
                let shape = match rng.u32(0..100) {
                    n if n < odd => [Shape::Undecodable, Shape::UnknownType, Shape::Keyless, Shape::OddKey, Shape::Twin][rng.usize(0..5)],
                    _ => Shape::Good,
                };
                let gap = if rng.u8(0..12) == 0 { rng.i64(1..4) } else { 0 };
                Produced { at_ms, user: rng.usize(0..users), event_type: TYPES[rng.usize(0..3)], shape, gap }
            })
            .collect();
        let bypass = rng.u8(0..24) == 0;
        let mut plan = Self {
            workers,
            partitions: 2,
            events,
            faults: Vec::new(),
            concurrency: [2, 4, 16][rng.usize(0..3)],
            lane_events: [1, 2, 4, 64][rng.usize(0..4)],
            memory: if rng.u8(0..4) == 0 { 12_000 } else { 1 << 26 },
            max_held_events: if rng.u8(0..8) == 0 { 4 } else { 1_000_000 },
            bypass_after_ms: bypass.then(|| rng.u64(500..4_000)),
            metadata_limit: if crowd {
                rng.usize(14..29)
            } else if rng.u8(0..10) == 0 {
                rng.usize(4..40)
            } else {
                4096
            },
            redrive: rng.u8(0..4) == 0,
            poison: if rng.u8(0..10) == 0 { 15 } else { 0 },
            handler_timeout_ms: 12_000,
            drain_ms: [2_000, 5_000, 20_000][rng.usize(0..3)],
            ok: if crowd { 200 } else { 640 },
            fetch_ms: if rng.u8(0..4) == 0 { rng.u64(50..900) } else { 0 },
            clocks_ms: vec![0; workers],
            notices: true,
        };
        plan.faults = plan.faults_of(&mut rng);
        // Numbers of their own, so that everything above means what it did before these were added.
        let mut rng = Rng::with_seed(seed ^ 0x0c_10_c5);
        if rng.u8(0..6) == 0 {
            plan.clocks_ms = (0..workers).map(|_| rng.i64(-4_000_000..4_000_000)).collect();
        }
        plan.notices = rng.bool();
        plan
    }

    fn faults_of(&self, rng: &mut Rng) -> Vec<(u64, Fault)> {
        let families: Vec<u8> = (0..9).filter(|_| rng.u8(0..10) < 3).collect();
        if families.is_empty() {
            return Vec::new();
        }
        let mut faults: Vec<(u64, Fault)> = (0..rng.usize(1..=12))
            .map(|_| {
                let at = rng.u64(500..HEAL_MS - 8_000);
                let worker = rng.usize(0..self.workers);
                let length = if rng.bool() { rng.u64(50..1_500) } else { rng.u64(1_000..18_000) };
                let fault = match families[rng.usize(0..families.len())] {
                    0 => {
                        if rng.bool() {
                            Fault::Kill(worker)
                        } else {
                            Fault::KillAtCall(worker, rng.u64(1..40))
                        }
                    }
                    1 => Fault::Freeze(worker, rng.u64(500..30_000)),
                    2 => match rng.u8(0..3) {
                        0 => Fault::Rebalance,
                        n => Fault::Roll(worker, usize::from(n == 1)),
                    },
                    3 => match rng.u8(0..4) {
                        0 => Fault::StoreDown(length),
                        1 => Fault::StoreSlow(length),
                        2 => Fault::StoreMute(length.min(8_000)),
                        _ => Fault::StoreLate(length.min(8_000)),
                    },
                    4 => match rng.u8(0..4) {
                        0 => Fault::Flush,
                        1 => Fault::Failover(rng.u64(100..5_000)),
                        2 => Fault::ShardLost(rng.usize(0..4)),
                        _ => Fault::StoreClock(rng.i64(-8_000..8_000)),
                    },
                    5 => match rng.u8(0..3) {
                        0 => Fault::CommitsFail(length),
                        1 => Fault::CommitsMute(length),
                        _ => Fault::MetadataLimit([6, 12, 30, 1024][rng.usize(0..4)]),
                    },
                    6 => match rng.u8(0..3) {
                        0 => Fault::DlqDown(length),
                        1 => Fault::DlqMute(length),
                        _ => Fault::ReaderFails(length),
                    },
                    7 => match rng.u8(0..6) {
                        0 => Fault::Grow,
                        1 | 2 => Fault::Compact(rng.i32(0..2)),
                        _ => Fault::Retention(rng.i32(0..2), rng.u64(1..5)),
                    },
                    _ => {
                        if rng.bool() {
                            Fault::Cut(worker, if rng.u8(0..3) == 0 { 70_000 } else { rng.u64(500..30_000) })
                        } else {
                            Fault::Rebalance
                        }
                    }
                };
                (at, fault)
            })
            .collect();
        faults.sort_by_key(|(at, _)| *at);
        faults
    }
}
