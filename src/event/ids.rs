//! Event ids that are derived: the same event always gets the same one.

use std::fmt::Write;

use chrono::{DateTime, Utc};
use uuid::{Uuid, uuid};

use super::{record::TopicPartition, time};

/// Namespace of every id that is derived here: the UUIDv5 of `worker:events` in the URL namespace of RFC 9562. Another program that
/// hashes the same names in it gets the same ids.
pub const NAMESPACE: Uuid = uuid!("7c15c4fe-dbb3-5793-85d0-4e4e067e5fff");

/// Id of an event that came without one: UUIDv5 of `event_type`, `task_id` and `timestamp` (UTC, as this worker writes times), one per line.
pub fn of_event(event_type: &str, task_id: &str, timestamp: &str) -> Uuid {
    named(&[event_type, task_id, timestamp])
}

/// Id of an event that cannot be told from its content: UUIDv5 of topic, partition and offset, one per line.
pub fn of_position(partition: &TopicPartition, offset: i64) -> Uuid {
    let mut name = String::with_capacity(partition.topic.len() + 24);
    // Writing to a string cannot fail.
    let _ = write!(name, "{}\n{}\n{offset}", partition.topic, partition.partition);
    Uuid::new_v5(&NAMESPACE, name.as_bytes())
}

/// Id of an event that another one causes: UUIDv5 of the causing event's id and the step (`next occurrence`, `reminder.due` ...), one
/// per line. A re-run of the step makes the same id, which is recognised as a duplicate downstream.
pub fn of_effect(cause: &str, step: &str) -> Uuid {
    named(&[cause, step])
}

/// Id of a schedule's tick: UUIDv5 of `schedule`, the schedule's name and the nominal time (UTC, as this worker writes times), one per line.
pub fn of_tick(schedule: &str, tick: DateTime<Utc>) -> Uuid {
    named(&["schedule", schedule, &time::format(tick)])
}

fn named(parts: &[&str]) -> Uuid {
    Uuid::new_v5(&NAMESPACE, parts.join("\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::{NAMESPACE, of_effect, of_event, of_position};
    use crate::event::record::TopicPartition;

    #[test]
    fn the_namespace_is_what_its_documentation_says() {
        assert_eq!(NAMESPACE, Uuid::new_v5(&Uuid::NAMESPACE_URL, b"worker:events"));
    }

    #[test]
    fn a_derived_id_depends_on_every_part() {
        let id = of_event("task.completed", "123", "2025-12-29T10:00:00Z");
        assert_eq!(id, of_event("task.completed", "123", "2025-12-29T10:00:00Z"));
        assert_ne!(id, of_event("task.completed", "124", "2025-12-29T10:00:00Z"));
        assert_ne!(id, of_event("task.created", "123", "2025-12-29T10:00:00Z"));
        assert_ne!(id, of_event("task.completed", "123", "2025-12-29T10:00:01Z"));
        let place = TopicPartition::new("task-events", 3);
        assert_ne!(of_position(&place, 7), of_position(&place, 8));
        assert_ne!(of_effect("a", "b"), of_effect("a", "c"));
    }
}
