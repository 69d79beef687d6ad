//! The Source: one thread that owns the consumer, reads partitions while their gates are open, and carries the group's wishes to the engine.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot};

use super::{
    KafkaError,
    client::Clients,
    commit::{Offsets, Owned},
    poll::Poller,
    pulse::Pulse,
    watch::Watch,
};
use crate::{
    config::Config,
    engine::ports::{OffsetSink, SourceEvent},
};

/// What the Source's thread and its handle share.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) closing: Arc<AtomicBool>,
    pub(super) joined: AtomicBool,
    conflicts: AtomicBool,
    last_poll_ms: AtomicU64,
    started: Instant,
}

impl Control {
    fn new() -> Self {
        Self {
            closing: Arc::default(),
            joined: AtomicBool::new(false),
            conflicts: AtomicBool::new(false),
            last_poll_ms: AtomicU64::new(0),
            started: Instant::now(),
        }
    }

    /// The thread is alive and serves its clients.
    pub(super) fn beat(&self) {
        let ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_poll_ms.store(ms, Ordering::Relaxed);
    }

    /// The group has given this member its part.
    pub(super) fn has_joined(&self) {
        self.joined.store(true, Ordering::Relaxed);
        self.conflicts.store(false, Ordering::Relaxed);
    }

    /// The group has members that assign partitions in another way, and takes this one only once they are gone. Said once.
    pub(super) fn conflict(&self, group: &str) {
        if !self.conflicts.swap(true, Ordering::Relaxed) {
            tracing::error!(
                kafka.group = group,
                "the group has members with another partition.assignment.strategy (a sidecar's is range) and takes no others beside them; waiting \
                 until they are stopped. To run side by side, set kafka.consumer.\"partition.assignment.strategy\" to theirs"
            );
        }
    }

    fn last_beat_age(&self) -> Duration {
        self.started.elapsed().saturating_sub(Duration::from_millis(self.last_poll_ms.load(Ordering::Relaxed)))
    }
}

/// Reads the group's partitions.
pub struct Source;

impl Source {
    /// Joins the group for `topics` and tells the engine through `events` what it owns. Returns at once: brokers that are away and topics
    /// that do not exist are waited for, said in the log, and keep [`SourceHandle::joined`] false.
    ///
    /// # Errors
    /// Where the properties make no client.
    pub fn start(config: &Config, topics: Vec<String>, events: mpsc::Sender<SourceEvent>) -> Result<SourceHandle, KafkaError> {
        let clients = Clients::new(config)?;
        let control = Arc::new(Control::new());
        let owned = Arc::new(Owned::default());
        let member = Arc::default();
        let failed = |error: std::io::Error| KafkaError::Refused(format!("no thread: {error}"));
        let (offsets, commits) = Offsets::start(Arc::clone(&member), Arc::clone(&owned)).map_err(failed)?;
        let watch = Watch::new(topics);
        let pulse = {
            let watch = Arc::clone(&watch);
            Pulse::start(&clients, move |probe, up| {
                if up {
                    watch.refresh(probe);
                }
            })?
        };
        let poller = Poller::new(config, clients, Arc::clone(&control), member, owned, Arc::clone(&watch), events.clone())?;
        let (done, closed) = oneshot::channel();
        thread::Builder::new()
            .name("kafka-source".to_owned())
            .spawn(move || {
                if catch_unwind(AssertUnwindSafe(move || poller.run())).is_err() {
                    let _ = events.blocking_send(SourceEvent::Fatal("the kafka thread died".to_owned()));
                }
                let _ = done.send(());
            })
            .map_err(failed)?;
        // The commit thread ends with the last sink; nobody waits for it.
        drop(commits);
        Ok(SourceHandle { control, offsets, pulse, watch, closed: Mutex::new(Some(closed)) })
    }
}

/// The Source as its role sees it. Dropping it closes the Source without waiting.
pub struct SourceHandle {
    control: Arc<Control>,
    offsets: Arc<Offsets>,
    pulse: Pulse,
    watch: Arc<Watch>,
    closed: Mutex<Option<oneshot::Receiver<()>>>,
}

impl SourceHandle {
    /// Commits for the group.
    pub fn offsets(&self) -> Arc<dyn OffsetSink> {
        Arc::clone(&self.offsets) as Arc<dyn OffsetSink>
    }

    /// Whether the group has given this member its (maybe empty) part and every topic exists.
    pub fn joined(&self) -> bool {
        self.control.joined.load(Ordering::Relaxed) && self.watch.missing().is_empty()
    }

    /// Whether the group was found to have members that assign partitions in another way, and has not been joined.
    pub fn conflicts(&self) -> bool {
        self.control.conflicts.load(Ordering::Relaxed) && !self.joined()
    }

    /// Configured topics that do not exist.
    pub fn missing_topics(&self) -> Vec<String> {
        self.watch.missing()
    }

    /// Whether the brokers answer, at most 6 s old.
    pub fn brokers_up(&self) -> bool {
        self.pulse.brokers_up()
    }

    /// How long ago the thread last served its clients: under 100 ms while it is alive.
    pub fn last_poll_age(&self) -> Duration {
        self.control.last_beat_age()
    }

    /// Closes every inbox and leaves the group. The engine has drained and committed before: nothing is asked of it any more.
    /// Answers whether the group was left within `deadline`; past it the thread goes on by itself (F50).
    pub async fn close(&self, deadline: Duration) -> bool {
        self.control.closing.store(true, Ordering::Release);
        let closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner).take();
        match closed {
            Some(closed) => tokio::time::timeout(deadline, closed).await.is_ok(),
            None => true,
        }
    }
}

impl Drop for SourceHandle {
    fn drop(&mut self) {
        self.control.closing.store(true, Ordering::Release);
    }
}
