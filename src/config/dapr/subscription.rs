//! `Subscription`, v1alpha1 and v2alpha1: routes of the app.

use serde_json::{Value as Json, json};

use super::{Document, Facts, Translation};
use crate::config::{handlers::RouteConfig, subscription, units::show};

/// What an app is taken to listen on where nobody says it.
const GUESS: &str = "http://localhost:8080";

/// Translates the subscriptions that are this app's and of these brokers, and the app itself.
pub(super) fn translate(documents: &[&Document], brokers: &[String], facts: &Facts, out: &mut Translation) {
    let found: Vec<&&Document> = documents.iter().filter(|document| document.kind == "Subscription").collect();
    if brokers.is_empty() {
        for document in found {
            out.ignore(&document.label(), "there is no pubsub.kafka that it could be of");
        }
        return;
    }
    let handler = ["handlers", "0"];
    let at = |key: &'static str| [handler[0], handler[1], key];
    match &facts.app_url {
        Some(url) => out.set(&at("discover"), url.as_str(), "the app's address"),
        None if found.is_empty() => {
            out.decide("the app's address", "a consumer needs [[handlers]] with discover = \"http://host:port\", the app's address");
            return;
        }
        None => {
            out.set(&at("discover"), GUESS, "the app's address (a guess)");
            out.decide("the app's address", format!("is not in these files: {GUESS} is a guess; give --app-url"));
        }
    }
    let name = if facts.app_id.is_empty() { "app" } else { &facts.app_id };
    out.root.set(&at("name"), name.into(), "app-id");
    out.root.set(&at("kind"), "http".into(), "the app's address");
    let mut topics: Vec<(String, String)> = Vec::new();
    for document in found {
        let label = document.label();
        match route(document) {
            Err(why) => out.decide(&label, why),
            Ok(route) if !brokers.contains(&route.pubsub) => out.ignore(&label, format!("is of {}, not of these brokers", route.pubsub)),
            Ok(route) => match topics.iter().find(|(topic, _)| *topic == route.topic) {
                Some((_, first)) => out.ignore(&label, format!("topic {} is {first}'s: the first one counts", route.topic)),
                None => {
                    topics.push((route.topic.clone(), label.clone()));
                    put(&route, &label, out);
                }
            },
        }
    }
}

/// The document's route: its `spec` has the fields that an app would tell.
fn route(document: &Document) -> Result<RouteConfig, String> {
    let body = json!([document.spec]).to_string();
    let mut routes = subscription::parse(body.as_bytes())?;
    routes.pop().ok_or_else(|| "has no route: nothing says where its events go".to_owned())
}

fn put(route: &RouteConfig, label: &str, out: &mut Translation) {
    let index = out.root.len(&["handlers", "0", "routes"]).to_string();
    let base = ["handlers", "0", "routes", index.as_str()];
    let mut set = |key: &str, value: Json| out.root.set(&[&base[..], &[key]].concat(), value, label);
    set("topic", route.topic.as_str().into());
    set("pubsub", route.pubsub.as_str().into());
    if let Some(path) = &route.path {
        set("path", path.as_str().into());
    }
    if let Some(dead) = &route.dead_letter_topic {
        set("dead_letter_topic", dead.as_str().into());
    }
    if route.raw_payload {
        set("raw_payload", true.into());
    }
    if route.bulk {
        set("bulk", true.into());
        set("bulk_events", route.bulk_events.into());
        set("bulk_wait", show(route.bulk_wait).into());
    }
    for (number, rule) in route.rules.iter().enumerate() {
        let number = number.to_string();
        for (key, value) in [("match", &rule.condition), ("path", &rule.path)] {
            out.root.set(&[&base[..], &["rules", number.as_str(), key]].concat(), value.as_str().into(), label);
        }
    }
    out.note(super::Fate::Translated, label, format!("-> handlers[0].routes[{index}], topic {}", route.topic));
}
