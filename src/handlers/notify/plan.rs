//! Whether a message goes out now, or when it does. Pure.

use std::time::Duration;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;

use crate::calendar::quiet::Quiet;

/// What puts messages of a handler off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Manners {
    /// Messages of one user in any `window`; 0: no limit.
    pub(super) rate: usize,
    pub(super) window: Duration,
    /// How long a message waits for others; zero: not at all.
    pub(super) digest: Duration,
    /// When nobody is disturbed, by the user's own clock.
    pub(super) quiet: Option<Quiet>,
}

impl Manners {
    /// When a message is due that could go out at `now`, or at `free` where the user has had as many as the rate allows. `None`: at once.
    pub(super) fn due(&self, now: DateTime<Utc>, free: Option<DateTime<Utc>>, zone: Tz) -> Option<DateTime<Utc>> {
        let waited = now + self.digest;
        let due = free.map_or(waited, |free| free.max(waited));
        let due = self.quiet.and_then(|quiet| quiet.ends(due, zone)).unwrap_or(due);
        (due > now).then_some(due)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use chrono::TimeDelta;
    use chrono_tz::TZ_VARIANTS;
    use proptest::{option, prop_assert, prop_assert_eq, proptest};

    use super::*;

    fn manners(digest: u64, quiet: Option<&str>) -> Manners {
        Manners {
            rate: 2,
            window: Duration::from_secs(3600),
            digest: Duration::from_secs(digest),
            quiet: quiet.map(|hours| hours.parse().unwrap()),
        }
    }

    fn utc(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn a_message_waits_for_others_for_its_turn_and_for_the_morning() {
        let (day, night) = (utc("2026-01-10T12:00:00Z"), utc("2026-01-10T23:00:00Z"));
        let due = |manners: Manners, now, free| manners.due(now, free, Tz::Europe__Berlin);
        let quiet = Some("22:00-07:00");
        assert_eq!(due(manners(0, quiet), day, None), None);
        assert_eq!(due(manners(900, quiet), day, None), Some(utc("2026-01-10T12:15:00Z")));
        assert_eq!(due(manners(0, quiet), night, None), Some(utc("2026-01-11T06:00:00Z")));
        assert_eq!(due(manners(0, None), day, Some(utc("2026-01-10T12:40:00Z"))), Some(utc("2026-01-10T12:40:00Z")));
        let evening = utc("2026-01-10T20:55:00Z");
        assert_eq!(due(manners(900, quiet), evening, None), Some(utc("2026-01-11T06:00:00Z")), "a digest that would come at night");
        assert_eq!(due(manners(0, quiet), evening, Some(utc("2026-01-10T21:30:00Z"))), Some(utc("2026-01-11T06:00:00Z")));
        assert_eq!(due(manners(0, None), day, Some(utc("2026-01-10T11:00:00Z"))), None, "its turn has come");
    }

    proptest! {
        #[test]
        fn what_is_put_off_is_due_after_all_that_puts_it_off(zone in 0..TZ_VARIANTS.len(), now in 0_i64..4_000_000_000, digest in 0_u64..10_000, free in option::of(0_i64..10_000), quiet: bool) {
            let (zone, now) = (TZ_VARIANTS[zone], DateTime::from_timestamp(now, 0).unwrap());
            let manners = manners(digest, quiet.then_some("22:00-07:00"));
            let free = free.map(|seconds| now + TimeDelta::seconds(seconds));
            match manners.due(now, free, zone) {
                None => prop_assert!(digest == 0 && free.is_none_or(|free| free <= now) && manners.quiet.and_then(|quiet| quiet.ends(now, zone)).is_none()),
                Some(due) => {
                    prop_assert!(due > now && due >= now + manners.digest && free.is_none_or(|free| due >= free));
                    prop_assert_eq!(manners.quiet.and_then(|quiet| quiet.ends(due, zone)), None, "never into the night");
                    prop_assert!(due - now <= TimeDelta::seconds(20_000) + TimeDelta::hours(49), "and not for ever");
                }
            }
        }
    }
}
