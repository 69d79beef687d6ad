//! Dead letters: the original record, byte for byte, with headers that say why and whence.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    Shared,
    lease::Held,
    ports::{Acked, Message, PublishError},
    subject::Subject,
    work::{PartState, Work},
};
use crate::{event::record::Record, handler::Registry, outcome::DeadReason};

/// Every header of ours starts so; those of an earlier pass are replaced, never added to.
pub const PREFIX: &str = "x-dlq-";
/// How often an event was sent back from the DLQ; part of its identity in the ledger.
pub const REDRIVES: &str = "x-dlq-redrives";
/// Comma-separated names of the handlers that gave it up; a redriven event goes to these alone.
pub const HANDLER: &str = "x-dlq-handler";
/// Where a dead letter came from: no other record has it.
const SOURCE: &str = "x-dlq-source-topic";
/// Error texts are cut to this many bytes, so that headers cannot outgrow the record.
const LONGEST_ERROR: usize = 1024;

/// Why an event is dead, told by the handlers that gave it up or by what kept it from them.
pub(super) struct Cause {
    pub(super) reason: DeadReason,
    pub(super) error: String,
    pub(super) handlers: String,
    pub(super) attempts: u32,
}

impl Cause {
    /// The cause of a head whose verdict is dead.
    pub(super) fn of(work: &Work) -> Self {
        let runs = work.attempts();
        if let Subject::Rejected(rejected) = &work.subject {
            return Self { reason: rejected.reason, error: rejected.error.clone(), handlers: String::new(), attempts: runs };
        }
        let unfinished = |state: &PartState| !matches!(state, PartState::Done | PartState::Dropped);
        let names = |wanted: &dyn Fn(&PartState) -> bool| {
            let names: Vec<&str> = work.parts.iter().filter(|part| wanted(&part.state)).map(|part| &*part.name).collect();
            names.join(",")
        };
        if work.crash_looped() {
            let error = format!("{} runs began and none was answered: it seems to end the process", work.unanswered());
            return Self { reason: DeadReason::CrashLoop, error, handlers: names(&unfinished), attempts: runs };
        }
        if work.overflowed {
            let error = "behind a failing event of the same user for too long, or with too many others".to_owned();
            return Self { reason: DeadReason::UserOverflow, error, handlers: names(&unfinished), attempts: runs };
        }
        let dead = work.parts.iter().find_map(|part| match &part.state {
            PartState::Dead { reason, error } => Some((*reason, error.clone())),
            _ => None,
        });
        let (reason, error) = dead.unwrap_or((DeadReason::Permanent, String::new()));
        Self { reason, error, handlers: names(&|state| matches!(state, PartState::Dead { .. })), attempts: runs }
    }
}

/// Where the dead letter of a head goes: the topic that the handlers which gave it up, or would have had it, agree on; else `configured`.
/// One that is a dead letter already goes to `configured`, so that topics which take each other's never feed a circle.
pub(super) fn letter_topic(work: &Work, registry: &Registry, configured: &Arc<str>) -> Arc<str> {
    let record = work.subject.record();
    if record.header(SOURCE).is_some() {
        return Arc::clone(configured);
    }
    let bindings = registry.bindings();
    let given_up: Vec<usize> = match &work.subject {
        Subject::Rejected(_) => {
            (0..bindings.len()).filter(|&index| bindings[index].topics.iter().any(|topic| **topic == **record.topic())).collect()
        }
        Subject::Event(_) => {
            let unfinished = |state: &PartState| !matches!(state, PartState::Done | PartState::Dropped);
            work.parts.iter().filter(|part| unfinished(&part.state)).filter_map(|part| part.handler).collect()
        }
    };
    let mut wanted = given_up.iter().map(|&index| bindings[index].handler.dead_letter_topic(record.topic()));
    match wanted.next().flatten() {
        Some(topic) if wanted.all(|other| other.as_ref() == Some(&topic)) => topic,
        _ => Arc::clone(configured),
    }
}

/// What every dead letter of this process says of it.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    pub(super) topic: Arc<str>,
    pub(super) group: Arc<str>,
    pub(super) worker: Arc<str>,
}

