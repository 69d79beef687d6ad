//! A task's reminders as one record that merges with what is said of it. Pure: times are arguments.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::Key;
use crate::event::{ids, time};

/// Past its due date by more than this a reminder tells of an overdue task; up to it, it is only late itself.
const GRACE_MS: i64 = 60_000;

/// The event of a reminder whose time has come.
const EVENT: &str = "reminder.due";

/// What is known of one task's reminders. Times are milliseconds since 1970, those of events (`at`, `gone`) microseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Whose.
    #[serde(rename = "u")]
    user: String,
    /// Integer or UUID.
    #[serde(rename = "t")]
    task: Value,
    /// By `reminder_type`.
    #[serde(rename = "s", default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) slots: BTreeMap<String, Slot>,
    /// The due date that the latest update told.
    #[serde(rename = "m", default, skip_serializing_if = "Option::is_none")]
    pub(super) moved: Option<Moved>,
    /// When the task was last completed or deleted, or its reminders cancelled.
    #[serde(rename = "g", default, skip_serializing_if = "Option::is_none")]
    pub(super) gone: Option<i64>,
}

/// One reminder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Slot {
    /// When it was scheduled.
    #[serde(rename = "a")]
    pub(super) at: i64,
    /// By which event.
    #[serde(rename = "b")]
    pub(super) by: String,
    #[serde(rename = "r")]
    pub(super) remind: i64,
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    pub(super) due: Option<i64>,
    /// The latest time for which it was fired.
    #[serde(rename = "f", default, skip_serializing_if = "Option::is_none")]
    pub(super) told: Option<i64>,
    /// The correlation id.
    #[serde(rename = "c", default, skip_serializing_if = "Option::is_none")]
    pub(super) of: Option<String>,
    /// Further fields of the event.
    #[serde(rename = "k", default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) kept: BTreeMap<String, String>,
}

/// A due date that was moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Moved {
    #[serde(rename = "a")]
    pub(super) at: i64,
    #[serde(rename = "b")]
    pub(super) by: String,
    #[serde(rename = "d")]
    pub(super) due: i64,
    #[serde(rename = "c", default, skip_serializing_if = "Option::is_none")]
    pub(super) of: Option<String>,
}

/// When a reminder is due as things stand, and which event says so.
struct When<'a> {
    remind: i64,
    due: Option<i64>,
    by: &'a str,
    of: Option<&'a str>,
    /// When the due date was moved, if that is what decides.
    moved: Option<i64>,
}

impl Slot {
    /// A later move of the due date takes the reminder along: as long before it, or after it, as it was.
    fn when<'a>(&'a self, moved: Option<&'a Moved>) -> When<'a> {
        match (self.due, moved) {
            (Some(due), Some(moved)) if moved.at > self.at => When {
                remind: moved.due.saturating_sub(due.saturating_sub(self.remind)),
                due: Some(moved.due),
                by: &moved.by,
                of: moved.of.as_deref(),
                moved: Some(moved.at),
            },
            _ => When { remind: self.remind, due: self.due, by: &self.by, of: self.of.as_deref(), moved: None },
        }
    }

    /// One that was fired is only to be fired again where its due date was moved on, to a time that was still to come when it was moved.
    fn is_pending(&self, when: &When<'_>) -> bool {
        match self.told {
            None => true,
            Some(told) => when.remind > told && when.moved.is_some_and(|moved| when.remind.saturating_mul(1000) > moved),
        }
    }
}

/// A reminder whose time has come.
#[derive(Debug, Clone, PartialEq)]
pub struct Due {
    /// Its `reminder_type` as scheduled: its name within the task.
    pub slot: String,
    /// For when, milliseconds since 1970.
    pub remind: i64,
    /// The `reminder_type` that is published.
    pub kind: &'static str,
    /// The event, as JSON, with an id that is the same however often it is fired for that time.
    pub event: Value,
}

impl Task {
    /// The `reminder_type` of reminders that name none.
    pub const DEFAULT: &'static str = "due_soon";

    /// Nothing known yet.
    pub fn new(user: &str, task: Value) -> Self {
        Self { user: user.to_owned(), task, slots: BTreeMap::new(), moved: None, gone: None }
    }

    /// Its name in a store.
    pub fn key(&self) -> Key {
        Key::new(&self.user, &self.task.as_str().map_or_else(|| self.task.to_string(), str::to_owned))
    }

