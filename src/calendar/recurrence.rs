//! How a task recurs: a pattern in people's or iCalendar's words, to the next time it is due on a clock in the user's zone.
//!
//! Times are the clock's: daily at 9:00 stays 9:00 when the clock changes ([`at_wall`] says what a skipped or repeated time is). Months and years
//! count from the anchor, so the 31st is the last day of a shorter month and the 31st again after it; so is a 29th of February.

use chrono::{DateTime, Datelike, Days, Months, NaiveDate, NaiveDateTime, Utc, Weekday};
use chrono_tz::Tz;
use rrule::{RRule, RRuleSet, Unvalidated};

use super::at_wall;

/// Most occurrences of an iCalendar rule that are looked at between the anchor and the next one: 50 years of days.
const MOST: usize = 20_000;

/// Largest number of days, weeks, months or years between two times.
const LARGEST_STEP: u32 = 1000;

/// When a task comes again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recurrence(Rule);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Rule {
    Days(u32),
    Months(u32),
    /// On these days of the week, Monday first.
    Weekdays([bool; 7]),
    /// An RFC 5545 rule without its `UNTIL`, which would be read in another zone than the rest.
    Ical {
        rule: String,
        until: Option<Until>,
    },
}

/// The last moment of an iCalendar rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    Moment(DateTime<Utc>),
    /// On the clock of the zone.
    Wall(NaiveDateTime),
}

impl Recurrence {
    /// Reads `DAILY`, `WEEKLY`, `MONTHLY`, `YEARLY`, `WEEKDAYS`, a list of days (`MON,WED`), `every 2 weeks`, or an RFC 5545 rule
    /// (`FREQ=MONTHLY;BYDAY=-1FR`, also after `RRULE:`; a day is its smallest unit), in any case. `None` for an empty text and `NONE`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Option<Self>, String> {
        let pattern = text.trim().to_ascii_uppercase();
        let wrong =
            || format!("`{text}` is no pattern: DAILY, WEEKLY, MONTHLY, YEARLY, WEEKDAYS, MON,WED, every 2 weeks, or an RFC 5545 rule");
        let rule = match pattern.as_str() {
            "" | "NONE" => return Ok(None),
            "DAILY" => Rule::Days(1),
            "WEEKLY" => Rule::Days(7),
            "MONTHLY" => Rule::Months(1),
            "YEARLY" | "ANNUALLY" => Rule::Months(12),
            "WEEKDAYS" => Rule::Weekdays([true, true, true, true, true, false, false]),
            _ if pattern.contains("FREQ=") => ical(&pattern)?,
            _ => match pattern.strip_prefix("EVERY ") {
                Some(rest) => every(rest).ok_or_else(wrong)?,
                None => weekdays(&pattern).ok_or_else(wrong)?,
            },
        };
        Ok(Some(Self(rule)))
    }

    /// The first time after `after` in the series that began at `anchor`; `None`: the series has ended.
    pub fn next(&self, anchor: DateTime<Utc>, after: DateTime<Utc>, zone: Tz) -> Option<DateTime<Utc>> {
        let after = after.max(anchor);
        let first = anchor.with_timezone(&zone).naive_local();
        let (from, to) = (first.date(), after.with_timezone(&zone).date_naive());
        match &self.0 {
            Rule::Days(step) => {
                let passed = u64::try_from((to - from).num_days()).unwrap_or_default() / u64::from(*step);
                series(passed, after, zone, |count| first.checked_add_days(Days::new(count.checked_mul(u64::from(*step))?)))
            }
            Rule::Months(step) => {
                let months = i64::from(to.year() - from.year()) * 12 + i64::from(to.month()) - i64::from(from.month());
                let passed = u64::try_from(months).unwrap_or_default() / u64::from(*step);
                series(passed, after, zone, |count| first.checked_add_months(Months::new(u32::try_from(count).ok()?.checked_mul(*step)?)))
            }
            Rule::Weekdays(on) => to
                .iter_days()
                .take(9)
                .filter(|day| on[day.weekday().num_days_from_monday() as usize])
                .find_map(|day| at_wall(day.and_time(first.time()), zone).filter(|at| *at > after)),
            Rule::Ical { rule, until } => {
                let set = rule_set(rule, first).ok()?;
                let next = set
                    .into_iter()
                    .take(MOST)
                    .map(|at| at.naive_utc())
                    .find_map(|wall| at_wall(wall, zone).filter(|at| *at > after).map(|at| (wall, at)));
                let ends = |(wall, at): &(NaiveDateTime, DateTime<Utc>)| match until {
                    None => false,
                    Some(Until::Moment(last)) => at > last,
                    Some(Until::Wall(last)) => wall > last,
                };
                next.filter(|next| !ends(next)).map(|(_, at)| at)
            }
        }
    }
}

