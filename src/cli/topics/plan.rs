//! Compares topics as they should be with those that are there. Pure.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    event::catalog,
    kafka::topics::{TopicDescription, TopicSpec},
};

/// Lets the broker decide.
const BROKERS_DEFAULT: i32 = -1;

/// A topic that this deployment needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) spec: TopicSpec,
    /// Why: the catalogue, the DLQ, or `kafka.topics`.
    pub(super) because: &'static str,
}

/// One setting that is not as the profile has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Difference {
    pub(super) setting: String,
    pub(super) wanted: String,
    pub(super) found: String,
    /// The command that would change it, or why none should.
    pub(super) hint: String,
}

/// Where one topic stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// To be created.
    Missing,
    /// As it should be.
    Same,
    /// There, but different; left as it is.
    Drift(Vec<Difference>),
}

/// Every topic and where it stands.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) topics: Vec<(Wanted, State)>,
}

impl Plan {
    /// `found` in the order of `wanted`.
    pub(super) fn new(wanted: Vec<Wanted>, found: Vec<Option<TopicDescription>>) -> Self {
        let topics = wanted.into_iter().zip(found).map(|(wanted, found)| {
            let state = found.map_or(State::Missing, |found| compare(&wanted.spec, &found));
            (wanted, state)
        });
        Self { topics: topics.collect() }
    }

    /// The topics to be created.
    pub(super) fn missing(&self) -> impl Iterator<Item = &Wanted> {
        self.topics.iter().filter(|(_, state)| *state == State::Missing).map(|(wanted, _)| wanted)
    }

    /// How many topics differ.
    pub(super) fn drifted(&self) -> usize {
        self.topics.iter().filter(|(_, state)| matches!(state, State::Drift(_))).count()
    }
}

/// The catalogue's topics, the configured DLQ made like the catalogue's, and `extra` ones that the catalogue lacks: with as many partitions as
/// the brokers give by default. By name, each once.
pub(super) fn wanted<'a>(specs: &[catalog::TopicSpec], dlq: &str, extra: impl Iterator<Item = &'a str>) -> Vec<Wanted> {
    let of = |spec: &catalog::TopicSpec, name: &str| TopicSpec {
        name: name.to_owned(),
        partitions: spec.partitions,
        replication: spec.replication,
        config: spec.config.clone(),
    };
    let mut wanted = BTreeMap::new();
    for spec in specs {
        let because = if spec.dead_letters { "dead letters" } else { "catalogue" };
        wanted.insert(spec.name.to_string(), Wanted { spec: of(spec, &spec.name), because });
    }
    let replication = specs.first().map_or(BROKERS_DEFAULT, |spec| spec.replication);
    let bare = |name: &str| TopicSpec { name: name.to_owned(), partitions: BROKERS_DEFAULT, replication, config: BTreeMap::new() };
    let like = specs.iter().find(|spec| spec.dead_letters);
    wanted
        .entry(dlq.to_owned())
        .or_insert_with(|| Wanted { spec: like.map_or_else(|| bare(dlq), |like| of(like, dlq)), because: "dlq.topic" });
    for name in extra {
        wanted.entry(name.to_owned()).or_insert_with(|| Wanted { spec: bare(name), because: "kafka.topics" });
    }
    wanted.into_values().collect()
}

