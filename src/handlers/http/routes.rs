//! Where an app's events go: one route per topic, as declared and as the app tells it. Pure, but for the lock that swaps them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use reqwest::Url;
use serde_json::Value;

use super::endpoint::Endpoint;
use crate::config::{
    condition::{Condition, Subject},
    handlers::RouteConfig,
};

/// How many users' events share a request, and how long the first of them waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bulk {
    /// Most events in one request.
    pub events: usize,
    /// Longest wait of the first.
    pub wait: Duration,
}

/// What an app wants of one topic.
#[derive(Debug, PartialEq)]
pub struct Route {
    /// The app's name for the brokers; may be empty.
    pub pubsub: String,
    rules: Vec<(Condition, Arc<Endpoint>)>,
    default: Option<Arc<Endpoint>>,
    /// Takes this topic's dead letters.
    pub dead_letters: Option<Arc<str>>,
    /// Values are opaque bytes.
    pub raw: bool,
    /// Many events in one request; `None`: one.
    pub bulk: Option<Bulk>,
}

impl Route {
    /// Joins paths to the app's URL and compiles conditions.
    fn compile(app: &Url, route: &RouteConfig) -> Result<Self, String> {
        let endpoint = |path: &str| {
            let url = join(app, path).ok_or_else(|| format!("`{path}` is no path"))?;
            Endpoint::new(url).map(Arc::new).map_err(|error| format!("`{path}` {error}"))
        };
        let rule =
            |rule: &crate::config::handlers::RuleConfig| Ok::<_, String>((Condition::compile(&rule.condition)?, endpoint(&rule.path)?));
        Ok(Self {
            pubsub: route.pubsub.clone(),
            rules: route.rules.iter().map(rule).collect::<Result<_, _>>()?,
            default: route.path.as_deref().map(endpoint).transpose()?,
            dead_letters: route.dead_letter_topic.as_deref().map(Arc::from),
            raw: route.raw_payload,
            bulk: route.bulk.then_some(Bulk { events: route.bulk_events, wait: route.bulk_wait }),
        })
    }

    /// Where an event goes: as its first rule that holds says, else to the default; `None`: nowhere. `event` is the CloudEvent, asked for
    /// only where there are rules.
    ///
    /// # Errors
    /// Where a rule that comes before any that holds cannot be told of this event.
    pub fn endpoint(&self, event: impl FnOnce() -> Value) -> Result<Option<&Arc<Endpoint>>, String> {
        if self.rules.is_empty() {
            return Ok(self.default.as_ref());
        }
        let subject = Subject::new(&event());
        for (condition, endpoint) in &self.rules {
            if condition.holds(&subject)? {
                return Ok(Some(endpoint));
            }
        }
        Ok(self.default.as_ref())
    }
}

/// Where each topic of an app goes.
#[derive(Debug, PartialEq, Default)]
pub struct Routes(BTreeMap<String, Arc<Route>>);

impl Routes {
    /// The routes that the app told, over those that are declared. `dlq`: the worker's own dead-letter topic.
    ///
    /// # Errors
    /// What cannot be used, with its topic.
    pub fn compile(app: &Url, declared: &[RouteConfig], told: &[RouteConfig], dlq: &str) -> Result<Self, String> {
        let mut routes = BTreeMap::new();
        for entry in declared.iter().chain(told) {
            let wrong = |why: String| format!("topic `{}`: {why}", entry.topic);
            if entry.topic == dlq {
                return Err(wrong(
                    "is dlq.topic: what fails there would go round in circles; give the worker another dlq.topic".to_owned(),
                ));
            }
            if entry.dead_letter_topic.as_ref() == Some(&entry.topic) {
                return Err(wrong("is its own deadLetterTopic: what fails would go round in circles".to_owned()));
            }
            routes.insert(entry.topic.clone(), Arc::new(Route::compile(app, entry).map_err(wrong)?));
        }
        Ok(Self(routes))
    }

    /// The topics that the app wants, sorted.
    pub fn topics(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Those whose values are opaque.
    pub fn raw_topics(&self) -> BTreeSet<Arc<str>> {
        self.0.iter().filter(|(_, route)| route.raw).map(|(topic, _)| Arc::from(topic.as_str())).collect()
    }

    /// What the app wants of that topic.
    pub fn of(&self, topic: &str) -> Option<&Arc<Route>> {
        self.0.get(topic)
    }

    /// Whether a consumer of the one reads just what a consumer of the other does.
    pub fn reads_as(&self, other: &Self) -> bool {
        self.topics().eq(other.topics()) && self.raw_topics() == other.raw_topics()
    }
}

/// The routes in force: read by every delivery, changed while deliveries go on.
#[derive(Debug, Clone, Default)]
pub struct Current(Arc<RwLock<Arc<Routes>>>);

impl Current {
    /// These, until others are set.
    pub fn new(routes: Routes) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(routes))))
    }

    /// The routes now.
    pub fn get(&self) -> Arc<Routes> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes them for the deliveries that begin from now on.
    pub fn set(&self, routes: Routes) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(routes);
    }
}

