//! The engine on one thread, in virtual time, on a log and a store in memory.

use std::{sync::Arc, time::Duration};

use futures_util::future::{BoxFuture, FutureExt as _, ready};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use worker::{
    config::{Config, Sources, engine::OnOverflow},
    engine::{
        Alerts, Clock, Engine, Options, Parts, WhenDown,
        ports::{Acked, Assignment, Commit, CommitError, Gate, Message, OffsetSink, PublishError, Publisher, SourceEvent, weight},
    },
    event::{
        Catalog, Decoder,
        record::{RecordParts, TopicPartition},
    },
    handler::{Binding, Registry},
    retry::Schedules,
    store::memory::MemoryStore,
    telemetry::Metrics,
};

use super::cases::canonical;

/// Records of one hand-over, as the Source makes them.
const BATCH: u64 = 512;

/// Takes commits and dead letters.
struct Sink;

impl OffsetSink for Sink {
    fn commit(&self, _commits: Vec<Commit>) -> BoxFuture<'_, Result<(), CommitError>> {
        ready(Ok(())).boxed()
    }
}

impl Publisher for Sink {
    fn publish(&self, _message: Message) -> BoxFuture<'_, Result<Acked, PublishError>> {
        ready(Ok(Acked { partition: 0, offset: 0 })).boxed()
    }
}

/// Drives `rounds` events through, to one handler.
///
/// # Errors
/// Where the engine ends by itself.
pub fn run(rounds: u64, handler: Binding) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?;
    runtime.block_on(drive(rounds, handler))
}

async fn drive(rounds: u64, handler: Binding) -> anyhow::Result<()> {
    let start = Instant::now();
    let (sink, metrics) = (Arc::new(Sink), Metrics::new("bench"));
    let config = Config::load(&Sources::default())?.config;
    let parts = Parts {
        decoder: Decoder::new(Arc::new(Catalog::embedded()?), true),
        registry: Registry::new().bind(handler),
        schedules: Schedules::new(&config.retry),
        store: Arc::new(MemoryStore::default()),
        publisher: Arc::clone(&sink) as Arc<dyn Publisher>,
        offsets: sink,
        reader: None,
        metrics: metrics.clone(),
        clock: Clock::Virtual { base: "2026-01-01T00:00:00Z".parse()?, start },
        alerts: Alerts::default(),
    };
    let (source, events) = mpsc::channel(4);
    let shutdown = CancellationToken::new();
    let engine = tokio::spawn(Engine::new(parts, options()).run(events, shutdown.clone()));
    let (inbox, outlet) = mpsc::channel(4);
    let gate = Arc::new(Gate::default());
    let partition = TopicPartition::new("task-events", 0);
    let assignment =
        Assignment { partition: partition.clone(), start: 0, log_start: 0, committed: None, inbox: outlet, gate: Arc::clone(&gate) };
    anyhow::ensure!(source.send(SourceEvent::Assigned(vec![assignment])).await.is_ok(), "the engine has ended");
    for first in (0..rounds).step_by(usize::try_from(BATCH)?) {
        let batch: Vec<RecordParts> = (first..rounds.min(first + BATCH)).map(canonical).collect();
        gate.add(batch.iter().map(|record| weight(record)).sum());
        anyhow::ensure!(inbox.send(Box::new(batch)).await.is_ok(), "the engine let go of its partition");
    }
    let (drained, answer) = oneshot::channel();
    let settled = metrics.events_settled.with_label_values(&["task-events", "task.created", "done"]);
    while settled.get() < rounds {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    anyhow::ensure!(source.send(SourceEvent::Revoked { partitions: vec![partition], drained }).await.is_ok(), "the engine has ended");
    answer.await?;
    shutdown.cancel();
    engine.await??;
    Ok(())
}

fn options() -> Options {
    Options {
        group: "group".into(),
        worker: "worker".into(),
        dlq_topic: "dlq".into(),
        concurrency: 256,
        memory: 256 << 20,
        lane_events: 64,
        drain_timeout: Duration::from_secs(25),
        commit_interval: Duration::from_secs(1),
        commit_map_chars: 3800,
        max_held_events: 1_000_000,
        max_hold_age: Duration::from_secs(7200),
        on_overflow: OnOverflow::Dlq,
        skip_unknown: false,
        breaker_ratio: 0.5,
        when_down: WhenDown::Hold,
        seed: 7,
    }
}
