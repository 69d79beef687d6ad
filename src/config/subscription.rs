//! Subscriptions as Dapr writes them, in an app's answer at `/dapr/subscribe` and in the files of a `Subscription`. Pure.

use std::time::Duration;

use serde_json::{Map, Value};

use super::handlers::{RouteConfig, RuleConfig};

/// Most events in one request, where the app names no number, and where it names a larger one than is sensible.
const BULK_EVENTS: (usize, usize) = (80, 1000);
/// Longest wait for others, where the app names none. Dapr's is 10 s, which a lone user's events would each wait.
const BULK_WAIT: Duration = Duration::from_millis(100);
/// Longest wait that is granted.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Reads the list of subscriptions: `topic` with `route` (v1) or `routes` (v2, which wins). Keys in any case, as Go's decoder takes them,
/// unknown ones ignored. One without a route is skipped, with a warning.
///
/// # Errors
/// Where it is no such list, or asks for what is not offered: then nothing of it is used.
pub fn parse(body: &[u8]) -> Result<Vec<RouteConfig>, String> {
    let entries: Option<Vec<Map<String, Value>>> =
        serde_json::from_slice(body).map_err(|error| format!("not a list of subscriptions: {error}"))?;
    let mut routes: Vec<RouteConfig> = Vec::new();
    for entry in entries.unwrap_or_default() {
        let Some(topic) = text(&entry, "topic") else { return Err("a subscription without a `topic`".to_owned()) };
        let route = route(topic, &entry).map_err(|why| format!("topic `{topic}`: {why}"))?;
        if route.path.is_none() && route.rules.is_empty() {
            tracing::warn!(topic, "a subscription without a route: skipped");
            continue;
        }
        if let Some(earlier) = routes.iter().position(|earlier| earlier.topic == route.topic) {
            tracing::warn!(topic, "two subscriptions of one topic, which here is the same under every pubsubname: the later one counts");
            routes.remove(earlier);
        }
        routes.push(route);
    }
    Ok(routes)
}

fn route(topic: &str, entry: &Map<String, Value>) -> Result<RouteConfig, String> {
    let v2 = object(entry, "routes");
    let default = v2.and_then(|routes| text(routes, "default"));
    let rules = v2.and_then(|routes| get(routes, "rules")).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let metadata = object(entry, "metadata");
    if let Some(schema) = metadata.and_then(|metadata| text(metadata, "valueSchemaType")).filter(|kind| !kind.eq_ignore_ascii_case("none"))
    {
        return Err(format!("`metadata.valueSchemaType` = `{schema}` is not offered: values are JSON, or opaque with rawPayload"));
    }
    let raw = metadata.and_then(|metadata| get(metadata, "rawPayload")).is_some_and(is_true);
    let bulk = object(entry, "bulkSubscribe").filter(|bulk| get(bulk, "enabled").is_some_and(is_true));
    let number = |name: &str| bulk.and_then(|bulk| get(bulk, name)).and_then(Value::as_u64).filter(|number| *number > 0);
    let events = number("maxMessagesCount").and_then(|count| usize::try_from(count).ok()).unwrap_or(BULK_EVENTS.0);
    let wait = number("maxAwaitDurationMs").map_or(BULK_WAIT, Duration::from_millis);
    Ok(RouteConfig {
        topic: topic.to_owned(),
        pubsub: text(entry, "pubsubname").unwrap_or_default().to_owned(),
        path: default.or_else(|| text(entry, "route")).map(str::to_owned),
        rules: rules.iter().map(rule).collect::<Result<_, _>>()?,
        dead_letter_topic: text(entry, "deadLetterTopic").map(str::to_owned),
        raw_payload: raw,
        bulk: bulk.is_some(),
        bulk_events: events.min(BULK_EVENTS.1),
        bulk_wait: wait.min(LONGEST_WAIT),
    })
}

fn rule(rule: &Value) -> Result<RuleConfig, String> {
    let fields = rule.as_object().ok_or("a rule is no object")?;
    let path = text(fields, "path").ok_or("a rule without a `path`")?;
    Ok(RuleConfig { condition: text(fields, "match").unwrap_or_default().to_owned(), path: path.to_owned() })
}

