//! The operations webhook: told of dead letters, one message per reason and type in a minute, never in the engine's way.

use std::{collections::HashMap, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use reqwest::{Client, Url};
use serde::Serialize;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    config::Config,
    engine::{Alert, Alerts},
    handlers::http::client,
};

/// Between two messages about the same reason and type.
const WINDOW: Duration = Duration::from_secs(60);
/// Time for one message.
const PATIENCE: Duration = Duration::from_secs(10);
/// Alerts that wait for this task; what comes on top is in the metric and the log.
const WAITING: usize = 1024;

/// The task that tells the webhook.
pub(super) struct Webhook {
    task: AbortOnDropHandle<()>,
    stop: CancellationToken,
}

/// Starts telling `dlq.alert_webhook`; without one, alerts go nowhere.
///
/// # Errors
/// Where the TLS library cannot be set up, or the URL is none.
pub(super) fn start(config: &Config, group: &str, worker: &str) -> anyhow::Result<(Alerts, Option<Webhook>)> {
    if config.dlq.alert_webhook.is_empty() {
        return Ok((Alerts::default(), None));
    }
    // Never the text itself in an error: such URLs are secrets.
    let url = Url::parse(config.dlq.alert_webhook.expose()).map_err(|_| anyhow::anyhow!("dlq.alert_webhook is no URL"))?;
    let sender = Sender { client: client::client()?, url, group: group.to_owned(), worker: worker.to_owned() };
    let (alerts, receiver) = mpsc::channel(WAITING);
    let stop = CancellationToken::new();
    let task = AbortOnDropHandle::new(tokio::spawn(tell(sender, receiver, stop.clone())));
    Ok((Alerts::to(alerts), Some(Webhook { task, stop })))
}

impl Webhook {
    /// Sends what is held back, for at most this long, and ends.
    pub(super) async fn close(self, limit: Duration) {
        self.stop.cancel();
        if timeout(limit, self.task).await.is_err() {
            tracing::warn!("the alert webhook did not answer in time; its last messages are lost");
        }
    }
}

/// What the webhook is sent, as JSON.
#[derive(Debug, Serialize)]
struct Body<'a> {
    /// One sentence, in the field that chat systems show.
    text: String,
    /// Always `dead_letter`.
    kind: &'static str,
    group: &'a str,
    worker: &'a str,
    event_type: &'a str,
    reason: &'static str,
    /// Dead letters that this message stands for.
    count: u64,
    /// The latest of them.
    error: &'a str,
    handlers: &'a str,
    source: Source<'a>,
}

#[derive(Debug, Serialize)]
struct Source<'a> {
    topic: &'a str,
    partition: i32,
    offset: i64,
}

struct Sender {
    client: Client,
    url: Url,
    group: String,
    worker: String,
}

impl Sender {
    /// Posts one message; gives it back with why where the webhook did not take it.
    async fn post(&self, message: Message) -> Result<(), (Message, String)> {
        let Message { latest, count } = &message;
        let (topic, partition, offset) = &latest.source;
        let body = Body {
            text: format!(
                "worker {}: {count} dead letter{} of {} ({}): {}",
                self.group,
                if *count == 1 { "" } else { "s" },
                latest.event_type,
                latest.reason,
                latest.error
            ),
            kind: "dead_letter",
            group: &self.group,
            worker: &self.worker,
            event_type: &latest.event_type,
            reason: latest.reason,
            count: *count,
            error: &latest.error,
            handlers: &latest.handlers,
            source: Source { topic, partition: *partition, offset: *offset },
        };
        let Ok(json) = serde_json::to_vec(&body) else { return Ok(()) };
        let request = self.client.post(self.url.clone()).header("content-type", "application/json").body(json).timeout(PATIENCE);
        let why = match request.send().await {
            Ok(answer) if answer.status().is_success() => return Ok(()),
            Ok(answer) => format!("it answered {}", answer.status().as_u16()),
            Err(error) if error.is_timeout() => format!("no answer within {}", humantime::format_duration(PATIENCE)),
            Err(error) => client::reason(&error),
        };
        Err((message, why))
    }
}

/// Dead letters of one reason and type, told as one.
#[derive(Debug)]
struct Message {
    latest: Alert,
    count: u64,
}

/// What is held back per reason and type: as many as the catalogue has types, times ten.
#[derive(Debug, Default)]
struct Limiter {
    buckets: HashMap<(String, &'static str), Bucket>,
}

#[derive(Debug)]
struct Bucket {
    /// From when the next message may go.
    open_at: Instant,
    held: Option<Message>,
}

impl Limiter {
    fn add(&mut self, message: Message, now: Instant) {
        let key = (message.latest.event_type.clone(), message.latest.reason);
        let bucket = self.buckets.entry(key).or_insert(Bucket { open_at: now, held: None });
        bucket.held = Some(match bucket.held.take() {
            Some(held) => Message { count: held.count + message.count, latest: message.latest },
            None => message,
        });
    }

    /// What may go now. Its window is then closed, whatever becomes of it.
    fn due(&mut self, now: Instant) -> Vec<Message> {
        let due = self.buckets.values_mut().filter(|bucket| bucket.open_at <= now);
        due.filter_map(|bucket| {
            let message = bucket.held.take()?;
            bucket.open_at = now + WINDOW;
            Some(message)
        })
        .collect()
    }

    /// When the next may go.
    fn next(&self) -> Option<Instant> {
        self.buckets.values().filter(|bucket| bucket.held.is_some()).map(|bucket| bucket.open_at).min()
    }

