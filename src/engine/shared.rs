//! What every partition of a process shares: the parts it was assembled from, and the limits.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    Alerts, OnOverflow, Rules, WhenDown,
    at_work::AtWork,
    commit::Commits,
    dead::{self, Origin},
    guard::Guard,
    lease::Keeper,
    limits::{Breaker, Permits},
    member::member,
    pace::Beat,
    ports::{Committed, DedupeStore, LogReader, Member, OffsetSink, Publisher},
    subject::Subject,
};
use crate::{
    event::{
        decode::Decoder,
        record::{Record, TopicPartition},
    },
    handler::Registry,
    progress::Map,
    retry::Schedules,
    telemetry::Metrics,
};

/// A metric label from a closed set.
pub(super) type Label = Arc<str>;

/// What an engine is assembled from.
pub struct Parts {
    /// Bytes to events.
    pub decoder: Decoder,
    /// Who handles which.
    pub registry: Registry,
    /// Backoff by event type.
    pub schedules: Schedules,
    /// What happened.
    pub store: Arc<dyn DedupeStore>,
    /// Writes dead letters.
    pub publisher: Arc<dyn Publisher>,
    /// Commits offsets.
    pub offsets: Arc<dyn OffsetSink>,
    /// Reads a blocked user's backlog again; without it, all of it is kept whole.
    pub reader: Option<Arc<dyn LogReader>>,
    /// Counts.
    pub metrics: Metrics,
    /// What time it is.
    pub clock: Clock,
    /// Told of dead letters.
    pub alerts: Alerts,
}

/// Limits and names; the meaning of each is its configuration key's.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "documented at the configuration keys of the same names")]
pub struct Options {
    pub group: Arc<str>,
    pub worker: Arc<str>,
    pub dlq_topic: Arc<str>,
    pub concurrency: usize,
    pub memory: u64,
    pub lane_events: usize,
    pub drain_timeout: Duration,
    pub commit_interval: Duration,
    pub commit_map_chars: usize,
    pub max_held_events: u64,
    pub max_hold_age: Duration,
    pub on_overflow: OnOverflow,
    pub skip_unknown: bool,
    pub breaker_ratio: f64,
    pub when_down: WhenDown,
    /// Of jitter and owner ids.
    pub seed: u64,
}

/// The wall clock: the system's, or one that follows the runtime's (paused) time.
#[derive(Debug, Clone, Copy)]
pub enum Clock {
    /// The system's.
    System,
    /// `base` at `start`, moving with the runtime.
    Virtual {
        /// The time at `start`.
        base: DateTime<Utc>,
        /// When it began.
        start: Instant,
    },
}

impl Clock {
    /// Now.
    pub fn now(&self) -> DateTime<Utc> {
        match self {
            Self::System => Utc::now(),
            Self::Virtual { base, start } => *base + start.elapsed(),
        }
    }

    /// Now, milliseconds since 1970.
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.now().timestamp_millis()).unwrap_or_default()
    }
}

pub(super) struct Shared {
    pub(super) decoder: Decoder,
    pub(super) registry: Registry,
    pub(super) schedules: Schedules,
    pub(super) guard: Guard,
    pub(super) keeper: Keeper,
    pub(super) publisher: Arc<dyn Publisher>,
    pub(super) reader: Option<Arc<dyn LogReader>>,
    pub(super) metrics: Metrics,
    pub(super) clock: Clock,
    pub(super) alerts: Alerts,
    pub(super) commits: Commits,
    pub(super) options: Options,
    pub(super) rules: Rules,
    pub(super) origin: Origin,
    pub(super) permits: Permits,
    pub(super) at_work: Arc<AtWork>,
    pub(super) beat: Beat,
    pub(super) breaker: Arc<Breaker>,
    pub(super) conservation: Conservation,
    /// Why the process must end, where something beyond repair was met.
    fatal: Fatal,
    rng: Mutex<fastrand::Rng>,
    told_unrouted: Mutex<HashSet<Label>>,
    unknown: Label,
}

impl Shared {
    pub(super) fn new(parts: Parts, options: Options, rules: Rules, commits: Commits) -> Self {
        let guard = Guard::new(parts.store, options.when_down, parts.metrics.clone());
        parts.metrics.store_up.set(1);
        let limits = parts.registry.bindings().iter().map(|binding| binding.concurrency);
        Self {
            decoder: parts.decoder,
            keeper: Keeper::new(guard.clone(), parts.clock.now_ms()),
            guard,
            permits: Permits::new(options.concurrency, limits),
            registry: parts.registry,
            schedules: parts.schedules,
            publisher: parts.publisher,
            reader: parts.reader,
            metrics: parts.metrics,
            clock: parts.clock,
            alerts: parts.alerts,
            commits,
            origin: Origin {
                topic: Arc::clone(&options.dlq_topic),
                group: Arc::clone(&options.group),
                worker: Arc::clone(&options.worker),
            },
            at_work: Arc::default(),
            beat: Beat::default(),
            breaker: Arc::new(Breaker::new(options.breaker_ratio)),
            conservation: Conservation::default(),
            fatal: Fatal::default(),
            rng: Mutex::new(fastrand::Rng::with_seed(options.seed)),
            told_unrouted: Mutex::default(),
            unknown: "unknown".into(),
            options,
            rules,
        }
    }