fn compare(wanted: &TopicSpec, found: &TopicDescription) -> State {
    let mut differences = Vec::new();
    let number = |found: usize| i32::try_from(found).unwrap_or(i32::MAX);
    let partitions = number(found.partitions);
    if wanted.partitions != BROKERS_DEFAULT && wanted.partitions != partitions {
        let hint = if partitions < wanted.partitions {
            format!(
                "kafka-topics.sh --alter --topic {} --partitions {}; users move to other partitions, so do it while none of their events wait",
                wanted.name, wanted.partitions
            )
        } else {
            "a topic never loses partitions; set the number in the catalogue instead".to_owned()
        };
        differences.push(difference("partitions", wanted.partitions, partitions, hint));
    }
    if wanted.replication != BROKERS_DEFAULT && wanted.replication != number(found.replication) {
        let hint = "kafka-reassign-partitions.sh, or another --profile".to_owned();
        differences.push(difference("replication", wanted.replication, found.replication, hint));
    }
    for (key, value) in &wanted.config {
        // What the broker does not tell cannot be judged.
        let Some(found) = found.effective.get(key).filter(|found| *found != value) else { continue };
        let hint = format!("kafka-configs.sh --alter --entity-type topics --entity-name {} --add-config {key}={value}", wanted.name);
        differences.push(difference(key, value, found, hint));
    }
    if differences.is_empty() { State::Same } else { State::Drift(differences) }
}

fn difference(setting: &str, wanted: impl ToString, found: impl ToString, hint: String) -> Difference {
    Difference { setting: setting.to_owned(), wanted: wanted.to_string(), found: found.to_string(), hint }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::event::Catalog;

    fn local(dlq: &str, extra: &[&str]) -> Vec<Wanted> {
        let specs = Catalog::embedded().unwrap().topic_specs("local").unwrap();
        wanted(&specs, dlq, extra.iter().copied())
    }

    fn found(spec: &TopicSpec) -> TopicDescription {
        TopicDescription {
            name: spec.name.clone(),
            partitions: usize::try_from(spec.partitions).unwrap(),
            replication: usize::try_from(spec.replication).unwrap(),
            leaderless: 0,
            config: BTreeMap::new(),
            effective: spec.config.clone(),
        }
    }

    #[test]
    fn the_catalogue_the_dead_letters_and_what_is_configured_are_wanted_once_each() {
        let topics = local("my-dlq", &["legacy", "task-events"]);
        let names: Vec<_> = topics.iter().map(|topic| topic.spec.name.as_str()).collect();
        assert_eq!(names, ["dlq", "legacy", "my-dlq", "notifications", "reminders", "task-events", "task-updates", "user-events"]);
        let of = |name: &str| topics.iter().find(|topic| topic.spec.name == name).unwrap();
        assert_eq!((of("my-dlq").spec.partitions, &of("my-dlq").spec.config), (3, &of("dlq").spec.config));
        assert_eq!((of("legacy").spec.partitions, of("legacy").because), (BROKERS_DEFAULT, "kafka.topics"));
        assert_eq!(of("task-events").spec.partitions, 12);
    }

    #[test]
    fn what_is_missing_is_pending_and_what_is_there_is_not() {
        let topics = local("dlq", &[]);
        let mut there: Vec<_> = topics.iter().map(|topic| Some(found(&topic.spec))).collect();
        assert_eq!(Plan::new(topics.clone(), there.clone()).missing().count(), 0);
        there[0] = None;
        let plan = Plan::new(topics.clone(), there);
        assert_eq!((plan.missing().next(), plan.drifted()), (Some(&topics[0]), 0));
    }

    #[test]
    fn a_difference_is_shown_with_the_command_and_is_not_pending() {
        let topics = local("dlq", &[]);
        let mut there: Vec<_> = topics.iter().map(|topic| Some(found(&topic.spec))).collect();
        let first = there[0].as_mut().unwrap();
        first.partitions = 1;
        first.effective.insert("retention.ms".to_owned(), "5".to_owned());
        let plan = Plan::new(topics, there);
        assert_eq!((plan.missing().count(), plan.drifted()), (0, 1));
        let State::Drift(differences) = &plan.topics[0].1 else { unreachable!() };
        assert_eq!(differences.iter().map(|found| found.setting.as_str()).collect::<Vec<_>>(), ["partitions", "retention.ms"]);
        assert!(differences[0].hint.contains("--partitions 3"), "{differences:?}");
        assert!(differences[1].hint.contains("--add-config retention.ms="), "{differences:?}");
    }
}
