//! What a tick does: publish an event, or call an app.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use reqwest::{
    Client, Response, Url,
    header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER},
};
use serde_json::json;

use super::Entry;
use crate::{
    config::schedules::ScheduleConfig,
    event::time,
    handlers::http::{
        answer::{Answer, Table},
        client,
    },
    outcome::Failure,
    publish::Publishing,
};

/// Longest answer that is read so that its connection can be used again.
const MAX_ANSWER: usize = 64 * 1024;

/// One run of one tick.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    /// Its nominal time.
    pub(super) tick: DateTime<Utc>,
    /// 1 for the first.
    pub(super) attempt: u32,
    /// Now.
    pub(super) now: DateTime<Utc>,
}

/// What a tick does.
#[derive(Debug)]
pub(super) enum Target {
    Event(Box<EventTarget>),
    Http(Box<HttpTarget>),
}

/// Publishes `{schedule, tick_at}` under the tick's id.
pub(super) struct EventTarget {
    publishing: Arc<Publishing>,
    event_type: String,
    user_id: String,
}

impl std::fmt::Debug for EventTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventTarget").field("event_type", &self.event_type).finish_non_exhaustive()
    }
}

/// POSTs an empty body, as Dapr's cron binding does.
#[derive(Debug)]
pub(super) struct HttpTarget {
    http: Client,
    /// One, or the app's own route and the one that some apps have it under.
    urls: Vec<Url>,
    /// Which of them the app has answered.
    known: AtomicUsize,
    timeout: Duration,
}

impl Target {
    /// As configured; an event is tried on the catalogue.
    pub(super) fn new(config: &ScheduleConfig, entry: &Entry, publishing: &Arc<Publishing>) -> Result<Self, String> {
        let Some(event_type) = config.event() else {
            return HttpTarget::new(config).map(|target| Self::Http(Box::new(target)));
        };
        let user_id = config.user_id.clone().unwrap_or_else(|| format!("schedule:{}", config.name));
        let target = EventTarget { publishing: Arc::clone(publishing), event_type: event_type.to_owned(), user_id };
        let probe = target.body(entry, DateTime::UNIX_EPOCH);
        publishing.prepare(probe.as_bytes(), None, None).map_err(|rejection| {
            let error = rejection.error;
            format!("a tick cannot be published as {event_type}: {error}; its data is schedule, tick_at and user_id")
        })?;
        Ok(Self::Event(Box::new(target)))
    }

    /// Whether its effect is recognised when it comes twice, so that it needs no claim.
    pub(super) fn repeats_safely(&self) -> bool {
        matches!(self, Self::Event(_))
    }

    /// Fires once. An event counts once the brokers have acknowledged it.
    pub(super) async fn fire(&self, entry: &Entry, run: Run) -> Result<(), Failure> {
        match self {
            Self::Event(target) => target.fire(entry, run).await,
            Self::Http(target) => target.fire(entry, run).await,
        }
    }
}

impl EventTarget {
    fn body(&self, entry: &Entry, tick: DateTime<Utc>) -> String {
        let at = time::format(tick);
        let data = json!({ "user_id": self.user_id, "schedule": *entry.name, "tick_at": at });
        json!({ "event_id": entry.id(tick).to_string(), "event_type": self.event_type, "timestamp": at, "data": data }).to_string()
    }

    async fn fire(&self, entry: &Entry, run: Run) -> Result<(), Failure> {
        let body = self.body(entry, run.tick);
        let ready = self.publishing.prepare(body.as_bytes(), None, None).map_err(|rejection| Failure::permanent(rejection.error))?;
        self.publishing.send(ready.message).await.map(drop).map_err(|error| Failure::transient(error.to_string()))
    }
}

impl HttpTarget {
    fn new(config: &ScheduleConfig) -> Result<Self, String> {
        let text = config.http.as_deref().unwrap_or_default();
        let url: Url = text.parse().map_err(|error| format!("`http` is no URL: {error}"))?;
        if url.scheme() == "https" && cfg!(not(feature = "tls")) {
            return Err("`http` is https, but this binary was built without the feature `tls`".to_owned());
        }
        let at = |path: &str| {
            let mut url = url.clone();
            url.set_path(path);
            url
        };
        let urls = match &config.route {
            Some(route) => vec![at(route)],
            None if url.path() == "/" => vec![at(&config.name), at(&format!("bindings/{}", config.name))],
            None => vec![url],
        };
        let http = client::client().map_err(|error| error.to_string())?;
        Ok(Self { http, urls, known: AtomicUsize::new(0), timeout: config.timeout })
    }

    async fn fire(&self, entry: &Entry, run: Run) -> Result<(), Failure> {
        let headers = headers(entry, run);
        let known = self.known.load(Ordering::Relaxed);
        let answer = self.post(known, headers.clone()).await?;
        if answer.status() == 404 && self.urls.len() > 1 {
            let other = 1 - known;
            let second = self.post(other, headers).await?;
            if second.status() != 404 {
                self.known.store(other, Ordering::Relaxed);
            }
            return verdict(second, run.now).await;
        }
        verdict(answer, run.now).await
    }

    async fn post(&self, which: usize, headers: HeaderMap) -> Result<Response, Failure> {
        let request = self.http.post(self.urls[which].clone()).headers(headers).timeout(self.timeout).send();
        request.await.map_err(|error| match error.is_timeout() && !error.is_connect() {
            true => Failure::transient(format!("no answer within {}", humantime::format_duration(self.timeout))),
            false => Failure::transient(client::reason(&error)),
        })
    }
}

/// What Dapr's cron binding sends (`readtimeutc` as Go writes a time), and what names the tick whatever run fires it.
fn headers(entry: &Entry, run: Run) -> HeaderMap {
    let text = |text: String| HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""));
    let mut headers = HeaderMap::with_capacity(6);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert("readtimeutc", text(run.now.format("%Y-%m-%d %H:%M:%S%.f +0000 UTC").to_string()));
    headers.insert("timezone", text(entry.cron.zone().name().to_owned()));
    headers.insert("idempotency-key", text(entry.id(run.tick).to_string()));
    headers.insert("x-worker-tick", text(time::format(run.tick)));
    headers.insert("x-worker-attempt", run.attempt.into());
    headers
}

/// Any 2xx is success, whatever the body: a binding's answer may carry data for other bindings, which are not offered.
async fn verdict(mut response: Response, now: DateTime<Utc>) -> Result<(), Failure> {
    let status = response.status().as_u16();
    let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let _read_to_reuse = client::read_bounded(&mut response, MAX_ANSWER).await;
    Answer { status, retry_after: retry_after.as_deref(), body: &[], now }.verdict(Table::Forgiving).map(drop)
}
