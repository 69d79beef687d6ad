//! Hours in which nobody is to be disturbed, by a clock on the user's wall. Pure.

use std::{fmt, str::FromStr};

use chrono::{DateTime, Days, NaiveTime, Utc};
use chrono_tz::Tz;

use super::at_wall;

/// From one time of day up to another; `22:00-07:00` goes over midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quiet {
    from: NaiveTime,
    to: NaiveTime,
}

impl Quiet {
    /// When the quiet hours end in which `now` lies; `None`: it lies in none. They begin when the clock first shows their beginning and end when it first
    /// shows their end: an hour that the clock repeats or skips makes them longer or shorter.
    pub fn ends(&self, now: DateTime<Utc>, zone: Tz) -> Option<DateTime<Utc>> {
        let today = now.with_timezone(&zone).date_naive();
        // Those that began yesterday or today; a day that a zone skipped whole has them too.
        [today.checked_sub_days(Days::new(1)), Some(today)].into_iter().flatten().find_map(|day| {
            let last = if self.to > self.from { day } else { day.checked_add_days(Days::new(1))? };
            let (begin, end) = (at_wall(day.and_time(self.from), zone)?, at_wall(last.and_time(self.to), zone)?);
            (begin <= now && now < end).then_some(end)
        })
    }
}

impl FromStr for Quiet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let time = |text: &str| NaiveTime::parse_from_str(text.trim(), "%H:%M").ok();
        let (from, to) = text
            .split_once('-')
            .and_then(|(from, to)| Some((time(from)?, time(to)?)))
            .ok_or_else(|| format!("`{text}` are no hours; write them like \"22:00-07:00\""))?;
        if from == to {
            return Err(format!("`{text}` is no time or the whole day; leave it out for none"));
        }
        Ok(Self { from, to })
    }
}

impl fmt::Display for Quiet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.from.format("%H:%M"), self.to.format("%H:%M"))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use chrono::{TimeDelta, TimeZone, Timelike};
    use chrono_tz::TZ_VARIANTS;
    use proptest::{prop_assert, prop_assert_eq, prop_assume, proptest};

    use super::*;

    fn ends(hours: &str, zone: Tz, now: &str) -> Option<String> {
        let quiet: Quiet = hours.parse().unwrap();
        quiet.ends(now.parse().unwrap(), zone).map(|end| end.to_rfc3339())
    }

    #[test]
    fn a_night_goes_over_midnight_and_ends_in_the_morning_of_the_users_wall() {
        let berlin = |now: &str| ends("22:00-07:00", Tz::Europe__Berlin, now);
        assert_eq!(berlin("2026-01-10T20:59:59Z"), None);
        assert_eq!(berlin("2026-01-10T21:00:00Z").unwrap(), "2026-01-11T06:00:00+00:00");
        assert_eq!(berlin("2026-01-11T05:59:59Z").unwrap(), "2026-01-11T06:00:00+00:00");
        assert_eq!(berlin("2026-01-11T06:00:00Z"), None);
        assert_eq!(ends("12:00-13:30", Tz::Asia__Kolkata, "2026-01-10T07:00:00Z").unwrap(), "2026-01-10T08:00:00+00:00");
        assert_eq!(ends("12:00-13:30", Tz::Asia__Kolkata, "2026-01-10T08:00:00Z"), None);
    }

    #[test]
    fn a_night_in_which_the_clock_changes_is_an_hour_shorter_or_longer() {
        let berlin = |now: &str| ends("22:00-07:00", Tz::Europe__Berlin, now).unwrap();
        assert_eq!(berlin("2026-03-28T22:00:00Z"), "2026-03-29T05:00:00+00:00");
        assert_eq!(berlin("2026-10-24T21:00:00Z"), "2026-10-25T06:00:00+00:00");
        // An end that the clock skips is the end of the gap; one that it repeats is the first.
        assert_eq!(ends("22:00-02:30", Tz::Europe__Berlin, "2026-03-28T23:30:00Z").unwrap(), "2026-03-29T01:00:00+00:00");
        assert_eq!(ends("22:00-02:30", Tz::Europe__Berlin, "2026-10-25T00:10:00Z").unwrap(), "2026-10-25T00:30:00+00:00");
    }

    #[test]
    fn hours_that_make_no_sense_are_told() {
        for (text, why) in
            [("22-07", "are no hours"), ("", "are no hours"), ("25:00-07:00", "are no hours"), ("07:00-07:00", "the whole day")]
        {
            assert!(text.parse::<Quiet>().unwrap_err().contains(why), "{text}");
        }
        assert_eq!(" 22:00 - 07:00 ".parse::<Quiet>().unwrap().to_string(), "22:00-07:00");
    }

    proptest! {
        #[test]
        fn quiet_hours_end_later_within_two_days_and_are_over_then(zone in 0..TZ_VARIANTS.len(), now in 0_i64..4_000_000_000, from in 0_u32..1440, to in 0_u32..1440) {
            prop_assume!(from != to);
            let (zone, now) = (TZ_VARIANTS[zone], Utc.timestamp_opt(now, 0).unwrap());
            let time = |minutes: u32| NaiveTime::from_hms_opt(minutes / 60, minutes % 60, 0).unwrap();
            let quiet = Quiet { from: time(from), to: time(to) };
            match quiet.ends(now, zone) {
                Some(end) => {
                    prop_assert!(end > now && end - now <= TimeDelta::hours(48), "{end}");
                    prop_assert_eq!(quiet.ends(end - TimeDelta::seconds(1), zone).filter(|_| end - TimeDelta::seconds(1) >= now), Some(end));
                }
                // By the wall's clock it is no quiet hour, unless the clock was turned by then.
                None => {
                    let wall = now.with_timezone(&zone);
                    let minute = wall.hour() * 60 + wall.minute();
                    let inside = if from < to { (from..to).contains(&minute) } else { minute >= from || minute < to };
                    let offset = |at: DateTime<Utc>| at.with_timezone(&zone).naive_local() - at.naive_utc();
                    let turned = (-48..=48).any(|hours| offset(now + TimeDelta::hours(hours)) != offset(now));
                    prop_assert!(!inside || turned, "{wall} {quiet}");
                }
            }
        }
    }
}
