//! The topic of dead letters: there, large enough, long enough, and not read by who fills it.

use super::{Findings, Scene};
use crate::{event::catalog::TopicSpec, kafka::client::LARGEST_MESSAGE};

/// Kafka's default of `max.message.bytes`.
const DEFAULT_LIMIT: u64 = 1_048_588;
/// What the headers of a dead letter take, at most.
const HEADERS: u64 = 16 * 1024;

pub(super) fn check(scene: &Scene<'_>, findings: &mut Findings) {
    let dlq = scene.config.dlq.topic.as_str();
    let declared = scene.spec(dlq);
    match declared {
        None => findings.warning(
            "dead-letters",
            dlq,
            "topics.yaml lacks it, so it is made like the catalogue's own",
            "declare it there with `dead_letters: true`, or set dlq.topic to one that is",
        ),
        Some(spec) if !spec.dead_letters => findings.error(
            "dead-letters",
            dlq,
            "dlq.topic is a topic of events: dead letters would be handled again",
            "set `dead_letters: true`, or another dlq.topic",
        ),
        Some(_) => {}
    }
    if scene.read.contains(dlq) {
        let message = "this consumer reads its own dead letters: what fails again goes round without end";
        findings.error("dead-letters", dlq, message, "take it out of kafka.topics, or leave dlq.* to a deployment with another dlq.topic");
    }
    if let Some(spec) = declared.or_else(|| scene.specs.iter().find(|spec| spec.dead_letters)) {
        sizes(scene, spec, findings);
    }
}

/// Whether the largest event with the headers of a dead letter fits, else only a stub of it is kept.
fn sizes(scene: &Scene<'_>, dlq: &TopicSpec, findings: &mut Findings) {
    let limit = |spec: &TopicSpec| spec.config.get("max.message.bytes").and_then(|bytes| bytes.parse().ok()).unwrap_or(DEFAULT_LIMIT);
    let sources = scene.specs.iter().filter(|spec| !spec.dead_letters);
    let Some((largest, source)) = sources.map(|spec| (limit(spec), spec)).max_by_key(|(bytes, _)| *bytes) else { return };
    let needed = largest + HEADERS;
    let stub = format!("an event of {} can have {largest} bytes; its dead letter would not fit and only a stub would be kept", source.name);
    if limit(dlq) < needed {
        findings.warning(
            "dead-letter-size",
            &dlq.name,
            &stub,
            format!("config: {{ max.message.bytes: \"{needed}\" }}, or lower that topic's"),
        );
    }
    let kafka = &scene.config.kafka;
    let set = kafka.producer.get("message.max.bytes").or_else(|| kafka.properties.get("message.max.bytes"));
    let ours = set.and_then(|bytes| bytes.parse().ok()).unwrap_or(LARGEST_MESSAGE);
    if ours < needed {
        let fix = format!("kafka.producer.\"message.max.bytes\" = \"{needed}\"");
        findings.warning("dead-letter-size", "kafka.producer", format!("writes at most {ours} bytes, and {stub}"), fix);
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
    fn a_dead_letter_topic_that_is_missing_or_no_dead_letter_topic_is_found() {
        assert_eq!(found(check, &[], &["dlq.topic=dead"]), [(Level::Warning, "dead-letters", "dead".to_owned())]);
        assert_eq!(found(check, &[], &["dlq.topic=reminders"])[0], (Level::Error, "dead-letters", "reminders".to_owned()));
    }

    #[test]
    fn a_consumer_of_its_own_dead_letters_is_found() {
        assert_eq!(found(check, &[], &[&handler("[\"dlq.failed\"]")]), [(Level::Error, "dead-letters", "dlq".to_owned())]);
        assert_eq!(found(check, &[], &[&handler("[\"*\"]")]), []);
    }

    #[test]
    fn a_source_whose_largest_event_makes_too_large_a_dead_letter_is_found() {
        let larger = (
            "topics.yaml",
            "    partitions: 12\n    retention: 7d",
            "    partitions: 12\n    retention: 7d\n    config: { max.message.bytes: \"2000000\" }",
        );
        let both =
            [(Level::Warning, "dead-letter-size", "dlq".to_owned()), (Level::Warning, "dead-letter-size", "kafka.producer".to_owned())];
        assert_eq!(found(check, &[larger], &[]), both);
        let producer = "kafka.producer={\"message.max.bytes\"=\"3000000\"}";
        assert_eq!(found(check, &[larger], &[producer]), both[..1]);
    }
}
