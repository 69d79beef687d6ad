//! `GET /sync/{user_id}`: a user's events as Server-Sent Events, for that user alone.
//!
//! The token goes into `Authorization: Bearer`, or into `?token=` where a browser's `EventSource` can set no header. Each event has its type as `event:`, the event as
//! `data:` and the position behind it as `id:`, which comes back as `Last-Event-ID`. `event: reset` says that events lie between which are not kept any more: the
//! page is to be loaded anew.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Path, Query, Request, State},
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
        header::{self, AUTHORIZATION},
    },
    middleware::{self, Next},
    response::{
        IntoResponse, Response, Sse,
        sse::{self, Event},
    },
    routing::get,
};
use chrono::Utc;
use futures_util::stream;
use serde::Deserialize;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::{
    config::Secret,
    sync::{
        feed::{Feed, Refused, Subscription},
        position::Position,
        token::{Claims, TokenError, verify},
    },
    telemetry::Metrics,
};

/// Between two signs of life: proxies close what is silent for a minute.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How long a browser waits before it comes again.
const COME_AGAIN: Duration = Duration::from_secs(2);
/// Longest wait for a feed that is still being read: an `EventSource` never comes again after any other answer than 200.
const BEHIND: Duration = Duration::from_secs(5);
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// What the routes need.
#[derive(Clone)]
pub struct Sync {
    /// The events.
    pub feed: Feed,
    /// The topic they come from: part of each position.
    pub topic: Arc<str>,
    /// What tokens are signed with.
    pub secret: Secret,
    /// Whose pages may read it; `*`: everybody's.
    pub origins: Arc<[String]>,
    /// Counts.
    pub metrics: Metrics,
    /// Ends every stream.
    pub stop: CancellationToken,
}

#[derive(Deserialize)]
struct Asked {
    token: Option<String>,
    last_event_id: Option<String>,
}

/// Routes of the sync listener.
pub fn router(sync: Sync) -> Router {
    Router::new().route("/sync/{user_id}", get(listen)).layer(middleware::from_fn_with_state(sync.clone(), cors)).with_state(sync)
}

async fn listen(State(sync): State<Sync>, Path(user_id): Path<String>, Query(asked): Query<Asked>, headers: HeaderMap) -> Response {
    let claims = match authenticate(&headers, asked.token.as_deref(), &sync.secret) {
        Ok(claims) => claims,
        Err(error) => return refuse(&sync, StatusCode::UNAUTHORIZED, &error.to_string()),
    };
    if claims.user_id != user_id {
        return refuse(&sync, StatusCode::FORBIDDEN, "the token is another user's");
    }
    let last = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok()).or(asked.last_event_id.as_deref()).filter(|id| !id.is_empty());
    // What is no position of this topic cannot be taken up, like one that is too old.
    let (from, is_foreign) = match last.map(|id| Position::decode(id, &sync.topic)) {
        Some(None) => (None, true),
        from => (from.flatten(), false),
    };
    match subscribe(&sync, &user_id, from).await {
        Ok((subscription, is_reset)) => {
            let is_reset = is_reset || is_foreign;
            let result = if is_reset {
                "reset"
            } else if last.is_some() {
                "resumed"
            } else {
                "new"
            };
            sync.metrics.sync_connects.with_label_values(&[result]).inc();
            stream(sync, subscription, &claims, is_reset)
        }
        Err(Refused::TooMany) => refuse(&sync, StatusCode::TOO_MANY_REQUESTS, "the user has too many connections"),
        Err(Refused::Full) => refuse(&sync, StatusCode::SERVICE_UNAVAILABLE, "there are too many connections"),
        Err(Refused::NotReady | Refused::Ahead) => refuse(&sync, StatusCode::SERVICE_UNAVAILABLE, "the events are still being read"),
    }
}

/// Another worker may have been a little ahead of this one; a topic that was made anew never gets there.
async fn subscribe(sync: &Sync, user_id: &str, from: Option<Position>) -> Result<(Subscription, bool), Refused> {
    let end = Instant::now() + BEHIND;
    loop {
        match sync.feed.subscribe(user_id, from.clone()) {
            Err(Refused::Ahead | Refused::NotReady) if Instant::now() < end && !sync.stop.is_cancelled() => sleep(BEHIND / 50).await,
            Err(Refused::Ahead) => return sync.feed.subscribe(user_id, None).map(|subscription| (subscription, true)),
            answer => {
                return answer.map(|subscription| {
                    let is_reset = subscription.is_reset();
                    (subscription, is_reset)
                });
            }
        }
    }
}

