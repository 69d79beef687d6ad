//! What the processes of one run share, and the processes themselves: they are killed and frozen at any call to the outside.

use std::{
    fmt::Display,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, task::AbortHandle, time::Instant};
use worker::telemetry::Metrics;

use crate::{broker::Broker, facts::Facts, plan::Plan, store::Data};

/// Until when (virtual milliseconds) what is out of order.
#[derive(Debug, Default, Clone)]
pub struct Weather {
    pub store_down: u64,
    pub store_slow: u64,
    pub store_mute: u64,
    pub store_late: u64,
    pub commits_fail: u64,
    pub commits_mute: u64,
    pub dlq_down: u64,
    pub dlq_mute: u64,
    pub reader_fails: u64,
}

/// Everything outside of the engines.
pub struct World {
    pub seed: u64,
    pub plan: Plan,
    pub start: Instant,
    rng: Mutex<fastrand::Rng>,
    weather: Mutex<Weather>,
    broker: Mutex<Broker>,
    store: Mutex<Data>,
    facts: Mutex<Facts>,
    /// Told of every record produced.
    pub produced: Notify,
    history: Option<Mutex<Vec<String>>>,
    live: bool,
}

impl World {
    pub fn new(seed: u64, plan: Plan, record: bool) -> Self {
        Self {
            seed,
            start: Instant::now(),
            rng: Mutex::new(fastrand::Rng::with_seed(seed)),
            weather: Mutex::default(),
            broker: Mutex::new(Broker::new(&plan)),
            store: Mutex::default(),
            facts: Mutex::new(Facts::default()),
            produced: Notify::new(),
            history: record.then(Mutex::default),
            live: std::env::var_os("WORKER_SIM_SEED").is_some(),
            plan,
        }
    }

    pub fn now(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    pub fn rng(&self) -> MutexGuard<'_, fastrand::Rng> {
        self.rng.lock().unwrap()
    }

    /// A number below `limit`, by chance.
    pub fn below(&self, limit: u64) -> u64 {
        self.rng().u64(0..limit)
    }

    pub fn weather(&self) -> MutexGuard<'_, Weather> {
        self.weather.lock().unwrap()
    }

    pub fn broker(&self) -> MutexGuard<'_, Broker> {
        self.broker.lock().unwrap()
    }

    pub fn store(&self) -> MutexGuard<'_, Data> {
        self.store.lock().unwrap()
    }

    pub fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap()
    }

    /// One line of the history, where one is kept.
    pub fn note(&self, who: &str, what: impl FnOnce() -> String) {
        if let Some(history) = &self.history {
            let now = self.now();
            let line = format!("{:>3}.{:03} {who:<5} {}", now / 1000, now % 1000, what());
            // At once: a seed that does not end tells how far it came.
            if self.live {
                println!("{line}");
            }
            history.lock().unwrap().push(line);
        }
    }

    pub fn history(&self) -> Vec<String> {
        self.history.as_ref().map(|history| history.lock().unwrap().clone()).unwrap_or_default()
    }

    /// Something that the histories have to show happened.
    pub fn saw(&self, what: &'static str) {
        *self.facts().seen.entry(what).or_default() += 1;
    }

    /// A promise was broken.
    pub fn violated(&self, what: impl Display) {
        self.note("!!", || what.to_string());
        self.facts().violations.push(what.to_string());
    }
}

/// One incarnation of one worker.
pub struct Process {
    pub name: String,
    pub slot: usize,
    /// Of the configuration: 0 or 1.
    pub version: usize,
    pub metrics: Metrics,
    pub world: Arc<World>,
    alive: AtomicBool,
    frozen: AtomicBool,
    thawed: Notify,
    /// How often it was frozen.
    pub freezes: AtomicU64,
    /// Calls until it dies; 0: never.
    fuse: AtomicU64,
    /// Kafka cannot be reached until then.
    pub cut_until: AtomicU64,
    pub task: Mutex<Option<AbortHandle>>,
    pub died: Notify,
    /// Number of its last save.
    pub saves: AtomicU64,
    /// When a renewal or grant was last answered.
    pub renewed: AtomicU64,
    /// Longest time between two.
    pub out_of_touch: AtomicBool,
    pub stopping: AtomicBool,
    /// When it was killed, of [`World::now`].
    died_at: AtomicU64,
}

impl Process {
    pub fn new(world: &Arc<World>, slot: usize, incarnation: usize, version: usize) -> Self {
        Self {
            name: format!("w{slot}.{incarnation}"),
            slot,
            version,
            metrics: Metrics::new("sim"),
            world: Arc::clone(world),
            alive: AtomicBool::new(true),
            frozen: AtomicBool::new(false),
            thawed: Notify::new(),
            freezes: AtomicU64::new(0),
            fuse: AtomicU64::new(0),
            cut_until: AtomicU64::new(0),
            task: Mutex::default(),
            died: Notify::new(),
            saves: AtomicU64::new(0),
            renewed: AtomicU64::new(0),
            out_of_touch: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            died_at: AtomicU64::new(u64::MAX),
        }
    }

    pub fn alive(&self) -> bool {
        self.alive.load(Ordering::Relaxed)
    }

    /// Killed, not ended.
    pub fn died_at(&self) -> Option<u64> {
        Some(self.died_at.load(Ordering::Relaxed)).filter(|at| *at < u64::MAX)
    }

    pub fn frozen(&self) -> bool {
        self.frozen.load(Ordering::Relaxed)
    }

    pub fn freezes(&self) -> u64 {
        self.freezes.load(Ordering::Relaxed)
    }

    pub fn freeze(&self, frozen: bool) {
        if frozen {
            self.freezes.fetch_add(1, Ordering::Relaxed);
        }
        self.frozen.store(frozen, Ordering::Relaxed);
        if !frozen {
            self.thawed.notify_waiters();
        }
    }

    pub fn cut(&self) -> bool {
        self.world.now() < self.cut_until.load(Ordering::Relaxed)
    }

    /// Whether it talks to the group now.
    pub fn reachable(&self) -> bool {
        self.alive() && !self.frozen() && !self.cut()
    }

    /// SIGKILL.
    pub fn die(&self) {
        if self.alive.swap(false, Ordering::Relaxed) {
            self.world.note(&self.name, || "dies".to_owned());
            self.died_at.store(self.world.now(), Ordering::Relaxed);
            self.end();
        }
    }

    /// Nothing of it goes on; the member may still be known to the group.
    pub fn end(&self) {
        self.alive.store(false, Ordering::Relaxed);
        self.died.notify_one();
        if let Some(task) = &*self.task.lock().unwrap() {
            task.abort();
        }
    }

    pub fn light_fuse(&self, calls: u64) {
        self.fuse.store(calls, Ordering::Relaxed);
    }

    /// Between the process and the outside: here it stands still while frozen, and for ever when dead.
    pub async fn pass(&self) {
        let fuse = self.fuse.load(Ordering::Relaxed);
        if fuse > 0 {
            self.fuse.store(fuse - 1, Ordering::Relaxed);
            if fuse == 1 {
                self.die();
            }
        }
        // Nobody else runs between the look and the wait; and `Notify` wakes in the order of waiting, which a `watch` does not.
        while self.frozen() {
            self.thawed.notified().await;
        }
        if !self.alive() {
            std::future::pending::<()>().await;
        }
    }
}

pub async fn sleep_ms(ms: u64) {
    if ms > 0 {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}
