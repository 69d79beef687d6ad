//! Copies, and settings that Kafka does not have or that lose events.

use super::{Findings, Scene};
use crate::config::keys::nearest;

/// Kafka's settings of a topic.
const SETTINGS: &[&str] = &[
    "cleanup.policy",
    "compression.gzip.level",
    "compression.lz4.level",
    "compression.type",
    "compression.zstd.level",
    "delete.retention.ms",
    "file.delete.delay.ms",
    "flush.messages",
    "flush.ms",
    "follower.replication.throttled.replicas",
    "index.interval.bytes",
    "leader.replication.throttled.replicas",
    "local.retention.bytes",
    "local.retention.ms",
    "max.compaction.lag.ms",
    "max.message.bytes",
    "message.timestamp.after.max.ms",
    "message.timestamp.before.max.ms",
    "message.timestamp.type",
    "min.cleanable.dirty.ratio",
    "min.compaction.lag.ms",
    "min.insync.replicas",
    "preallocate",
    "remote.log.copy.disable",
    "remote.log.delete.on.disable",
    "remote.storage.enable",
    "retention.bytes",
    "retention.ms",
    "segment.bytes",
    "segment.index.bytes",
    "segment.jitter.ms",
    "segment.ms",
    "unclean.leader.election.enable",
];

/// Settings of other brokers that speak Kafka's protocol begin so.
const FOREIGN: &[&str] = &["redpanda.", "confluent.", "write.caching", "flush.", "initial.retention."];

pub(super) fn check(scene: &Scene<'_>, findings: &mut Findings) {
    for spec in &scene.specs {
        let name = &*spec.name;
        let set = |key: &str| spec.config.get(key).map_or("", String::as_str);
        if let Ok(insync) = set("min.insync.replicas").parse::<i32>() {
            let copies = spec.replication;
            if insync > copies {
                let message = format!("min.insync.replicas {insync} of {copies} copies: every write is refused");
                findings.error("copies", name, message, "lower min_insync, or raise replication");
            } else if insync == copies && copies > 1 {
                let message = format!("min.insync.replicas {insync} of {copies} copies: with one broker away nothing can be written");
                findings.warning("copies", name, message, "lower min_insync by one");
            } else if insync == 1 && copies > 2 {
                let message = format!("one of {copies} copies acknowledges: a broker that dies takes acknowledged events with it");
                findings.warning("copies", name, message, "raise min_insync to 2");
            }
        }
        if set("cleanup.policy").contains("compact") {
            let message = "compaction keeps a user's last event only: the key is the user_id";
            findings.error("compaction", name, message, "leave cleanup.policy at delete");
        }
        if set("unclean.leader.election.enable") == "true" {
            findings.warning(
                "copies",
                name,
                "a leader that lacks acknowledged events may be elected",
                "leave unclean.leader.election.enable off",
            );
        }
        for key in spec.config.keys() {
            if !SETTINGS.contains(&key.as_str()) && !FOREIGN.iter().any(|start| key.starts_with(start)) {
                let fix =
                    nearest(key, SETTINGS.iter().copied()).map_or_else(|| "take it out".to_owned(), |near| format!("did you mean {near}?"));
                findings.error("setting", name, format!("Kafka has no topic setting `{key}`"), fix);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::topics::lint::{finding::Level, tests::found};

    fn with(lines: &str) -> Vec<(Level, &'static str, String)> {
        let to = format!("    partitions: 12\n    retention: 7d\n    {lines}");
        // The topic's profiles come after, so that a second table of that name would be no YAML.
        let edits = [
            ("topics.yaml", "    profiles:\n      cloud: { retention: 30d }\n", ""),
            ("topics.yaml", "    partitions: 12\n    retention: 7d", &to),
        ];
        found(check, &edits, &[])
    }

    fn one(level: Level, rule: &'static str) -> Vec<(Level, &'static str, String)> {
        vec![(level, rule, "task-events".to_owned())]
    }

    #[test]
    fn copies_that_refuse_or_lose_writes_are_found() {
        assert_eq!(with("profiles: { local: { replication: 2, min_insync: 3 } }"), one(Level::Error, "copies"));
        assert_eq!(with("profiles: { local: { replication: 2, min_insync: 2 } }"), one(Level::Warning, "copies"));
        assert_eq!(with("profiles: { local: { replication: 3, min_insync: 1 } }"), one(Level::Warning, "copies"));
        assert_eq!(with("profiles: { local: { replication: 3, min_insync: 2 } }"), []);
        assert_eq!(with("config: { unclean.leader.election.enable: \"true\" }"), one(Level::Warning, "copies"));
    }

    #[test]
    fn compaction_of_events_is_found() {
        assert_eq!(with("config: { cleanup.policy: \"compact,delete\" }"), one(Level::Error, "compaction"));
    }

    #[test]
    fn a_setting_that_kafka_lacks_is_found() {
        assert_eq!(with("config: { retention.msec: \"1\" }"), one(Level::Error, "setting"));
        assert_eq!(with("config: { redpanda.remote.read: \"true\", segment.ms: \"3600000\" }"), []);
    }
}
