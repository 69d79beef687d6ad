//! One topic as declared beside the one that is there.

use super::{BROKERS_DEFAULT, Difference, Gone, Risk, Topic, Wanted, Way, What};
use crate::kafka::topics::{TopicDescription, TopicSpec};

/// Kafka's name for the copies that must have a record before it is acknowledged.
const IN_SYNC: &str = "min.insync.replicas";
/// Kafka's names for how long, and how much of, a log is kept; -1: all of it.
const RETENTION: [&str; 2] = ["retention.ms", "retention.bytes"];
const CLEANUP: &str = "cleanup.policy";

/// Where a declared topic stands. What is not declared is not looked at.
pub(super) fn topic(wanted: Wanted, found: Option<TopicDescription>) -> Topic {
    let name = wanted.spec.name.clone();
    let Some(found) = found else {
        let missing = difference(What::Create, made_of(&wanted.spec), "missing", Way::Safe);
        return Topic { name, wanted: Some(wanted), differences: vec![missing], hidden: None };
    };
    let differences = differences(&wanted.spec, &found);
    Topic { name, wanted: Some(wanted), differences, hidden: found.hidden.map(|why| why.to_string()) }
}

/// Where a topic stands that should be no more.
pub(super) fn gone((name, holds): Gone) -> Topic {
    let there = holds.map(|holds| difference(What::Delete, "gone", holds, Way::Risky(Risk::Delete)));
    Topic { name, wanted: None, differences: there.into_iter().collect(), hidden: None }
}

fn differences(wanted: &TopicSpec, found: &TopicDescription) -> Vec<Difference> {
    let mut differences = Vec::new();
    let number = |found: usize| i32::try_from(found).unwrap_or(i32::MAX);
    let (partitions, copies) = (number(found.partitions), number(found.replication));
    if wanted.partitions != BROKERS_DEFAULT && wanted.partitions != partitions {
        let way = if partitions < wanted.partitions {
            Way::Risky(Risk::AddPartitions)
        } else {
            Way::Stuck(format!("a topic never loses partitions; declare {partitions} in topics.yaml"))
        };
        differences.push(difference(What::Partitions, wanted.partitions, partitions, way));
    }
    if wanted.replication != BROKERS_DEFAULT && wanted.replication != copies {
        let way = Way::Stuck("move its replicas with kafka-reassign-partitions.sh, or use another --profile".to_owned());
        differences.push(difference(What::Replication, wanted.replication, copies, way));
    }
    for (key, value) in &wanted.config {
        // What the broker does not tell cannot be judged.
        let Some(found) = found.effective.get(key).filter(|found| !same(key, value, found)) else { continue };
        differences.push(difference(What::Setting(key.clone()), value, found, way_of(key, value, found, copies)));
    }
    differences
}

fn difference(what: What, wanted: impl ToString, found: impl ToString, way: Way) -> Difference {
    Difference { what, wanted: wanted.to_string(), found: found.to_string(), way, outcome: None }
}

/// What a change of that setting can cost, in a topic with so many copies.
fn way_of(key: &str, wanted: &str, found: &str, copies: i32) -> Way {
    // -1 is without end.
    let kept = |value: &str| value.parse::<i64>().ok().map(|value| if value < 0 { i64::MAX } else { value });
    match key {
        IN_SYNC if wanted.parse::<i32>().is_ok_and(|wanted| wanted > copies) => {
            Way::Stuck(format!("every write would be refused while there are fewer copies ({copies})"))
        }
        key if RETENTION.contains(&key) && kept(wanted).zip(kept(found)).is_none_or(|(wanted, found)| wanted < found) => {
            Way::Risky(Risk::LoseRecords)
        }
        CLEANUP => Way::Risky(Risk::LoseRecords),
        _ => Way::Safe,
    }
}

/// Whether two values mean the same: lists have no order, and truth has no case.
fn same(key: &str, wanted: &str, found: &str) -> bool {
    let parts = |text: &str| {
        let mut parts: Vec<_> = text.split(',').map(|part| part.trim().to_lowercase()).collect();
        parts.sort();
        parts
    };
    wanted == found || ((key == CLEANUP || wanted.eq_ignore_ascii_case(found)) && parts(wanted) == parts(found))
}

