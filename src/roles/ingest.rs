//! NDJSON to Kafka: lines in order, bounded in flight, each bad one reported, a summary at the end.

use std::{
    collections::BTreeMap,
    fmt, io,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::sync::mpsc;

use super::input::Line;
use crate::{
    engine::ports::{Acked, PublishError},
    publish::{Publishing, Rejection, poll_once},
    shutdown::Shutdown,
};

/// Events written and not yet acknowledged.
const IN_FLIGHT: usize = 10_000;
/// Their bytes.
const IN_FLIGHT_BYTES: usize = 64 << 20;
/// Pause before a full queue is tried again where nothing is in flight that could make room.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(50);
/// Silence after which the user is told what is being waited for.
const STALL: Duration = Duration::from_secs(5);

/// Tells the user something; line by line.
pub type Tell<'a> = &'a mut (dyn FnMut(Told<'_>) + Send);

/// What the user is told while lines are read.
#[derive(Debug)]
pub enum Told<'a> {
    /// A line that is not published: number, reason, text.
    Rejected(u64, &'a str, &'a str),
    /// Nothing was acknowledged for a while: so many events wait.
    Stalled(usize),
    /// Bytes read so far, events acknowledged so far.
    Progress(u64, u64),
}

/// Why not all lines were read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stopped {
    /// The brokers are away for longer than the client waits, lack the topic or forbid it, or the client is beyond repair.
    Brokers(String),
    /// The input could not be read on.
    Input(String),
    /// A signal.
    Signal,
}

/// What became of an input.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Lines that are not blank.
    pub read: u64,
    /// The last line that was read.
    pub last_line: u64,
    /// Acknowledged events by topic.
    pub published: BTreeMap<Arc<str>, u64>,
    /// Lines that are no valid event, or that the brokers refused for good.
    pub rejected: u64,
    /// Valid events that are not stored, or not known to be: not the line's fault.
    pub not_stored: u64,
    /// The first line that is not stored.
    pub first_not_stored: Option<u64>,
    /// One text per cause of `not_stored`.
    pub causes: BTreeMap<&'static str, String>,
    /// Why not all was read; `None`: all was.
    pub stopped: Option<Stopped>,
    /// From the first line to the last answer.
    pub took: Duration,
}

impl Summary {
    /// Acknowledged events.
    pub fn stored(&self) -> u64 {
        self.published.values().sum()
    }

    /// Whether every line is stored; with `partial_ok` also where lines were rejected.
    pub fn is_success(&self, partial_ok: bool) -> bool {
        self.not_stored == 0 && self.stopped.is_none() && (partial_ok || self.rejected == 0)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.took.as_secs_f64();
        let rate = if seconds > 0.0 { self.stored() as f64 / seconds } else { 0.0 };
        write!(f, "{} read, {} published, {} rejected", self.read, self.stored(), self.rejected)?;
        if self.not_stored > 0 {
            write!(f, ", {} not stored", self.not_stored)?;
        }
        write!(f, " in {seconds:.1} s ({rate:.0} events/s)")?;
        for (topic, count) in &self.published {
            write!(f, "\n  {topic}: {count}")?;
        }
        for cause in self.causes.values() {
            write!(f, "\nnot stored: {cause}")?;
        }
        if let Some(line) = self.first_not_stored {
            write!(f, "\nthe first line that is not stored is {line}")?;
        }
        match &self.stopped {
            None => Ok(()),
            Some(Stopped::Brokers(error)) => write!(f, "\nstopped reading: {error}"),
            Some(Stopped::Input(error)) => write!(f, "\nthe input could not be read on: {error}"),
            Some(Stopped::Signal) => write!(f, "\nstopped by a signal after line {}", self.last_line),
        }
    }
}

/// The answer for one line.
struct Answered {
    line: u64,
    bytes: usize,
    topic: Arc<str>,
    result: Result<Acked, PublishError>,
}

struct Ingest<'a> {
    publishing: &'a Publishing,
    topic: Option<&'a str>,
    shutdown: &'a Shutdown,
    tell: Tell<'a>,
    in_flight: FuturesUnordered<BoxFuture<'static, Answered>>,
    in_flight_bytes: usize,
    bytes_read: u64,
    summary: Summary,
}

