//! The catalogue as an AsyncAPI 3.0 document.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{Source, draft, envelope};
use crate::{
    config::handlers::HandlerConfig,
    event::{EventType, catalog::TopicSpec},
};

/// Of the Kafka bindings.
const BINDING: &str = "0.5.0";
/// What every tool of the AsyncAPI family reads; the catalogue's 2020-12 schemas are brought down to it.
const DRAFT: &str = "application/schema+json;version=draft-07";

/// The document.
pub(super) fn document(source: &Source<'_>) -> Value {
    let mut document = json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": format!("{} events", source.config.app_id),
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Every event type and topic. Records are keyed by user_id: one user's events are handled in order. Consumers also take \
                            the older envelope shapes; this is the one that is written.",
            "tags": tags(source),
        },
        "defaultContentType": "application/json",
    });
    if !source.config.kafka.is_embedded() {
        document["servers"] = servers(source);
    }
    let (mut channels, mut operations, mut messages) = (Map::new(), Map::new(), Map::new());
    for spec in &source.specs {
        channels.insert(spec.name.to_string(), channel(source, spec));
        if !spec.types.is_empty() && !spec.dead_letters {
            operations.insert(format!("publish.{}", spec.name), operation("send", spec, None));
        }
        if reads(source).contains(&*spec.name) {
            operations.insert(format!("consume.{}", spec.name), operation("receive", spec, Some(source.config.group_id())));
        }
    }
    for kind in source.catalog.types() {
        messages.insert(kind.name.to_string(), message(source, kind));
    }
    document["channels"] = Value::Object(channels);
    document["operations"] = Value::Object(operations);
    document["components"] = json!({ "messages": messages });
    document
}

/// The topics that a consumer of this configuration reads.
fn reads(source: &Source<'_>) -> BTreeSet<String> {
    let config = source.config;
    match &config.kafka.topics {
        Some(topics) => topics.iter().map(|topic| source.catalog.topic(topic).unwrap_or(topic).to_owned()).collect(),
        None => {
            let patterns = config.handlers.iter().filter(|one| one.discover.is_none()).flat_map(HandlerConfig::events);
            source.catalog.topics_needed(patterns).iter().map(ToString::to_string).collect()
        }
    }
}

fn tags(source: &Source<'_>) -> Value {
    let domains: BTreeSet<_> = source.catalog.types().map(|kind| kind.domain.as_str()).collect();
    domains.into_iter().map(|name| json!({ "name": name })).collect()
}

fn servers(source: &Source<'_>) -> Value {
    let properties = &source.config.kafka.properties;
    let protocol = properties.get("security.protocol").is_some_and(|protocol| protocol.to_lowercase().ends_with("ssl"));
    let protocol = if protocol { "kafka-secure" } else { "kafka" };
    let brokers = source.config.kafka.brokers.split(',').map(str::trim).filter(|broker| !broker.is_empty());
    let server = |(index, host): (usize, &str)| (format!("broker-{}", index + 1), json!({ "host": host, "protocol": protocol }));
    Value::Object(brokers.enumerate().map(server).collect())
}

fn channel(source: &Source<'_>, spec: &TopicSpec) -> Value {
    let messages: Map<_, _> = spec.types.iter().map(|kind| (kind.to_string(), reference(&["components", "messages", kind]))).collect();
    // The binding knows these five, as numbers; others are told beside it.
    let mut settings = Map::new();
    let mut others = Map::new();
    for (key, value) in &spec.config {
        match key.as_str() {
            "cleanup.policy" => drop(settings.insert(key.clone(), value.split(',').map(str::trim).collect())),
            "retention.ms" | "retention.bytes" | "delete.retention.ms" | "max.message.bytes" => {
                settings.insert(key.clone(), value.parse::<i64>().map_or_else(|_| json!(value), Value::from));
            }
            _ => drop(others.insert(key.clone(), json!(value))),
        }
    }
    let mut channel = json!({
        "address": &*spec.name,
        "title": &*spec.name,
        "description": spec.description,
        "messages": messages,
        "bindings": { "kafka": {
            "topic": &*spec.name, "partitions": spec.partitions, "replicas": spec.replication, "topicConfiguration": settings,
            "bindingVersion": BINDING,
        } },
        "x-profile": source.profile,
    });
    if !others.is_empty() {
        channel["x-topic-configuration"] = Value::Object(others);
    }
    if !spec.aliases.is_empty() {
        channel["x-aliases"] = json!(spec.aliases);
    }
    channel
}

fn operation(action: &str, spec: &TopicSpec, group: Option<&str>) -> Value {
    let messages: Vec<_> = spec.types.iter().map(|kind| reference(&["channels", &spec.name, "messages", kind])).collect();
    let mut operation = json!({ "action": action, "channel": reference(&["channels", &spec.name]), "messages": messages });
    if let Some(group) = group {
        operation["bindings"] = json!({ "kafka": { "groupId": { "type": "string", "enum": [group] }, "bindingVersion": BINDING } });
    }
    operation
}

fn message(source: &Source<'_>, kind: &EventType) -> Value {
    let past: Vec<_> = kind.past.iter().map(|past| past.version.to_string()).collect();
    json!({
        "name": &*kind.name,
        "title": &*kind.name,
        "summary": kind.description,
        "contentType": "application/json",
        "tags": [{ "name": kind.domain }],
        "correlationId": { "location": "$message.payload#/metadata/correlation_id" },
        "payload": { "schemaFormat": DRAFT, "schema": payload(kind) },
        "bindings": { "kafka": { "key": { "type": "string", "description": format!("The event's {}.", kind.key) }, "bindingVersion": BINDING } },
        "examples": [{ "name": "example", "payload": envelope(kind, &source.config.app_id, &kind.example) }],
        "x-version": kind.version.to_string(),
        "x-past-versions": past,
        "x-aliases": kind.aliases,
        "x-consumers": kind.consumers,
    })
}

/// The whole event as it is written.
fn payload(kind: &EventType) -> Value {
    json!({
        "type": "object",
        "required": ["event_id", "event_type", "event_version", "timestamp", "source", "data"],
        "properties": {
            "event_id": { "type": "string", "minLength": 1, "description": "The same for every repeat of this event." },
            "event_type": { "type": "string", "const": &*kind.name },
            "event_version": { "type": "string", "description": "Of data; consumers see the newest." },
            "timestamp": { "type": "string", "format": "date-time", "description": "When it happened." },
            "source": { "type": "string", "description": "Who published it." },
            "data": draft::seven(kind.schema.json()),
            "metadata": {
                "type": "object",
                "properties": {
                    "correlation_id": { "type": "string" },
                    "causation_id": { "type": "string", "description": "The id of the event that caused this one." },
                    "user_id": { "type": "string" },
                },
            },
        },
    })
}

/// A JSON pointer into the document.
fn reference(path: &[&str]) -> Value {
    let path: String = path.iter().map(|part| format!("/{}", part.replace('~', "~0").replace('/', "~1"))).collect();
    json!({ "$ref": format!("#{path}") })
}
