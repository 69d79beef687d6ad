//! How long topics keep their records, beside how long this deployment needs them.

use std::time::Duration;

use super::{Findings, Scene};
use crate::{config::units::show, event::catalog::TopicSpec, retry::Schedules};

/// The longest jitter: a delay can be so much longer.
const JITTER: f64 = 1.1;

/// How long a topic keeps records; `None`: for ever.
fn kept(spec: &TopicSpec) -> Option<Duration> {
    let ms = spec.config.get("retention.ms").and_then(|ms| ms.parse::<i64>().ok()).unwrap_or(-1);
    u64::try_from(ms).ok().map(Duration::from_millis)
}

/// A topic that keeps records for longer than duplicates are recognised: a rewind beyond that repeats effects.
pub(super) fn dedupe(scene: &Scene<'_>, findings: &mut Findings) {
    let remembered = scene.config.store.retention;
    for spec in scene.specs.iter().filter(|spec| scene.read.contains(&*spec.name)) {
        if kept(spec).is_none_or(|kept| kept > remembered) {
            let kept = kept(spec).map_or_else(|| "for ever".to_owned(), show);
            let message =
                format!("keeps records {kept}, duplicates are recognised for {}: a rewind beyond that repeats effects", show(remembered));
            findings.warning("retention-dedupe", &spec.name, message, "raise store.retention, or lower the topic's retention");
        }
    }
}

/// A topic that can lose a record while its user waits for a retry: Kafka's log is the retry queue.
pub(super) fn retries(scene: &Scene<'_>, findings: &mut Findings) {
    let schedules = Schedules::new(&scene.config.retry);
    for spec in scene.specs.iter().filter(|spec| !spec.dead_letters) {
        let longest = spec.types.iter().map(|kind| schedules.schedule_for(kind).delays().iter().sum::<Duration>().mul_f64(JITTER)).max();
        // Behind a failing event a user's others wait for as long as it is retried, or as they may be held.
        let wait = longest.unwrap_or_default().max(scene.config.engine.max_hold_age);
        if let Some(kept) = kept(spec).filter(|kept| *kept < wait) {
            let message = format!("keeps records {}, but one can wait {} behind a failing event of its user", show(kept), show(wait));
            findings.error("retention-retries", &spec.name, message, "raise its retention, or lower engine.max_hold_age and the retries");
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
    fn a_topic_that_is_read_and_outlives_the_ledger_is_found() {
        let user = handler("[\"user.*\"]");
        assert_eq!(found(dedupe, &[], &[&user]), [(Level::Warning, "retention-dedupe", "user-events".to_owned())]);
        assert_eq!(found(dedupe, &[], &[&user, "store.retention=31d"]), []);
        assert_eq!(found(dedupe, &[], &[&handler("[\"task.*\"]")]), [], "seven days are within eight");
        assert_eq!(found(dedupe, &[], &[]), [], "nobody reads it");
        let for_ever = (
            "topics.yaml",
            "    partitions: 12\n    retention: 7d",
            "    partitions: 12\n    retention: 7d\n    config: { retention.ms: \"-1\" }",
        );
        assert_eq!(
            found(dedupe, &[for_ever], &[&handler("[\"task.*\"]")]),
            [(Level::Warning, "retention-dedupe", "task-events".to_owned())]
        );
    }

    #[test]
    fn a_topic_that_forgets_before_its_retries_end_is_found() {
        assert_eq!(found(retries, &[], &[]), []);
        let short = ("topics.yaml", "    partitions: 3\n    retention: 1d", "    partitions: 3\n    retention: 1h");
        assert_eq!(found(retries, &[short], &[]), [(Level::Error, "retention-retries", "reminders".to_owned())]);
        assert_eq!(found(retries, &[short], &["engine.max_hold_age=30m"]), [], "17 minutes of retries");
        let long = "retry={\"reminder.due\"={delays=[\"50m\",\"10m\"]}}";
        assert_eq!(
            found(retries, &[short], &["engine.max_hold_age=30m", long]),
            [(Level::Error, "retention-retries", "reminders".to_owned())]
        );
    }
}
