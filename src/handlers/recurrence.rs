//! Kind `recurrence`: a completed task that recurs makes its next occurrence known.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde_json::{Map, Value, json};

use super::outlet::{Derived, Outlet};
use crate::{
    calendar::{self, recurrence::Recurrence},
    config::handlers::RepeatFrom,
    event::{Event, ids, time},
    handler::{Handler, Run},
    outcome::{Failure, Handled, HandlerResult},
};

/// Fields of the task that its next occurrence has as well, where the event carries them.
const KEPT: [&str; 6] = ["recurring_pattern", "timezone", "title", "description", "priority", "tags"];

/// Publishes `recurring.triggered` and `recurring.spawned` for each completed task with a `recurring_pattern`.
///
/// Both, and the new task's id, are derived from the completion, so that however often it is handled there is one next occurrence. The series is counted in
/// `timezone` from `recurring_anchor`, which a spawned task carries on; the first task's is its `due_date`, else its completion.
pub struct RecurrenceHandler {
    zone: Tz,
    repeat_from: RepeatFrom,
    outlet: Outlet,
}

impl RecurrenceHandler {
    /// `zone`: of users whose events name none.
    pub fn new(zone: Tz, repeat_from: RepeatFrom, outlet: Outlet) -> Self {
        Self { zone, repeat_from, outlet }
    }
}

impl Handler for RecurrenceHandler {
    async fn handle(&self, run: Run) -> HandlerResult {
        let event = &run.event;
        let data = event.data();
        let spawn = match Spawn::of(&data, event.time(), self.zone, self.repeat_from).map_err(Failure::permanent)? {
            Ok(spawn) => spawn,
            Err(why) => return Ok(Handled::Dropped(why.to_owned())),
        };
        let (triggered, spawned) = spawn.events(event, &data);
        self.outlet.derive(event, triggered).await?;
        self.outlet.derive(event, spawned).await?;
        Ok(Handled::Done)
    }
}

/// The next occurrence.
#[derive(Debug, PartialEq, Eq)]
struct Spawn {
    due: DateTime<Utc>,
    anchor: DateTime<Utc>,
}

