//! Which topics this deployment declares.

use std::collections::BTreeMap;

use super::BROKERS_DEFAULT;
use crate::{event::catalog, kafka::topics::TopicSpec};

/// A topic that this deployment needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli::topics) struct Wanted {
    pub(in crate::cli::topics) spec: TopicSpec,
    /// Why: the catalogue, the DLQ, or `kafka.topics`.
    pub(in crate::cli::topics) because: &'static str,
}

/// The catalogue's topics, the configured DLQ made like the catalogue's, and `extra` ones that the catalogue lacks: `replication` copies of as
/// many partitions as the brokers give by default. By name, each once.
pub(in crate::cli::topics) fn wanted<'a>(
    specs: &[catalog::TopicSpec],
    replication: i32,
    dlq: &str,
    extra: impl Iterator<Item = &'a str>,
) -> Vec<Wanted> {
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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
pub(super) mod tests {
    use super::*;
    use crate::event::Catalog;

    pub(in crate::cli::topics::plan) fn local(dlq: &str, extra: &[&str]) -> Vec<Wanted> {
        let specs = Catalog::embedded().unwrap().topic_specs("local").unwrap();
        wanted(&specs, 1, dlq, extra.iter().copied())
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
}
