//! When something is due: cron entries, recurring tasks, time zones, what is caught up after an absence. Pure: time is an argument.

pub mod cron;
pub mod due;
pub mod quiet;
pub mod recurrence;

use chrono::{DateTime, LocalResult, NaiveDateTime, TimeZone, Utc};
use chrono_tz::{GapInfo, TZ_VARIANTS, Tz};

/// The IANA zone of that name.
///
/// # Errors
/// What is wrong with it, with the nearest name that there is.
pub fn zone(name: &str) -> Result<Tz, String> {
    name.parse().map_err(|_| {
        let likeness = |zone: &Tz| strsim::jaro_winkler(&name.to_ascii_lowercase(), &zone.name().to_ascii_lowercase());
        let nearest = TZ_VARIANTS.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b))).filter(|zone| likeness(zone) > 0.8);
        let hint = nearest.map_or_else(|| "write it like \"Europe/Berlin\"".to_owned(), |zone| format!("did you mean \"{zone}\"?"));
        format!("`{name}` is no time zone; {hint}")
    })
}

/// The moment at which a clock on the wall of that zone shows `wall`: of an hour that the clock repeats the first one, of an hour that it
/// skips the end of the gap. Never goes back as `wall` goes on. `None` beyond the calendar.
pub fn at_wall(wall: NaiveDateTime, zone: Tz) -> Option<DateTime<Utc>> {
    match zone.from_local_datetime(&wall) {
        LocalResult::Single(at) | LocalResult::Ambiguous(at, _) => Some(at.to_utc()),
        LocalResult::None => GapInfo::new(&wall, &zone)?.end.map(|end| end.to_utc()),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use chrono_tz::Tz;

    use super::{at_wall, zone};

    fn at(zone: Tz, wall: &str) -> String {
        at_wall(wall.parse().unwrap(), zone).unwrap().to_rfc3339()
    }

    #[test]
    fn a_skipped_time_is_the_end_of_the_gap_and_a_repeated_one_the_first() {
        assert_eq!(at(Tz::Europe__Berlin, "2026-03-29T01:59:59"), "2026-03-29T00:59:59+00:00");
        assert_eq!(at(Tz::Europe__Berlin, "2026-03-29T02:30:00"), "2026-03-29T01:00:00+00:00");
        assert_eq!(at(Tz::Europe__Berlin, "2026-03-29T03:00:00"), "2026-03-29T01:00:00+00:00");
        assert_eq!(at(Tz::Europe__Berlin, "2026-10-25T02:30:00"), "2026-10-25T00:30:00+00:00");
        // Half an hour only, and a whole day.
        assert_eq!(at(Tz::Australia__Lord_Howe, "2026-10-04T02:15:00"), "2026-10-03T15:30:00+00:00");
        assert_eq!(at(Tz::Pacific__Apia, "2011-12-30T12:00:00"), "2011-12-30T10:00:00+00:00");
    }

    #[test]
    fn a_zone_that_does_not_exist_is_told_with_the_nearest_one() {
        assert_eq!(zone("Europe/Berlin"), Ok(Tz::Europe__Berlin));
        assert_eq!(zone("europe/berlin"), Err("`europe/berlin` is no time zone; did you mean \"Europe/Berlin\"?".to_owned()));
        assert_eq!(zone("Europe/Belrin"), Err("`Europe/Belrin` is no time zone; did you mean \"Europe/Berlin\"?".to_owned()));
        assert_eq!(zone("12345"), Err("`12345` is no time zone; write it like \"Europe/Berlin\"".to_owned()));
    }
}
