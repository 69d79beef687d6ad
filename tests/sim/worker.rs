//! One worker: an engine with simulated ports and handlers, ended and started again as the plan says.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use worker::{
    config::{
        engine::OnOverflow,
        retry::{RetryConfig, RetryRule},
    },
    engine::{
        Alerts, Clock, Engine, Options, Parts, WhenDown,
        ports::{Acked, Commit, CommitError, Committed, LogReader, Message, OffsetSink, PublishError, Publisher, ReadError},
    },
    event::{
        Catalog, Decoder,
        record::{Record, TopicPartition},
    },
    handler::{Binding, Handler, Registry, Run},
    outcome::{Failure, Handled, HandlerResult},
    retry::Schedules,
};

use crate::{
    broker,
    facts::{Start, handlers},
    plan::{Behaviour, Produced, Shape},
    store::Client,
    world::{Process, World, sleep_ms},
};

static CATALOG: LazyLock<Arc<Catalog>> = LazyLock::new(|| Arc::new(Catalog::embedded().unwrap()));

/// Delays by type, in seconds; the second version tries other ones.
const DELAYS: [&[(&str, &[u64])]; 2] =
    [&[("default", &[1, 4]), ("task.completed", &[2, 8, 20])], &[("default", &[1, 2, 4]), ("task.completed", &[3])]];
/// Most failures that any of them allows.
pub const MOST_FAILURES: u32 = 4;

fn schedules(version: usize) -> Schedules {
    let rule = |delays: &[u64]| RetryRule { delays: Some(delays.iter().copied().map(Duration::from_secs).collect()), jitter: None };
    Schedules::new(&RetryConfig(DELAYS[version].iter().map(|(name, delays)| ((*name).to_owned(), rule(delays))).collect()))
}

/// A number that depends on the seed and these, whenever it is asked for.
fn lot(seed: u64, what: &[u64]) -> fastrand::Rng {
    fastrand::Rng::with_seed(what.iter().fold(seed, |hash, part| (hash ^ part).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)))
}

fn behaviour(world: &World, place: (i32, i64), handler: &str) -> Behaviour {
    let name = handler.bytes().map(u64::from).sum();
    let mut rng = lot(world.seed, &[place.0 as u64, place.1 as u64, name]);
    let poison = world.plan.poison;
    match rng.u32(0..1000) {
        n if n < poison => Behaviour::Poison,
        n if n < world.plan.ok => Behaviour::Ok,
        n if n < 680 => Behaviour::Drop,
        n if n < 780 => Behaviour::Fails(rng.u32(1..=2), (rng.u8(0..4) == 0).then(|| rng.u64(500..30_000))),
        n if n < 810 => Behaviour::AlwaysFails,
        n if n < 850 => Behaviour::Permanent,
        n if n < 960 => Behaviour::Slow(rng.u64(1..8_000)),
        n if n < 980 => Behaviour::TimesOutOnce,
        _ => Behaviour::PanicsOnce,
    }
}

struct Simulated {
    process: Arc<Process>,
    name: &'static str,
    schedules: Schedules,
}

/// Takes a run off the list however it ends.
struct Ended<'a> {
    process: &'a Process,
    handler: &'static str,
    run: u64,
    answered: bool,
    done: Option<bool>,
    delay: Option<u64>,
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        let world = &self.process.world;
        if !self.answered && !std::thread::panicking() {
            let judged = {
                let store = world.store();
                world.facts().cancelled(self.run, &store)
            };
            if let Err(broken) = judged {
                world.violated(broken);
            }
        }
        world.facts().end(self.run, self.handler, self.done, self.delay);
    }
}

impl Handler for Simulated {
    async fn handle(&self, run: Run) -> HandlerResult {
        let world = &self.process.world;
        let place = (run.event.record().partition().partition, run.event.record().offset());
        if self.process.frozen() {
            // A stopped process starts nothing; the engine, whose timers go on here, only thinks so.
            self.process.pass().await;
            return Err(Failure::transient("was stopped"));
        }
        self.process.pass().await;
        world.note(&self.process.name, || format!("{} runs p{} {} attempt {}", self.name, place.0, place.1, run.attempt));
        let start = Start { process: &self.process, place, handler: self.name, attempt: run.attempt, epoch: run.epoch };
        let started = {
            let store = world.store();
            world.facts().start(&start, &store)
        };
        let number = match started {
            Ok(number) => number,
            Err(broken) => {
                world.violated(broken);
                return Ok(Handled::Done);
            }
        };
        let mut ended = Ended { process: &self.process, handler: self.name, run: number, answered: false, done: Some(false), delay: None };
        let result = self.answer(place, &run).await;
        self.process.pass().await;
        ended.answered = true;
        ended.done = Some(!matches!(result, Err(Failure::Transient { .. } | Failure::Permanent { .. })));
        if let Err(Failure::Transient { after: None, .. }) = &result {
            let schedule = self.schedules.schedule_for(run.event.event_type());
            let mut rng = fastrand::Rng::with_seed(1);
            if let worker::retry::Next::Delay(_) = schedule.next(run.attempt, None, &mut rng) {
                let rules = DELAYS[self.process.version];
                let delays = rules.iter().find(|(name, _)| *name == &**run.event.event_type()).unwrap_or(&rules[0]).1;
                ended.delay = delays.get(run.attempt as usize - 1).map(|seconds| seconds * 1000);
            }
        }
        world.note(&self.process.name, || format!("{} ends p{} {} {result:?}", self.name, place.0, place.1));
        result
    }
}