fn authenticate(headers: &HeaderMap, query: Option<&str>, secret: &Secret) -> Result<Claims, TokenError> {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|value| value.split_once(' '));
    let bearer = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
    verify(bearer.or(query).ok_or(TokenError::Missing)?, secret, Utc::now())
}

fn refuse(sync: &Sync, status: StatusCode, error: &str) -> Response {
    sync.metrics.sync_connects.with_label_values(&["refused"]).inc();
    let mut response = (status, Json(serde_json::json!({ "error": error }))).into_response();
    let headers = response.headers_mut();
    match status {
        StatusCode::UNAUTHORIZED => drop(headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))),
        StatusCode::FORBIDDEN => {}
        _ => drop(headers.insert(header::RETRY_AFTER, HeaderValue::from_static("2"))),
    }
    response
}

/// A client's stream, until its token expires, it is too slow, or the worker leaves.
struct Stream {
    sync: Sync,
    subscription: Subscription,
    expires: Instant,
    heartbeat: Instant,
    begun: bool,
    is_reset: bool,
}

fn stream(sync: Sync, subscription: Subscription, claims: &Claims, is_reset: bool) -> Response {
    let now = Instant::now();
    // Longer than a worker runs is as good as for ever; the clock cannot count further.
    let left = (claims.expires - Utc::now()).to_std().unwrap_or_default().min(Duration::from_secs(365 * 24 * 3600));
    let client = Stream { sync, subscription, expires: now + left, heartbeat: now + HEARTBEAT, begun: false, is_reset };
    let events = stream::unfold(client, |mut client| async move {
        let event = client.next().await?;
        Some((Ok::<_, std::convert::Infallible>(event), client))
    });
    // Nothing between here and the page may keep or hold back what is told; nginx asks for the last one.
    let headers = [(header::CACHE_CONTROL, "no-store"), (HeaderName::from_static("x-accel-buffering"), "no")];
    (headers, Sse::new(events)).into_response()
}

impl Stream {
    fn id(&self) -> String {
        self.subscription.position().encode(&self.sync.topic)
    }

    async fn next(&mut self) -> Option<Event> {
        if !self.begun {
            self.begun = true;
            let first = sse::Event::default().retry(COME_AGAIN).id(self.id());
            return Some(if self.is_reset { first.event("reset").data("{}") } else { first.comment("listening") });
        }
        let stop = self.sync.stop.clone();
        tokio::select! {
            // An end comes before another event, however many wait.
            biased;
            () = stop.cancelled() => None,
            () = sleep_until(self.expires) => None,
            update = self.subscription.next() => {
                let update = update?;
                let text = String::from_utf8_lossy(&update.data);
                Some(sse::Event::default().event(&*update.event_type).id(self.id()).data(text))
            }
            // The position moves on without an event, so that a client to whom nothing happens can take up again later.
            () = sleep_until(self.heartbeat) => {
                self.heartbeat = Instant::now() + HEARTBEAT;
                self.subscription.catch_up();
                Some(sse::Event::default().id(self.id()).comment(""))
            }
        }
    }
}

/// Lets the configured origins' pages read answers, errors too, and asks nothing of who has no origin (curl, apps).
async fn cors(State(sync): State<Sync>, request: Request, next: Next) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let allowed = origin.filter(|origin| sync.origins.iter().any(|known| known == "*" || known.as_bytes() == origin.as_bytes()));
    let is_preflight = request.method() == Method::OPTIONS;
    let mut response = match (is_preflight, allowed.is_some()) {
        (false, _) => next.run(request).await,
        (true, true) => StatusCode::NO_CONTENT.into_response(),
        (true, false) => (StatusCode::FORBIDDEN, "not an origin of sync.origins").into_response(),
    };
    let headers = response.headers_mut();
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    if let Some(origin) = allowed {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if is_preflight {
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET"));
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("authorization, cache-control, last-event-id"));
            headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        }
    }
    response
}