    /// Bytes to what a handler or the DLQ takes.
    pub(super) fn decode(&self, record: Record) -> Subject {
        match self.decoder.decode(record) {
            Ok(event) => Subject::Event(Arc::new(event)),
            Err(rejected) => Subject::Rejected(rejected),
        }
    }

    /// The ledger's name for a subject.
    pub(super) fn identify(&self, subject: &Subject) -> Member {
        let record = subject.record();
        let from_offset = match subject {
            Subject::Event(event) => event.id_from_offset(),
            Subject::Rejected(rejected) => rejected.id_from_offset,
        };
        let redrives = if self.rules.redrives_in_member { dead::redrives(record) } else { 0 };
        let origin = from_offset.then(|| (record.timestamp(), record.value()));
        member(record.topic(), subject.user_id().unwrap_or_default(), subject.id(), redrives, origin)
    }

    /// The metric label of a subject's type: the catalogue's name, or `unknown`.
    pub(super) fn label<'a>(&'a self, subject: &'a Subject) -> &'a Label {
        let canonical = match subject {
            Subject::Event(event) => (!event.kind().unlisted).then(|| event.event_type()),
            Subject::Rejected(rejected) => rejected.event_type.as_deref().and_then(|name| self.decoder.catalog().canonical(name)),
        };
        canonical.unwrap_or(&self.unknown)
    }

    /// The label of what has no known type.
    pub(super) fn unknown(&self) -> &Label {
        &self.unknown
    }

    /// The commit map in a commit's metadata; what is none is counted, said once per assignment, and read as none.
    pub(super) fn read_map(&self, partition: &TopicPartition, committed: &Committed) -> Option<Map> {
        match Map::decode(committed.offset, committed.metadata.as_deref().unwrap_or_default()) {
            Ok(map) => map,
            Err(error) => {
                self.metrics.foreign_commit_maps.inc();
                tracing::warn!(kafka.partition = %partition, error = %error, "commit metadata is not a map of ours; starting from the committed offset");
                None
            }
        }
    }

    /// Something beyond repair was met: the engine ends.
    pub(super) fn fail(&self, error: &str) {
        self.fatal.reason.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| error.to_owned());
        self.fatal.met.cancel();
    }

    /// Resolves when something beyond repair was met.
    pub(super) async fn failed(&self) -> String {
        self.fatal.met.cancelled().await;
        self.fatal.reason.lock().unwrap_or_else(PoisonError::into_inner).clone().unwrap_or_default()
    }

    /// A new owner's name: one per assignment.
    pub(super) fn new_owner(&self) -> Arc<str> {
        let number = self.rng.lock().unwrap_or_else(PoisonError::into_inner).u64(..);
        if !self.rules.owner_per_assignment {
            return Arc::clone(&self.options.worker);
        }
        format!("{}/{number:016x}", self.options.worker).into()
    }

    /// Randomness of a partition's own.
    pub(super) fn fork_rng(&self) -> fastrand::Rng {
        self.rng.lock().unwrap_or_else(PoisonError::into_inner).fork()
    }

    /// A known type that nobody handles: said once.
    pub(super) fn unrouted(&self, label: &Label) {
        let mut told = self.told_unrouted.lock().unwrap_or_else(PoisonError::into_inner);
        if told.insert(Arc::clone(label)) {
            tracing::warn!(event.r#type = &**label, "no handler is bound to this type; its events are settled as unrouted");
        }
    }
}

/// Which partitions have records that are neither settled nor held: always none.
#[derive(Debug, Default)]
pub(super) struct Conservation(Mutex<HashSet<TopicPartition>>);

impl Conservation {
    pub(super) fn note(&self, partition: &TopicPartition, broken: bool) {
        let mut set = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if broken {
            set.insert(partition.clone());
        } else {
            set.remove(partition);
        }
    }

    /// How many partitions.
    pub(super) fn broken(&self) -> i64 {
        i64::try_from(self.0.lock().unwrap_or_else(PoisonError::into_inner).len()).unwrap_or(i64::MAX)
    }
}

/// Something beyond repair, and what it was.
#[derive(Debug, Default)]
struct Fatal {
    met: CancellationToken,
    reason: Mutex<Option<String>>,
}
