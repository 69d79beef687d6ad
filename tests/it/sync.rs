//! The sync listener: who may listen, and what is heard.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::Utc;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio_util::sync::CancellationToken;
use worker::{
    config::Secret,
    http::sync::{Sync, router},
    sync::feed::{Feed, Limits, Update},
    telemetry::Metrics,
};

use crate::support::{Served, client, serve};

const SECRET: &str = "a secret that both sides have got";

struct Place {
    served: Served,
    feed: Feed,
    metrics: Metrics,
    stop: CancellationToken,
    http: reqwest::Client,
}

async fn place() -> Place {
    let metrics = Metrics::new("consumer");
    let limits = Limits { history: Duration::from_secs(60), memory: 1 << 20, connections: 5 };
    let feed = Feed::new(limits, metrics.clone());
    feed.begin(BTreeMap::from([(0, 0)]));
    feed.ready();
    let stop = CancellationToken::new();
    let sync = Sync {
        feed: feed.clone(),
        topic: "task-updates".into(),
        secret: Secret::new(SECRET),
        origins: Arc::new(["https://app.example.com".to_owned()]),
        metrics: metrics.clone(),
        stop: stop.clone(),
    };
    Place { served: serve(router(sync)).await, feed, metrics, stop, http: client() }
}

fn token(user: &str, seconds: i64) -> String {
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&json!({ "alg": "HS256" })), part(&json!({ "sub": user, "exp": Utc::now().timestamp() + seconds })));
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(signed.as_bytes());
    format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

impl Place {
    fn push(&self, user: &str, offset: i64) {
        let data = json!({ "offset": offset, "user_id": user }).to_string().into();
        self.feed.push(0, offset, Some((user.into(), Update { partition: 0, offset, event_type: "task.updated".into(), data })));
    }

    async fn get(&self, path: &str, headers: &[(&'static str, &str)]) -> Response {
        let request = headers.iter().fold(self.http.get(self.served.url(path)), |request, (name, value)| request.header(*name, *value));
        request.send().await.unwrap()
    }

    /// A stream that has begun.
    async fn listen(&self, user: &str, last: Option<&str>) -> Heard {
        let bearer = format!("Bearer {}", token(user, 60));
        let mut headers = vec![("authorization", bearer.as_str())];
        headers.extend(last.map(|last| ("last-event-id", last)));
        let response = self.get(&format!("/sync/{user}"), &headers).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Heard { response, text: String::new() }
    }
}

/// A stream of events as it is read.
struct Heard {
    response: Response,
    text: String,
}

impl Heard {
    /// The next block up to its empty line, as fields; `None` at the end of the stream.
    async fn next(&mut self) -> Option<BTreeMap<String, String>> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let fields =
                    block.lines().map(|line| line.split_once(':').unwrap()).map(|(name, value)| (name.to_owned(), value.trim().to_owned()));
                let fields = fields.collect();
                self.text = rest.to_owned();
                return Some(fields);
            }
            let chunk = tokio::time::timeout(Duration::from_secs(20), self.response.chunk()).await.expect("a word in time").unwrap()?;
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }
}