impl Simulated {
    async fn answer(&self, place: (i32, i64), run: &Run) -> HandlerResult {
        let world = &self.process.world;
        let first = run.attempt == 1;
        sleep_ms(lot(world.seed, &[place.1 as u64, run.attempt.into()]).u64(0..6)).await;
        match behaviour(world, place, self.name) {
            Behaviour::Ok => Ok(Handled::Done),
            Behaviour::Drop => Ok(Handled::Dropped("not today".to_owned())),
            Behaviour::Fails(times, after) if run.attempt <= times => {
                Err(Failure::Transient { error: "later".to_owned(), after: after.map(Duration::from_millis) })
            }
            Behaviour::AlwaysFails => Err(Failure::transient("never")),
            Behaviour::Permanent => Err(Failure::permanent("no")),
            Behaviour::Slow(ms) => {
                sleep_ms(ms).await;
                Ok(Handled::Done)
            }
            Behaviour::TimesOutOnce if first => std::future::pending().await,
            Behaviour::PanicsOnce if first => std::panic::resume_unwind(Box::new("boom")),
            Behaviour::Poison => {
                world.note(&self.process.name, || format!("is poisoned by p{} {}", place.0, place.1));
                world.facts().fault("poison");
                self.process.die();
                std::future::pending().await
            }
            _ => Ok(Handled::Done),
        }
    }
}

/// One process' ports to Kafka.
struct Kafka {
    process: Arc<Process>,
    member: AtomicU64,
}

impl Kafka {
    /// Waits while the brokers are out of reach; `false`: they still are after as long as a client waits.
    async fn reach(&self) -> bool {
        self.process.pass().await;
        for _ in 0..50 {
            if !self.process.cut() {
                return true;
            }
            sleep_ms(100).await;
        }
        false
    }
}

impl OffsetSink for Kafka {
    fn commit(&self, commits: Vec<Commit>) -> BoxFuture<'_, Result<(), CommitError>> {
        Box::pin(async move {
            let world = &self.process.world;
            if !self.reach().await {
                return Err(CommitError::Retriable("away".to_owned()));
            }
            let delay = if world.rng().u8(0..8) == 0 { world.rng().u64(1..400) } else { 1 };
            sleep_ms(delay).await;
            self.process.pass().await;
            let (now, weather) = (world.now(), world.weather().clone());
            let answer = if now < weather.commits_fail {
                Err(CommitError::Retriable("coordinator moves".to_owned()))
            } else if !world.broker().accepts(self.member.load(Ordering::Relaxed), &commits) {
                Err(CommitError::NotOwner("unknown member".to_owned()))
            } else {
                store_commits(&self.process, commits)
            };
            self.process.pass().await;
            if now < weather.commits_mute && world.rng().bool() {
                sleep_ms(300).await;
                return Err(CommitError::Retriable("no answer".to_owned()));
            }
            answer
        })
    }
}

/// The broker judges each partition's metadata; the client reports one for all.
fn store_commits(process: &Process, commits: Vec<Commit>) -> Result<(), CommitError> {
    let world = &process.world;
    let mut answer = Ok(());
    for commit in commits {
        let limit = world.broker().metadata_limit;
        let partition = commit.partition.partition;
        if commit.metadata.encode_utf16().count() > limit {
            answer = Err(CommitError::MetadataTooLarge);
            continue;
        }
        world.note(&process.name, || {
            format!("p{partition} commits {} {:?}", commit.offset, worker::progress::Map::decode(commit.offset, &commit.metadata))
        });
        let judged = world.facts().committed(partition, commit.offset, &commit.metadata);
        if let Err(broken) = judged {
            world.violated(broken);
        }
        let metadata = Some(commit.metadata).filter(|text| !text.is_empty());
        world.broker().commits.insert(partition, Committed { offset: commit.offset, metadata });
    }
    answer
}

