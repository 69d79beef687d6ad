//! `[kafka]`: brokers, topics, and the librdkafka properties that are not the user's to set.

use std::time::Duration;

use super::Report;
use crate::config::{
    Config, Role,
    kafka::{Properties, owned_property},
    layer::join,
    oidc::Oidc,
    text,
    units::show,
};

/// librdkafka's default `max.poll.interval.ms`: a member that takes longer over a rebalance is thrown out of its group.
const MAX_POLL_INTERVAL: Duration = Duration::from_secs(300);

/// The worker's own `session.timeout.ms`.
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);

/// The broker's default `group.min.session.timeout.ms`.
const LEAST_SESSION_TIMEOUT: Duration = Duration::from_secs(6);

/// Of a classic group only; with `group.protocol = "consumer"` they belong to the broker, and librdkafka refuses them.
const CLASSIC_ONLY: &[&str] = &["session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy", "group.protocol.type"];

pub(super) fn check(config: &Config, role: Option<Role>, report: &mut Report<'_>) {
    let kafka = &config.kafka;
    if config.app_id.trim().is_empty() {
        report.problem("app_id", "must not be empty: it is the default consumer group and every event's source");
    }
    if config.group_id() != config.app_id && config.group_id().trim().is_empty() {
        report.problem("kafka.group_id", "must not be empty");
    }
    if kafka.is_embedded() {
        let alone = matches!(role, Some(Role::Consumer | Role::Producer));
        if alone {
            report.warning("kafka.brokers", "\"embedded\" is a cluster of this process alone: no other one reads from or writes to it");
        }
    } else {
        report.expect("kafka.brokers", text::brokers(&kafka.brokers));
    }
    if let Some(topics) = &kafka.topics {
        check_topics(topics, config, report);
    }
    for (table, properties) in [("properties", &kafka.properties), ("consumer", &kafka.consumer), ("producer", &kafka.producer)] {
        for (name, value) in properties {
            if let Some(why) = owned_property(name, value) {
                report.problem(&join(&format!("kafka.{table}"), name), format!("the worker sets this itself: {why}"));
            }
        }
    }
    check_group(config, report);
    check_credentials(config, report);
    check_tokens(config, report);
}

fn check_topics(topics: &[String], config: &Config, report: &mut Report<'_>) {
    if topics.is_empty() {
        report.problem("kafka.topics", "names no topic; leave the key out to read every catalogue topic that a handler needs");
    }
    for topic in topics {
        report.expect("kafka.topics", text::topic(topic));
    }
    if topics.contains(&config.dlq.topic) {
        report.problem("kafka.topics", format!("`{}` is dlq.topic: what fails there would go round in circles", config.dlq.topic));
    }
}

/// A consumer's property: its own table first, then the common one. With the path of where it was found.
fn of_consumer<'a>(config: &'a Config, name: &str) -> Option<(String, &'a str)> {
    let find =
        |table: &str, properties: &'a Properties| properties.get(name).map(|value| (join(&format!("kafka.{table}"), name), value.as_str()));
    find("consumer", &config.kafka.consumer).or_else(|| find("properties", &config.kafka.properties))
}

fn millis(config: &Config, name: &str, report: &mut Report<'_>) -> Option<(String, Duration)> {
    let (key, value) = of_consumer(config, name)?;
    let millis = value.trim().parse().map_err(|_| format!("`{value}` is no number of milliseconds"));
    report.expect(&key, millis).map(|millis| (key, Duration::from_millis(millis)))
}

fn check_group(config: &Config, report: &mut Report<'_>) {
    let protocol = of_consumer(config, "group.protocol");
    match protocol.as_ref().map(|(_, value)| value.to_ascii_lowercase()).as_deref() {
        None | Some("classic") => check_classic(config, report),
        Some("consumer") => {
            for name in CLASSIC_ONLY {
                if let Some((key, _)) = of_consumer(config, name) {
                    report.problem(&key, "does not go with group.protocol = \"consumer\": there the broker sets it");
                }
            }
        }
        Some(_) => {
            let (key, value) = protocol.unwrap_or_default();
            report.problem(&key, format!("`{value}` is neither classic nor consumer"));
        }
    }
    let drain = config.engine.drain_timeout;
    let poll = millis(config, "max.poll.interval.ms", report).map_or(MAX_POLL_INTERVAL, |(_, poll)| poll);
    if drain >= poll {
        let why = format!(
            "{} is not below max.poll.interval.ms ({}): the group would throw the worker out while it drains",
            show(drain),
            show(poll)
        );
        report.problem("engine.drain_timeout", why);
    }
}

fn check_classic(config: &Config, report: &mut Report<'_>) {
    let session = millis(config, "session.timeout.ms", report);
    let heartbeat = millis(config, "heartbeat.interval.ms", report);
    if let Some((key, session)) = session.as_ref().filter(|(_, session)| *session < LEAST_SESSION_TIMEOUT) {
        let least = show(LEAST_SESSION_TIMEOUT);
        report
            .warning(key, format!("{} is below what a broker accepts by default (group.min.session.timeout.ms, {least})", show(*session)));
    }
    let limit = session.map_or(SESSION_TIMEOUT, |(_, session)| session);
    if let Some((key, heartbeat)) = heartbeat {
        let (beat, limit_text) = (show(heartbeat), show(limit));
        if heartbeat >= limit {
            report.problem(
                &key,
                format!("{beat} is not below session.timeout.ms ({limit_text}): the group would lose the worker all the time"),
            );
        } else if heartbeat * 3 > limit {
            report.warning(
                &key,
                format!("{beat} is more than a third of session.timeout.ms ({limit_text}): two late heartbeats lose the group"),
            );
        }
    }
}

fn check_credentials(config: &Config, report: &mut Report<'_>) {
    let kafka = &config.kafka;
    for (table, properties) in [("properties", &kafka.properties), ("consumer", &kafka.consumer), ("producer", &kafka.producer)] {
        let protocol = properties.get("security.protocol").or_else(|| kafka.properties.get("security.protocol"));
        let speaks_sasl = protocol.is_some_and(|protocol| protocol.to_ascii_lowercase().starts_with("sasl"));
        let Some(name) = properties.keys().find(|name| name.starts_with("sasl.")) else { continue };
        // Clients of their own may say the protocol in their own table.
        let elsewhere = table == "properties"
            && [&kafka.consumer, &kafka.producer].iter().any(|properties| properties.contains_key("security.protocol"));
        if !speaks_sasl && !elsewhere {
            report.warning(&join(&format!("kafka.{table}"), name), "has no effect without \"security.protocol\" = \"sasl_ssl\"");
        }
    }
}

fn check_tokens(config: &Config, report: &mut Report<'_>) {
    match Oidc::read(&config.kafka) {
        Ok(Some(oidc)) if oidc.in_the_clear() => {
            let key = join("kafka.properties", "sasl.oauthbearer.token.endpoint.url");
            report.warning(&key, "sends the client secret unencrypted over the network: use https");
        }
        Ok(_) => {}
        Err(wrong) => wrong.iter().for_each(|(key, why)| report.problem(key, why)),
    }
}
