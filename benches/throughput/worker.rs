//! The consumer role in this process: all of it, with whatever handlers a row has.

use std::{sync::Arc, time::Duration};

use worker::{
    config::{Config, Role, Sources},
    handler::{Binding, Handler, Run},
    outcome::{Failure, Handled, HandlerResult},
    roles::{self, Options},
    shutdown::Shutdown,
};

use crate::{
    journal::Journal,
    meter::{Measured, Meter},
    pace::Pace,
    row::Bench,
    stack::{Stack, number, unique},
};

/// How a row wants the role.
pub struct Settings {
    /// `store.url`.
    pub store: String,
    /// `kafka.group_id`.
    pub group: String,
    /// `http.listen`.
    pub listen: String,
    /// More of the configuration, as TOML.
    pub more: String,
    /// Handlers in process.
    pub bindings: Vec<Binding>,
}

impl Settings {
    /// Everything by default, with the stack's Redis and a group of its own.
    pub fn of(stack: &Stack) -> Self {
        Self {
            store: stack.redis.clone(),
            group: unique("worker"),
            listen: "127.0.0.1:0".to_owned(),
            more: String::new(),
            bindings: Vec::new(),
        }
    }
}

/// A handler that only counts.
pub fn counting(meter: &Arc<Meter>) -> Binding {
    Binding::new("noop", &["*"], Noop(Arc::clone(meter)))
}

struct Noop(Arc<Meter>);

impl Handler for Noop {
    async fn handle(&self, _run: Run) -> HandlerResult {
        self.0.add(1);
        Ok(Handled::Done)
    }
}

/// A handler that always fails.
pub fn failing() -> Binding {
    Binding::new("failing", &["*"], Arrivals { journal: Arc::new(Journal::new(0, 0)), waited_for: |_| false, fails: |_| true })
}

/// Runs the role until the meter has counted its last event.
///
/// # Errors
/// Where the role ends by itself.
pub fn consume(stack: &Stack, topic: &str, settings: Settings, meter: &Meter) -> anyhow::Result<()> {
    run_until(stack, topic, settings, meter.done())
}

/// Runs the role until `done` resolves.
///
/// # Errors
/// Where the role ends by itself.
pub fn run_until(stack: &Stack, topic: &str, settings: Settings, done: impl Future<Output = ()>) -> anyhow::Result<()> {
    let Settings { store, group, listen, more, bindings } = settings;
    let sets = vec![
        format!("kafka.brokers=\"{}\"", stack.brokers),
        format!("kafka.group_id=\"{group}\""),
        format!("kafka.topics=[\"{topic}\"]"),
        format!("store.url=\"{store}\""),
        format!("http.listen=\"{listen}\""),
    ];
    // Without a role: the only handler may be in process, which the configuration knows nothing of.
    let loaded = Config::load(&Sources { sets, texts: vec![("bench".to_owned(), more)], ..Sources::default() })?;
    let shutdown = Shutdown::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        let role = roles::run(Role::Consumer, loaded, Options { bindings, ..Options::default() }, shutdown.clone());
        let stop = async {
            done.await;
            shutdown.drain();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            result = role => anyhow::Ok(result?),
            () = stop => Ok(()),
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

/// Tells the journal of the events that it waits for, and lets some users' fail.
struct Arrivals {
    journal: Arc<Journal>,
    waited_for: fn(&str) -> bool,
    fails: fn(&str) -> bool,
}

impl Handler for Arrivals {
    async fn handle(&self, run: Run) -> HandlerResult {
        if (self.fails)(run.event.user_id()) {
            return Err(Failure::transient("as asked"));
        }
        if let Some(number) = number(run.event.id()).filter(|_| (self.waited_for)(run.event.user_id())) {
            self.journal.arrive(number);
        }
        Ok(Handled::Done)
    }
}

/// Runs the role on a topic of its own while `pace` writes to it; events of users that `fails` names fail.
///
/// # Errors
/// Where the role ends by itself, or the first events do not arrive.
pub fn at_pace(bench: &Bench, pace: &Pace, fails: fn(&str) -> bool) -> anyhow::Result<Measured> {
    let (stack, topic, journal) = (&bench.stack, unique("paced"), pace.journal());
    let dead = format!("{topic}-dead");
    stack.create(&topic)?;
    stack.create(&dead)?;
    let arrivals = Arrivals { journal: Arc::clone(&journal), waited_for: pace.arrives, fails };
    let settings = Settings {
        more: format!("[dlq]\ntopic = \"{dead}\"\n"),
        bindings: vec![Binding::new("arrivals", &["*"], arrivals)],
        ..Settings::of(stack)
    };
    let (done, told) = tokio::sync::oneshot::channel::<()>();
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            let measured = pace.run(stack, &topic, &journal, &stack.processes());
            drop(done);
            measured
        });
        run_until(stack, &topic, settings, async {
            let _dropped = told.await;
        })?;
        writing.join().map_err(|_| anyhow::anyhow!("the writer panicked"))?
    })
}