impl LogReader for Kafka {
    fn read_up_to<'a>(
        &'a self,
        bytes: usize,
        partition: &'a TopicPartition,
        offsets: &'a [i64],
    ) -> BoxFuture<'a, Result<Vec<Record>, ReadError>> {
        Box::pin(async move {
            let world = &self.process.world;
            let reached = self.reach().await;
            sleep_ms(world.below(20)).await;
            if !reached || world.now() < world.weather().reader_fails {
                return Err(ReadError("away".to_owned()));
            }
            let broker = world.broker();
            let log = &broker.logs[partition.partition as usize];
            let found = offsets.iter().filter(|offset| log.records.contains_key(offset)).count();
            if found > 0 {
                world.saw("backlog read again");
            }
            if found < offsets.len() {
                world.saw("backlog left the log");
            }
            let records = offsets.iter().filter_map(|offset| log.records.get(offset)).map(|raw| Record::copy_of(partition, raw));
            let mut room = bytes;
            let wanted = records.take_while(|record| {
                let more = room > 0;
                room = room.saturating_sub(record.footprint());
                more
            });
            Ok(wanted.collect())
        })
    }
}

impl Publisher for Kafka {
    fn publish(&self, message: Message) -> BoxFuture<'_, Result<Acked, PublishError>> {
        Box::pin(async move {
            let world = &self.process.world;
            let away = || PublishError::Unreachable("no answer".to_owned());
            let header = |name: &str| {
                let value = message.headers.iter().find(|(found, _)| found == name).and_then(|(_, value)| value.clone());
                String::from_utf8(value.unwrap_or_default().to_vec()).unwrap()
            };
            let place = (header("x-dlq-source-partition").parse().unwrap_or(-1), header("x-dlq-source-offset").parse().unwrap_or(-1));
            let reason = header("x-dlq-reason");
            let judged = {
                let store = world.store();
                let poison = |name| behaviour(world, place, name) == Behaviour::Poison;
                let innocent = !["alpha", "beta", "gamma"].into_iter().any(poison);
                world.facts().letter(&self.process, place, &reason, innocent, &store)
            };
            if let Err(broken) = judged {
                world.violated(broken);
            }
            if !self.reach().await {
                return Err(away());
            }
            sleep_ms(world.below(8)).await;
            self.process.pass().await;
            let (now, weather) = (world.now(), world.weather().clone());
            if now < weather.dlq_down {
                return Err(if world.rng().bool() { away() } else { PublishError::TopicMissing("dlq".to_owned()) });
            }
            world.note(&self.process.name, || format!("letter of p{} {}: {reason}", place.0, place.1));
            let judged = world.facts().buried(place, &reason, false);
            if let Err(broken) = judged {
                world.violated(broken);
            }
            redrive(&self.process, place, &header("x-dlq-handler"));
            sleep_ms(world.below(4)).await;
            self.process.pass().await;
            if now < weather.dlq_mute && world.rng().bool() {
                return Err(away());
            }
            Ok(Acked { partition: 0, offset: 0 })
        })
    }
}

/// An operator sends some letters back.
fn redrive(process: &Process, place: (i32, i64), handlers: &str) {
    let world = Arc::clone(&process.world);
    let facts = world.facts();
    let Some(event) = facts.at(place).map(|index| &facts.events[index]) else { return };
    let chosen =
        world.plan.redrive && event.redrives == 0 && event.letters.len() == 1 && event.shape == Shape::Good && !handlers.is_empty();
    if !chosen {
        return;
    }
    let (user, event_type, lane) = (event.user.clone(), event.event_type, event.lane.clone());
    drop(facts);
    let names = handlers.split(',').map(str::to_owned).collect();
    tokio::spawn(async move {
        sleep_ms(2_000).await;
        let value = world.broker().logs[place.0 as usize].records.get(&place.1).and_then(|record| record.value.clone());
        let Some(value) = value else { return };
        let id: String = String::from_utf8_lossy(&value).split('"').nth(3).unwrap_or_default().to_owned();
        let spec = Produced { at_ms: 0, user: 0, event_type, shape: Shape::Good, gap: 0 };
        world.facts().fault("redrive");
        broker::append(&world, place.0, &spec, Some(lane), value, &user, &id, Some(names));
    });
}

