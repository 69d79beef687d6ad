//! Backoff schedules: (attempt, failure) to the next delay, or exhausted. Pure.

use std::{fmt, time::Duration};

use hashbrown::HashMap;

use crate::{
    config::retry::{RetryConfig, RetryRule},
    event::pattern,
};

/// Most that chance may add to a delay or take from it.
const MOST_JITTER: f64 = 0.1;
const DEFAULT: &str = "default";
const DEFAULT_DELAYS: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(30)];

/// Every schedule of the configuration.
#[derive(Debug, Clone)]
pub struct Schedules {
    default: Schedule,
    exact: HashMap<String, Schedule>,
    /// Most specific first.
    patterns: Vec<Schedule>,
}

/// When an event that failed runs again. k delays are k + 1 runs; none: the first failure is the last.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    name: String,
    delays: Vec<Duration>,
    jitter: f64,
}

/// What follows a failed run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Another run, this much later.
    Delay(Duration),
    /// Every delay was used: to the DLQ.
    Exhausted,
}

impl Schedules {
    /// The schedules of `[retry]`. What a rule does not say comes from `default`; what that does not say is 1 s, 5 s, 30 s with a jitter
    /// of 0.1.
    pub fn new(config: &RetryConfig) -> Self {
        let built_in = Schedule { name: DEFAULT.to_owned(), delays: DEFAULT_DELAYS.to_vec(), jitter: MOST_JITTER };
        let rule = |name: &str, rule: &RetryRule, default: &Schedule| Schedule {
            name: name.to_owned(),
            delays: rule.delays.clone().unwrap_or_else(|| default.delays.clone()),
            jitter: rule.jitter.filter(|jitter| !jitter.is_nan()).unwrap_or(default.jitter).clamp(0.0, MOST_JITTER),
        };
        let default = config.0.get(DEFAULT).map_or_else(|| built_in.clone(), |given| rule(DEFAULT, given, &built_in));
        let (mut exact, mut patterns) = (HashMap::new(), Vec::new());
        for (name, given) in config.0.iter().filter(|(name, _)| *name != DEFAULT) {
            let schedule = rule(name, given, &default);
            if name.ends_with('*') {
                patterns.push(schedule);
            } else {
                exact.insert(name.clone(), schedule);
            }
        }
        // All stars are at the end, so of two patterns that cover a type the longer one says more.
        patterns.sort_by_key(|schedule| std::cmp::Reverse(schedule.name.len()));
        Self { default, exact, patterns }
    }

    /// The schedule of an event type: its own, else the most specific pattern's, else the default one.
    pub fn schedule_for(&self, event_type: &str) -> &Schedule {
        self.exact
            .get(event_type)
            .or_else(|| self.patterns.iter().find(|schedule| pattern::matches(&schedule.name, event_type)))
            .unwrap_or(&self.default)
    }
}

impl Schedule {
    /// What follows a run that failed. `failures`: of this event so far, this one included; never reset, whatever the error.
    /// `after`: a delay that the called side asked for (`Retry-After`); it replaces the schedule's, up to the schedule's longest.
    ///
    /// Chance moves the delay by at most `jitter`, so that events which failed together do not come back together.
    pub fn next(&self, failures: u32, after: Option<Duration>, rng: &mut fastrand::Rng) -> Next {
        let used = usize::try_from(failures.saturating_sub(1)).unwrap_or(usize::MAX);
        let Some(nominal) = self.delays.get(used) else { return Next::Exhausted };
        Next::Delay(match after {
            // Nobody is asked again before the time that it named, unless that lies beyond the longest delay.
            Some(after) => moved(after, self.jitter * rng.f64()).min(self.max_delay()),
            None => moved(*nominal, self.jitter * (2.0 * rng.f64() - 1.0)),
        })
    }

    /// The longest delay without jitter; zero where there is no retry.
    pub fn max_delay(&self) -> Duration {
        self.delays.iter().max().copied().unwrap_or_default()
    }

    /// The delays without jitter, in order.
    pub fn delays(&self) -> &[Duration] {
        &self.delays
    }

    /// Retries after the first run.
    pub fn retries(&self) -> usize {
        self.delays.len()
    }

