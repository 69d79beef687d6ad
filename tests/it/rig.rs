//! An engine on a log in memory: what it commits, writes and runs is recorded, time is virtual.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use worker::{
    config::engine::OnOverflow,
    engine::{
        Alerts, Clock, Drained, Engine, EngineError, Options, Parts, WhenDown,
        ports::{
            Acked, Assignment, Commit, CommitError, Committed, DedupeStore, Gate, LogReader, Message, OffsetSink, PublishError, Publisher,
            SourceEvent, weight,
        },
    },
    event::{
        Catalog, Decoder,
        record::{RecordBatch, RecordParts, TopicPartition},
    },
    handler::{Binding, Handler, Registry, Run},
    outcome::HandlerResult,
    retry::Schedules,
    store::memory::{MemoryLimits, MemoryStore},
    telemetry::Metrics,
};

/// One handler run as the handler saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    pub handler: &'static str,
    pub user: String,
    pub id: String,
    pub offset: i64,
    pub attempt: u32,
    /// Since the rig's start.
    pub at: Duration,
}

/// What a scripted handler does.
pub type Script = Arc<dyn Fn(&Run) -> BoxFuture<'static, HandlerResult> + Send + Sync>;

struct Scripted {
    name: &'static str,
    script: Script,
    effects: Arc<Mutex<Vec<Effect>>>,
    start: Instant,
}

impl Handler for Scripted {
    async fn handle(&self, run: Run) -> HandlerResult {
        let effect = Effect {
            handler: self.name,
            user: run.event.user_id().to_owned(),
            id: run.event.id().to_owned(),
            offset: run.event.record().offset(),
            attempt: run.attempt,
            at: self.start.elapsed(),
        };
        self.effects.lock().unwrap().push(effect);
        (self.script)(&run).await
    }
}

/// Records commits; fails them while told to.
#[derive(Default)]
pub struct Offsets {
    pub log: Mutex<Vec<Commit>>,
    pub failing: Mutex<Option<CommitError>>,
    /// The broker does not answer, for as long as it is told to.
    pub silent: AtomicBool,
}

impl OffsetSink for Offsets {
    fn commit(&self, commits: Vec<Commit>) -> BoxFuture<'_, Result<(), CommitError>> {
        Box::pin(async move {
            while self.silent.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            if let Some(error) = self.failing.lock().unwrap().clone() {
                return Err(error);
            }
            self.log.lock().unwrap().extend(commits);
            Ok(())
        })
    }
}

/// Records what is published; refuses while told to.
#[derive(Default)]
pub struct Published {
    pub log: Mutex<Vec<Message>>,
    pub failing: Mutex<Option<PublishError>>,
    pub attempts: Mutex<usize>,
    /// From the sending of a record to its acknowledgement.
    pub takes: Mutex<Duration>,
}

impl Publisher for Published {
    fn publish(&self, message: Message) -> BoxFuture<'_, Result<Acked, PublishError>> {
        Box::pin(async move {
            *self.attempts.lock().unwrap() += 1;
            let takes = *self.takes.lock().unwrap();
            if !takes.is_zero() {
                tokio::time::sleep(takes).await;
            }
            if let Some(error) = self.failing.lock().unwrap().clone()
                && !(error == PublishError::TooLarge && message.value.as_ref().is_some_and(|value| value.is_empty()))
            {
                return Err(error);
            }
            let mut log = self.log.lock().unwrap();
            log.push(message);
            Ok(Acked { partition: 0, offset: log.len() as i64 - 1 })
        })
    }
}

/// How an engine is set up.
pub struct Setup {
    pub registry: Vec<(&'static str, &'static [&'static str], Script)>,
    pub store: Arc<dyn DedupeStore>,
    pub options: Options,
    pub timeout: Duration,
    /// A handler's own limit of runs at once.
    pub limit: Option<(&'static str, usize)>,
    pub schedules: Option<Schedules>,
    pub reader: Option<Arc<dyn LogReader>>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            registry: Vec::new(),
            store: Arc::new(MemoryStore::new(MemoryLimits::default())),
            options: Options {
                group: "group".into(),
                worker: "worker-1".into(),
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
            },
            timeout: Duration::from_secs(30),
            limit: None,
            schedules: None,
            reader: None,
        }
    }
}

impl Setup {
    /// One handler for every type.
    pub fn handler(script: impl Fn(&Run) -> HandlerResult + Send + Sync + 'static) -> Self {
        Self::default().and("test", &["*"], script)
    }

