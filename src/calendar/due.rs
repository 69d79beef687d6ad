//! Which ticks fire now, after whatever absence: the catch-up policies.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;

use super::cron::Cron;

/// A tick that is no older is late; an older one was missed.
pub const GRACE: Duration = Duration::from_secs(60);

/// Most ticks that [`CatchUp::All`] fires of one absence, the newest ones.
pub const MOST: usize = 100;

/// Most ticks of one absence that are counted.
const COUNTED: usize = 1000;

/// What happens to ticks that were missed because nobody was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CatchUp {
    /// They are gone. The latest still fires where it is at most [`GRACE`] late.
    #[default]
    Skip,
    /// The latest fires, however late.
    Once,
    /// Each fires, oldest first; of more than [`MOST`] the newest.
    All,
}

/// What is to be done about the ticks up to now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Due {
    /// To be fired, oldest first.
    pub fire: Vec<DateTime<Utc>>,
    /// Ticks that passed and do not fire; of a long absence at most some hundreds are counted.
    pub skipped: usize,
}

/// What is due of the ticks after `cursor` up to `now`, both inclusive of `now`.
pub fn due(cron: &Cron, cursor: DateTime<Utc>, now: DateTime<Utc>, policy: CatchUp) -> Due {
    let mut passed = newest(cron, cursor, now);
    let keep = match policy {
        CatchUp::Skip => usize::from(passed.last().is_some_and(|latest| (now - latest).to_std().is_ok_and(|late| late <= GRACE))),
        CatchUp::Once => usize::from(!passed.is_empty()),
        CatchUp::All => passed.len().min(MOST),
    };
    let fire = passed.split_off(passed.len() - keep);
    Due { fire, skipped: passed.len() }
}

/// The newest ticks after `cursor` up to `now`, ascending: all, or else at least [`MOST`]. Looks back in steps, so that an absence of years costs
/// no more than one of minutes.
fn newest(cron: &Cron, cursor: DateTime<Utc>, now: DateTime<Utc>) -> Vec<DateTime<Utc>> {
    let mut window = TimeDelta::from_std(GRACE).unwrap_or_default();
    loop {
        let from = cursor.max(now - window);
        let ticks: Vec<_> =
            std::iter::successors(cron.next_after(from), |tick| cron.next_after(*tick)).take_while(|tick| *tick <= now).collect();
        if from == cursor || ticks.len() >= COUNTED {
            let surplus = ticks.len().saturating_sub(COUNTED);
            return ticks[surplus..].to_vec();
        }
        window = window * 2;
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use chrono::{DateTime, TimeDelta, Utc};
    use proptest::prelude::*;

    use super::{CatchUp, Due, MOST, due};
    use crate::calendar::cron::Cron;

    fn utc(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn after(cron: &str, cursor: &str, now: &str, policy: CatchUp) -> (Vec<String>, usize) {
        let Due { fire, skipped } = due(&Cron::parse(cron, "UTC").unwrap(), utc(cursor), utc(now), policy);
        (fire.iter().map(|tick| tick.format("%dT%H:%M:%S").to_string()).collect(), skipped)
    }

    #[test]
    fn without_an_absence_the_tick_of_now_fires_under_every_policy() {
        for policy in [CatchUp::Skip, CatchUp::Once, CatchUp::All] {
            let fired = after("@hourly", "2026-01-01T09:00:00Z", "2026-01-01T10:00:00.004Z", policy);
            assert_eq!(fired, (vec!["01T10:00:00".to_owned()], 0));
            assert_eq!(after("@hourly", "2026-01-01T10:00:00Z", "2026-01-01T10:59:59Z", policy), (vec![], 0));
        }
    }

    #[test]
    fn after_an_absence_missed_ticks_are_skipped_caught_up_once_or_all() {
        let run = |policy, now| after("@hourly", "2026-01-01T09:00:00Z", now, policy);
        assert_eq!(run(CatchUp::Skip, "2026-01-01T12:30:00Z"), (vec![], 3));
        assert_eq!(run(CatchUp::Skip, "2026-01-01T12:01:00Z"), (vec!["01T12:00:00".to_owned()], 2), "a minute late is late, not missed");
        assert_eq!(run(CatchUp::Once, "2026-01-01T12:30:00Z"), (vec!["01T12:00:00".to_owned()], 2));
        let all = ["01T10:00:00", "01T11:00:00", "01T12:00:00"].map(str::to_owned).to_vec();
        assert_eq!(run(CatchUp::All, "2026-01-01T12:30:00Z"), (all, 0));
    }

    #[test]
    fn catching_up_is_bounded_also_after_years() {
        let (fired, skipped) = after("* * * * * *", "2016-01-01T00:00:00Z", "2026-01-01T00:00:00Z", CatchUp::All);
        assert_eq!((fired.len(), fired.first().unwrap().as_str(), fired.last().unwrap().as_str()), (MOST, "31T23:58:21", "01T00:00:00"));
        assert!(skipped >= MOST);
        assert_eq!(after("0 0 29 2 *", "2016-03-01T00:00:00Z", "2026-01-01T00:00:00Z", CatchUp::Once), (vec!["29T00:00:00".to_owned()], 1));
    }

    proptest! {
        /// However an absence is cut into pieces, `all` fires each tick exactly once.
        #[test]
        fn nothing_is_fired_twice_or_lost_however_often_it_is_asked(minutes in proptest::collection::vec(1i64..200, 1..10)) {
            let cron = Cron::parse("*/5 * * * *", "Europe/Berlin").unwrap();
            let start = utc("2026-10-24T22:00:00Z");
            let (mut cursor, mut now, mut fired) = (start, start, Vec::new());
            for step in minutes {
                now += TimeDelta::minutes(step);
                let due = due(&cron, cursor, now, CatchUp::All);
                cursor = due.fire.last().copied().unwrap_or(cursor);
                fired.extend(due.fire);
            }
            let expected: Vec<_> = std::iter::successors(cron.next_after(start), |tick| cron.next_after(*tick)).take_while(|tick| *tick <= now).collect();
            prop_assert_eq!(fired, expected);
        }
    }
}