/// `true`, or a text that Go's `ParseBool` takes for it.
fn is_true(value: &Value) -> bool {
    match value {
        Value::Bool(flag) => *flag,
        Value::String(text) => matches!(text.as_str(), "1" | "t" | "T" | "true" | "True" | "TRUE"),
        _ => false,
    }
}

fn get<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    fields.get(name).or_else(|| fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value))
}

/// A text that is not empty.
fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    get(fields, name).and_then(Value::as_str).filter(|text| !text.is_empty())
}

fn object<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a Map<String, Value>> {
    get(fields, name).and_then(Value::as_object)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

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

    fn routes(body: &str) -> Result<Vec<RouteConfig>, String> {
        parse(body.as_bytes())
    }

    #[test]
    fn v1_and_v2_routes_are_read_with_keys_in_any_case() {
        let found = routes(
            r#"[{"pubsubname":"kafka-pubsub","topic":"task-events","route":"/events/tasks"},
                {"pubsubName":"kafka-pubsub","Topic":"reminders","route":"ignored","metadata":{"x":"y"},
                 "Routes":{"Default":"due","Rules":[{"Match":"event.type == 'a'","Path":"/a"},{"match":"","path":"/b"}]}}]"#,
        );
        let rules = [("event.type == 'a'", "/a"), ("", "/b")];
        assert_eq!(found.unwrap(), [entry("task-events", Some("/events/tasks"), &[]), entry("reminders", Some("due"), &rules)]);
    }

    #[test]
    fn dead_letter_topic_raw_payload_and_bulk_are_read_with_bounds() {
        let one = |more: &str| routes(&format!(r#"[{{"pubsubname":"kafka-pubsub","topic":"t","route":"/a",{more}}}]"#)).unwrap().remove(0);
        let base = entry("t", Some("/a"), &[]);
        assert_eq!(one(r#""deadLetterTopic":"t-dead""#), RouteConfig { dead_letter_topic: Some("t-dead".to_owned()), ..base.clone() });
        assert_eq!(one(r#""deadLetterTopic":"""#), base);
        for raw in [r#""true""#, r#""True""#, r#""1""#, "true"] {
            assert!(one(&format!(r#""metadata":{{"rawPayload":{raw}}}"#)).raw_payload, "{raw}");
        }
        assert!(!one(r#""metadata":{"rawPayload":"false"}"#).raw_payload);
        let bulk = |more: &str| {
            let route = one(&format!(r#""bulkSubscribe":{{"enabled":true{more}}}"#));
            (route.bulk, route.bulk_events, route.bulk_wait.as_millis())
        };
        assert_eq!(bulk(""), (true, 80, 100));
        assert_eq!(bulk(r#","maxMessagesCount":0,"maxAwaitDurationMs":0"#), (true, 80, 100));
        assert_eq!(bulk(r#","maxMessagesCount":100,"maxAwaitDurationMs":40"#), (true, 100, 40));
        assert_eq!(bulk(r#","maxMessagesCount":9999999,"maxAwaitDurationMs":99999999"#), (true, 1000, 10_000));
        assert!(!one(r#""bulkSubscribe":{"enabled":false,"maxMessagesCount":5}"#).bulk);
    }

    #[test]
    fn an_app_that_subscribes_to_nothing_has_no_routes() {
        for body in ["[]", "null", r#"[{"topic":"t"}]"#, r#"[{"topic":"t","route":""}]"#] {
            assert_eq!(routes(body), Ok(vec![]));
        }
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_name_instead_of_being_ignored() {
        let refused = |body: &str| routes(body).unwrap_err();
        assert!(refused(r#"[{"route":"/a"}]"#).contains("`topic`"));
        assert!(refused(r#"[{"topic":"t","route":"/a","metadata":{"valueSchemaType":"Avro"}}]"#).contains("valueSchemaType"));
        assert!(refused(r#"[{"topic":"t","routes":{"rules":[{"match":"true"}]}}]"#).contains("`path`"));
        assert!(refused(r#"[{"topic":"t","routes":{"rules":["x"]}}]"#).contains("`t`"));
        assert!(refused("<html>").contains("not a list"));
    }
}