/// The dead letter of a head, for `topic`. `schedule`: its delays; `now` and `first_failed` by the wall clock.
pub(super) fn letter(
    work: &Work,
    cause: &Cause,
    origin: &Origin,
    topic: Arc<str>,
    schedule: &str,
    now: DateTime<Utc>,
    first_failed: DateTime<Utc>,
) -> Message {
    let record = work.subject.record();
    let mut headers: Vec<(String, Option<Bytes>)> = record
        .headers()
        .filter(|(name, _)| !name.starts_with(PREFIX))
        .map(|(name, value)| (name.to_owned(), value.map(Bytes::copy_from_slice)))
        .collect();
    let mut put = |name: &str, value: String| headers.push((format!("{PREFIX}{name}"), Some(Bytes::from(value))));
    let stamp = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Millis, true);
    put("reason", cause.reason.code().to_owned());
    put("error", shorten(&cause.error));
    put("error-class", error_class(cause.reason).to_owned());
    put("retry-count", cause.attempts.saturating_sub(1).to_string());
    put("attempts", cause.attempts.to_string());
    put("failed-at", stamp(now));
    put("first-failed-at", stamp(first_failed));
    put("event-id", work.subject.id().to_owned());
    put("event-type", work.subject.event_type().unwrap_or("unknown").to_owned());
    put("user-id", work.subject.user_id().unwrap_or_default().to_owned());
    put("handler", cause.handlers.clone());
    put("source-topic", record.topic().to_string());
    put("source-partition", record.partition().partition.to_string());
    put("source-offset", record.offset().to_string());
    put("source-timestamp", record.timestamp().unwrap_or(-1).to_string());
    put("consumer-group", origin.group.to_string());
    put("worker", origin.worker.to_string());
    put("schedule", schedule.to_owned());
    put("redrives", redrives(record).to_string());
    Message { topic, key: record.key_bytes(), value: record.value_bytes(), headers, partition: None }
}

/// How often a record was sent back from the DLQ.
pub(super) fn redrives(record: &Record) -> u32 {
    record.header(REDRIVES).and_then(|value| std::str::from_utf8(value).ok()).and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// Publishes a dead letter until the brokers acknowledge it, with backoff, without running any handler again (F02, F56). A letter
/// too big for the topic goes as a stub that points to the original, never as a drop (F69): then the answer says so. While the lease `held`
/// has run out nothing is written: the next owner does it (F71). `None`: not written, and since `last` it is not tried again; an attempt
/// under way then is waited for all the same, because the client may still write what it was given; nor once the lease is another's.
pub(super) async fn bury(shared: &Shared, held: Option<&Held>, mut letter: Message, last: &CancellationToken) -> Option<(Acked, bool)> {
    let mut delay = Duration::from_millis(100);
    let (mut told, mut stub) = (None::<Instant>, false);
    loop {
        if held.is_some_and(Held::gone) {
            return None;
        }
        if held.is_none_or(|held| held.valid(Instant::now())) || shared.guard.bypassing_leases() {
            let error = match shared.publisher.publish(letter.clone()).await {
                Ok(acked) => return Some((acked, stub)),
                Err(error) => error,
            };
            shared.metrics.dead_letter_failures.inc();
            if error == PublishError::TooLarge && !stub {
                tracing::warn!(
                    dlq.topic = &*letter.topic,
                    "dead letter is larger than its topic takes; writing a stub that points to the original"
                );
                make_stub(&mut letter);
                stub = true;
                continue;
            }
            if let PublishError::Fatal(error) = &error {
                shared.fail(error);
            }
            if told.is_none_or(|at| at.elapsed() > Duration::from_secs(30)) {
                told = Some(Instant::now());
                tracing::error!(dlq.topic = &*letter.topic, error = %error, "dead letter not written; the event stays unsettled and the write is tried again");
            }
        }
        tokio::select! {
            biased;
            () = last.cancelled() => return None,
            () = tokio::time::sleep(delay) => delay = (delay * 2).min(Duration::from_secs(15)),
        }
    }
}

/// Leaves key and our headers; value and foreign headers stay at the source.
fn make_stub(letter: &mut Message) {
    let size = letter.value.as_ref().map_or(0, Bytes::len);
    letter.headers.retain(|(name, _)| name.starts_with(PREFIX) || name == "traceparent" || name == "tracestate");
    if let Some((_, value)) = letter.headers.iter_mut().find(|(name, _)| name == "x-dlq-reason") {
        let reason = value.take().unwrap_or_default();
        *value = Some(Bytes::from_static(DeadReason::Oversize.code().as_bytes()));
        letter.headers.push(("x-dlq-original-reason".to_owned(), Some(reason)));
    }
    letter.headers.push(("x-dlq-original-size".to_owned(), Some(Bytes::from(size.to_string()))));
    letter.value = Some(Bytes::new());
}

/// What kind of mistake it is: the event's, the handler's, or the operator's.
fn error_class(reason: DeadReason) -> &'static str {
    match reason {
        DeadReason::Undecodable | DeadReason::Schema | DeadReason::MissingUserId | DeadReason::UnknownType => "invalid_event",
        DeadReason::Permanent | DeadReason::Exhausted | DeadReason::CrashLoop => "handler",
        DeadReason::UserOverflow | DeadReason::Oversize => "limit",
        DeadReason::HandlerGone => "configuration",
    }
}

fn shorten(text: &str) -> String {
    let mut end = text.len().min(LONGEST_ERROR);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
