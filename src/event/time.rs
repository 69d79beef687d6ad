//! Timestamps as producers write them, to UTC.

use chrono::{DateTime, Datelike, FixedOffset, NaiveDate, SecondsFormat, TimeDelta, Utc};

/// Reads an RFC 3339 time, and what Python's and JavaScript's standard libraries write besides: a space for the `T`, no seconds, an
/// offset without colon, no offset at all (then it is UTC), a date alone (then it is midnight). `None` for anything else.
pub fn parse(text: &str) -> Option<DateTime<Utc>> {
    let (date, rest) = text.as_bytes().split_first_chunk::<10>()?;
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = *date else { return None };
    let day = NaiveDate::from_ymd_opt(i32::try_from(digits(&[y1, y2, y3, y4])?).ok()?, digits(&[m1, m2])?, digits(&[d1, d2])?)?;
    let Some((separator, rest)) = rest.split_first() else {
        return Some(day.and_hms_opt(0, 0, 0)?.and_utc());
    };
    if !matches!(separator, b'T' | b't' | b' ') {
        return None;
    }
    let (clock, rest) = rest.split_first_chunk::<5>()?;
    let [h1, h2, b':', m1, m2] = *clock else { return None };
    let (hour, minute) = (digits(&[h1, h2])?, digits(&[m1, m2])?);
    let (second, nanos, rest) = match rest {
        [b':', s1, s2, rest @ ..] => {
            let (nanos, rest) = fraction(rest)?;
            (digits(&[*s1, *s2])?, nanos, rest)
        }
        [b':', ..] => return None,
        rest => (0, 0, rest),
    };
    // A leap second is the last second of its minute: no clock here counts it.
    let local = day.and_hms_nano_opt(hour, minute, second.min(59), nanos)?;
    if second > 60 {
        return None;
    }
    let utc = if matches!(rest, [] | [b'Z' | b'z']) { Some(local) } else { local.checked_sub_signed(offset(rest)?) };
    utc.map(|utc| utc.and_utc()).filter(in_calendar)
}

/// Four digits of year: what can be written so that it is read again.
fn in_calendar(time: &DateTime<Utc>) -> bool {
    (0..=9999).contains(&time.year())
}

/// The form that this worker writes: RFC 3339 in UTC with `Z`, as many decimals as are needed.
pub fn format(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// A record's timestamp, milliseconds since 1970; the epoch where it has none or one that no calendar knows.
pub fn of_record(millis: Option<i64>) -> DateTime<Utc> {
    millis.filter(|millis| *millis >= 0).and_then(DateTime::from_timestamp_millis).filter(in_calendar).unwrap_or_default()
}

fn digits(bytes: &[u8]) -> Option<u32> {
    bytes.iter().try_fold(0, |sum: u32, byte| byte.is_ascii_digit().then(|| sum * 10 + u32::from(byte - b'0')))
}

/// `.123456` to nanoseconds; what is finer is cut off.
fn fraction(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let Some(rest) = bytes.strip_prefix(b".").or_else(|| bytes.strip_prefix(b",")) else {
        return Some((0, bytes));
    };
    let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let kept = digits(rest.get(..count.min(9)).filter(|kept| !kept.is_empty())?)?;
    let scale = 10_u32.pow(9 - u32::try_from(count.min(9)).ok()?);
    Some((kept * scale, &rest[count..]))
}

fn offset(bytes: &[u8]) -> Option<TimeDelta> {
    let (sign, clock) = match bytes {
        [b'+', clock @ ..] => (1, clock),
        [b'-', clock @ ..] => (-1, clock),
        _ => return None,
    };
    let (hours, minutes) = match clock {
        [_, _] => (digits(clock)?, 0),
        [_, _, b':', minutes @ ..] if minutes.len() == 2 => (digits(&clock[..2])?, digits(minutes)?),
        [_, _, _, _] => (digits(&clock[..2])?, digits(&clock[2..])?),
        _ => return None,
    };
    let seconds = i32::try_from(hours * 3600 + minutes * 60).ok().filter(|_| minutes < 60)?;
    FixedOffset::east_opt(sign * seconds).map(|offset| TimeDelta::seconds(i64::from(offset.local_minus_utc())))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::{format, parse};

    #[test]
    fn every_form_that_producers_write_is_one_instant() {
        for text in [
            "2025-12-31T09:00:00Z",
            "2025-12-31T09:00:00",
            "2025-12-31 09:00:00",
            "2025-12-31T09:00Z",
            "2025-12-31T10:00:00+01:00",
            "2025-12-31T14:30:00+0530",
            "2025-12-31t04:00:00.000-05",
        ] {
            assert_eq!(format(parse(text).unwrap()), "2025-12-31T09:00:00Z", "{text}");
        }
        assert_eq!(format(parse("2025-12-31T09:00:00.123456").unwrap()), "2025-12-31T09:00:00.123456Z");
        assert_eq!(format(parse("2025-12-31").unwrap()), "2025-12-31T00:00:00Z");
        assert_eq!(format(parse("2016-12-31T23:59:60Z").unwrap()), "2016-12-31T23:59:59Z");
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in [
            "",
            "yesterday",
            "1767171600",
            "2025-13-01T00:00:00Z",
            "2025-12-31T24:00:00Z",
            "2025-12-31T09",
            "2025-12-31T09:00:00.Z",
            "2025-12-31T09:00:61Z",
            "2025-12-31T09:00:00+99:00",
            "2025-12-31T09:00:00 UTC",
            "29/12/2025",
            "9999-12-31T23:00:00-05:00",
            "２０２５-12-31",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
