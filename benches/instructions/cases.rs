//! What is counted.

use std::{hint::black_box, sync::Arc};

use clap::ValueEnum;
use worker::{
    engine::member::member,
    event::{
        Catalog, Decoder,
        record::{Record, RecordParts, TopicPartition},
    },
    handler::{Binding, Handler, Registry, Run},
    outcome::{Handled, HandlerResult},
    progress::{Head, Map, MapHead, MapLimits, Tracker},
};

use super::engine;

/// One case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Case {
    /// A record copied out of the client's buffer
    Copy,
    /// A canonical event decoded and validated
    Decode,
    /// The same without validation
    DecodeOnly,
    /// An event inside a structured CloudEvent decoded and validated
    DecodeCloudevent,
    /// The ledger's name of an event
    Member,
    /// Which handlers a type goes to, of ten
    Route,
    /// An offset taken in and settled
    Tracker,
    /// A snapshot with a hundred blocked heads as a commit's text
    MapEncode,
    /// The same text read back
    MapDecode,
    /// An event's whole way through the engine: decode, validate, lane, ledger in memory, handler, settlement
    Engine,
    /// The same where the handler has to wait, as for an app's answer
    EngineWaiting,
}

/// Does nothing.
pub struct Noop;

impl Handler for Noop {
    async fn handle(&self, _run: Run) -> HandlerResult {
        Ok(Handled::Done)
    }
}

/// Does nothing, later.
pub struct Waiting;

impl Handler for Waiting {
    async fn handle(&self, _run: Run) -> HandlerResult {
        tokio::task::yield_now().await;
        Ok(Handled::Done)
    }
}

impl Case {
    /// Its name on the command line and in the budget.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Enough that chance (hash seeds, addresses) is lost in them.
    pub fn rounds(self) -> u64 {
        match self {
            Self::MapEncode | Self::MapDecode => 500,
            Self::Engine | Self::EngineWaiting => 4096,
            _ => 2000,
        }
    }

    /// Runs it that many times.
    ///
    /// # Errors
    /// Where the embedded catalogue cannot be read.
    pub fn run(self, rounds: u64) -> anyhow::Result<()> {
        match self {
            Self::Copy => {
                let (partition, record) = (TopicPartition::new("task-events", 0), canonical(7));
                repeat(rounds, || Record::copy_of(&partition, &record));
            }
            Self::Decode => decode(rounds, true, canonical(7))?,
            Self::DecodeOnly => decode(rounds, false, canonical(7))?,
            Self::DecodeCloudevent => decode(rounds, true, cloudevent(7))?,
            Self::Member => repeat(rounds, || member("task-events", black_box("user-00007"), black_box("9a3b6f0e-7"), 0, None)),
            Self::Route => route(rounds),
            Self::Tracker => {
                let mut tracker = Tracker::new(0, None);
                for offset in 0..i64::try_from(rounds)? {
                    black_box(tracker.intake(offset, Some(b"user-00007")));
                    tracker.settle(offset);
                }
            }
            Self::MapEncode => {
                let mut tracker = Tracker::new(0, None);
                for offset in 0..10_000 {
                    tracker.intake(offset, Some(b"user-00007"));
                    tracker.settle(offset);
                }
                repeat(rounds, || tracker.snapshot(heads(), 1_767_225_600_000, MapLimits::default()));
            }
            Self::MapDecode => {
                let heads = heads().map(|head| MapHead { offset: head.offset, attempts: head.attempts, due_ms: head.due_ms });
                let map = Map { committed: 0, frontier: 9_999, epoch: 1_767_225_600_000, heads: heads.collect() };
                let text = map.encode(MapLimits::default()).text;
                repeat(rounds, || Map::decode(0, black_box(&text)));
            }
            Self::Engine => engine::run(rounds, Binding::new("noop", &["*"], Noop))?,
            Self::EngineWaiting => engine::run(rounds, Binding::new("waiting", &["*"], Waiting))?,
        }
        Ok(())
    }
}

fn repeat<T>(rounds: u64, mut round: impl FnMut() -> T) {
    for _ in 0..rounds {
        black_box(round());
    }
}

fn decode(rounds: u64, validate: bool, record: RecordParts) -> anyhow::Result<()> {
    let decoder = Decoder::new(Arc::new(Catalog::embedded()?), validate);
    let record = Record::copy_of(&TopicPartition::new("task-events", 0), &record);
    anyhow::ensure!(decoder.decode(record.clone()).is_ok(), "the event of this case is not valid");
    repeat(rounds, || decoder.decode(record.clone()));
    Ok(())
}

fn route(rounds: u64) {
    const PATTERNS: [&str; 10] = [
        "task.*",
        "task.completed",
        "reminder.due",
        "reminder.*",
        "user.*",
        "user.logged_in",
        "notification.*",
        "points.*",
        "schedule.ticked",
        "*",
    ];
    let registry = PATTERNS
        .iter()
        .enumerate()
        .fold(Registry::new(), |registry, (number, pattern)| registry.bind(Binding::new(&format!("handler-{number}"), &[pattern], Noop)));
    repeat(rounds, || registry.route(black_box("task.created"), "task-events").sum::<usize>());
}

/// A hundred users that wait for a retry.
fn heads() -> impl Iterator<Item = Head> {
    (0..100).map(|number| {
        let offset = number * 97;
        Head { offset, first_keyed: Some(offset), attempts: 2, due_ms: Some(1_767_225_600_000 + number.unsigned_abs() * 311) }
    })
}

/// The event of a number: 400 bytes in the canonical shape.
pub fn canonical(number: u64) -> RecordParts {
    let user = format!("user-{:05}", number % 1000);
    let value = format!(
        r#"{{"event_id":"550e8400-e29b-41d4-a716-{number:012}","event_type":"task.created","event_version":"1.0","timestamp":"2026-01-01T00:00:00Z","source":"todo-backend","data":{{"task_id":{number},"user_id":"{user}","title":"Buy groceries","description":"Milk, eggs, bread","priority":"high","created_at":"2026-01-01T00:00:00Z"}},"metadata":{{"correlation_id":"req_0000000000000007","user_id":"{user}"}}}}"#
    );
    RecordParts {
        offset: i64::try_from(number).unwrap_or_default(),
        timestamp: Some(1_767_225_600_000),
        key: Some(user.into_bytes()),
        value: Some(value.into_bytes()),
        headers: Vec::new(),
    }
}

/// The same as a sidecar wraps it.
fn cloudevent(number: u64) -> RecordParts {
    let inner = canonical(number);
    let value = format!(
        r#"{{"specversion":"1.0","type":"com.dapr.event.sent","source":"todo-service","id":"{number}","datacontenttype":"application/json","topic":"task-events","pubsubname":"kafka-pubsub","data":{}}}"#,
        String::from_utf8_lossy(inner.value.as_deref().unwrap_or_default())
    );
    RecordParts { value: Some(value.into_bytes()), ..inner }
}