/// `path`, with or without its leading slash, below `app`'s own path.
pub(super) fn join(app: &Url, path: &str) -> Option<Url> {
    let mut base = app.clone();
    if !base.path().ends_with('/') {
        base.set_path(&format!("{}/", base.path()));
    }
    let relative = path.trim_start_matches('/');
    // A path such as `a:b` must not be read as a URL of its own.
    base.join(&format!("./{relative}")).ok()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::handlers::RuleConfig;

    fn entry(topic: &str, path: Option<&str>, rules: &[(&str, &str)]) -> RouteConfig {
        RouteConfig {
            topic: topic.to_owned(),
            pubsub: "kafka-pubsub".to_owned(),
            path: path.map(str::to_owned),
            rules: rules.iter().map(|(when, path)| RuleConfig { condition: (*when).to_owned(), path: (*path).to_owned() }).collect(),
            dead_letter_topic: None,
            raw_payload: false,
            bulk: false,
            bulk_events: 80,
            bulk_wait: Duration::from_millis(100),
        }
    }

    fn app() -> Url {
        "http://app:8000".parse().unwrap()
    }

    fn way(route: &RouteConfig, event_type: &str) -> Result<Option<String>, String> {
        let routes = Routes::compile(&app(), &[], std::slice::from_ref(route), "dlq").unwrap();
        let url = routes.of("t").unwrap().endpoint(|| json!({"type": event_type, "data": {}}));
        url.map(|url| url.map(ToString::to_string))
    }

    #[test]
    fn the_first_rule_that_holds_decides_then_the_default_then_nowhere() {
        let rules = [("event.type == 'a'", "/a"), ("event.type.startsWith('a')", "/starts"), ("event.type == 'b'", "b")];
        let route = entry("t", Some("/rest"), &rules);
        for (event_type, path) in [("a", "/a"), ("ab", "/starts"), ("b", "/b"), ("c", "/rest")] {
            assert_eq!(way(&route, event_type), Ok(Some(format!("http://app:8000{path}"))), "{event_type}");
        }
        assert_eq!(way(&entry("t", None, &rules), "c"), Ok(None));
        assert_eq!(way(&entry("t", None, &[("", "/all")]), "c"), Ok(Some("http://app:8000/all".to_owned())), "no condition always holds");
    }

    #[test]
    fn a_rule_that_cannot_be_told_is_an_error_and_not_the_next_rule() {
        let route = entry("t", Some("/rest"), &[("event.data.kind == 'a'", "/a")]);
        assert!(way(&route, "c").unwrap_err().contains("`kind`"));
    }

    #[test]
    fn what_the_app_tells_replaces_what_is_declared_for_its_topic() {
        let declared = [entry("t", Some("/declared"), &[]), entry("u", Some("/u"), &[])];
        let routes = Routes::compile(&app(), &declared, &[entry("t", Some("/told"), &[])], "dlq").unwrap();
        assert_eq!(routes.topics().collect::<Vec<_>>(), ["t", "u"]);
        let path = |topic: &str| routes.of(topic).unwrap().endpoint(|| json!({})).unwrap().unwrap().url().path().to_owned();
        assert_eq!((path("t"), path("u")), ("/told".to_owned(), "/u".to_owned()));
    }

    #[test]
    fn circles_and_bad_rules_are_refused_with_their_topic() {
        let refused = |route: RouteConfig| Routes::compile(&app(), &[], &[route], "dlq").unwrap_err();
        assert!(refused(entry("dlq", Some("/a"), &[])).contains("dlq.topic"));
        assert!(refused(RouteConfig { dead_letter_topic: Some("t".to_owned()), ..entry("t", Some("/a"), &[]) }).contains("circles"));
        let told = refused(entry("t", None, &[("event.type = 1", "/a")]));
        assert!(told.contains("`t`") && told.contains("CEL"), "{told}");
    }

    #[test]
    fn only_topics_and_their_rawness_decide_what_is_read() {
        let of = |route: RouteConfig| Routes::compile(&app(), &[], &[route], "dlq").unwrap();
        let base = of(entry("t", Some("/a"), &[]));
        assert!(base.reads_as(&of(entry("t", Some("/b"), &[]))) && base != of(entry("t", Some("/b"), &[])));
        assert!(!base.reads_as(&of(entry("u", Some("/a"), &[]))));
        assert!(!base.reads_as(&of(RouteConfig { raw_payload: true, ..entry("t", Some("/a"), &[]) })));
    }

    #[test]
    fn an_app_below_a_path_keeps_it() {
        let app: Url = "http://gateway/app".parse().unwrap();
        assert_eq!(join(&app, "/dapr/subscribe").unwrap().as_str(), "http://gateway/app/dapr/subscribe");
    }
}
