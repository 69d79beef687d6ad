//! Who has which points, and how many days in a row. Pure.

use serde::{Deserialize, Serialize};

/// Runs of days that are remembered; the oldest go.
const MOST_RUNS: usize = 8;

/// Points for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    pub(super) reason: String,
    pub(super) points: u32,
}

/// What a streak is worth.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bonus {
    /// For each day of the streak before this one.
    pub(super) per_day: u32,
    /// Of which at most so many count, this one included.
    pub(super) most_days: u32,
}

/// What one event was worth.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Award {
    pub(super) points: i64,
    /// The user's points after it.
    pub(super) total: i64,
    /// Days in a row that end with the event's; `None`: its day does not count.
    pub(super) streak_days: Option<u32>,
    /// What makes up the points.
    pub(super) parts: Vec<Part>,
}

/// A user's account.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Player {
    total: i64,
    /// First and last day of each unbroken run, oldest first. A late event joins two runs that its day lay between.
    runs: Vec<(i32, i32)>,
}

impl Player {
    pub(super) fn total(&self) -> i64 {
        self.total
    }

    /// Adds what an event earns: its parts, and the bonus where it is the first of its day.
    pub(super) fn award(&mut self, mut parts: Vec<Part>, day: Option<i32>, bonus: Bonus) -> Award {
        let streak = day.map(|day| self.note(day));
        if let Some((days, true)) = streak {
            let points = bonus.per_day.saturating_mul(days.min(bonus.most_days).saturating_sub(1));
            if points > 0 {
                parts.push(Part { reason: "streak".to_owned(), points });
            }
        }
        let points = parts.iter().map(|part| i64::from(part.points)).sum();
        self.total = self.total.saturating_add(points);
        Award { points, total: self.total, streak_days: streak.map(|(days, _)| days), parts }
    }

    /// Notes that something was done on that day; answers how many days in a row end with it, and whether it is news.
    fn note(&mut self, day: i32) -> (u32, bool) {
        let streak = |first: i32| u32::try_from(day - first + 1).unwrap_or(1);
        if let Some((first, _)) = self.runs.iter().find(|(first, last)| (*first..=*last).contains(&day)) {
            return (streak(*first), false);
        }
        let touches = |(first, last): &(i32, i32)| day + 1 >= *first && day - 1 <= *last;
        let joined = self.runs.iter().filter(|run| touches(run)).fold((day, day), |(first, last), run| (first.min(run.0), last.max(run.1)));
        self.runs.retain(|run| !touches(run));
        let place = self.runs.partition_point(|run| run.1 < joined.0);
        self.runs.insert(place, joined);
        if self.runs.len() > MOST_RUNS {
            self.runs.remove(0);
        }
        (streak(joined.0), true)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const BONUS: Bonus = Bonus { per_day: 2, most_days: 7 };

    fn ten() -> Vec<Part> {
        vec![Part { reason: "task_completed".to_owned(), points: 10 }]
    }

    fn points(player: &mut Player, day: i32) -> (i64, Option<u32>) {
        let award = player.award(ten(), Some(day), BONUS);
        (award.points, award.streak_days)
    }

    #[test]
    fn the_first_of_each_day_in_a_row_earns_more_up_to_a_limit() {
        let mut player = Player::default();
        let days: Vec<_> = (100..110).map(|day| points(&mut player, day)).collect();
        let expected = [10, 12, 14, 16, 18, 20, 22, 22, 22, 22];
        assert!(days.iter().copied().eq(expected.into_iter().zip(1..).map(|(points, days)| (points, Some(days)))), "{days:?}");
        assert_eq!(points(&mut player, 109), (10, Some(10)), "the second of a day");
        assert_eq!(points(&mut player, 111), (10, Some(1)), "after a day without");
        assert_eq!(player.total(), expected.iter().sum::<i64>() + 20);
    }

    #[test]
    fn a_late_event_earns_the_streak_of_its_own_day_and_joins_what_it_lies_between() {
        let mut player = Player::default();
        for day in [100, 101, 103] {
            points(&mut player, day);
        }
        assert_eq!(points(&mut player, 102), (14, Some(3)));
        assert_eq!(points(&mut player, 104), (18, Some(5)));
        assert_eq!(player.runs, [(100, 104)]);
    }

    #[test]
    fn a_day_that_does_not_count_earns_no_streak_and_breaks_none() {
        let mut player = Player::default();
        points(&mut player, 100);
        let award = player.award(ten(), None, BONUS);
        assert_eq!((award.points, award.streak_days), (10, None));
        assert_eq!(points(&mut player, 101), (12, Some(2)));
    }

    proptest! {
        #[test]
        fn runs_are_the_days_that_were_noted_whatever_their_order(days in prop::collection::vec(0..12_i32, 0..40)) {
            let mut player = Player::default();
            let mut seen = BTreeSet::new();
            for day in days {
                let news = seen.insert(day);
                let streak = (0..=day).rev().take_while(|day| seen.contains(day)).count();
                prop_assert_eq!(player.note(day), (u32::try_from(streak).unwrap_or(0), news));
                let held: BTreeSet<_> = player.runs.iter().flat_map(|(first, last)| *first..=*last).collect();
                prop_assert_eq!(&held, &seen);
                prop_assert!(player.runs.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0), "apart and in order: {:?}", player.runs);
            }
        }

        #[test]
        fn the_total_is_the_sum_of_the_awards_and_an_account_stays_small(days in prop::collection::vec(prop::option::of(-1000..1000_i32), 0..100)) {
            let mut player = Player::default();
            let mut sum = 0;
            for day in days {
                let award = player.award(ten(), day, BONUS);
                sum += award.points;
                prop_assert_eq!((award.total, player.total()), (sum, sum));
                prop_assert_eq!(award.points, award.parts.iter().map(|part| i64::from(part.points)).sum::<i64>());
                prop_assert!((10..=22).contains(&award.points));
                prop_assert!(player.runs.len() <= MOST_RUNS);
            }
        }
    }
}