#[tokio::test]
async fn a_client_hears_its_own_users_events_and_takes_up_again_where_it_was() {
    let place = place().await;
    let mut heard = place.listen("ada", None).await;
    let first = heard.next().await.unwrap();
    assert_eq!(first["retry"], "2000");
    place.push("bob", 0);
    place.push("ada", 1);
    let event = heard.next().await.unwrap();
    assert_eq!((event["event"].as_str(), event["data"].as_str()), ("task.updated", r#"{"offset":1,"user_id":"ada"}"#));
    assert_eq!(place.metrics.sync_connections.get(), 1);
    drop(heard);
    place.push("ada", 2);
    place.push("bob", 3);
    let mut again = place.listen("ada", Some(&event["id"])).await;
    assert_eq!(again.next().await.unwrap()["retry"], "2000");
    assert!(again.next().await.unwrap()["data"].contains("\"offset\":2"));
    place.push("ada", 4);
    assert!(again.next().await.unwrap()["data"].contains("\"offset\":4"));
    let query = place.get(&format!("/sync/ada?token={}&last_event_id={}", token("ada", 60), event["id"]), &[]).await;
    let mut query = Heard { response: query, text: String::new() };
    query.next().await.unwrap();
    assert!(query.next().await.unwrap()["data"].contains("\"offset\":2"), "a browser's EventSource sets no header");
}

#[tokio::test]
async fn a_position_that_is_too_old_or_another_topics_is_told_to_load_anew() {
    let place = place().await;
    let id = place.listen("ada", None).await.next().await.unwrap()["id"].clone();
    place.feed.begin(BTreeMap::from([(0, 7)]));
    place.feed.ready();
    for last in [id.as_str(), "nonsense"] {
        let mut heard = place.listen("ada", Some(last)).await;
        assert_eq!(heard.next().await.unwrap()["event"], "reset", "{last}");
        place.push("ada", 7);
        assert_eq!(heard.next().await.unwrap()["event"], "task.updated", "and goes on from now");
        place.feed.begin(BTreeMap::from([(0, 8)]));
        place.feed.ready();
        assert!(heard.next().await.is_none(), "a feed that begins anew lets its clients go");
    }
}

#[tokio::test]
async fn only_the_tokens_own_user_is_let_in_and_only_until_it_expires() {
    let place = place().await;
    let bearer = |token: &str| format!("Bearer {token}");
    for (path, authorization, status, why) in [
        ("/sync/ada", None, 401, "no token"),
        ("/sync/ada", Some(bearer(&token("ada", -1))), 401, "expired"),
        ("/sync/ada", Some(bearer("a.b.c")), 401, "no JSON Web Token"),
        ("/sync/ada", Some(bearer(&(token("ada", 60) + "x"))), 401, ""),
        ("/sync/bob", Some(bearer(&token("ada", 60))), 403, "another user's"),
        ("/sync/ada%2Fx", Some(bearer(&token("ada", 60))), 403, "another user's"),
    ] {
        let headers: Vec<_> = authorization.iter().map(|value| ("authorization", value.as_str())).collect();
        let response = place.get(path, &headers).await;
        assert_eq!(response.status(), status, "{path}");
        let body: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        assert!(body["error"].as_str().unwrap().contains(why), "{body}");
    }
    assert_eq!(place.metrics.sync_connections.get(), 0);
    let response = place.get(&format!("/sync/ada?token={}", token("ada", 2)), &[]).await;
    let mut heard = Heard { response, text: String::new() };
    heard.next().await.unwrap();
    assert!(heard.next().await.is_none(), "a stream ends with its token");
}

#[tokio::test]
async fn pages_of_the_configured_origins_may_read_it_errors_too_and_others_may_not() {
    let place = place().await;
    let preflight = async |origin: &str| {
        let request = place.http.request(Method::OPTIONS, place.served.url("/sync/ada")).header("origin", origin);
        request.header("access-control-request-method", "GET").send().await.unwrap()
    };
    let allowed = preflight("https://app.example.com").await;
    assert_eq!(allowed.status(), StatusCode::NO_CONTENT);
    assert_eq!(allowed.headers()["access-control-allow-origin"], "https://app.example.com");
    assert!(allowed.headers()["access-control-allow-headers"].to_str().unwrap().contains("last-event-id"));
    let other = preflight("https://evil.example.com").await;
    assert_eq!((other.status(), other.headers().get("access-control-allow-origin")), (StatusCode::FORBIDDEN, None));
    let refused = place.get("/sync/ada", &[("origin", "https://app.example.com")]).await;
    assert_eq!(
        (refused.status().as_u16(), &refused.headers()["access-control-allow-origin"]),
        (401, &"https://app.example.com".parse().unwrap())
    );
    assert_eq!(place.get("/sync/ada", &[("origin", "https://evil.example.com")]).await.headers().get("access-control-allow-origin"), None);
}

#[tokio::test]
async fn clients_wait_for_a_feed_that_is_behind_are_bounded_and_end_with_the_worker() {
    let place = place().await;
    let mut all = Vec::new();
    for _ in 0..5 {
        let mut heard = place.listen("ada", None).await;
        heard.next().await.unwrap();
        all.push(heard);
    }
    let authorization = format!("Bearer {}", token("ada", 60));
    let full = place.get("/sync/ada", &[("authorization", &authorization)]).await;
    assert_eq!((full.status().as_u16(), &full.headers()["retry-after"]), (503, &"2".parse().unwrap()));
    place.stop.cancel();
    for heard in &mut all {
        assert!(heard.next().await.is_none());
    }
    place.feed.begin(BTreeMap::new());
    assert_eq!(place.get("/sync/ada", &[("authorization", &authorization)]).await.status(), 503);
    assert_eq!(place.metrics.sync_connects.with_label_values(&["refused"]).get(), 2);
}
