//! What one seed means: which faults come when. Pure: the same seed, length and mood are the same plan.

use std::{collections::BTreeMap, fmt, time::Duration};

use fastrand::Rng;

/// Consumer processes.
pub const WORKERS: usize = 3;
/// Between two faults, on average: in a minute, where each kind is to have its turn, and in a long run.
const PACE: (Duration, Duration) = (Duration::from_millis(2_700), Duration::from_secs(7));
/// At the end, nothing goes wrong any more for this long.
const CALM_END: Duration = Duration::from_secs(5);
/// How often a fault is dealt before another kind has its turn.
const TRIES: usize = 6;
/// What a process, the broker or Redis needs to be itself again.
const GRACE: Duration = Duration::from_secs(8);

/// One thing that goes wrong, or that an operator does. Numbers are those of consumers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL; started again after this long.
    Kill(usize, Duration),
    /// SIGSTOP, SIGCONT after this long: past the session's end.
    Freeze(usize, Duration),
    /// SIGTERM, and the next one is started when it has ended.
    Roll(usize),
    /// SIGKILL of the producer; started again at once.
    KillProducer,
    /// SIGKILL of Redis; started again after this long, with what its log has.
    RestartRedis(Duration),
    /// FLUSHALL.
    Flush,
    /// SIGKILL of the broker; started again after this long.
    RestartBroker(Duration),
    /// The topic gets one partition more.
    Grow(&'static str),
    /// The DLQ is deleted, and made anew after this long.
    RecreateDlq(Duration),
    /// Every connection of this consumer is reset.
    Reset(usize, Link),
    /// Every connection of this consumer is half-open from now on.
    Strand(usize, Link),
    /// Nothing passes for this long; then all of it arrives, late.
    Cut(usize, Link, Duration),
    /// Every piece is this late (the first), for so long (the second).
    Slow(usize, Link, Duration, Duration),
}

/// Between which processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Link {
    Kafka,
    Redis,
}

/// Which faults there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// All.
    Wild,
    /// No worker crashes, none is stopped or cut off for longer than its lease, and Redis forgets nothing: nothing may run twice.
    Mild,
}

/// The plan.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    pub seed: u64,
    pub mood: Mood,
    pub length: Duration,
    pub faults: Vec<(Duration, Fault)>,
}

/// What a fault has to itself while it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Worker(usize),
    Producer,
    Redis,
    Broker,
    Line(usize, Link),
}

impl Plan {
    pub fn new(seed: u64, length: Duration, mood: Mood) -> Self {
        let mut rng = Rng::with_seed(seed ^ 0x50a4);
        let end = length.saturating_sub(CALM_END);
        let mut busy = BTreeMap::new();
        let mut faults = Vec::new();
        let mut deck = first_round(mood, &mut rng);
        let pace = (length / 22).clamp(PACE.0, PACE.1);
        let mut at = pace / 2;
        while at < end {
            if deck.is_empty() {
                deck = kinds(mood).to_vec();
                rng.shuffle(&mut deck);
            }
            // The first of the deck whose parts are free, for some worker; the others' turn comes later.
            let drawn = (0..deck.len() * TRIES).find_map(|number| {
                let card = number / TRIES;
                let fault = deal(deck[card], &mut rng, mood)?;
                let free = parts(fault).iter().all(|part| busy.get(part).is_none_or(|until| *until <= at));
                (free && at + lasts(fault) < end).then_some((card, fault))
            });
            if let Some((card, fault)) = drawn {
                deck.remove(card);
                for part in parts(fault) {
                    busy.insert(part, at + lasts(fault));
                }
                faults.push((at, fault));
            }
            at += pace.mul_f64(0.6 + 0.8 * rng.f64());
        }
        Self { seed, mood, length, faults }
    }
}

