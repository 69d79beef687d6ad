//! Which day an event belongs to, and what its figures come to. Pure.

use std::time::Duration;

use chrono::{DateTime, Days, TimeDelta, Utc};
use chrono_tz::Tz;
use serde_json::{Map, Value, json};

use crate::store::tally::Row;

pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);
/// Milliseconds from creation to completion, and of how many tasks.
pub(super) const COMPLETE_MS: &str = "complete_ms";
/// As [`COMPLETE_MS`].
pub(super) const COMPLETE_COUNT: &str = "complete_count";
/// Points that were awarded.
pub(super) const POINTS: &str = "points";
/// Days of a month of active users, and of what is shown.
const SHOWN: u64 = 30;
/// Clocks differ: an event may be this far ahead of ours.
const AHEAD: TimeDelta = TimeDelta::days(1);

/// The figure that counts events of a type.
pub(super) fn event_figure(event_type: &str) -> String {
    format!("event:{event_type}")
}

/// Days of a zone, and how long each is added to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Calendar {
    pub(super) zone: Tz,
    pub(super) late: Duration,
}

/// The day of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Day {
    /// Still added to.
    Open(String),
    /// Over for so long that its events are not known any more: whether this one was counted cannot be told.
    Closed(String),
    /// Not to be believed.
    Ahead,
}

impl Calendar {
    pub(super) fn day(self, at: DateTime<Utc>, now: DateTime<Utc>) -> Day {
        let day = self.text(at);
        if at > now + AHEAD {
            return Day::Ahead;
        }
        // A day's events are known for two days longer than this: no clock of another worker closes it later than they are forgotten.
        let late = TimeDelta::from_std(self.late).unwrap_or(TimeDelta::MAX);
        match now.checked_sub_signed(late).is_some_and(|open| day < self.text(open)) {
            true => Day::Closed(day),
            false => Day::Open(day),
        }
    }

    /// Today and the days before it, a month of them.
    pub(super) fn last_days(self, now: DateTime<Utc>) -> Vec<String> {
        let today = now.with_timezone(&self.zone).date_naive();
        (0..SHOWN).filter_map(|back| Some(today.checked_sub_days(Days::new(back))?.to_string())).collect()
    }

    fn text(self, at: DateTime<Utc>) -> String {
        at.with_timezone(&self.zone).date_naive().to_string()
    }
}

/// What `/stats` tells of a month: each day that has any figure, and all of them together.
pub(super) fn summary<'a>(zone: Tz, days: impl Iterator<Item = (&'a String, &'a Row)>, month: u64) -> Value {
    let mut all = Row { users: month, ..Row::default() };
    let mut told = Vec::new();
    let mut today = None;
    for (day, row) in days {
        today.get_or_insert(row.users);
        for (figure, amount) in &row.figures {
            *all.figures.entry(figure.clone()).or_default() += amount;
        }
        if *row != Row::default() {
            let mut of_day = json!({ "day": day, "active_users": row.users });
            extend(&mut of_day, row);
            told.push(of_day);
        }
    }
    let mut whole =
        json!({ "kind": "analytics", "timezone": zone.name(), "active_users": { "day": today.unwrap_or_default(), "month": month } });
    extend(&mut whole, &all);
    whole["days"] = told.into();
    whole
}

/// `events`, `completion_rate`, `time_to_complete`, `points`. What cannot be told is null.
fn extend(told: &mut Value, row: &Row) {
    let figure = |name: &str| row.figures.get(name).copied().unwrap_or_default();
    let events: Map<_, _> =
        row.figures.iter().filter_map(|(name, count)| Some((name.strip_prefix("event:")?.to_owned(), (*count).into()))).collect();
    let created = figure(&event_figure("task.created"));
    told["events"] = events.into();
    told["completion_rate"] = ratio(figure(&event_figure("task.completed")), created);
    told["time_to_complete"] =
        json!({ "mean_seconds": ratio(figure(COMPLETE_MS), 1000 * figure(COMPLETE_COUNT)), "tasks": figure(COMPLETE_COUNT) });
    told["points"] = figure(POINTS).into();
}

