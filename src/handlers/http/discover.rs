//! Routes of an app that declares them as Dapr's apps do: `/dapr/subscribe`, asked by GET, and by POST where GET is answered 404 or 405.

use std::{collections::BTreeMap, time::Duration};

use reqwest::{Client, Method, Url};
use serde_json::{Map, Value};

use super::client;
use crate::health::Reporter;

/// Longest answer that is read.
const MAX_ANSWER: usize = 1 << 20;
/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time between two questions to an app that is away: quick at first, as apps start beside their worker, then patient.
const PAUSES: [Duration; 5] =
    [Duration::from_millis(250), Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(5)];

/// Where each topic of an app goes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Routes(BTreeMap<String, Url>);

impl Routes {
    /// The topics that the app wants, sorted.
    pub fn topics(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Where events of that topic are POSTed.
    pub fn of(&self, topic: &str) -> Option<&Url> {
        self.0.get(topic)
    }
}

/// Why an app's routes are not known yet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DiscoverError {
    /// The app is away, or answers that it has no such page (yet).
    #[error("{0}")]
    Away(String),
    /// The app asks for something that is not offered: its answer must change.
    #[error("/dapr/subscribe: {0}")]
    Refused(String),
}

/// Asks `app` until it tells its routes. An app that is away, or asks for what is not offered, is asked again: never an error, so that
/// app and worker may start, or be mended, in any order. What is wrong is logged when it changes and stands in `report`.
pub async fn discover(http: &Client, app: &Url, handler: &str, report: &Reporter) -> Routes {
    let mut pauses = PAUSES.iter();
    let mut pause = PAUSES[0];
    let mut told = None;
    loop {
        match ask(http, app).await {
            Ok(routes) => {
                report.ok();
                let topics: Vec<_> = routes.topics().collect();
                tracing::info!(handler, app = client::shown(app), topics = topics.join(","), "the app told its routes");
                return routes;
            }
            Err(error) => {
                report.fail(error.to_string());
                if told.as_ref() != Some(&error) {
                    match &error {
                        DiscoverError::Away(error) => {
                            tracing::warn!(handler, app = client::shown(app), error, "waiting for the app to tell its routes");
                        }
                        DiscoverError::Refused(_) => {
                            tracing::error!(handler, app = client::shown(app), %error, "the app's routes cannot be used as they are");
                        }
                    }
                }
                told = Some(error);
            }
        }
        tokio::time::sleep(pause).await;
        pause = pauses.next().copied().unwrap_or(pause);
    }
}

/// Asks once.
///
/// # Errors
/// Where the app is away, or its answer cannot be used.
pub async fn ask(http: &Client, app: &Url) -> Result<Routes, DiscoverError> {
    let page = join(app, "dapr/subscribe").ok_or_else(|| DiscoverError::Refused("not a base URL".to_owned()))?;
    let mut answer = question(http, Method::GET, &page).await?;
    if matches!(answer.0, 404 | 405) {
        answer = question(http, Method::POST, &page).await?;
    }
    match answer {
        (200..=299, body) => parse(app, &body),
        (status, _) => Err(DiscoverError::Away(format!("/dapr/subscribe answered {status}"))),
    }
}

async fn question(http: &Client, method: Method, page: &Url) -> Result<(u16, Vec<u8>), DiscoverError> {
    let exchange = async {
        let mut response = http.request(method, page.clone()).header("content-type", "application/json").send().await?;
        let body = client::read_bounded(&mut response, MAX_ANSWER).await?;
        Ok::<_, reqwest::Error>((response.status().as_u16(), body))
    };
    match tokio::time::timeout(PATIENCE, exchange).await {
        Ok(Ok((status, Some(body)))) => Ok((status, body)),
        Ok(Ok((_, None))) => Err(DiscoverError::Refused("the answer is longer than 1 MiB".to_owned())),
        Ok(Err(error)) => Err(DiscoverError::Away(client::reason(&error))),
        Err(_) => Err(DiscoverError::Away(format!("no answer within {}", humantime::format_duration(PATIENCE)))),
    }
}

/// Reads the list of subscriptions: `topic` with `route` (v1) or `routes.default` (v2, which wins). Keys in any case, unknown ones ignored.
fn parse(app: &Url, body: &[u8]) -> Result<Routes, DiscoverError> {
    let entries: Option<Vec<Map<String, Value>>> =
        serde_json::from_slice(body).map_err(|error| DiscoverError::Refused(format!("not a list of subscriptions: {error}")))?;
    let mut routes = Routes::default();
    for entry in entries.unwrap_or_default() {
        let Some(topic) = text(&entry, "topic").filter(|topic| !topic.is_empty()) else {
            return Err(DiscoverError::Refused("a subscription without a `topic`".to_owned()));
        };
        refuse_what_is_not_offered(topic, &entry)?;
        let v2 = object(&entry, "routes").and_then(|routes| text(routes, "default"));
        let Some(path) = v2.into_iter().chain(text(&entry, "route")).find(|path| !path.is_empty()) else {
            tracing::warn!(topic, "the app lists a subscription without a route: skipped");
            continue;
        };
        let url = join(app, path).ok_or_else(|| DiscoverError::Refused(format!("topic `{topic}`: `{path}` is no path")))?;
        routes.0.insert(topic.to_owned(), url);
    }
    Ok(routes)
}

