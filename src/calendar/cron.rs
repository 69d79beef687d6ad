//! Cron entries: text to the moments at which it is due, in a zone whose clock skips and repeats hours.
//!
//! | clock change | the hour or minute field begins with `*` | both are plain |
//! |---|---|---|
//! | skips an hour | its ticks do not exist | due once, at the first moment after the gap |
//! | repeats an hour | due in both | due in the first one alone |
//!
//! So `0 * * * *` is due every 60 minutes and `30 2 * * *` once a day, on every day of the year. The rule is Vixie cron's.
//! `@every` knows no clock: its ticks are multiples of the interval since 1970-01-01T00:00:00Z, the same on every machine.

use std::{fmt, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use croner::{
    Cron as Pattern,
    parser::{CronParser, Seconds, Year},
};

use super::{at_wall, zone};

/// Shortest interval of `@every`: more often is no schedule.
const SHORTEST: Duration = Duration::from_secs(1);

/// Names of whole entries, as Vixie cron and robfig/cron have them.
const NAMES: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// A cron entry in its zone.
#[derive(Debug, Clone)]
pub struct Cron {
    text: String,
    cadence: Cadence,
    zone: Tz,
}

#[derive(Debug, Clone)]
enum Cadence {
    /// A multiple of so many milliseconds.
    Every(i64),
    /// Whenever a clock shows it.
    Clock(Box<Pattern>),
    /// At a time of the day, once each.
    Times(Box<Pattern>),
}

impl Cron {
    /// Reads 5 fields, 6 (seconds first), a name such as `@hourly`, or `@every 1h30m`; before it may stand `CRON_TZ=Area/City `, which wins over
    /// `timezone`. Fields take lists, ranges, steps, names of months and days, `?`, `L`, `W` and `#`; Sunday is 0 or 7.
    ///
    /// # Errors
    /// What is wrong, also where no moment ever fits.
    pub fn parse(text: &str, timezone: &str) -> Result<Self, String> {
        let whole = text.trim();
        let (prefix, entry) = match whole.strip_prefix("CRON_TZ=").or_else(|| whole.strip_prefix("TZ=")) {
            Some(rest) => rest.split_once(char::is_whitespace).ok_or_else(|| format!("`{whole}` ends after the zone"))?,
            None => (timezone, whole),
        };
        let (zone, entry) = (zone(prefix)?, entry.trim());
        let cadence = match entry.strip_prefix("@every") {
            Some(interval) => every(interval.trim())?,
            None => fields(entry)?,
        };
        let cron = Self { text: entry.to_owned(), cadence, zone };
        match cron.next_after(DateTime::UNIX_EPOCH + TimeDelta::days(365 * 50)) {
            Some(_) => Ok(cron),
            None => Err(format!("`{entry}` is never due: no date fits it")),
        }
    }

    /// The zone whose clock counts.
    pub fn zone(&self) -> Tz {
        self.zone
    }

    /// The first tick after `time`; `None` where the calendar ends. Whole seconds, but for `@every` with a fraction of one.
    pub fn next_after(&self, time: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match &self.cadence {
            Cadence::Every(interval) => {
                let next = (time.timestamp_millis().div_euclid(*interval) + 1).checked_mul(*interval)?;
                DateTime::from_timestamp_millis(next)
            }
            Cadence::Clock(pattern) => {
                let next = pattern.find_next_occurrence(&time.with_timezone(&self.zone), false).ok()?;
                // The search counts in whole seconds from one that may have a fraction.
                Some(next.to_utc()).filter(|next| *next > time)
            }
            Cadence::Times(pattern) => {
                let mut wall = time.with_timezone(&self.zone).naive_local();
                loop {
                    wall = pattern.find_next_occurrence(&wall, false).ok()?;
                    let next = at_wall(wall, self.zone)?;
                    // Of a repeated hour the second pass shows times that were due in the first.
                    if next > time {
                        return Some(next);
                    }
                }
            }
        }
    }
}

impl fmt::Display for Cron {
    /// The entry without its zone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn every(interval: &str) -> Result<Cadence, String> {
    let wrong = || format!("`@every {interval}` has no interval; write it like \"@every 1h30m\"");
    let length = humantime::parse_duration(interval).map_err(|_| wrong())?;
    if length < SHORTEST {
        return Err(format!("`@every {interval}` is more often than once a second"));
    }
    let millis = i64::try_from(length.as_millis()).ok().filter(|millis| *millis < i64::MAX / 2).ok_or_else(wrong)?;
    Ok(Cadence::Every(millis))
}

fn fields(entry: &str) -> Result<Cadence, String> {
    let named = NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(entry)).map(|(_, fields)| *fields);
    let fields: Vec<&str> = named.unwrap_or(entry).split_whitespace().collect();
    if named.is_none() && entry.starts_with('@') {
        let names: Vec<_> = NAMES.iter().map(|(name, _)| *name).collect();
        return Err(format!("`{entry}` is no name of a schedule: {}, @every 1h", names.join(", ")));
    }
    let clock = match fields.as_slice() {
        [minute, hour, _, _, _] | [_, minute, hour, _, _, _] => minute.starts_with('*') || hour.starts_with('*'),
        _ => return Err(format!("`{entry}` has {} fields; cron has 5, or 6 with seconds first, or a name such as @hourly", fields.len())),
    };
    let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
    let pattern = parser.parse(&fields.join(" ")).map_err(|error| format!("`{entry}` is no cron entry: {}", told(&error.to_string())))?;
    let pattern = Box::new(pattern);
    Ok(if clock { Cadence::Clock(pattern) } else { Cadence::Times(pattern) })
}