/// Runs one worker for ever: what ends is started again.
pub async fn supervise(world: Arc<World>, slot: usize, desk: Arc<Desk>) {
    for incarnation in 0.. {
        let version = desk.version.load(Ordering::Relaxed) as usize;
        let process = Arc::new(Process::new(&world, slot, incarnation, version));
        let (source, events) = mpsc::channel(64);
        let member = world.broker().join(&process, source);
        let kafka = Arc::new(Kafka { process: Arc::clone(&process), member: AtomicU64::new(member) });
        let shutdown = CancellationToken::new();
        *desk.now.lock().unwrap() = Some((Arc::clone(&process), shutdown.clone()));
        world.note(&process.name, || format!("starts, version {version}"));
        let engine = Engine::with_rules(parts(&process, &kafka), options(&process, incarnation), desk.rules);
        let task = tokio::spawn(engine.run(events, shutdown));
        *process.task.lock().unwrap() = Some(task.abort_handle());
        let ended = task.await;
        let crashed = ended.as_ref().is_err_and(tokio::task::JoinError::is_cancelled);
        world.note(&process.name, || ended.as_ref().map_or_else(|_| "was killed".to_owned(), |how| format!("has ended: {how:?}")));
        if process.metrics.conservation_error.get() != 0 {
            world.violated("records are neither settled nor held");
        }
        match ended {
            Ok(Ok(_)) => world.broker().leave(member),
            Ok(Err(error)) => {
                world.violated(format!("the engine gave up: {error}"));
            }
            Err(error) if !crashed => world.violated(format!("the engine panicked: {error}")),
            Err(_killed) => {}
        }
        process.end();
        note_metrics(&process);
        let pause = world.rng().u64(200..3_000);
        sleep_ms(pause).await;
    }
}

/// What the process' own metrics show of what has to happen.
pub fn note_metrics(process: &Process) {
    let metrics = &process.metrics;
    let topic = [broker::TOPIC];
    if metrics.lost_to_retention.with_label_values(&topic).get() > 0 {
        process.world.saw("records lost to retention counted");
    }
    for (tier, what) in [
        ("attempts", "commit map without due times"),
        ("heads", "commit map of heads only"),
        ("partial", "commit map of the lowest heads"),
        ("nothing", "commit without a map"),
    ] {
        if metrics.commit_map_overflows.with_label_values(&[broker::TOPIC, tier]).get() > 0 {
            process.world.saw(what);
        }
    }
}

/// What the plan can reach of one worker.
pub struct Desk {
    pub version: AtomicU64,
    pub rules: worker::engine::Rules,
    pub now: std::sync::Mutex<Option<(Arc<Process>, CancellationToken)>>,
}

impl Desk {
    pub fn new(rules: worker::engine::Rules) -> Self {
        Self { version: AtomicU64::new(0), rules, now: std::sync::Mutex::default() }
    }

    pub fn process(&self) -> Option<(Arc<Process>, CancellationToken)> {
        self.now.lock().unwrap().clone()
    }
}

fn parts(process: &Arc<Process>, kafka: &Arc<Kafka>) -> Parts {
    let world = &process.world;
    let mut registry = Registry::new();
    let mut names: Vec<(&'static str, Vec<&'static str>)> = Vec::new();
    for event_type in ["task.created", "task.updated", "task.completed"] {
        for name in handlers(process.version, event_type) {
            match names.iter_mut().find(|(found, _)| *found == name) {
                Some((_, types)) => types.push(event_type),
                None => names.push((name, vec![event_type])),
            }
        }
    }
    for (name, types) in names {
        let handler = Simulated { process: Arc::clone(process), name, schedules: schedules(process.version) };
        let mut binding = Binding::new(name, &types, handler);
        binding.timeout = Duration::from_millis(world.plan.handler_timeout_ms);
        registry = registry.bind(binding);
    }
    Parts {
        decoder: Decoder::new(Arc::clone(&CATALOG), false),
        registry,
        schedules: schedules(process.version),
        store: Arc::new(Client::new(process)),
        publisher: Arc::clone(kafka) as Arc<dyn Publisher>,
        offsets: Arc::clone(kafka) as Arc<dyn OffsetSink>,
        reader: Some(Arc::clone(kafka) as Arc<dyn LogReader>),
        metrics: process.metrics.clone(),
        clock: Clock::Virtual {
            base: "2026-01-01T00:00:00Z".parse::<chrono::DateTime<chrono::Utc>>().unwrap()
                + chrono::TimeDelta::milliseconds(world.plan.clocks_ms[process.slot]),
            start: world.start,
        },
        alerts: Alerts::default(),
    }
}

fn options(process: &Process, incarnation: usize) -> Options {
    let plan = &process.world.plan;
    Options {
        group: "sim".into(),
        worker: process.name.as_str().into(),
        dlq_topic: "dlq".into(),
        concurrency: plan.concurrency,
        memory: plan.memory,
        lane_events: plan.lane_events,
        drain_timeout: Duration::from_millis(plan.drain_ms),
        commit_interval: Duration::from_secs(1),
        commit_map_chars: 3800,
        max_held_events: plan.max_held_events,
        max_hold_age: Duration::from_secs(7200),
        on_overflow: OnOverflow::Dlq,
        skip_unknown: false,
        breaker_ratio: 0.5,
        when_down: plan.bypass_after_ms.map_or(WhenDown::Hold, |after| WhenDown::BypassAfter(Duration::from_millis(after))),
        seed: process.world.seed ^ (process.slot as u64) << 32 ^ incarnation as u64,
    }
}