    /// One handler more.
    pub fn and(
        mut self,
        name: &'static str,
        events: &'static [&'static str],
        script: impl Fn(&Run) -> HandlerResult + Send + Sync + 'static,
    ) -> Self {
        self.registry.push((name, events, Arc::new(move |run: &Run| Box::pin(std::future::ready(script(run))))));
        self
    }

    /// One handler more that takes its time.
    pub fn and_async(
        mut self,
        name: &'static str,
        script: impl Fn(&Run) -> BoxFuture<'static, HandlerResult> + Send + Sync + 'static,
    ) -> Self {
        self.registry.push((name, &["*"], Arc::new(script)));
        self
    }
}

/// Where a partition's records go in.
type Inbox = (mpsc::Sender<Box<dyn RecordBatch>>, Arc<Gate>);

/// A running engine.
pub struct Rig {
    pub source: mpsc::Sender<SourceEvent>,
    pub offsets: Arc<Offsets>,
    pub published: Arc<Published>,
    pub effects: Arc<Mutex<Vec<Effect>>>,
    pub metrics: Metrics,
    pub shutdown: CancellationToken,
    pub start: Instant,
    engine: JoinHandle<Result<Drained, EngineError>>,
    inboxes: BTreeMap<TopicPartition, Inbox>,
}

impl Rig {
    pub fn start(setup: Setup) -> Self {
        let start = Instant::now();
        let effects = Arc::new(Mutex::new(Vec::new()));
        let mut registry = Registry::new();
        for (name, events, script) in setup.registry {
            let mut binding = Binding::new(name, events, Scripted { name, script, effects: Arc::clone(&effects), start });
            binding.timeout = setup.timeout;
            if let Some((_, limit)) = setup.limit.filter(|(limited, _)| *limited == name) {
                binding.concurrency = limit;
            }
            registry = registry.bind(binding);
        }
        let (offsets, published, metrics) = (Arc::new(Offsets::default()), Arc::new(Published::default()), Metrics::new("test"));
        let parts = Parts {
            decoder: Decoder::new(Arc::new(Catalog::embedded().unwrap()), true),
            registry,
            schedules: setup.schedules.unwrap_or_else(default_schedules),
            store: setup.store,
            publisher: Arc::clone(&published) as Arc<dyn Publisher>,
            offsets: Arc::clone(&offsets) as Arc<dyn OffsetSink>,
            reader: setup.reader,
            metrics: metrics.clone(),
            clock: Clock::Virtual { base: "2026-01-01T00:00:00Z".parse().unwrap(), start },
            alerts: Alerts::default(),
        };
        let (source, events) = mpsc::channel(16);
        let shutdown = CancellationToken::new();
        let engine = tokio::spawn(Engine::new(parts, setup.options).run(events, shutdown.clone()));
        Self { source, offsets, published, effects, metrics, shutdown, start, engine, inboxes: BTreeMap::new() }
    }

    /// Hands a partition over, from `start`, with a commit where there is one.
    pub async fn assign(&mut self, topic: &str, start: i64, committed: Option<Committed>) -> TopicPartition {
        let partition = TopicPartition::new(topic, 0);
        let (sender, inbox) = mpsc::channel(64);
        let gate = Arc::new(Gate::default());
        self.inboxes.insert(partition.clone(), (sender, Arc::clone(&gate)));
        let assignment = Assignment { partition: partition.clone(), start, log_start: start, committed, inbox, gate };
        self.source.send(SourceEvent::Assigned(vec![assignment])).await.ok().unwrap();
        partition
    }

    /// Delivers records.
    pub async fn deliver(&self, partition: &TopicPartition, records: Vec<RecordParts>) {
        let (inbox, gate) = &self.inboxes[partition];
        gate.add(records.iter().map(|record| weight(record)).sum());
        inbox.send(Box::new(records)).await.ok().unwrap();
    }

    /// Delivers records, unless the engine has let go of the partition.
    pub async fn deliver_if_open(&self, partition: &TopicPartition, records: Vec<RecordParts>) {
        if !self.inboxes[partition].0.is_closed() {
            self.deliver(partition, records).await;
        }
    }

