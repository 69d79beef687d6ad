//! The processes under test, each behind proxies of its own: started, stopped, killed, and watched all along.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::{
    app::{App, TIMEOUT, now},
    asked,
    events::delays,
    plan::{Link, WORKERS},
    support::{
        metrics::Metrics,
        proxy::Proxy,
        rss_kib,
        stack::Stack,
        worker::{Launch, Worker},
    },
};

/// The group, and the prefix of the store's keys.
pub const GROUP: &str = "soak";
/// Time for what must happen at some time, on a machine that others use too.
pub const LONG: Duration = Duration::from_secs(90);

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Killed,
    /// Told to end; its exit code.
    Told(Option<i32>),
    /// Nobody had told it to.
    ByItself(Option<i32>),
}

/// One process, from its start to its end.
#[derive(Debug, Clone)]
pub struct Life {
    /// Which consumer; [`WORKERS`]: the producer.
    pub place: usize,
    pub ended: Option<(u64, End)>,
}

/// The proxies of one process.
pub struct Lines {
    pub kafka: Proxy,
    pub redis: Proxy,
}

/// What the scrapes found.
#[derive(Debug, Default, Clone)]
pub struct Watched {
    pub scrapes: usize,
    pub conservation_errors: Vec<String>,
    /// Most memory of one consumer, in KiB.
    pub rss_kib: u64,
    pub held_events: f64,
}

/// All of them.
pub struct Crew {
    pub stack: Stack,
    /// One for each consumer, and the producer's.
    pub lines: Vec<Lines>,
    places: Vec<tokio::sync::Mutex<Option<(usize, Worker)>>>,
    lives: Mutex<Vec<Life>>,
    watched: Mutex<Watched>,
    app: Arc<App>,
    folder: PathBuf,
}

impl Crew {
    /// A Kafka and a Redis, and a proxy between them and each process to be. `None` where there is no stack.
    pub async fn gather(app: Arc<App>, folder: &Path) -> Option<Self> {
        let mut lines = Vec::new();
        for _ in 0..=WORKERS {
            lines.push(Lines { kafka: Proxy::start().await, redis: Proxy::start().await });
        }
        let addresses: Vec<_> = lines.iter().map(|lines| lines.kafka.address()).collect();
        let stack = Stack::private_behind(&["kafka", "redis"], &addresses)?;
        for (lines, listener) in lines.iter().zip(stack.behind()) {
            lines.kafka.set_target(&listener);
            lines.redis.set_target(stack.redis().trim_start_matches("redis://"));
        }
        let places = (0..=WORKERS).map(|_| tokio::sync::Mutex::default()).collect();
        Some(Self { stack, lines, places, lives: Mutex::default(), watched: Mutex::default(), app, folder: folder.to_owned() })
    }

    /// The proxy on one consumer's line.
    pub fn line(&self, place: usize, link: Link) -> &Proxy {
        match link {
            Link::Kafka => &self.lines[place].kafka,
            Link::Redis => &self.lines[place].redis,
        }
    }

    /// Ends what is half-open: a member whose request to join went into such a connection would wait for its answer for five minutes.
    pub fn mend_lines(&self) {
        for line in &self.lines {
            line.kafka.reset();
            line.redis.reset();
        }
    }

    /// Every life so far.
    pub fn lives(&self) -> Vec<Life> {
        self.lives.lock().unwrap().clone()
    }

    /// What the scrapes found.
    pub fn watched(&self) -> Watched {
        self.watched.lock().unwrap().clone()
    }

    /// Starts a process, where none runs.
    pub async fn start(&self, place: usize) {
        let mut held = self.places[place].lock().await;
        if held.is_none() {
            *held = Some(self.launch(place));
        }
    }

    /// Waits until every process is ready.
    pub async fn ready(&self) {
        for place in &self.places {
            if let Some((_, worker)) = &mut *place.lock().await {
                worker.ready(LONG).await;
            }
        }
    }

    /// SIGKILL, and a new one after `away`.
    pub async fn kill(&self, place: usize, away: Duration) {
        let mut held = self.places[place].lock().await;
        if let Some((life, mut worker)) = held.take() {
            worker.kill();
            self.ended(life, &worker, End::Killed);
        }
        tokio::time::sleep(away).await;
        *held = Some(self.launch(place));
    }

