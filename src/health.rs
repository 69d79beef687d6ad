//! What `/readyz` and `/livez` answer: parts report, the page names the failing one.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use tokio::time::Instant;

/// Who reports: a closed set, so that dashboards and runbooks can rely on the names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// The Kafka brokers answer.
    Brokers,
    /// This consumer has joined its group; an empty assignment counts.
    Group,
    /// The dedupe store answers.
    Store,
    /// The thread that polls Kafka.
    Poll,
    /// The engine's books balance (`worker_conservation_error` is 0).
    Engine,
    /// Ticks of schedules can be claimed. For information: events go out unclaimed meanwhile.
    Schedules,
    /// Reminders can be claimed. For information: the store's own part says when nothing goes on.
    Reminders,
    /// The topic of the sync listener is read. For information: clients are told to come again.
    Sync,
    /// The app behind the handler of that name. For information: an app that is away delays its own events only.
    App(Arc<str>),
}

impl Part {
    /// The name in answers and logs.
    pub fn name(&self) -> String {
        match self {
            Self::Brokers => "brokers".to_owned(),
            Self::Group => "group".to_owned(),
            Self::Store => "store".to_owned(),
            Self::Poll => "poll".to_owned(),
            Self::Engine => "engine".to_owned(),
            Self::Schedules => "schedules".to_owned(),
            Self::Reminders => "reminders".to_owned(),
            Self::Sync => "sync".to_owned(),
            Self::App(handler) => format!("app:{handler}"),
        }
    }

    /// Whether readiness waits for it.
    pub fn required(&self) -> bool {
        !matches!(self, Self::App(_) | Self::Schedules | Self::Reminders | Self::Sync)
    }
}

/// The health of one process: made by the role, handed to its parts, read by the ops listener.
#[derive(Clone, Default)]
pub struct Health {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    draining: AtomicBool,
    slots: Mutex<Vec<Arc<Slot>>>,
    beats: Mutex<Vec<Arc<Pulse>>>,
}

/// One part's last word.
struct Slot {
    part: Part,
    /// Also in `state`; here so that a part that says "ok" ten times a second takes no lock.
    ok: AtomicBool,
    /// Whether it ever was.
    was_ok: AtomicBool,
    state: Mutex<State>,
}

struct State {
    detail: String,
    since: DateTime<Utc>,
}

struct Pulse {
    part: Part,
    limit: Duration,
    started: Instant,
    /// Milliseconds after `started`.
    last: AtomicU64,
}

/// A part's own pen: only it reports on itself.
#[derive(Clone)]
pub struct Reporter(Arc<Slot>);

impl Reporter {
    /// All is well. Cheap when nothing changed.
    pub fn ok(&self) {
        if !self.0.ok.load(Ordering::Relaxed) {
            self.set(true, String::new());
        }
    }

    /// Not well: `detail` is shown to operators, without payloads or secrets. The time of the first failure in a row is kept.
    pub fn fail(&self, detail: impl Into<String>) {
        self.set(false, detail.into());
    }

    /// Whether the last word was "ok".
    pub fn is_ok(&self) -> bool {
        self.0.ok.load(Ordering::Relaxed)
    }

    /// Whether any word so far was "ok".
    pub fn was_ok(&self) -> bool {
        self.0.was_ok.load(Ordering::Relaxed)
    }

    fn set(&self, ok: bool, detail: String) {
        let mut state = lock(&self.0.state);
        self.0.was_ok.fetch_or(ok, Ordering::Relaxed);
        let changed = self.0.ok.swap(ok, Ordering::Relaxed) != ok;
        if changed {
            state.since = Utc::now();
            let part = self.0.part.name();
            match ok {
                true => tracing::info!(part, "part is well"),
                false => tracing::warn!(part, detail, "part is not well"),
            }
        }
        state.detail = detail;
    }
}

/// Proof of progress of one loop: a loop that stops beating makes the process not live.
#[derive(Clone)]
pub struct Heartbeat(Arc<Pulse>);

impl Heartbeat {
    /// The loop came round. One atomic store.
    pub fn beat(&self) {
        self.0.last.store(millis(self.0.started.elapsed()), Ordering::Relaxed);
    }
}

/// What a page shows of one part.
#[derive(Debug, Clone, Serialize)]
pub struct PartReport {
    /// [`Part::name`].
    pub name: String,
    /// Its last word.
    pub ok: bool,
    /// Why not, or empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// Since when it has been so, RFC 3339.
    pub since: String,
}

/// A page's answer.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// 200 or 503.
    #[serde(skip)]
    pub ok: bool,
    /// `ok`, `draining` or `failing`.
    pub status: &'static str,
    /// Names of the parts that make it not ok.
    pub failing: Vec<String>,
    /// Every part.
    pub parts: Vec<PartReport>,
}

impl Health {
    /// Nobody has reported yet: ready, as far as anyone knows.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a part. It counts as failing (`starting`) until it reports otherwise. Asked for twice, both pens write the same entry.
    pub fn part(&self, part: Part) -> Reporter {
        let mut slots = lock(&self.inner.slots);
        if let Some(slot) = slots.iter().find(|slot| slot.part == part) {
            return Reporter(Arc::clone(slot));
        }
        let state = Mutex::new(State { detail: "starting".to_owned(), since: Utc::now() });
        let slot = Arc::new(Slot { part, ok: AtomicBool::new(false), was_ok: AtomicBool::new(false), state });
        slots.push(Arc::clone(&slot));
        Reporter(slot)
    }