/// To three digits; null of nothing.
fn ratio(part: i64, whole: i64) -> Value {
    if whole == 0 {
        return Value::Null;
    }
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let ratio = part as f64 / whole as f64;
    ((ratio * 1000.0).round() / 1000.0).into()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn utc(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn row(figures: &[(&str, i64)], users: u64) -> Row {
        Row { figures: figures.iter().map(|(name, amount)| ((*name).to_owned(), *amount)).collect(), users }
    }

    #[test]
    fn a_day_is_the_zones_and_closes_so_long_after_its_end() {
        let calendar = Calendar { zone: Tz::Europe__Berlin, late: 2 * DAY };
        let now = utc("2026-03-28T12:00:00Z");
        let day = |at: &str| calendar.day(utc(at), now);
        assert_eq!(day("2026-03-28T11:00:00Z"), Day::Open("2026-03-28".to_owned()));
        assert_eq!(day("2026-03-27T23:30:00Z"), Day::Open("2026-03-28".to_owned()), "after midnight in Berlin");
        assert_eq!(day("2026-03-25T23:00:00Z"), Day::Open("2026-03-26".to_owned()));
        assert_eq!(day("2026-03-25T22:59:59Z"), Day::Closed("2026-03-25".to_owned()));
        assert_eq!(day("2026-03-29T12:00:00Z"), Day::Open("2026-03-29".to_owned()));
        assert_eq!(day("2026-03-29T12:00:01Z"), Day::Ahead);
        assert_eq!(calendar.last_days(now)[..2], ["2026-03-28", "2026-03-27"]);
        assert_eq!(calendar.last_days(now).len(), 30);
    }

    #[test]
    fn figures_are_told_by_day_and_together_and_what_cannot_be_told_is_null() {
        let rows = [
            row(&[("event:task.created", 4), ("event:task.completed", 3), (COMPLETE_MS, 4500), (COMPLETE_COUNT, 2), (POINTS, 30)], 5),
            Row::default(),
            row(&[("event:task.completed", 1)], 2),
        ];
        let days = ["2026-03-28", "2026-03-27", "2026-03-26"].map(str::to_owned);
        let told = summary(Tz::UTC, days.iter().zip(&rows), 6);
        let of = |name: &str| told[name].clone();
        assert_eq!((of("active_users"), of("completion_rate")), (json!({ "day": 5, "month": 6 }), json!(1.0)));
        assert_eq!(of("time_to_complete"), json!({ "mean_seconds": 2.25, "tasks": 2 }));
        assert_eq!(of("events"), json!({ "task.completed": 4, "task.created": 4 }));
        let nothing = json!({ "mean_seconds": null, "tasks": 0 });
        assert_eq!(
            of("days")[1],
            json!({ "day": "2026-03-26", "active_users": 2, "events": { "task.completed": 1 }, "completion_rate": null,
                    "time_to_complete": nothing, "points": 0 })
        );
        assert_eq!(of("days").as_array().unwrap().len(), 2);
    }

    proptest! {
        #[test]
        fn a_day_is_open_from_its_first_moment_until_so_long_after_its_last(at in 0..4_000_000_000_i64, later in 0..3_000_000_i64, late in 0..20_u32) {
            let calendar = Calendar { zone: Tz::Australia__Lord_Howe, late: late * DAY };
            let (at, now) = (DateTime::from_timestamp(at, 0).unwrap(), DateTime::from_timestamp(at + later, 0).unwrap());
            let day = calendar.day(at, now);
            prop_assert!(day != Day::Ahead);
            let days = i64::from(late) * 86_400;
            if later <= days {
                prop_assert!(matches!(day, Day::Open(_)), "{day:?}");
            }
            // A day of this zone has at most 24.5 hours.
            if later > days + 88_200 {
                prop_assert!(matches!(day, Day::Closed(_)), "{day:?}");
            }
        }

        #[test]
        fn the_whole_is_the_sum_of_its_days(days in prop::collection::vec((0..50_i64, 0..50_i64, 0..9_u64), 0..30)) {
            let rows: Vec<_> = days.iter().map(|(created, done, users)| row(&[("event:task.created", *created), ("event:task.completed", *done)], *users)).collect();
            let names: Vec<_> = (0..rows.len()).map(|n| n.to_string()).collect();
            let told = summary(Tz::UTC, names.iter().zip(&rows), 0);
            let sum = |name: &str| told["days"].as_array().unwrap().iter().map(|day| day["events"][name].as_i64().unwrap()).sum::<i64>();
            for (name, expected) in [("task.created", days.iter().map(|day| day.0).sum::<i64>()), ("task.completed", days.iter().map(|day| day.1).sum())] {
                prop_assert_eq!(sum(name), expected);
                prop_assert_eq!(told["events"].get(name).and_then(Value::as_i64).unwrap_or_default(), expected);
            }
        }
    }
}