/// The first of a series after a time, given about how many steps have passed by then.
fn series(passed: u64, after: DateTime<Utc>, zone: Tz, wall: impl Fn(u64) -> Option<NaiveDateTime>) -> Option<DateTime<Utc>> {
    // Around a change of the clock the guess may be one off.
    (passed.saturating_sub(1).max(1)..passed.checked_add(4)?).find_map(|count| at_wall(wall(count)?, zone).filter(|at| *at > after))
}

/// `3 DAYS`, `WEEK`, `OTHER MONTH`, `2ND YEAR` is not understood.
fn every(rest: &str) -> Option<Rule> {
    let (count, unit) = match rest.split_whitespace().collect::<Vec<_>>().as_slice() {
        [unit] => (1, *unit),
        ["OTHER", unit] => (2, *unit),
        [count, unit] => (count.parse().ok()?, *unit),
        _ => return None,
    };
    if !(1..=LARGEST_STEP).contains(&count) {
        return None;
    }
    match unit.strip_suffix('S').unwrap_or(unit) {
        "DAY" => Some(Rule::Days(count)),
        "WEEK" => Some(Rule::Days(count * 7)),
        "MONTH" => Some(Rule::Months(count)),
        "YEAR" => Some(Rule::Months(count * 12)),
        _ if count == 1 => weekdays(unit),
        _ => None,
    }
}

/// Names of days with commas or spaces between, long or short.
fn weekdays(list: &str) -> Option<Rule> {
    let mut on = [false; 7];
    for name in list.split(|c: char| c == ',' || c.is_whitespace()).filter(|name| !name.is_empty()) {
        let day: Weekday = match name {
            "MO" => Weekday::Mon,
            "TU" => Weekday::Tue,
            "WE" => Weekday::Wed,
            "TH" => Weekday::Thu,
            "FR" => Weekday::Fri,
            "SA" => Weekday::Sat,
            "SU" => Weekday::Sun,
            name => name.parse().ok()?,
        };
        on[day.num_days_from_monday() as usize] = true;
    }
    on.contains(&true).then_some(Rule::Weekdays(on))
}

fn ical(pattern: &str) -> Result<Rule, String> {
    let text = pattern.strip_prefix("RRULE:").unwrap_or(pattern);
    let wrong = |why: &str| format!("`{text}` is no rule that a task can have: {why}");
    let (mut parts, mut until) = (Vec::new(), None);
    for part in text.split(';').filter(|part| !part.is_empty()) {
        match part.split_once('=') {
            Some(("UNTIL", end)) => until = Some(parse_until(end).ok_or_else(|| wrong("UNTIL is no time"))?),
            Some(("FREQ", "DAILY" | "WEEKLY" | "MONTHLY" | "YEARLY")) => parts.push(part),
            Some(("FREQ", _)) => return Err(wrong("FREQ is DAILY, WEEKLY, MONTHLY or YEARLY")),
            Some(("BYHOUR" | "BYMINUTE" | "BYSECOND", _)) => return Err(wrong("the time of day is the due date's")),
            _ => parts.push(part),
        }
    }
    let rule = parts.join(";");
    rule_set(&rule, DateTime::UNIX_EPOCH.naive_utc()).map_err(|error| wrong(&error))?;
    Ok(Rule::Ical { rule, until })
}

/// The series on a clock that never changes; its times are the wall's.
fn rule_set(rule: &str, first: NaiveDateTime) -> Result<RRuleSet, String> {
    let first = first.and_utc().with_timezone(&rrule::Tz::UTC);
    let rule: RRule<Unvalidated> = rule.parse().map_err(|error: rrule::RRuleError| error.to_string())?;
    // The limit ends the search of a rule that no date fits.
    rule.build(first).map(RRuleSet::limit).map_err(|error| error.to_string())
}