/// Each kind once, those that take long before those that are over at once: in a short run too, all of them come.
fn first_round(mood: Mood, rng: &mut Rng) -> Vec<&'static str> {
    let mut deck = kinds(mood).to_vec();
    deck.sort_unstable();
    deck.dedup();
    rng.shuffle(&mut deck);
    deck.sort_by_key(|kind| match kind.split(' ').next() {
        Some("freeze") => 0,
        Some("broker" | "dlq" | "redis" | "kill" | "cut") => 1,
        Some("flush" | "grow" | "reset") => 3,
        _ => 2,
    });
    deck
}

/// One round of faults, as names.
fn kinds(mood: Mood) -> &'static [&'static str] {
    match mood {
        Mood::Wild => &[
            "kill",
            "kill",
            "kill",
            "freeze",
            "roll",
            "roll",
            "producer",
            "redis",
            "flush",
            "broker",
            "grow",
            "dlq",
            "reset kafka",
            "reset redis",
            "reset kafka",
            "reset redis",
            "strand kafka",
            "strand redis",
            "cut kafka",
            "cut redis",
            "slow kafka",
            "slow redis",
        ],
        Mood::Mild => &[
            "roll",
            "roll",
            "roll",
            "producer",
            "redis",
            "broker",
            "grow",
            "dlq",
            "reset kafka",
            "reset redis",
            "reset kafka",
            "reset redis",
            "strand kafka",
            "strand redis",
            "cut kafka",
            "cut redis",
            "slow kafka",
            "slow redis",
        ],
    }
}

fn deal(kind: &str, rng: &mut Rng, mood: Mood) -> Option<Fault> {
    let worker = rng.usize(0..WORKERS);
    let seconds = |rng: &mut Rng, from: f64, to: f64| Duration::from_millis((1000.0 * (from + rng.f64() * (to - from))) as u64);
    let link = if kind.ends_with("redis") { Link::Redis } else { Link::Kafka };
    // Redis is never out of reach for as long as a lease lasts where nothing may run twice.
    let longest = if mood == Mood::Wild { 14.0 } else { 4.0 };
    Some(match kind.split(' ').next()? {
        "kill" => Fault::Kill(worker, seconds(rng, 0.0, 6.0)),
        "freeze" => Fault::Freeze(worker, seconds(rng, 12.0, 20.0)),
        "roll" => Fault::Roll(worker),
        "producer" => Fault::KillProducer,
        "redis" => Fault::RestartRedis(seconds(rng, 0.0, longest / 2.0)),
        "flush" => Fault::Flush,
        "broker" => Fault::RestartBroker(seconds(rng, 0.0, 8.0)),
        "grow" => Fault::Grow(["task-events", "reminders", "user-events"][rng.usize(0..3)]),
        "dlq" => Fault::RecreateDlq(seconds(rng, 0.5, 4.0)),
        "reset" => Fault::Reset(worker, link),
        "strand" => Fault::Strand(worker, link),
        "cut" => Fault::Cut(worker, link, seconds(rng, 0.5, longest)),
        _ => Fault::Slow(worker, link, seconds(rng, 0.02, 0.6), seconds(rng, 1.0, longest)),
    })
}

fn parts(fault: Fault) -> Vec<Part> {
    match fault {
        Fault::Kill(worker, _) | Fault::Freeze(worker, _) | Fault::Roll(worker) => vec![Part::Worker(worker)],
        Fault::KillProducer => vec![Part::Producer],
        Fault::RestartRedis(_) | Fault::Flush => vec![Part::Redis],
        Fault::RestartBroker(_) | Fault::Grow(_) | Fault::RecreateDlq(_) => vec![Part::Broker],
        Fault::Reset(worker, link) | Fault::Strand(worker, link) | Fault::Cut(worker, link, _) | Fault::Slow(worker, link, ..) => {
            vec![Part::Line(worker, link)]
        }
    }
}