/// What would change the meaning of a delivery if it were ignored.
fn refuse_what_is_not_offered(topic: &str, entry: &Map<String, Value>) -> Result<(), DiscoverError> {
    let rules = object(entry, "routes").and_then(|routes| get(routes, "rules")).and_then(Value::as_array);
    if rules.is_some_and(|rules| !rules.is_empty()) {
        return Err(DiscoverError::Refused(format!(
            "topic `{topic}`: routing rules (`routes.rules`) are not offered; give it `routes.default` alone and tell the types apart in the app"
        )));
    }
    let raw = object(entry, "metadata").and_then(|metadata| text(metadata, "rawPayload"));
    if raw.is_some_and(|raw| matches!(raw, "1" | "t" | "T" | "true" | "True" | "TRUE")) {
        return Err(DiscoverError::Refused(format!("topic `{topic}`: `metadata.rawPayload` is not offered")));
    }
    let bulk = object(entry, "bulkSubscribe").and_then(|bulk| get(bulk, "enabled")).and_then(Value::as_bool);
    if bulk == Some(true) {
        return Err(DiscoverError::Refused(format!("topic `{topic}`: `bulkSubscribe` is not offered")));
    }
    if text(entry, "deadLetterTopic").is_some_and(|dead| !dead.is_empty()) {
        tracing::warn!(topic, "the app names a deadLetterTopic: dead letters go to `dlq.topic` instead");
    }
    Ok(())
}

fn get<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    fields.get(name).or_else(|| fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value))
}

fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    get(fields, name).and_then(Value::as_str)
}

fn object<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a Map<String, Value>> {
    get(fields, name).and_then(Value::as_object)
}

/// `path`, with or without its leading slash, below `app`'s own path.
fn join(app: &Url, path: &str) -> Option<Url> {
    let mut base = app.clone();
    if !base.path().ends_with('/') {
        base.set_path(&format!("{}/", base.path()));
    }
    let relative = path.trim_start_matches('/');
    // A path such as `a:b` must not be read as a URL of its own.
    base.join(&format!("./{relative}")).ok()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    fn routes(body: &str) -> Result<Vec<(String, String)>, DiscoverError> {
        let app = "http://app:8000".parse().unwrap();
        parse(&app, body.as_bytes()).map(|routes| routes.0.into_iter().map(|(topic, url)| (topic, url.to_string())).collect())
    }

    fn refusal(entry: &str) -> String {
        match routes(&format!("[{entry}]")) {
            Err(DiscoverError::Refused(error)) => error,
            other => panic!("refused: {other:?}"),
        }
    }

    #[test]
    fn v1_and_v2_routes_are_read_with_keys_in_any_case_and_paths_with_or_without_a_slash() {
        let found = routes(
            r#"[{"pubsubname":"kafka-pubsub","topic":"task-events","route":"/events/tasks"},
                {"pubsubName":"taskevents","Topic":"reminders","route":"ignored","Routes":{"Default":"reminders:due"},"metadata":{"x":"y"}}]"#,
        );
        assert_eq!(
            found.unwrap(),
            [
                ("reminders".to_owned(), "http://app:8000/reminders:due".to_owned()),
                ("task-events".to_owned(), "http://app:8000/events/tasks".to_owned())
            ]
        );
    }

    #[test]
    fn an_app_that_subscribes_to_nothing_has_no_routes() {
        for body in ["[]", "null"] {
            assert_eq!(routes(body), Ok(vec![]));
        }
    }

    #[test]
    fn what_is_not_offered_is_refused_by_name_instead_of_being_ignored() {
        let rules = refusal(r#"{"topic":"t","routes":{"rules":[{"match":"event.type == 'a'","path":"/a"}],"default":"/b"}}"#);
        assert!(rules.contains("`t`") && rules.contains("routes.rules"), "{rules}");
        assert!(refusal(r#"{"topic":"t","route":"/a","metadata":{"rawPayload":"true"}}"#).contains("rawPayload"));
        assert!(refusal(r#"{"topic":"t","route":"/a","bulkSubscribe":{"enabled":true}}"#).contains("bulkSubscribe"));
        assert!(refusal(r#"{"route":"/a"}"#).contains("topic"));
        assert!(matches!(routes("<html>"), Err(DiscoverError::Refused(_))));
    }

    #[test]
    fn an_app_below_a_path_keeps_it() {
        let app: Url = "http://gateway/app".parse().unwrap();
        assert_eq!(join(&app, "/dapr/subscribe").unwrap().as_str(), "http://gateway/app/dapr/subscribe");
    }
}