/// The parser's words without the kind of error before them and the dot after.
fn told(error: &str) -> &str {
    let error = error.split_once(": ").map_or(error, |(_, rest)| rest);
    error.trim_end_matches('.')
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use chrono::{DateTime, TimeDelta, Timelike, Utc};
    use proptest::prelude::*;

    use super::Cron;

    fn utc(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    /// The next ticks after a moment, in UTC, without the date's common part.
    fn ticks(cron: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
        let cron = Cron::parse(cron, zone).unwrap();
        std::iter::successors(cron.next_after(utc(after)), |tick| cron.next_after(*tick))
            .take(count)
            .map(|tick| tick.format("%m-%dT%H:%M:%S").to_string())
            .collect()
    }

    #[test]
    fn five_fields_six_fields_names_and_intervals_are_understood() {
        let after = "2026-01-01T00:00:00Z";
        for (cron, expected) in [
            ("0 * * * *", "01-01T01:00:00"),
            ("*/10 * * * * *", "01-01T00:00:10"),
            ("30 15 9 * * mon-fri", "01-01T09:15:30"),
            ("0 9 * JAN,jul 7", "01-04T09:00:00"),
            ("0 0 L * *", "01-31T00:00:00"),
            ("0 12 ? * 5#2", "01-09T12:00:00"),
            ("0 0 15W 2 *", "02-16T00:00:00"),
            ("0 0 29 2 *", "02-29T00:00:00"),
            ("@hourly", "01-01T01:00:00"),
            ("@Daily", "01-02T00:00:00"),
            ("@midnight", "01-02T00:00:00"),
            ("@weekly", "01-04T00:00:00"),
            ("@monthly", "02-01T00:00:00"),
            ("@annually", "01-01T00:00:00"),
            ("@every 1h30m", "01-01T01:30:00"),
            ("@every 90s", "01-01T00:01:30"),
            ("CRON_TZ=Europe/Berlin 0 9 * * *", "01-01T08:00:00"),
            ("TZ=Asia/Kolkata 0 9 * * *", "01-01T03:30:00"),
        ] {
            assert_eq!(ticks(cron, "UTC", after, 1), [expected], "{cron}");
        }
    }

    #[test]
    fn an_entry_that_cannot_be_is_told_with_the_reason() {
        for (cron, reason) in [
            ("", "`` has 0 fields; cron has 5, or 6 with seconds first, or a name such as @hourly"),
            ("* * * *", "`* * * *` has 4 fields; cron has 5, or 6 with seconds first, or a name such as @hourly"),
            ("0 0 1 1 * 2026 *", "`0 0 1 1 * 2026 *` has 7 fields; cron has 5, or 6 with seconds first, or a name such as @hourly"),
            ("@every", "`@every ` has no interval; write it like \"@every 1h30m\""),
            ("@every soon", "`@every soon` has no interval; write it like \"@every 1h30m\""),
            ("@every 500ms", "`@every 500ms` is more often than once a second"),
            ("CRON_TZ=UTC", "`CRON_TZ=UTC` ends after the zone"),
            ("CRON_TZ=Europe/Belrin 0 0 * * *", "`Europe/Belrin` is no time zone; did you mean \"Europe/Berlin\"?"),
            ("0 0 30 2 *", "`0 0 30 2 *` is never due: no date fits it"),
        ] {
            assert_eq!(Cron::parse(cron, "UTC").unwrap_err(), reason, "{cron}");
        }
        for cron in ["60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8", "a b c d e", "*/0 * * * *", "5-1 * * * *"] {
            let error = Cron::parse(cron, "UTC").unwrap_err();
            assert!(error.starts_with(&format!("`{cron}` is no cron entry: ")), "{error}");
        }
        assert!(Cron::parse("@fortnightly", "UTC").unwrap_err().starts_with("`@fortnightly` is no name of a schedule: @yearly"));
    }

    #[test]
    fn a_time_of_day_in_the_skipped_hour_is_due_once_right_after_it() {
        let around = "2026-03-28T12:00:00Z";
        assert_eq!(ticks("30 2 * * *", "Europe/Berlin", around, 2), ["03-29T01:00:00", "03-30T00:30:00"]);
        // Twice a day, so no time of the day is lost; twice in the gap is once.
        assert_eq!(ticks("0 2,14 * * *", "Europe/Berlin", around, 3), ["03-28T13:00:00", "03-29T01:00:00", "03-29T12:00:00"]);
        assert_eq!(ticks("15,45 2 * * *", "Europe/Berlin", around, 2), ["03-29T01:00:00", "03-30T00:15:00"]);
    }

    #[test]
    fn a_time_of_day_in_the_repeated_hour_is_due_in_the_first_one_alone() {
        let around = "2026-10-24T12:00:00Z";
        assert_eq!(ticks("30 2 * * *", "Europe/Berlin", around, 2), ["10-25T00:30:00", "10-26T01:30:00"]);
        assert_eq!(ticks("30 2 * * *", "Europe/Berlin", "2026-10-25T01:10:00Z", 1), ["10-26T01:30:00"], "asked in the second pass");
    }

    #[test]
    fn what_follows_the_clock_skips_the_gap_and_is_due_in_both_passes() {
        assert_eq!(ticks("0 * * * *", "Europe/Berlin", "2026-03-28T23:30:00Z", 3), ["03-29T00:00:00", "03-29T01:00:00", "03-29T02:00:00"]);
        assert_eq!(ticks("0 * * * *", "Europe/Berlin", "2026-10-24T23:30:00Z", 3), ["10-25T00:00:00", "10-25T01:00:00", "10-25T02:00:00"]);
        assert_eq!(ticks("*/30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", 1), ["03-30T00:00:00"]);
        assert_eq!(
            ticks("*/30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 5),
            ["10-25T00:00:00", "10-25T00:30:00", "10-25T01:00:00", "10-25T01:30:00", "10-26T01:00:00"]
        );
    }

    #[test]
    fn a_tick_comes_after_the_time_asked_for_also_within_a_second() {
        let cron = Cron::parse("* * * * * *", "UTC").unwrap();
        assert_eq!(cron.next_after(utc("2026-01-01T00:00:00.999Z")), Some(utc("2026-01-01T00:00:01Z")));
        assert_eq!(cron.next_after(utc("2026-01-01T00:00:01Z")), Some(utc("2026-01-01T00:00:02Z")));
    }

    const ENTRIES: [&str; 8] =
        ["30 2 * * *", "0 * * * *", "*/7 * * * *", "0,30 1-3 * * *", "15 */2 * * *", "*/20 30 2 * * *", "@daily", "@every 17m"];
    const ZONES: [&str; 6] = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "America/Santiago"];

    proptest! {
        /// Asked from anywhere between two ticks, the answer is the same tick; and ticks only go forward.
        #[test]
        fn whoever_asks_between_two_ticks_is_told_the_same_next_one(
            entry in proptest::sample::select(&ENTRIES[..]),
            zone in proptest::sample::select(&ZONES[..]),
            minute in 0i64..60 * 24 * 366 * 3,
            part in 0.0f64..1.0,
        ) {
            let cron = Cron::parse(entry, zone).unwrap();
            let from = utc("2025-01-01T00:00:00Z") + TimeDelta::minutes(minute);
            let first = cron.next_after(from).unwrap();
            let second = cron.next_after(first).unwrap();
            prop_assert!(from < first && first < second);
            #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "a point between")]
            let between = first + TimeDelta::milliseconds(((second - first).num_milliseconds() as f64 * part) as i64);
            prop_assert_eq!(cron.next_after(between), Some(second));
        }

        /// Once a day is once a day, whatever the clock does.
        #[test]
        fn a_daily_entry_has_one_tick_for_each_local_day(
            zone in proptest::sample::select(&ZONES[..]), hour in 0u32..24, day in 0i64..1000,
        ) {
            let cron = Cron::parse(&format!("30 {hour} * * *"), zone).unwrap();
            let first = cron.next_after(utc("2025-01-01T00:00:00Z") + TimeDelta::days(day)).unwrap();
            let second = cron.next_after(first).unwrap();
            let days = (second.with_timezone(&cron.zone()).date_naive() - first.with_timezone(&cron.zone()).date_naive()).num_days();
            prop_assert_eq!(days, 1);
            prop_assert_eq!(first.second(), 0);
        }
    }
}