/// Publishes lines in order until their end, a signal, or a broker that stays away; then waits for what is in flight.
///
/// Each line is queued before the next is looked at, so that one user's events keep the order of the input. `topic`: instead of the catalogue's.
pub async fn ingest<'a>(
    publishing: &'a Publishing,
    topic: Option<&'a str>,
    mut lines: mpsc::Receiver<io::Result<Vec<Line>>>,
    shutdown: &'a Shutdown,
    tell: Tell<'a>,
) -> Summary {
    let begun = Instant::now();
    let mut ingest = Ingest {
        publishing,
        topic,
        shutdown,
        tell,
        in_flight: FuturesUnordered::new(),
        in_flight_bytes: 0,
        bytes_read: 0,
        summary: Summary::default(),
    };
    while ingest.summary.stopped.is_none() {
        let chunk = tokio::select! {
            biased;
            () = shutdown.draining() => {
                ingest.summary.stopped = Some(Stopped::Signal);
                break;
            }
            chunk = lines.recv() => chunk,
            Some(answered) = ingest.in_flight.next() => {
                ingest.take(answered);
                continue;
            }
        };
        match chunk {
            None => break,
            Some(Err(error)) => ingest.summary.stopped = Some(Stopped::Input(error.to_string())),
            Some(Ok(lines)) => ingest.chunk(lines).await,
        }
    }
    // The reading thread ends with its receiver.
    drop(lines);
    while ingest.wait_for_one().await {}
    ingest.summary.took = begun.elapsed();
    ingest.summary
}

impl Ingest<'_> {
    async fn chunk(&mut self, lines: Vec<Line>) {
        for line in lines {
            if self.shutdown.is_draining() {
                self.summary.stopped.get_or_insert(Stopped::Signal);
            }
            if self.summary.stopped.is_some() {
                return;
            }
            self.summary.read += 1;
            self.summary.last_line = line.number;
            self.bytes_read += line.read;
            self.line(line).await;
        }
        (self.tell)(Told::Progress(self.bytes_read, self.summary.stored()));
    }

    async fn line(&mut self, line: Line) {
        let prepared = match &line.content {
            Ok(bytes) => self.publishing.prepare(bytes, self.topic, None),
            Err(length) => Err(Rejection::oversize(*length)),
        };
        let message = match prepared {
            Ok(ready) => ready.message,
            Err(why) => return self.reject(line.number, why.reason, &why.error),
        };
        let (number, topic) = (line.number, Arc::clone(&message.topic));
        let bytes = message.value.as_ref().map_or(0, bytes::Bytes::len);
        while self.in_flight.len() >= IN_FLIGHT || (self.in_flight_bytes > 0 && self.in_flight_bytes + bytes > IN_FLIGHT_BYTES) {
            self.wait_for_one().await;
        }
        loop {
            let mut sending = self.publishing.send(message.clone());
            match poll_once(&mut sending).await {
                Poll::Ready(Err(PublishError::QueueFull)) => {
                    if !self.wait_for_one().await {
                        tokio::time::sleep(QUEUE_FULL_PAUSE).await;
                    }
                    if self.summary.stopped.is_some() || self.shutdown.is_draining() {
                        return self.not_stored(number, &PublishError::QueueFull);
                    }
                }
                Poll::Ready(result) => return self.take(Answered { line: number, bytes: 0, topic, result }),
                Poll::Pending => {
                    self.in_flight_bytes += bytes;
                    self.in_flight.push(sending.map(move |result| Answered { line: number, bytes, topic, result }).boxed());
                    return;
                }
            }
        }
    }

    /// Waits for one answer, telling the user where that takes long; false: nothing is in flight.
    async fn wait_for_one(&mut self) -> bool {
        loop {
            match tokio::time::timeout(STALL, self.in_flight.next()).await {
                Ok(None) => return false,
                Ok(Some(answered)) => {
                    self.take(answered);
                    return true;
                }
                Err(_) => (self.tell)(Told::Stalled(self.in_flight.len())),
            }
        }
    }

    fn take(&mut self, answered: Answered) {
        self.in_flight_bytes -= answered.bytes;
        match answered.result {
            Ok(_) => *self.summary.published.entry(answered.topic).or_default() += 1,
            Err(error @ (PublishError::TooLarge | PublishError::Refused(_))) => {
                self.reject(answered.line, error.code(), &error.to_string());
            }
            Err(error) => {
                // No later line would fare better, and each window of them waits as long again.
                self.summary.stopped.get_or_insert_with(|| Stopped::Brokers(error.to_string()));
                self.not_stored(answered.line, &error);
            }
        }
    }

    fn reject(&mut self, line: u64, reason: &str, error: &str) {
        self.summary.rejected += 1;
        (self.tell)(Told::Rejected(line, reason, error));
    }

    fn not_stored(&mut self, line: u64, error: &PublishError) {
        let summary = &mut self.summary;
        summary.not_stored += 1;
        summary.first_not_stored = Some(summary.first_not_stored.map_or(line, |first| first.min(line)));
        summary.causes.entry(error.code()).or_insert_with(|| error.to_string());
    }
}