/// A topic to be made, in words.
fn made_of(spec: &TopicSpec) -> String {
    let number = |number: i32| if number < 0 { "the broker's default".to_owned() } else { number.to_string() };
    let settings: String = spec.config.iter().map(|(key, value)| format!(", {key}={value}")).collect();
    format!("partitions={}, replication={}{settings}", number(spec.partitions), number(spec.replication))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::collections::BTreeMap;

    use super::{
        super::{Plan, wanted::tests::local},
        *,
    };

    fn as_declared(spec: &TopicSpec) -> TopicDescription {
        TopicDescription {
            name: spec.name.clone(),
            partitions: usize::try_from(spec.partitions).unwrap(),
            replication: usize::try_from(spec.replication).unwrap(),
            leaderless: 0,
            config: BTreeMap::new(),
            effective: spec.config.clone(),
            hidden: None,
        }
    }

    /// The differences of the first topic after `change` of what is there.
    fn after(change: impl FnOnce(&mut Wanted, &mut TopicDescription)) -> Vec<Difference> {
        let mut first = local("dlq", &[]).swap_remove(0);
        let mut found = as_declared(&first.spec);
        change(&mut first, &mut found);
        topic(first, Some(found)).differences
    }

    fn set(found: &mut TopicDescription, key: &str, value: &str) {
        found.effective.insert(key.to_owned(), value.to_owned());
    }

    #[test]
    fn what_is_missing_is_pending_and_what_is_as_declared_is_not() {
        let topics = local("dlq", &[]);
        let mut there: Vec<_> = topics.iter().map(|topic| Some(as_declared(&topic.spec))).collect();
        assert_eq!(Plan::new(topics.clone(), there.clone(), vec![]).pending(), 0);
        there[0] = None;
        let plan = Plan::new(topics, there, vec![]);
        assert_eq!((plan.pending(), plan.stuck(), plan.topics[0].differences[0].what.clone()), (1, 0, What::Create));
    }

    #[test]
    fn more_partitions_are_a_risk_and_fewer_are_impossible() {
        let more = after(|_, found| found.partitions = 1);
        assert_eq!((&more[0].what, &more[0].way), (&What::Partitions, &Way::Risky(Risk::AddPartitions)));
        assert!(!more[0].is_allowed(&[Risk::Delete]) && more[0].is_allowed(&[Risk::AddPartitions]));
        let fewer = after(|_, found| found.partitions = 9);
        assert!(matches!(&fewer[0].way, Way::Stuck(why) if why.contains("declare 9")), "{fewer:?}");
        assert!(!fewer[0].is_pending());
    }

    #[test]
    fn other_copies_are_drift_that_is_shown_and_not_changed() {
        let found = after(|_, found| found.replication = 2);
        assert!(matches!(&found[0].way, Way::Stuck(why) if why.contains("kafka-reassign-partitions")), "{found:?}");
        assert!(!found[0].is_allowed(&[Risk::AddPartitions, Risk::LoseRecords, Risk::Delete]));
    }

    #[test]
    fn a_shorter_retention_is_a_risk_and_a_longer_one_is_not() {
        let way = |wanted: &str, there: &str| way_of("retention.ms", wanted, there, 1);
        assert_eq!(way("1000", "2000"), Way::Risky(Risk::LoseRecords));
        assert_eq!(way("1000", "-1"), Way::Risky(Risk::LoseRecords), "from for ever to a second");
        assert_eq!(way("-1", "1000"), Way::Safe);
        assert_eq!(way("2000", "1000"), Way::Safe);
        assert_eq!(way_of("cleanup.policy", "compact", "delete", 1), Way::Risky(Risk::LoseRecords));
        assert_eq!(way_of("compression.type", "lz4", "producer", 1), Way::Safe);
    }

    #[test]
    fn more_copies_in_sync_than_there_are_would_stop_every_write() {
        assert!(matches!(way_of("min.insync.replicas", "2", "1", 1), Way::Stuck(why) if why.contains("fewer copies (1)")));
        assert_eq!(way_of("min.insync.replicas", "2", "1", 2), Way::Safe);
    }

    #[test]
    fn only_what_is_declared_is_compared_and_equal_values_may_be_written_differently() {
        let found = after(|wanted, found| {
            wanted.spec.config.insert("cleanup.policy".to_owned(), "compact, delete".to_owned());
            wanted.spec.config.insert("preallocate".to_owned(), "TRUE".to_owned());
            wanted.spec.config.insert("redpanda.iceberg.mode".to_owned(), "disabled".to_owned());
            set(found, "cleanup.policy", "delete,compact");
            set(found, "preallocate", "true");
            set(found, "segment.bytes", "5");
        });
        assert_eq!(found, []);
    }

    #[test]
    fn a_topic_of_the_past_is_pending_while_it_is_there() {
        let plan = Plan::new(vec![], vec![], vec![("old".to_owned(), Some("7 records".to_owned())), ("older".to_owned(), None)]);
        assert_eq!(plan.pending(), 1);
        let found = &plan.topics[0].differences[0];
        assert_eq!((&found.way, found.found.as_str()), (&Way::Risky(Risk::Delete), "7 records"));
        assert!(!found.is_allowed(&[Risk::LoseRecords]));
    }
}
