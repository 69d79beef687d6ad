//! `[kafka]`: brokers, group, topics, and any librdkafka property.

use std::collections::BTreeMap;

use serde::Deserialize;

/// `[kafka]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaConfig {
    /// `host:port`, comma separated, or `embedded` for the in-process cluster.
    pub brokers: String,
    /// Consumer group; default: `app_id`.
    pub group_id: Option<String>,
    /// What the consumer role reads; default: every catalogue topic that a handler needs.
    pub topics: Option<Vec<String>>,
    /// Key to partition.
    pub partitioner: Partitioner,
    /// librdkafka properties of both clients.
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
    /// librdkafka properties of the consumer alone.
    #[serde(default)]
    pub consumer: BTreeMap<String, String>,
    /// librdkafka properties of the producer alone.
    #[serde(default)]
    pub producer: BTreeMap<String, String>,
}

/// Key to partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Partitioner {
    /// What the JVM clients do.
    Murmur2Random,
    /// What Dapr's client did: keeps users on their partitions while moving off it.
    Fnv1aRandom,
}