    /// The type or pattern that it was configured for, or `default`.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for Schedule {
    /// The delays as people write them: `30s,5m,30m`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, delay) in self.delays.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            write!(f, "{}", humantime::format_duration(*delay))?;
        }
        Ok(())
    }
}

/// The delay moved by a part of itself.
fn moved(delay: Duration, part: f64) -> Duration {
    let by = Duration::try_from_secs_f64(delay.as_secs_f64() * part.abs()).unwrap_or(Duration::MAX);
    if part < 0.0 { delay.saturating_sub(by) } else { delay.saturating_add(by) }
}

/// A due time as it was read back, made believable: neither in the past nor later than the schedule can have meant. Milliseconds on one
/// clock. A corrupt value, another unit or a clock that jumped delays an event by its schedule's longest, not by years.
pub fn clamp_due(persisted_ms: u64, now_ms: u64, max_delay: Duration) -> u64 {
    let longest = u64::try_from(max_delay.as_millis()).unwrap_or(u64::MAX);
    persisted_ms.clamp(now_ms, now_ms.saturating_add(longest.saturating_add(longest / 10)))
}

#[cfg(test)]
#[expect(clippy::panic, reason = "tests")]
mod tests {
    use std::time::Duration;

    use proptest::{collection::vec, option, prelude::any, prop_assert, prop_assert_eq, proptest};

    use super::{Next, RetryConfig, RetryRule, Schedule, Schedules, clamp_due};

    const SECOND: Duration = Duration::from_secs(1);

    /// A rule: its name, delays in seconds, jitter.
    type Rule<'a> = (&'a str, Option<&'a [u64]>, Option<f64>);