impl Spawn {
    /// The inner error says why there is none; the outer one what of the data makes no sense.
    fn of(data: &Value, at: DateTime<Utc>, zone: Tz, from: RepeatFrom) -> Result<Result<Self, &'static str>, String> {
        let text = |name: &str| data.get(name).and_then(Value::as_str);
        let moment = |name: &str| match text(name) {
            Some(text) => time::parse(text).map(Some).ok_or_else(|| format!("data.{name} is no time")),
            None => Ok(None),
        };
        let pattern =
            Recurrence::parse(text("recurring_pattern").unwrap_or_default()).map_err(|why| format!("data.recurring_pattern: {why}"))?;
        let Some(pattern) = pattern else { return Ok(Err("the task does not recur")) };
        let zone = text("timezone").map_or(Ok(zone), calendar::zone).map_err(|why| format!("data.timezone: {why}"))?;
        let completed = moment("completed_at")?.unwrap_or(at);
        let due = moment("due_date")?;
        let anchor = match (from, due) {
            (RepeatFrom::Due, due) => moment("recurring_anchor")?.or(due).unwrap_or(completed),
            (RepeatFrom::Completion, None) => completed,
            (RepeatFrom::Completion, Some(due)) => {
                let day = completed.with_timezone(&zone).date_naive();
                let wall = day.and_time(due.with_timezone(&zone).time());
                calendar::at_wall(wall, zone).unwrap_or(completed)
            }
        };
        let after = match from {
            RepeatFrom::Due => completed.max(due.unwrap_or(completed)),
            RepeatFrom::Completion => completed,
        };
        Ok(pattern.next(anchor, after, zone).map(|due| Self { due, anchor }).ok_or("the series has ended"))
    }

    fn events(&self, cause: &Event, data: &Value) -> (Derived<'static>, Derived<'static>) {
        let task = data.get("task_id").cloned().unwrap_or_default();
        let recurring = data.get("recurring_id").filter(|id| !id.is_null()).cloned().unwrap_or_else(|| task.clone());
        let triggered = json!({ "task_id": task, "recurring_id": recurring, "pattern": data.get("recurring_pattern") });
        let mut spawned = Map::new();
        spawned.insert("task_id".to_owned(), ids::of_effect(cause.id(), "next task").to_string().into());
        spawned.insert("recurring_id".to_owned(), recurring);
        spawned.insert("due_date".to_owned(), time::format(self.due).into());
        spawned.insert("recurring_anchor".to_owned(), time::format(self.anchor).into());
        let kept = KEPT.iter().filter_map(|name| Some(((*name).to_owned(), data.get(name).filter(|value| !value.is_null())?.clone())));
        spawned.extend(kept);
        (
            Derived { step: "recurring.triggered", event_type: "recurring.triggered", data: triggered },
            Derived { step: "recurring.spawned", event_type: "recurring.spawned", data: Value::Object(spawned) },
        )
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use chrono::{DateTime, Utc};
    use chrono_tz::Tz;
    use serde_json::{Value, json};

    use super::{RepeatFrom, Spawn};

    fn utc(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn due(data: &Value, from: RepeatFrom) -> String {
        let spawn = Spawn::of(data, utc("2026-01-07T15:00:00Z"), Tz::Europe__Berlin, from).unwrap().unwrap();
        spawn.due.to_rfc3339()
    }

    #[test]
    fn the_next_time_is_after_the_due_date_and_the_completion_whichever_is_later() {
        let daily = |due: &str, completed: &str| json!({ "recurring_pattern": "DAILY", "due_date": due, "completed_at": completed });
        let late = daily("2026-01-05T08:00:00Z", "2026-01-07T15:00:00Z");
        assert_eq!(due(&late, RepeatFrom::Due), "2026-01-08T08:00:00+00:00");
        let early = daily("2026-01-08T08:00:00Z", "2026-01-07T15:00:00Z");
        assert_eq!(due(&early, RepeatFrom::Due), "2026-01-09T08:00:00+00:00");
        assert_eq!(due(&json!({ "recurring_pattern": "DAILY" }), RepeatFrom::Due), "2026-01-08T15:00:00+00:00", "without a due date");
    }

    #[test]
    fn repeating_from_the_completion_counts_from_its_day_at_the_due_dates_time() {
        let data =
            json!({ "recurring_pattern": "every 3 days", "due_date": "2026-01-05T08:00:00Z", "completed_at": "2026-01-07T15:00:00Z" });
        assert_eq!(due(&data, RepeatFrom::Due), "2026-01-08T08:00:00+00:00");
        assert_eq!(due(&data, RepeatFrom::Completion), "2026-01-10T08:00:00+00:00");
        let early = json!({ "recurring_pattern": "DAILY", "due_date": "2026-01-09T08:00:00Z", "completed_at": "2026-01-07T05:00:00Z" });
        assert_eq!(due(&early, RepeatFrom::Completion), "2026-01-08T08:00:00+00:00", "never again on the day that it was done");
    }

    #[test]
    fn the_anchor_is_carried_on_and_the_events_own_zone_counts() {
        let data = json!({
            "recurring_pattern": "MONTHLY", "due_date": "2026-02-28T08:00:00Z", "recurring_anchor": "2026-01-31T08:00:00Z",
            "completed_at": "2026-03-01T00:00:00Z", "timezone": "Europe/Berlin",
        });
        assert_eq!(due(&data, RepeatFrom::Due), "2026-03-31T07:00:00+00:00", "the 31st again, at nine o'clock again");
    }

    #[test]
    fn what_does_not_recur_is_told_from_what_makes_no_sense() {
        let of = |data: Value| Spawn::of(&data, utc("2026-01-07T15:00:00Z"), Tz::UTC, RepeatFrom::Due);
        assert_eq!(of(json!({})), Ok(Err("the task does not recur")));
        assert_eq!(of(json!({ "recurring_pattern": null })), Ok(Err("the task does not recur")));
        assert_eq!(of(json!({ "recurring_pattern": "FREQ=DAILY;UNTIL=20251231" })), Ok(Err("the series has ended")));
        assert!(
            of(json!({ "recurring_pattern": "NOW AND THEN" }))
                .unwrap_err()
                .starts_with("data.recurring_pattern: `NOW AND THEN` is no pattern")
        );
        assert!(of(json!({ "recurring_pattern": "DAILY", "timezone": "Mars/Olympus" })).unwrap_err().starts_with("data.timezone: "));
        assert_eq!(of(json!({ "recurring_pattern": "DAILY", "due_date": "soon" })), Err("data.due_date is no time".to_owned()));
    }
}
