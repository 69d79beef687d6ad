//! Handlers whose events nothing carries, and topics that nobody meant.

use super::{Findings, Scene, types::suggestion};
use crate::{config::keys::nearest, event::pattern::matches};

pub(super) fn check(scene: &Scene<'_>, findings: &mut Findings) {
    for (name, patterns) in &scene.handlers {
        for pattern in patterns {
            let kinds: Vec<_> = scene.catalog.types().filter(|kind| matches(pattern, &kind.name)).collect();
            let about = format!("handlers.{name}");
            if kinds.is_empty() {
                findings.error(
                    "handler-without-type",
                    &about,
                    format!("no type of the catalogue is `{pattern}`"),
                    suggestion(scene, pattern),
                );
            } else if !kinds.iter().any(|kind| scene.catalog.topics_for(&kind.name).iter().any(|topic| scene.read.contains(&**topic))) {
                let carried: Vec<_> = scene.catalog.topics_needed([pattern.as_str()]).iter().map(ToString::to_string).collect();
                let message = format!("`{pattern}` travels on {}, which kafka.topics does not read", carried.join(", "));
                findings.error("handler-without-topic", &about, message, "add it to kafka.topics, or leave that key out");
            }
        }
    }
    for topic in scene.config.kafka.topics.iter().flatten() {
        let near = nearest(topic, scene.specs.iter().map(|spec| &*spec.name));
        if let Some(near) = near.filter(|_| scene.catalog.topic(topic).is_none() && scene.spec(topic).is_none()) {
            findings.warning(
                "topic-unknown",
                "kafka.topics",
                format!("the catalogue has no topic `{topic}`"),
                format!("did you mean {near}?"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::topics::lint::{
        finding::Level,
        tests::{found, handler},
    };

    #[test]
    fn a_handler_of_a_type_that_is_not_there_is_found() {
        let app = |level, rule| vec![(level, rule, "handlers.app".to_owned())];
        assert_eq!(found(check, &[], &[&handler("[\"task.creatd\"]")]), app(Level::Error, "handler-without-type"));
        assert_eq!(found(check, &[], &[&handler("[\"taks.*\"]")]), app(Level::Error, "handler-without-type"));
        assert_eq!(found(check, &[], &[&handler("[\"task.*\",\"reminder.triggered\",\"*\"]")]), []);
    }

    #[test]
    fn a_handler_whose_topics_are_not_read_is_found() {
        let sets = [handler("[\"reminder.due\"]"), "kafka.topics=[\"task-events\"]".to_owned()];
        let sets: Vec<_> = sets.iter().map(String::as_str).collect();
        assert_eq!(found(check, &[], &sets), [(Level::Error, "handler-without-topic", "handlers.app".to_owned())]);
        assert_eq!(found(check, &[], &[sets[0], "kafka.topics=[\"reminder-events\"]"]), [], "an alias of the topic");
    }

    #[test]
    fn a_misspelt_topic_is_found_and_a_foreign_one_is_not() {
        let with = |topics: &str| found(check, &[], &[&format!("kafka.topics={topics}")]);
        assert_eq!(with("[\"task-event\"]"), [(Level::Warning, "topic-unknown", "kafka.topics".to_owned())]);
        assert_eq!(with("[\"task-events\",\"billing\"]"), []);
    }
}