    /// Adds a loop that must come round at least every `limit`, counted from now.
    pub fn heartbeat(&self, part: Part, limit: Duration) -> Heartbeat {
        let pulse = Arc::new(Pulse { part, limit, started: Instant::now(), last: AtomicU64::new(0) });
        lock(&self.inner.beats).push(Arc::clone(&pulse));
        Heartbeat(pulse)
    }

    /// The process is leaving: not ready from now on, whatever its parts say; live all the same.
    pub fn drain(&self) {
        self.inner.draining.store(true, Ordering::Relaxed);
    }

    /// `/readyz`: every required part is well, and the process is not leaving.
    pub fn readiness(&self) -> Report {
        let slots = lock(&self.inner.slots);
        let parts: Vec<_> = slots.iter().map(|slot| report(slot)).collect();
        let failing: Vec<_> =
            slots.iter().zip(&parts).filter(|(slot, part)| slot.part.required() && !part.ok).map(|(_, part)| part.name.clone()).collect();
        let draining = self.inner.draining.load(Ordering::Relaxed);
        let status = if draining {
            "draining"
        } else if failing.is_empty() {
            "ok"
        } else {
            "failing"
        };
        Report { ok: status == "ok", status, failing, parts }
    }

    /// `/livez`: every loop came round in time. Never asks what others do: a restart does not mend a broker.
    pub fn liveness(&self) -> Report {
        let parts: Vec<_> = lock(&self.inner.beats).iter().map(|pulse| pulse.report()).collect();
        let failing: Vec<_> = parts.iter().filter(|part| !part.ok).map(|part| part.name.clone()).collect();
        let status = if failing.is_empty() { "ok" } else { "failing" };
        Report { ok: failing.is_empty(), status, failing, parts }
    }
}

fn report(slot: &Slot) -> PartReport {
    let state = lock(&slot.state);
    PartReport { name: slot.part.name(), ok: slot.ok.load(Ordering::Relaxed), detail: state.detail.clone(), since: rfc3339(state.since) }
}

impl Pulse {
    fn report(&self) -> PartReport {
        let silent = self.started.elapsed().saturating_sub(Duration::from_millis(self.last.load(Ordering::Relaxed)));
        let ok = silent <= self.limit;
        let detail = if ok { String::new() } else { format!("no progress for {} s", silent.as_secs()) };
        let since = Utc::now() - chrono::Duration::from_std(silent).unwrap_or_default();
        PartReport { name: self.part.name(), ok, detail, since: rfc3339(since) }
    }
}

fn rfc3339(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A reporter that panicked half-way leaves a readable state: text and a time.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_not_ready_until_it_says_so_and_is_named_while_it_is_not() {
        let health = Health::new();
        let store = health.part(Part::Store);
        let brokers = health.part(Part::Brokers);
        assert_eq!(health.readiness().failing, ["store", "brokers"]);
        store.ok();
        brokers.ok();
        assert!(health.readiness().ok);
        store.fail("connection refused");
        let report = health.readiness();
        assert!(!report.ok);
        assert_eq!((report.status, report.failing), ("failing", vec!["store".to_owned()]));
        assert_eq!(report.parts[0].detail, "connection refused");
        assert!(store.was_ok() && !health.part(Part::Group).was_ok());
        assert!(health.liveness().ok);
    }

    #[test]
    fn the_time_of_the_first_failure_in_a_row_is_kept() {
        let health = Health::new();
        let store = health.part(Part::Store);
        store.ok();
        store.fail("refused");
        let since = health.readiness().parts[0].since.clone();
        store.fail("timed out");
        let report = health.readiness();
        assert_eq!((report.parts[0].since.as_str(), report.parts[0].detail.as_str()), (since.as_str(), "timed out"));
    }

    #[test]
    fn a_draining_process_is_live_and_not_ready() {
        let health = Health::new();
        health.part(Part::Brokers).ok();
        health.drain();
        assert_eq!(health.readiness().status, "draining");
        assert!(!health.readiness().ok);
        assert!(health.liveness().ok);
    }

    #[test]
    fn an_app_that_is_away_is_shown_and_does_not_make_the_process_unready() {
        let health = Health::new();
        health.part(Part::App("todo-api".into())).fail("connection refused");
        let report = health.readiness();
        assert!(report.ok);
        assert_eq!((report.parts[0].name.as_str(), report.parts[0].ok), ("app:todo-api", false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_stops_coming_round_makes_the_process_not_live() {
        let health = Health::new();
        let poll = health.heartbeat(Part::Poll, Duration::from_secs(30));
        tokio::time::advance(Duration::from_secs(29)).await;
        assert!(health.liveness().ok);
        poll.beat();
        tokio::time::advance(Duration::from_secs(29)).await;
        assert!(health.liveness().ok);
        tokio::time::advance(Duration::from_secs(2)).await;
        let report = health.liveness();
        assert_eq!(report.failing, ["poll"]);
        assert_eq!(report.parts[0].detail, "no progress for 31 s");
    }
}