    /// What both say together, the later event winning. Of two that happened at the same moment the one that comes later wins, that is `newer`'s.
    #[must_use]
    pub fn merge(mut self, newer: Self) -> Self {
        if let Some(gone) = newer.gone {
            self.slots.retain(|_, slot| slot.at > gone);
        }
        let gone = self.gone;
        for (name, slot) in newer.slots {
            let known = self.slots.get_mut(&name);
            match known {
                _ if gone.is_some_and(|gone| gone > slot.at) => {}
                Some(known) if known.by == slot.by && known.at == slot.at => known.told = known.told.max(slot.told),
                Some(known) if known.at > slot.at => {}
                _ => drop(self.slots.insert(name, slot)),
            }
        }
        if newer.moved.as_ref().is_some_and(|newer| self.moved.as_ref().is_none_or(|known| newer.at >= known.at)) {
            self.moved = newer.moved;
        }
        self.gone = self.gone.max(newer.gone);
        self
    }

    /// When the first of its reminders is due that is still to be fired.
    pub fn next(&self) -> Option<i64> {
        self.pending().map(|(_, _, when)| when.remind).min()
    }

    /// When the latest event happened that says something of it.
    pub fn latest(&self) -> Option<DateTime<Utc>> {
        let all = self.slots.values().map(|slot| slot.at).chain(self.moved.as_ref().map(|moved| moved.at)).chain(self.gone);
        all.max().and_then(DateTime::from_timestamp_micros)
    }

    /// How many reminders it has, fired ones included.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether it has none, be it that they were removed.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// How many of its reminders are still to be fired.
    pub fn count(&self) -> usize {
        self.pending().count()
    }

    fn pending(&self) -> impl Iterator<Item = (&String, &Slot, When<'_>)> {
        let all = self.slots.iter().map(|(name, slot)| (name, slot, slot.when(self.moved.as_ref())));
        all.filter(|(_, slot, when)| slot.is_pending(when))
    }

    /// The reminders that are to be fired at `now`, in the order of their times.
    pub fn due(&self, now: i64) -> Vec<Due> {
        let mut due: Vec<_> =
            self.pending().filter(|(_, _, when)| when.remind <= now).map(|(name, slot, when)| self.event(name, slot, &when, now)).collect();
        due.sort_by_key(|due| due.remind);
        due
    }

