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

const COMMITS: &str = "it commits an offset once everything before it is settled; see engine.commit_interval";
const ACKS: &str = "all, because a yes must mean that the event is stored";

/// Properties that carry the worker's promises: the values that say no more than what it does anyway, and what to do instead.
const OWNED: &[(&str, &[&str], &str)] = &[
    ("bootstrap.servers", &[], "use kafka.brokers"),
    ("metadata.broker.list", &[], "use kafka.brokers"),
    ("test.mock.num.brokers", &[], "use kafka.brokers = \"embedded\""),
    ("group.id", &[], "use kafka.group_id"),
    ("auto.offset.reset", &[], "use engine.start_at"),
    ("partitioner", &[], "use kafka.partitioner"),
    ("enable.auto.commit", &["false"], COMMITS),
    ("auto.commit.enable", &["false"], COMMITS),
    ("enable.auto.offset.store", &["false"], COMMITS),
    ("auto.commit.interval.ms", &[], COMMITS),
    ("isolation.level", &["read_committed"], "read_committed, because events of aborted transactions must not run"),
    ("enable.partition.eof", &["false"], "it has no use for it"),
    ("acks", &["all", "-1"], ACKS),
    ("request.required.acks", &["all", "-1"], ACKS),
    ("enable.idempotence", &["true"], "true, because a repeated send must not be a second event"),
    ("transactional.id", &[], "it uses no transactions"),
    ("allow.auto.create.topics", &["false"], "false, because topics are created by `worker topics apply`"),
];

/// Why that librdkafka property is not the user's to set, if it is not. A value that says what the worker does anyway is let through.
pub fn owned_property(name: &str, value: &str) -> Option<&'static str> {
    let (_, same, why) = OWNED.iter().find(|(owned, ..)| *owned == name)?;
    (!same.contains(&value)).then_some(why)
}
