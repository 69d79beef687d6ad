//! `[kafka]`: brokers, group, topics, and any librdkafka property.

use std::{collections::BTreeMap, fmt, ops::Deref};

use serde::Deserialize;

use super::secret::{MASK, is_secret_property};

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
    pub properties: Properties,
    /// librdkafka properties of the consumer alone.
    #[serde(default)]
    pub consumer: Properties,
    /// librdkafka properties of the producer alone.
    #[serde(default)]
    pub producer: Properties,
}

impl KafkaConfig {
    /// The value of `brokers` that means the in-process cluster.
    pub const EMBEDDED: &'static str = "embedded";

    /// Whether the brokers are the in-process cluster.
    pub fn is_embedded(&self) -> bool {
        self.brokers == Self::EMBEDDED
    }
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

/// librdkafka properties by name. `Debug` masks the values that are secrets.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Properties(pub BTreeMap<String, String>);

impl Deref for Properties {
    type Target = BTreeMap<String, String>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<'a> IntoIterator for &'a Properties {
    type Item = (&'a String, &'a String);
    type IntoIter = std::collections::btree_map::Iter<'a, String, String>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.0.iter().map(|(name, value)| (name, if is_secret_property(name) { MASK } else { value.as_str() })))
            .finish()
    }
}