    fn schedules(rules: &[Rule<'_>]) -> Schedules {
        let rule = |delays: Option<&[u64]>, jitter| RetryRule {
            delays: delays.map(|delays| delays.iter().copied().map(Duration::from_secs).collect()),
            jitter,
        };
        Schedules::new(&RetryConfig(rules.iter().map(|(name, delays, jitter)| ((*name).to_owned(), rule(*delays, *jitter))).collect()))
    }

    fn schedule(delays: Vec<Duration>, jitter: f64) -> Schedule {
        Schedule { name: "test".to_owned(), delays, jitter }
    }

    #[test]
    fn the_most_specific_schedule_wins() {
        let all = schedules(&[
            ("default", Some(&[1]), None),
            ("*", Some(&[2]), None),
            ("task.*", Some(&[3]), None),
            ("task.due.*", Some(&[4]), None),
            ("task.due.soon", Some(&[5]), None),
        ]);
        for (event_type, name, delays) in [
            ("task.due.soon", "task.due.soon", "5s"),
            ("task.due.late", "task.due.*", "4s"),
            ("task.created", "task.*", "3s"),
            ("tasks.created", "*", "2s"),
        ] {
            let schedule = all.schedule_for(event_type);
            assert_eq!((schedule.name(), schedule.to_string().as_str()), (name, delays));
        }
        assert_eq!(schedules(&[("task.*", Some(&[3]), None)]).schedule_for("user.created").name(), "default");
    }

    #[test]
    fn a_field_not_given_comes_from_default() {
        let all = schedules(&[("default", Some(&[1, 2]), Some(0.05)), ("a", None, Some(0.0)), ("b", Some(&[]), None), ("c", None, None)]);
        assert_eq!(all.schedule_for("a"), &Schedule { name: "a".to_owned(), ..schedule(vec![SECOND, 2 * SECOND], 0.0) });
        assert_eq!(all.schedule_for("b"), &Schedule { name: "b".to_owned(), ..schedule(vec![], 0.05) });
        assert_eq!(all.schedule_for("c"), &Schedule { name: "c".to_owned(), ..schedule(vec![SECOND, 2 * SECOND], 0.05) });
        let none = schedules(&[]);
        assert_eq!(
            none.schedule_for("a"),
            &Schedule { name: "default".to_owned(), ..schedule(vec![SECOND, 5 * SECOND, 30 * SECOND], 0.1) }
        );
    }

    #[test]
    fn a_jitter_out_of_bounds_is_brought_back() {
        for (given, used) in [(-1.0, 0.0), (0.5, 0.1), (f64::INFINITY, 0.1), (f64::NAN, 0.1)] {
            assert_eq!(schedules(&[("default", None, Some(given))]).schedule_for("a").jitter, used);
        }
    }

    #[test]
    fn k_delays_are_k_plus_1_runs() {
        let exact = schedule(vec![30 * SECOND, 300 * SECOND, 1800 * SECOND], 0.0);
        let mut rng = fastrand::Rng::with_seed(1);
        let answers: Vec<Next> = (1..=5).map(|failures| exact.next(failures, None, &mut rng)).collect();
        let delays = [30, 300, 1800].map(|seconds| Next::Delay(seconds * SECOND));
        assert_eq!(answers, [&delays[..], &[Next::Exhausted; 2]].concat());
        assert_eq!(schedule(vec![], 0.1).next(1, Some(SECOND), &mut rng), Next::Exhausted);
        assert_eq!(exact.to_string(), "30s,5m,30m");
    }

    proptest! {
        #[test]
        fn jitter_is_at_most_ten_percent_and_zero_is_none(millis in 1..1_u64 << 40, jitter in 0.0..0.1_f64, seed in any::<u64>()) {
            let nominal = Duration::from_millis(millis);
            let mut rng = fastrand::Rng::with_seed(seed);
            let Next::Delay(delay) = schedule(vec![nominal], jitter).next(1, None, &mut rng) else { panic!("exhausted") };
            prop_assert!(delay >= nominal.mul_f64(0.9) && delay <= nominal.mul_f64(1.1), "{:?}", delay);
            let off = schedule(vec![nominal], 0.0).next(1, None, &mut rng);
            prop_assert_eq!(off, Next::Delay(nominal));
        }

        #[test]
        fn a_delay_asked_for_is_kept_up_to_the_longest(delays in vec(0..4_000_u64, 1..5), after in any::<u64>(), seed in any::<u64>()) {
            let schedule = schedule(delays.into_iter().map(Duration::from_secs).collect(), 0.1);
            let mut rng = fastrand::Rng::with_seed(seed);
            for after in [Duration::from_secs(after % 8_000), Duration::from_secs(after), Duration::MAX] {
                let Next::Delay(delay) = schedule.next(1, Some(after), &mut rng) else { panic!("exhausted") };
                prop_assert!(delay >= after.min(schedule.max_delay()) && delay <= schedule.max_delay());
            }
        }

        /// F53: the count alone decides; nothing turns it back.
        #[test]
        fn every_event_is_exhausted_after_its_last_delay(count in 0..12_usize, failures in 1..40_u32, after in option::of(any::<u32>())) {
            let schedule = schedule(vec![SECOND; count], 0.1);
            let after = after.map(|seconds| Duration::from_secs(seconds.into()));
            let next = schedule.next(failures, after, &mut fastrand::Rng::with_seed(1));
            prop_assert_eq!(next == Next::Exhausted, failures as usize > count);
        }

        /// F58, F86.
        #[test]
        fn a_due_time_read_back_is_never_past_nor_far(persisted in any::<u64>(), now in any::<u64>(), max in any::<u64>()) {
            let due = clamp_due(persisted, now, Duration::from_millis(max));
            prop_assert!(due >= now && u128::from(due - now) <= u128::from(max) * 11 / 10);
        }
    }

    /// F58: seconds read as milliseconds, milliseconds as microseconds, nothing, everything.
    #[test]
    fn a_corrupt_due_time_delays_by_the_longest_delay_at_most() {
        let now = 1_700_000_000_000;
        let clamped = |persisted| clamp_due(persisted, now, 30 * SECOND) - now;
        assert_eq!([0, 1_700_000_000, now, now + 5_000, now * 1_000, u64::MAX].map(clamped), [0, 0, 0, 5_000, 33_000, 33_000]);
        assert_eq!(clamp_due(u64::MAX, now, Duration::ZERO), now);
    }

    #[test]
    fn a_delay_beyond_all_time_is_no_overflow() {
        let schedule = schedule(vec![Duration::MAX], 0.1);
        for seed in 0..20 {
            let next = schedule.next(1, None, &mut fastrand::Rng::with_seed(seed));
            assert!(matches!(next, Next::Delay(delay) if delay > Duration::MAX / 2));
        }
        assert_eq!(clamp_due(u64::MAX, 1, Duration::MAX), u64::MAX);
    }
}
