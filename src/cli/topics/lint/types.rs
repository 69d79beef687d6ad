//! Types and topics that do not find each other.

use super::{Findings, Scene};
use crate::{config::keys::nearest, event::pattern::matches};

/// The key of `[retry]` that is no pattern.
const DEFAULT: &str = "default";

pub(super) fn check(scene: &Scene<'_>, findings: &mut Findings) {
    for spec in scene.specs.iter().filter(|spec| spec.types.is_empty() && !spec.dead_letters) {
        findings.note(
            "topic-without-type",
            &spec.name,
            "no type travels on it",
            "fine where something else fills it; else bind a type to it",
        );
    }
    for kind in scene.catalog.types() {
        if kind
            .topics
            .iter()
            .all(|topic| scene.catalog.topic(topic).and_then(|name| scene.spec(name)).is_some_and(|spec| spec.dead_letters))
        {
            let message = "travels on topics of dead letters only: no consumer of `*` reads it";
            findings.warning("type-without-topic", &kind.name, message, "bind it to a topic of events too");
        }
    }
    for name in scene.config.retry.0.keys().filter(|name| *name != DEFAULT) {
        let meant = scene.catalog.canonical_pattern(name);
        if !scene.catalog.types().any(|kind| matches(meant, &kind.name)) {
            findings.warning("retry-without-type", name, "no type of the catalogue has this schedule", suggestion(scene, name));
        }
    }
}

/// The type that was meant, where one is near.
pub(super) fn suggestion(scene: &Scene<'_>, name: &str) -> String {
    let known = scene.catalog.types().map(|kind| &*kind.name);
    nearest(name, known)
        .map_or_else(|| "add the type to the catalogue, or take this out".to_owned(), |near| format!("did you mean {near}?"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::topics::lint::{finding::Level, tests::found};

    #[test]
    fn a_topic_without_a_type_is_noted() {
        assert_eq!(found(check, &[], &[]), [(Level::Note, "topic-without-type", "task-updates".to_owned())]);
    }

    #[test]
    fn a_type_that_only_dead_letter_topics_carry_is_found() {
        let only = ("events/task.deleted.yaml", "topics: [task-events]", "topics: [dlq]");
        assert!(found(check, &[only], &[]).contains(&(Level::Warning, "type-without-topic", "task.deleted".to_owned())));
    }

    #[test]
    fn a_schedule_for_a_type_that_is_not_there_is_found() {
        let sets = ["retry={\"task.complted\"={delays=[\"1s\"]},\"reminder.triggered\"={delays=[\"1s\"]}}"];
        assert!(found(check, &[], &sets).contains(&(Level::Warning, "retry-without-type", "task.complted".to_owned())));
        assert_eq!(found(check, &[], &sets).len(), 2, "an alias is a type");
    }
}