    /// Reminders were fired for that time: those are not to be fired again.
    pub fn told(&mut self, slot: &str, remind: i64) {
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.told = slot.told.max(Some(remind));
        }
    }

    /// As [`Task::told`], for the reminders whose events `is_known`.
    pub fn told_where(&mut self, is_known: impl Fn(&Uuid) -> bool) {
        let known: Vec<_> =
            self.pending().filter(|(name, _, when)| is_known(&id(name, when))).map(|(name, _, when)| (name.clone(), when.remind)).collect();
        known.into_iter().for_each(|(name, remind)| self.told(&name, remind));
    }

    fn event(&self, name: &str, slot: &Slot, when: &When<'_>, now: i64) -> Due {
        let kind = kind(name, when, now);
        let mut data: Map<String, Value> = slot.kept.iter().map(|(name, text)| (name.clone(), text.as_str().into())).collect();
        data.insert("task_id".to_owned(), self.task.clone());
        data.insert("user_id".to_owned(), self.user.as_str().into());
        data.insert("reminder_type".to_owned(), kind.into());
        data.insert("remind_at".to_owned(), stamp(when.remind).into());
        if let Some(due) = when.due {
            data.insert("due_date".to_owned(), stamp(due).into());
        }
        let event = json!({
            "event_id": id(name, when).to_string(),
            "event_type": EVENT,
            "timestamp": stamp(when.remind),
            "data": data,
            "metadata": { "correlation_id": when.of.unwrap_or(when.by), "causation_id": when.by },
        });
        Due { slot: name.to_owned(), remind: when.remind, kind, event }
    }

    /// As a store keeps it.
    pub fn encode(&self) -> Vec<u8> {
        // Maps with text keys and plain values: cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// What a store kept; `None`: not ours, or damaged.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

/// Made of the event that decides when, so that firing again makes the same one.
fn id(name: &str, when: &When<'_>) -> Uuid {
    ids::of_effect(when.by, &format!("{EVENT}\n{name}\n{}", stamp(when.remind)))
}

/// As scheduled where the catalogue has that type; else by the due date.
fn kind(name: &str, when: &When<'_>, now: i64) -> &'static str {
    match name {
        "overdue" => "overdue",
        "recurring" => "recurring",
        _ if when.due.is_some_and(|due| when.remind > due || now.saturating_sub(due) > GRACE_MS) => "overdue",
        _ => Task::DEFAULT,
    }
}

fn stamp(ms: i64) -> String {
    DateTime::from_timestamp_millis(ms).map(time::format).unwrap_or_default()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use chrono::DateTime;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::{super::fact::Fact, Task};

    const MINUTE: i64 = 60_000;

    /// What an event at that millisecond says, named by it.
    fn said(name: &str, at: i64, data: &Value) -> Task {
        let mut data = data.clone();
        data["task_id"] = 7.into();
        let id = format!("{name}@{at}");
        let at = DateTime::from_timestamp_millis(at).unwrap();
        Fact { name, id: &id, user: "ada", at, correlation: None, data: &data }.said().unwrap().unwrap()
    }

    fn stamp(ms: i64) -> String {
        super::stamp(ms)
    }

    fn scheduled(at: i64, remind: i64, due: i64) -> Task {
        said("reminder.scheduled", at, &json!({ "remind_at": stamp(remind), "due_date": stamp(due) }))
    }

    fn moved(at: i64, due: i64) -> Task {
        said("task.updated", at, &json!({ "due_date": stamp(due) }))
    }

    fn completed(at: i64) -> Task {
        said("task.completed", at, &json!({}))
    }

    fn all(said: impl IntoIterator<Item = Task>) -> Task {
        said.into_iter().reduce(Task::merge).unwrap()
    }

    #[test]
    fn a_moved_due_date_takes_the_reminder_along_whichever_is_told_first() {
        let (first, second) = (scheduled(1, 50 * MINUTE, 60 * MINUTE), moved(2, 90 * MINUTE));
        assert_eq!(all([first.clone(), second.clone()]).next(), Some(80 * MINUTE));
        assert_eq!(all([second, first.clone()]).next(), Some(80 * MINUTE));
        assert_eq!(all([first, moved(0, 90 * MINUTE)]).next(), Some(50 * MINUTE), "scheduled after the move, with the date of its own");
        let fixed = said("reminder.scheduled", 1, &json!({ "remind_at": stamp(50 * MINUTE) }));
        assert_eq!(all([fixed, moved(2, 90 * MINUTE)]).next(), Some(50 * MINUTE), "it follows no due date");
    }

    #[test]
    fn a_removal_takes_what_was_scheduled_before_it_and_nothing_later() {
        assert_eq!(all([scheduled(1, MINUTE, MINUTE), completed(2)]).next(), None);
        assert_eq!(all([completed(2), scheduled(1, MINUTE, MINUTE)]).next(), None, "told late");
        assert_eq!(all([completed(2), scheduled(3, MINUTE, MINUTE)]).next(), Some(MINUTE));
        assert_eq!(all([completed(2), scheduled(2, MINUTE, MINUTE)]).next(), Some(MINUTE), "at the same moment, what comes later counts");
        assert_eq!(all([scheduled(2, MINUTE, MINUTE), completed(2)]).next(), None);
    }

    #[test]
    fn a_fired_reminder_is_fired_again_only_where_its_due_date_moves_on() {
        let mut task = scheduled(1, 50 * MINUTE, 60 * MINUTE);
        task.told("due_soon", 50 * MINUTE);
        assert_eq!((task.next(), task.due(i64::MAX)), (None, vec![]));
        assert_eq!(task.clone().merge(scheduled(1, 50 * MINUTE, 60 * MINUTE)).next(), None, "the same event again");
        let at = 51 * MINUTE;
        assert_eq!(task.clone().merge(moved(at, 60 * MINUTE)).next(), None, "the same date again");
        assert_eq!(task.clone().merge(moved(at, 40 * MINUTE)).next(), None, "earlier");
        assert_eq!(task.clone().merge(moved(at, 61 * MINUTE)).next(), None, "its time was over when it was moved");
        assert_eq!(task.clone().merge(moved(at, 90 * MINUTE)).next(), Some(80 * MINUTE));
        assert_eq!(task.merge(scheduled(at, 55 * MINUTE, 60 * MINUTE)).next(), Some(55 * MINUTE), "scheduled anew");
    }

    #[test]
    fn one_that_is_late_for_its_due_date_tells_of_an_overdue_task() {
        let task = scheduled(1, 50 * MINUTE, 60 * MINUTE);
        let kind = |task: &Task, now: i64| task.due(now).first().map(|due| due.kind);
        assert_eq!(kind(&task, 50 * MINUTE - 1), None);
        assert_eq!(kind(&task, 50 * MINUTE), Some("due_soon"));
        assert_eq!(kind(&task, 61 * MINUTE), Some("due_soon"), "a minute late is late, not overdue");
        assert_eq!(kind(&task, 61 * MINUTE + 1), Some("overdue"));
        assert_eq!(kind(&scheduled(1, 61 * MINUTE, 60 * MINUTE), 61 * MINUTE), Some("overdue"), "scheduled for after the due date");
        for (given, told) in [("overdue", "overdue"), ("recurring", "recurring"), ("an hour before", "due_soon")] {
            let task = said("reminder.scheduled", 1, &json!({ "remind_at": stamp(MINUTE), "reminder_type": given }));
            assert_eq!(kind(&task, MINUTE), Some(told));
        }
    }

    #[test]
    fn what_is_published_names_its_cause_and_has_the_same_id_whenever_it_is_fired() {
        let data = json!({ "remind_at": stamp(50 * MINUTE), "due_date": stamp(60 * MINUTE), "title": "Call the bank", "other": 1 });
        let task = said("reminder.scheduled", 1, &data);
        let due = task.due(50 * MINUTE).remove(0);
        let id = crate::event::ids::of_effect("reminder.scheduled@1", "reminder.due\ndue_soon\n1970-01-01T00:50:00Z").to_string();
        assert_eq!(
            due.event,
            json!({
                "event_id": id, "event_type": "reminder.due", "timestamp": "1970-01-01T00:50:00Z",
                "data": { "task_id": 7, "user_id": "ada", "reminder_type": "due_soon", "remind_at": "1970-01-01T00:50:00Z",
                          "due_date": "1970-01-01T01:00:00Z", "title": "Call the bank" },
                "metadata": { "correlation_id": "reminder.scheduled@1", "causation_id": "reminder.scheduled@1" },
            })
        );
        assert_eq!(task.due(i64::MAX)[0].event["event_id"], id.as_str());
        let later = task.merge(moved(2, 90 * MINUTE)).due(i64::MAX).remove(0);
        assert_eq!(later.event["metadata"]["causation_id"], "task.updated@2");
        assert_ne!(later.event["event_id"], id.as_str());
    }

    #[derive(Debug, Clone)]
    enum Said {
        Scheduled(i64, Option<i64>, &'static str),
        Moved(i64),
        Gone,
    }

    /// Events at distinct moments.
    fn history() -> impl Strategy<Value = Vec<Task>> {
        let kinds = prop::sample::select(vec!["due_soon", "overdue", "recurring"]);
        let one = prop_oneof![
            4 => (0..100i64, prop::option::of(0..100i64), kinds).prop_map(|(remind, due, kind)| Said::Scheduled(remind, due, kind)),
            3 => (0..100i64).prop_map(Said::Moved),
            1 => Just(Said::Gone),
        ];
        prop::collection::vec(one, 1..8).prop_map(|all| {
            let said = all.into_iter().zip(1..).map(|(one, at)| match one {
                Said::Scheduled(remind, due, kind) => {
                    let data = json!({ "remind_at": stamp(remind * MINUTE), "due_date": due.map(|due| stamp(due * MINUTE)), "reminder_type": kind });
                    said("reminder.scheduled", at, &data)
                }
                Said::Moved(due) => moved(at, due * MINUTE),
                Said::Gone => completed(at),
            });
            said.collect()
        })
    }

    fn shuffled() -> impl Strategy<Value = (Vec<Task>, Vec<Task>)> {
        history().prop_flat_map(|history| (Just(history.clone()), Just(history).prop_shuffle()))
    }

    proptest! {
        /// No order is given between topics.
        #[test]
        fn whatever_order_events_come_in_the_same_reminders_wait((history, shuffled) in shuffled()) {
            prop_assert_eq!(all(history), all(shuffled));
        }

        #[test]
        fn an_event_that_comes_again_changes_nothing((history, again) in shuffled()) {
            let once = all(history);
            prop_assert_eq!(once.clone(), all([vec![once], again].concat()));
        }

        /// As a rebuild does: events are merged among themselves first.
        #[test]
        fn what_was_merged_elsewhere_merges_as_its_events_do((history, shuffled) in shuffled(), cut in 0..8usize) {
            let cut = cut.min(shuffled.len() - 1);
            let (some, rest) = shuffled.split_at(cut);
            let parts = [some, rest].into_iter().filter(|part| !part.is_empty()).map(|part| all(part.to_vec()));
            prop_assert_eq!(all(history), all(parts));
        }

        /// Firing goes on until nothing is pending, each time once, and none before its time.
        #[test]
        fn each_reminder_is_fired_once_and_not_before_its_time(history in history(), steps in prop::collection::vec(0..120i64, 1..6)) {
            let mut task = all(history);
            let (mut fired, wanted) = (Vec::new(), task.due(i64::MAX).len());
            let mut steps = steps;
            steps.sort_unstable();
            for now in steps.into_iter().map(|minute| minute * MINUTE).chain([i64::MAX]) {
                for due in task.due(now) {
                    prop_assert!(due.remind <= now);
                    fired.push(due.event["event_id"].clone());
                    task.told(&due.slot, due.remind);
                }
                prop_assert!(task.next().is_none_or(|next| next > now));
            }
            prop_assert_eq!(fired.len(), wanted);
            fired.sort_by_key(ToString::to_string);
            fired.dedup();
            prop_assert_eq!(fired.len(), wanted);
        }

        #[test]
        fn a_store_gives_back_what_it_was_given(history in history()) {
            let task = all(history);
            prop_assert_eq!(Task::decode(&task.encode()), Some(task));
        }
    }
}