    /// Takes partitions away the polite way, and waits until they are drained.
    pub async fn revoke(&mut self, partition: &TopicPartition) {
        let (drained, answer) = oneshot::channel();
        self.source.send(SourceEvent::Revoked { partitions: vec![partition.clone()], drained }).await.ok().unwrap();
        let _dropped = answer.await;
        self.inboxes.remove(partition);
    }

    /// The group gave a partition away without asking.
    pub async fn lose(&mut self, partition: &TopicPartition) {
        self.source.send(SourceEvent::Lost(vec![partition.clone()])).await.ok().unwrap();
        self.inboxes.remove(partition);
    }

    /// SIGKILL: nothing of the engine goes on.
    pub async fn kill(self) -> Committed {
        self.engine.abort();
        let _aborted = (&mut { self.engine }).await;
        let log = self.offsets.log.lock().unwrap();
        log.last().map(|last| Committed { offset: last.offset, metadata: Some(last.metadata.clone()) }).unwrap()
    }

    /// Whether the engine has ended by itself.
    pub fn ended(&self) -> bool {
        self.engine.is_finished()
    }

    /// Ends the engine.
    pub async fn stop(self) -> Result<Drained, EngineError> {
        self.shutdown.cancel();
        self.engine.await.unwrap()
    }

    /// Waits (in virtual time) until `done`, at most a day.
    pub async fn until(&self, what: &str, done: impl Fn(&Self) -> bool) {
        for _ in 0..864_000 {
            if done(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("never happened: {what}");
    }

    /// Bytes that the partition holds.
    pub fn held_bytes(&self, partition: &TopicPartition) -> usize {
        self.inboxes[partition].1.held()
    }

    /// Whether the Source may read the partition.
    pub fn gate_open(&self, partition: &TopicPartition) -> bool {
        self.gate_lets(partition, true)
    }

    /// The same for a Source that has, or has not, been reading until now.
    pub fn gate_lets(&self, partition: &TopicPartition, was_open: bool) -> bool {
        self.inboxes[partition].1.open(was_open)
    }

    pub fn effects(&self) -> Vec<Effect> {
        self.effects.lock().unwrap().clone()
    }

    pub fn dead(&self) -> Vec<BTreeMap<String, String>> {
        let log = self.published.log.lock().unwrap();
        log.iter()
            .map(|message| {
                let text = |value: &Option<bytes::Bytes>| String::from_utf8(value.clone().unwrap_or_default().to_vec()).unwrap();
                message.headers.iter().map(|(name, value)| (name.clone(), text(value))).collect()
            })
            .collect()
    }

    /// The offset last committed.
    pub fn committed(&self) -> i64 {
        self.offsets.log.lock().unwrap().last().map_or(-1, |commit| commit.offset)
    }

    /// The commit as the group would give it back.
    pub fn last_commit(&self) -> Committed {
        let log = self.offsets.log.lock().unwrap();
        let last = log.last().unwrap();
        Committed { offset: last.offset, metadata: Some(last.metadata.clone()) }
    }

    /// How many events were settled with that outcome.
    pub fn settled(&self, topic: &str, event_type: &str, outcome: &str) -> u64 {
        self.metrics.events_settled.with_label_values(&[topic, event_type, outcome]).get()
    }
}

/// An event as a record.
pub fn event(offset: i64, event_type: &str, user: &str, id: &str) -> RecordParts {
    let data = match event_type {
        "task.created" => r#""title":"Buy milk""#,
        "user.logged_in" => r#""login_method":"email","ip_address":"10.0.0.1","user_agent":"x""#,
        _ => "",
    };
    let comma = if data.is_empty() { "" } else { "," };
    let value = format!(
        r#"{{"event_id":"{id}","event_type":"{event_type}","event_version":"1.0","timestamp":"2026-01-01T00:00:00Z","source":"test","data":{{"task_id":1,"user_id":"{user}"{comma}{data}}}}}"#
    );
    RecordParts { offset, timestamp: Some(1_767_225_600_000), key: Some(user.into()), value: Some(value.into_bytes()), headers: Vec::new() }
}

/// The schedules of the embedded configuration.
pub fn default_schedules() -> Schedules {
    let loaded = worker::config::Config::load(&worker::config::Sources::default());
    Schedules::new(&loaded.unwrap().config.retry)
}