    /// SIGSTOP, and SIGCONT after `stopped`.
    pub async fn freeze(&self, place: usize, stopped: Duration) {
        let held = self.places[place].lock().await;
        let Some((_, worker)) = &*held else { return };
        worker.signal("STOP");
        tokio::time::sleep(stopped).await;
        worker.signal("CONT");
    }

    /// SIGTERM; a new one is started when the old one has ended, if `again`.
    pub async fn roll(&self, place: usize, again: bool) {
        let mut held = self.places[place].lock().await;
        if let Some((life, mut worker)) = held.take() {
            let code = worker.terminate(LONG).await;
            self.ended(life, &worker, End::Told(code));
        }
        if again {
            *held = Some(self.launch(place));
        }
    }

    /// URL on the producer's listener; `None` while there is no producer.
    pub async fn publish_url(&self) -> Option<String> {
        self.places[WORKERS].lock().await.as_ref().map(|(_, worker)| worker.publish_url("/events"))
    }

    /// Scrapes every consumer once per second and starts again whoever ended by itself, until dropped.
    pub async fn watch(&self) {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            for place in 0..=WORKERS {
                self.look_at(place).await;
            }
        }
    }

    async fn look_at(&self, place: usize) {
        // Locked: something is being done to it.
        let Ok(mut held) = self.places[place].try_lock() else { return };
        let Some((life, worker)) = &mut *held else { return };
        if let Some(status) = worker.exited() {
            self.ended(*life, worker, End::ByItself(status.code()));
            *held = Some(self.launch(place));
            return;
        }
        let Some((200, page)) = worker.get("/metrics").await else { return };
        let metrics = Metrics::parse(&page);
        let mut watched = self.watched.lock().unwrap();
        watched.scrapes += 1;
        watched.rss_kib = watched.rss_kib.max(rss_kib(worker.pid()));
        watched.held_events = watched.held_events.max(metrics.sum("worker_held_events", &[]));
        if metrics.sum("worker_conservation_error", &[]) != 0.0 {
            let line = format!("consumer {place}, process {life}, at {}", now());
            watched.conservation_errors.push(line);
        }
    }

    fn launch(&self, place: usize) -> (usize, Worker) {
        let life = {
            let mut lives = self.lives.lock().unwrap();
            lives.push(Life { place, ended: None });
            lives.len() - 1
        };
        let (role, toml) = if place == WORKERS { ("producer", COMMON.to_owned()) } else { ("consumer", self.consumer(life)) };
        let launch = Launch::role(role, &self.stack, GROUP, &toml)
            .env("WORKER_KAFKA__BROKERS", self.lines[place].kafka.address())
            .env("WORKER_STORE__URL", &format!("redis://{}", self.lines[place].redis.address()));
        let launch = if place == WORKERS { launch.arg("--serve") } else { launch };
        (life, launch.start())
    }

    fn consumer(&self, life: usize) -> String {
        let schedules: String = ["default", "task.completed", "reminder.due", "task.updated"]
            .into_iter()
            .map(|name| {
                let delays: Vec<_> = delays(name).iter().map(|ms| format!("\"{ms}ms\"")).collect();
                format!("[retry.\"{name}\"]\ndelays = [{}]\n", delays.join(", "))
            })
            .collect();
        let handler = |name: &str, events: &str| {
            format!(
                "[[handlers]]\nname = \"{name}\"\nkind = \"http\"\nevents = [{events}]\nurl = \"{}\"\ntimeout = \"{}s\"\n",
                self.app.url(life, name),
                TIMEOUT.as_secs()
            )
        };
        let (app, points) = (handler("app", "\"*\""), handler("points", "\"task.completed\""));
        let protocol = asked::<String>("WORKER_SOAK_PROTOCOL").unwrap_or_else(|| "classic".to_owned());
        format!("{COMMON}[kafka.consumer]\n\"group.protocol\" = \"{protocol}\"\n[engine]\nconcurrency = 64\n{schedules}{app}{points}")
    }

    /// Notes the end of a process and keeps what it had to say.
    fn ended(&self, life: usize, worker: &Worker, end: End) {
        self.lives.lock().unwrap()[life].ended = Some((now(), end));
        fs::write(self.folder.join(format!("process-{life}.log")), worker.log()).unwrap();
    }
}

/// Added partitions are seen soon. What the worker itself would publish is not in the oracle's books.
const COMMON: &str = "[dlq]\ntell_users = false\n[kafka]\ntopics = [\"task-events\", \"reminders\", \"user-events\"]\n\
    [kafka.properties]\n\"topic.metadata.refresh.interval.ms\" = \"3000\"\n";