/// A date (its last second counts), or a time with `Z` or without.
fn parse_until(text: &str) -> Option<Until> {
    if let Ok(day) = NaiveDate::parse_from_str(text, "%Y%m%d") {
        return day.and_hms_opt(23, 59, 59).map(Until::Wall);
    }
    let wall = |text: &str| NaiveDateTime::parse_from_str(text, "%Y%m%dT%H%M%S").ok();
    match text.strip_suffix('Z') {
        Some(utc) => wall(utc).map(|moment| Until::Moment(moment.and_utc())),
        None => wall(text).map(Until::Wall),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use chrono::{DateTime, TimeDelta, Timelike, Utc};
    use chrono_tz::Tz;
    use proptest::prelude::*;

    use super::Recurrence;

    fn utc(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn rule(text: &str) -> Recurrence {
        Recurrence::parse(text).unwrap().unwrap()
    }

    /// The first times of a series on the wall, each asked for after the one before.
    fn series(pattern: &str, zone: Tz, anchor: &str, count: usize) -> Vec<String> {
        let (rule, anchor) = (rule(pattern), utc(anchor));
        std::iter::successors(rule.next(anchor, anchor, zone), |at| rule.next(anchor, *at, zone))
            .take(count)
            .map(|at| at.with_timezone(&zone).format("%Y-%m-%d %H:%M").to_string())
            .collect()
    }

    #[test]
    fn each_pattern_has_its_next_times() {
        let wednesday = "2025-12-31T09:00:00Z";
        for (pattern, expected) in [
            ("DAILY", ["2026-01-01 09:00", "2026-01-02 09:00", "2026-01-03 09:00"]),
            ("weekly", ["2026-01-07 09:00", "2026-01-14 09:00", "2026-01-21 09:00"]),
            ("Monthly", ["2026-01-31 09:00", "2026-02-28 09:00", "2026-03-31 09:00"]),
            ("YEARLY", ["2026-12-31 09:00", "2027-12-31 09:00", "2028-12-31 09:00"]),
            ("WEEKDAYS", ["2026-01-01 09:00", "2026-01-02 09:00", "2026-01-05 09:00"]),
            ("MON,WED, friday", ["2026-01-02 09:00", "2026-01-05 09:00", "2026-01-07 09:00"]),
            ("every 3 days", ["2026-01-03 09:00", "2026-01-06 09:00", "2026-01-09 09:00"]),
            ("every other week", ["2026-01-14 09:00", "2026-01-28 09:00", "2026-02-11 09:00"]),
            ("every month", ["2026-01-31 09:00", "2026-02-28 09:00", "2026-03-31 09:00"]),
            ("every sunday", ["2026-01-04 09:00", "2026-01-11 09:00", "2026-01-18 09:00"]),
            ("FREQ=MONTHLY;BYDAY=-1FR", ["2026-01-30 09:00", "2026-02-27 09:00", "2026-03-27 09:00"]),
            ("RRULE:FREQ=MONTHLY;BYMONTHDAY=31", ["2026-01-31 09:00", "2026-03-31 09:00", "2026-05-31 09:00"]),
            ("FREQ=WEEKLY;INTERVAL=2;BYDAY=MO,WE", ["2026-01-12 09:00", "2026-01-14 09:00", "2026-01-26 09:00"]),
        ] {
            assert_eq!(series(pattern, Tz::UTC, wednesday, 3), expected, "{pattern}");
        }
    }

    #[test]
    fn the_end_of_february_is_no_new_day_of_the_month_or_of_the_year() {
        assert_eq!(series("MONTHLY", Tz::UTC, "2028-01-30T09:00:00Z", 3), ["2028-02-29 09:00", "2028-03-30 09:00", "2028-04-30 09:00"]);
        let leap = series("YEARLY", Tz::UTC, "2024-02-29T09:00:00Z", 4);
        assert_eq!(leap, ["2025-02-28 09:00", "2026-02-28 09:00", "2027-02-28 09:00", "2028-02-29 09:00"]);
        assert_eq!(series("FREQ=YEARLY", Tz::UTC, "2024-02-29T09:00:00Z", 1), ["2028-02-29 09:00"], "RFC 5545 leaves out what is no date");
    }

    #[test]
    fn the_time_of_day_stays_when_the_clock_changes() {
        for (zone, anchor, days) in [
            (Tz::Europe__Berlin, "2026-03-27T08:00:00Z", ["2026-03-28 09:00", "2026-03-29 09:00", "2026-03-30 09:00"]),
            (Tz::Europe__Berlin, "2026-10-23T07:00:00Z", ["2026-10-24 09:00", "2026-10-25 09:00", "2026-10-26 09:00"]),
            (Tz::Pacific__Auckland, "2026-09-25T11:30:00Z", ["2026-09-26 23:30", "2026-09-27 23:30", "2026-09-28 23:30"]),
            (Tz::Europe__Berlin, "2026-03-28T01:30:00Z", ["2026-03-29 03:00", "2026-03-30 02:30", "2026-03-31 02:30"]),
        ] {
            for pattern in ["DAILY", "FREQ=DAILY", "MON,TUE,WED,THU,FRI,SAT,SUN"] {
                assert_eq!(series(pattern, zone, anchor, 3), days, "{pattern} {zone}");
            }
        }
    }

    #[test]
    fn a_series_ends_with_its_count_and_its_last_moment() {
        let anchor = "2026-01-01T09:00:00Z";
        assert_eq!(series("FREQ=DAILY;COUNT=3", Tz::UTC, anchor, 9), ["2026-01-02 09:00", "2026-01-03 09:00"], "the anchor is the first");
        assert_eq!(series("FREQ=DAILY;UNTIL=20260103", Tz::UTC, anchor, 9), ["2026-01-02 09:00", "2026-01-03 09:00"]);
        assert_eq!(series("FREQ=DAILY;UNTIL=20260103T085959", Tz::UTC, anchor, 9), ["2026-01-02 09:00"]);
        // 18:00 in Tokyo: in UTC the end has not come, on its wall it would have.
        assert_eq!(series("FREQ=DAILY;UNTIL=20260102T090000Z", Tz::Asia__Tokyo, anchor, 9), ["2026-01-02 18:00"]);
        assert_eq!(series("FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30", Tz::UTC, anchor, 1), [""; 0], "a rule that no date fits");
    }

    #[test]
    fn a_pattern_that_is_none_and_one_that_cannot_be() {
        assert_eq!((Recurrence::parse(""), Recurrence::parse(" none ")), (Ok(None), Ok(None)));
        for bad in ["HOURLY", "every", "every 0 days", "every 1001 days", "every 2 fridays", "MON;TUE", "someday", ","] {
            assert!(Recurrence::parse(bad).unwrap_err().starts_with(&format!("`{bad}` is no pattern: ")), "{bad}");
        }
        for bad in
            ["FREQ=HOURLY", "FREQ=DAILY;BYHOUR=9", "FREQ=DAILY;UNTIL=soon", "FREQ=DAILY;INTERVAL=x", "FREQ=MONTHLY;BYMONTHDAY=40", "FREQ="]
        {
            assert!(Recurrence::parse(bad).unwrap_err().contains(" is no rule that a task can have: "), "{bad}");
        }
    }

    const PATTERNS: [&str; 8] =
        ["DAILY", "WEEKLY", "MONTHLY", "YEARLY", "WEEKDAYS", "every 5 days", "every 7 months", "FREQ=WEEKLY;BYDAY=TU,SA"];
    const ZONES: [Tz; 5] = [Tz::UTC, Tz::Europe__Berlin, Tz::America__New_York, Tz::Australia__Lord_Howe, Tz::Asia__Kathmandu];

    proptest! {
        /// The next one is after the last, on the anchor's time of day but for gaps, and the same from wherever in between it is asked.
        #[test]
        fn the_next_time_is_later_on_the_same_time_of_day_and_does_not_depend_on_when_it_is_asked(
            pattern in proptest::sample::select(&PATTERNS[..]),
            zone in proptest::sample::select(&ZONES[..]),
            anchor in 0i64..60 * 24 * 800,
            late in 0i64..60 * 24 * 2000,
            part in 0.0f64..1.0,
        ) {
            let rule = rule(pattern);
            let anchor = utc("2024-01-01T00:00:00Z") + TimeDelta::minutes(anchor);
            let after = anchor + TimeDelta::minutes(late);
            let next = rule.next(anchor, after, zone).unwrap();
            prop_assert!(next > after);
            #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "a point between")]
            let between = after + TimeDelta::milliseconds(((next - after).num_milliseconds() as f64 * part * 0.999) as i64);
            prop_assert_eq!(rule.next(anchor, between, zone), Some(next));
            let (wall, was) = (next.with_timezone(&zone), anchor.with_timezone(&zone));
            let gap = (i64::from(wall.num_seconds_from_midnight()) - i64::from(was.num_seconds_from_midnight())).abs();
            prop_assert!(gap <= 3600, "{} after {}", wall, was);
        }
    }
}