    /// Everything, windows or not.
    fn rest(self) -> impl Iterator<Item = Message> {
        self.buckets.into_values().filter_map(|bucket| bucket.held)
    }
}

/// Tells the webhook until stopped, then what is left, once. A message that it does not take is summed up with the next of its kind.
async fn tell(sender: Sender, mut alerts: mpsc::Receiver<Alert>, stop: CancellationToken) {
    let mut limiter = Limiter::default();
    let mut under_way = FuturesUnordered::new();
    let mut failing = false;
    loop {
        let now = Instant::now();
        under_way.extend(limiter.due(now).into_iter().map(|message| sender.post(message)));
        let next = limiter.next();
        tokio::select! {
            alert = alerts.recv() => match alert {
                Some(latest) => limiter.add(Message { latest, count: 1 }, now),
                None => break,
            },
            Some(posted) = under_way.next() => note(posted, &mut limiter, &mut failing),
            () = sleep_until(next.unwrap_or(now)), if next.is_some() => {}
            () = stop.cancelled() => break,
        }
    }
    while let Ok(latest) = alerts.try_recv() {
        limiter.add(Message { latest, count: 1 }, Instant::now());
    }
    while let Some(posted) = under_way.next().await {
        note(posted, &mut limiter, &mut failing);
    }
    let mut last: FuturesUnordered<_> = limiter.rest().map(|message| sender.post(message)).collect();
    while let Some(posted) = last.next().await {
        note(posted, &mut Limiter::default(), &mut failing);
    }
}

/// Says once that the webhook does not take messages, and once that it does again.
fn note(posted: Result<(), (Message, String)>, limiter: &mut Limiter, failing: &mut bool) {
    match posted {
        Ok(()) => {
            if std::mem::take(failing) {
                tracing::info!("the alert webhook takes messages again");
            }
        }
        Err((message, why)) => {
            if !std::mem::replace(failing, true) {
                tracing::warn!(error = %why, "the alert webhook did not take a message; it is told with the next of its kind");
            }
            limiter.add(message, Instant::now());
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::{Router, body::Bytes, http::StatusCode, routing::post};
    use serde_json::Value;

    use super::*;
    use crate::config::{Secret, Sources};

    fn alert(event_type: &str, reason: &'static str, offset: i64) -> Message {
        let latest = Alert {
            event_type: event_type.to_owned(),
            reason,
            error: "e".to_owned(),
            handlers: "h".to_owned(),
            source: ("t".to_owned(), 0, offset),
        };
        Message { latest, count: 1 }
    }

    fn told(mut messages: Vec<Message>) -> Vec<(String, &'static str, u64, i64)> {
        messages.sort_by(|a, b| a.latest.event_type.cmp(&b.latest.event_type));
        messages.into_iter().map(|m| (m.latest.event_type, m.latest.reason, m.count, m.latest.source.2)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_of_a_kind_goes_at_once_and_the_rest_of_its_minute_as_one_sum() {
        let (mut limiter, now) = (Limiter::default(), Instant::now());
        limiter.add(alert("a", "exhausted", 1), now);
        limiter.add(alert("b", "exhausted", 2), now);
        assert_eq!(told(limiter.due(now)), [("a".into(), "exhausted", 1, 1), ("b".into(), "exhausted", 1, 2)]);
        for offset in 3..10 {
            limiter.add(alert("a", "exhausted", offset), now + WINDOW / 2);
        }
        assert!(limiter.due(now + WINDOW / 2).is_empty(), "its window is closed");
        assert_eq!(limiter.next(), Some(now + WINDOW));
        assert_eq!(told(limiter.due(now + WINDOW)), [("a".into(), "exhausted", 7, 9)]);
        assert_eq!(limiter.next(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_was_not_taken_is_summed_up_with_the_next() {
        let (mut limiter, now, mut failing) = (Limiter::default(), Instant::now(), false);
        limiter.add(alert("a", "schema", 1), now);
        let message = limiter.due(now).pop().unwrap();
        note(Err((message, "away".to_owned())), &mut limiter, &mut failing);
        limiter.add(alert("a", "schema", 2), now);
        assert!(failing && limiter.due(now).is_empty(), "not asked again within the minute");
        assert_eq!(told(limiter.due(now + WINDOW)), [("a".into(), "schema", 2, 2)]);
    }

    #[tokio::test]
    async fn closing_sends_what_the_minute_held_back() {
        let bodies: Arc<Mutex<Vec<Value>>> = Arc::default();
        let seen = Arc::clone(&bodies);
        let app = Router::new().route(
            "/hook",
            post(move |body: Bytes| async move {
                seen.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
                StatusCode::NO_CONTENT
            }),
        );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let _server = AbortOnDropHandle::new(tokio::spawn(async move { axum::serve(listener, app).await.unwrap() }));

        let mut config = Config::load(&Sources::default()).unwrap().config;
        config.dlq.alert_webhook = Secret::new(format!("http://{address}/hook"));
        let (alerts, webhook) = start(&config, "todo-worker", "pod-1").unwrap();
        for offset in 0..5 {
            alerts.send(alert("task.created", "permanent", offset).latest);
        }
        webhook.unwrap().close(Duration::from_secs(10)).await;

        let bodies = bodies.lock().unwrap();
        assert_eq!(bodies.iter().map(|body| body["count"].as_u64().unwrap()).sum::<u64>(), 5);
        assert!(bodies.len() <= 2, "{bodies:?}");
        let last = bodies.last().unwrap();
        assert_eq!(
            (&last["reason"], &last["event_type"], &last["group"]),
            (&"permanent".into(), &"task.created".into(), &"todo-worker".into())
        );
        assert_eq!(last["source"]["offset"], 4);
        assert!(last["text"].as_str().unwrap().contains("task.created (permanent)"));
    }
}
