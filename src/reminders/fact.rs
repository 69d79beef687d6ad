//! What an event says of a task's reminders. Pure.

use chrono::{DateTime, Months, Utc};
use serde_json::Value;

use super::task::{Moved, Slot, Task};
use crate::event::{Event, time};

pub use crate::config::reminder::CAUSES;

/// Furthest that a reminder may be scheduled ahead of its event's time: beyond it somebody mistook a unit or a year.
const FURTHEST: Months = Months::new(120);

/// Longest name of a `reminder_type`, in bytes.
const LONGEST_TYPE: usize = 100;

/// Fields that a reminder has again when it is due, where the event that scheduled it carries them.
const KEPT: [&str; 2] = ["title", "timezone"];

/// An event's own words.
#[derive(Debug, Clone, Copy)]
pub struct Fact<'a> {
    /// Its type.
    pub name: &'a str,
    /// Its id.
    pub id: &'a str,
    /// Whose it is.
    pub user: &'a str,
    /// When it happened.
    pub at: DateTime<Utc>,
    /// What it belongs to.
    pub correlation: Option<&'a str>,
    /// Its data.
    pub data: &'a Value,
}

/// As [`Fact::said`], of an event as it was read. No event happens after it was written: a clock that is ahead must not outlast what comes later.
///
/// # Errors
/// As there.
pub fn said(event: &Event) -> Result<Option<Task>, String> {
    let (data, correlation) = (event.data(), event.correlation_id());
    let (name, id, user) = (event.event_type(), event.id(), event.user_id());
    // To the end of the record's millisecond.
    let written = event.record().timestamp().and_then(|ms| DateTime::from_timestamp_micros(ms.checked_mul(1000)?.checked_add(999)?));
    let at = written.map_or(event.time(), |written| written.min(event.time()));
    Fact { name, id, user, at, correlation: correlation.as_deref(), data: &data }.said()
}

impl Fact<'_> {
    /// What it says, to be merged into what is known; `None`: nothing.
    ///
    /// A `reminder.scheduled` is a reminder at `remind_at`, else at `due_date`, one per task and `reminder_type`. A `task.updated` with a `due_date` moves
    /// the reminders that have one by as much. The others remove all of the task's that were scheduled before them.
    ///
    /// # Errors
    /// Which field makes no sense, and why.
    pub fn said(&self) -> Result<Option<Task>, String> {
        let task = self.data.get("task_id").filter(|id| id.is_u64() || id.is_i64() || id.is_string());
        let task = task.ok_or("data.task_id: missing")?.clone();
        let at = self.at.timestamp_micros();
        let mut said = Task::new(self.user, task);
        match self.name {
            "reminder.scheduled" => {
                let kind = self.text("reminder_type").unwrap_or(Task::DEFAULT);
                if kind.len() > LONGEST_TYPE {
                    return Err(format!("data.reminder_type: longer than {LONGEST_TYPE} bytes"));
                }
                said.slots.insert(kind.to_owned(), self.slot(at)?);
            }
            "task.updated" => match self.moment("due_date")? {
                Some(due) => said.moved = Some(Moved { at, by: self.id.to_owned(), due: due.timestamp_millis(), of: self.correlation() }),
                None => return Ok(None),
            },
            "reminder.cancelled" | "task.completed" | "task.deleted" => said.gone = Some(at),
            _ => return Ok(None),
        }
        Ok(Some(said))
    }

    fn slot(&self, at: i64) -> Result<Slot, String> {
        let due = self.moment("due_date")?;
        let (field, remind) = match (self.moment("remind_at")?, due) {
            (Some(remind), _) => ("remind_at", remind),
            (None, Some(due)) => ("due_date", due),
            (None, None) => return Err("data.remind_at: missing, and there is no due_date".to_owned()),
        };
        if self.at.checked_add_months(FURTHEST).is_some_and(|furthest| remind > furthest) {
            return Err(format!("data.{field}: {} is more than ten years ahead", time::format(remind)));
        }
        let kept = KEPT.iter().filter_map(|name| Some(((*name).to_owned(), self.text(name)?.to_owned())));
        Ok(Slot {
            at,
            by: self.id.to_owned(),
            remind: remind.timestamp_millis(),
            due: due.map(|due| due.timestamp_millis()),
            told: None,
            of: self.correlation(),
            kept: kept.collect(),
        })
    }

    fn correlation(&self) -> Option<String> {
        self.correlation.map(str::to_owned)
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.data.get(name)?.as_str()
    }

    fn moment(&self, name: &str) -> Result<Option<DateTime<Utc>>, String> {
        self.text(name).map(|text| time::parse(text).ok_or_else(|| format!("data.{name}: is no time"))).transpose()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::{Value, json};

    use super::{Fact, Task};

    fn said(name: &str, data: &Value) -> Result<Option<Task>, String> {
        let at = "2026-01-01T00:00:00Z".parse().unwrap();
        Fact { name, id: "e-1", user: "ada", at, correlation: None, data }.said()
    }

    fn remind(data: &Value) -> Option<i64> {
        said("reminder.scheduled", data).unwrap().unwrap().next()
    }

    #[test]
    fn a_reminder_is_due_at_remind_at_and_else_at_its_due_date_also_in_the_past() {
        let at = |hour: i64| Some((1_767_225_600 + hour * 3600) * 1000);
        assert_eq!(remind(&json!({ "task_id": 1, "remind_at": "2026-01-01T08:00:00Z", "due_date": "2026-01-01T09:00:00Z" })), at(8));
        assert_eq!(remind(&json!({ "task_id": 1, "remind_at": null, "due_date": "2026-01-01T10:00:00+01:00" })), at(9));
        assert_eq!(remind(&json!({ "task_id": 1, "remind_at": "2025-12-31T23:00:00" })), at(-1));
    }

    #[test]
    fn what_makes_no_sense_is_told_with_its_field() {
        let error = |data: Value| said("reminder.scheduled", &data).unwrap_err();
        assert_eq!(error(json!({ "remind_at": "2026-01-01T08:00:00Z" })), "data.task_id: missing");
        assert_eq!(error(json!({ "task_id": 1 })), "data.remind_at: missing, and there is no due_date");
        assert_eq!(error(json!({ "task_id": 1, "remind_at": "soon" })), "data.remind_at: is no time");
        let far = "data.remind_at: 2036-01-01T00:00:00.001Z is more than ten years ahead";
        assert_eq!(error(json!({ "task_id": 1, "remind_at": "2036-01-01T00:00:00.001Z" })), far);
        assert!(error(json!({ "task_id": 1, "due_date": "9999-12-31T00:00:00Z" })).starts_with("data.due_date: "));
        let long = json!({ "task_id": 1, "remind_at": "2026-01-01T08:00:00Z", "reminder_type": "x".repeat(101) });
        assert_eq!(error(long), "data.reminder_type: longer than 100 bytes");
        assert_eq!(said("task.updated", &json!({ "task_id": 1, "due_date": "soon" })), Err("data.due_date: is no time".to_owned()));
    }

    #[test]
    fn an_update_that_does_not_move_the_due_date_says_nothing() {
        assert_eq!(said("task.updated", &json!({ "task_id": 1, "title": "t" })), Ok(None));
        assert_eq!(said("task.updated", &json!({ "task_id": 1, "due_date": null })), Ok(None));
        assert!(
            said("task.updated", &json!({ "task_id": 1, "due_date": "9999-12-31T00:00:00Z" })).unwrap().is_some(),
            "someday is a due date"
        );
    }
}