/// How long a fault has its parts to itself.
fn lasts(fault: Fault) -> Duration {
    match fault {
        Fault::Kill(_, away) | Fault::RestartRedis(away) | Fault::RestartBroker(away) | Fault::RecreateDlq(away) => away + GRACE,
        Fault::Freeze(_, stopped) => stopped + GRACE,
        Fault::Roll(_) | Fault::KillProducer | Fault::Strand(..) => GRACE,
        Fault::Cut(_, _, length) | Fault::Slow(_, _, _, length) => length + Duration::from_secs(2),
        Fault::Flush | Fault::Grow(_) | Fault::Reset(..) => Duration::from_secs(2),
    }
}

impl Fault {
    /// The line of the report that it is counted in.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Kill(..) => "kill -9 of a consumer",
            Self::Freeze(..) => "SIGSTOP past the session",
            Self::Roll(_) => "SIGTERM roll",
            Self::KillProducer => "kill -9 of the producer",
            Self::RestartRedis(_) => "Redis killed and started",
            Self::Flush => "FLUSHALL",
            Self::RestartBroker(_) => "broker killed and started",
            Self::Grow(_) => "partition added",
            Self::RecreateDlq(_) => "DLQ deleted and made anew",
            Self::Reset(_, Link::Kafka) => "connections to Kafka reset",
            Self::Reset(_, Link::Redis) => "connections to Redis reset",
            Self::Strand(_, Link::Kafka) => "connections to Kafka half-open",
            Self::Strand(_, Link::Redis) => "connections to Redis half-open",
            Self::Cut(_, Link::Kafka, _) => "Kafka cut off",
            Self::Cut(_, Link::Redis, _) => "Redis cut off",
            Self::Slow(_, Link::Kafka, ..) => "Kafka slow",
            Self::Slow(_, Link::Redis, ..) => "Redis slow",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())?;
        match *self {
            Self::Kill(worker, length) | Self::Freeze(worker, length) | Self::Cut(worker, _, length) => {
                write!(f, ": consumer {worker}, {length:?}")
            }
            Self::Slow(worker, _, delay, length) => write!(f, ": consumer {worker}, {delay:?} each for {length:?}"),
            Self::Roll(worker) | Self::Reset(worker, _) | Self::Strand(worker, _) => write!(f, ": consumer {worker}"),
            Self::RestartRedis(length) | Self::RestartBroker(length) | Self::RecreateDlq(length) => write!(f, ": {length:?}"),
            Self::Grow(topic) => write!(f, ": {topic}"),
            Self::KillProducer | Self::Flush => Ok(()),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}, {:?}, {:?}: {} faults", self.seed, self.length, self.mood, self.faults.len())?;
        self.faults.iter().try_for_each(|(at, fault)| writeln!(f, "{:>8.1} s  {fault}", at.as_secs_f64()))
    }
}

#[test]
fn the_same_seed_is_the_same_plan_and_half_an_hour_has_two_hundred_faults_of_every_kind() {
    let length = Duration::from_secs(1800);
    for seed in 0..20 {
        let plan = Plan::new(seed, length, Mood::Wild);
        assert_eq!(plan, Plan::new(seed, length, Mood::Wild));
        assert_ne!(plan.faults, Plan::new(seed + 1, length, Mood::Wild).faults);
        assert!(plan.faults.len() >= 200, "{}", plan.faults.len());
        let kinds: std::collections::BTreeSet<_> = plan.faults.iter().map(|(_, fault)| fault.kind()).collect();
        assert_eq!(kinds.len(), 17, "{kinds:?}");
        let mild = Plan::new(seed, length, Mood::Mild);
        let crash = |fault: &Fault| matches!(fault, Fault::Kill(..) | Fault::Freeze(..) | Fault::Flush);
        assert!(!mild.faults.iter().any(|(_, fault)| crash(fault)));
    }
}

#[test]
fn a_minute_has_every_kind_of_fault() {
    for seed in 0..50 {
        for (mood, every) in [(Mood::Wild, 17), (Mood::Mild, 14)] {
            let plan = Plan::new(seed, Duration::from_secs(60), mood);
            let kinds: std::collections::BTreeSet<_> = plan.faults.iter().map(|(_, fault)| fault.kind()).collect();
            assert_eq!(kinds.len(), every, "{plan}");
        }
    }
}
