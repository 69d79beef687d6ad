//! Names of topics and of types.

use super::{Findings, Scene};

/// Kafka's longest name.
const LONGEST: usize = 249;

/// Last segments that command something, where an event tells that it happened.
const COMMANDS: &[&str] = &[
    "add", "archive", "assign", "award", "cancel", "change", "complete", "create", "delete", "deliver", "do", "execute", "notify",
    "process", "publish", "remind", "remove", "restore", "run", "schedule", "send", "set", "spawn", "start", "stop", "trigger", "update",
];

/// Names on the brokers: legal, one style, and apart from each other also in the brokers' metrics.
pub(super) fn topics(scene: &Scene<'_>, findings: &mut Findings) {
    let style = |name: &str| {
        let part =
            |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        name.split(['.', '-']).all(part)
    };
    for (index, spec) in scene.specs.iter().enumerate() {
        let name = &*spec.name;
        if name.len() > LONGEST || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
            findings.error(
                "topic-name",
                name,
                "Kafka takes no such name",
                "use letters, digits, `.`, `_` and `-`, 249 at most, in the naming scheme",
            );
        } else if !style(name) {
            findings.warning("topic-name", name, "not lower case words between `.` or `-`", "rename it before others depend on it");
        }
        let metric = name.replace('.', "_");
        if let Some(other) = scene.specs[..index].iter().find(|other| other.name.replace('.', "_") == metric) {
            let message = format!("Kafka cannot tell it from {} in its metrics, and refuses the second", other.name);
            findings.error("topic-name", name, message, "let names differ in more than `.` and `_`");
        }
    }
}

/// Types are facts.
pub(super) fn types(scene: &Scene<'_>, findings: &mut Findings) {
    for kind in scene.catalog.types() {
        let last = kind.name.rsplit('.').next().unwrap_or_default();
        if COMMANDS.contains(&last) {
            let message = format!("`{last}` is a command; an event is a fact that its consumers cannot refuse");
            findings.warning("type-name", &kind.name, message, "name it in the past tense, and keep the old name under `aliases`");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::topics::lint::{finding::Level, tests::found};

    #[test]
    fn a_topic_that_breaks_the_style_or_collides_in_metrics_is_found() {
        let more = "gone: []";
        let odd = ("topics.yaml", "  user-events:", "  TaskEvents: { description: D., partitions: 1, retention: 1d }\n  user-events:");
        assert_eq!(found(topics, &[odd], &[]), [(Level::Warning, "topic-name", "TaskEvents".to_owned())]);
        let twins = "  a.b: { description: D., partitions: 1, retention: 1d }\n  a_b: { description: D., partitions: 1, retention: 1d }\n  user-events:";
        assert_eq!(found(topics, &[("topics.yaml", "  user-events:", twins)], &[]), [(Level::Error, "topic-name", "a_b".to_owned())]);
        let long = format!("schemes:\n  long: \"{{type}}.{}\"", "x".repeat(245));
        let long =
            [("topics.yaml", "naming: topic", "naming: long"), ("topics.yaml", "schemes:", long.as_str()), ("topics.yaml", more, more)];
        assert!(
            found(topics, &long, &[]).iter().all(|(level, rule, name)| (*level, *rule) == (Level::Error, "topic-name") && name.len() > 249)
        );
    }

    #[test]
    fn every_naming_scheme_of_the_contract_is_in_style() {
        for scheme in ["evolution-todo", "type"] {
            let naming = format!("naming: {scheme}");
            assert_eq!(found(topics, &[("topics.yaml", "naming: topic", &naming)], &[]), []);
        }
    }

    #[test]
    fn a_command_is_no_event() {
        let create = include_str!("../../../../topics/events/reminder.cancelled.yaml").replace("reminder.cancelled", "task.create");
        let edits = [("events/task.create.yaml", "", create.as_str())];
        assert_eq!(found(types, &edits, &[]), [(Level::Warning, "type-name", "task.create".to_owned())]);
        assert!(COMMANDS.is_sorted() && !COMMANDS.contains(&"due"));
    }
}
