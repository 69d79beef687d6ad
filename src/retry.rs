//! Backoff schedules: (attempt, failure) to the next delay, or exhausted. Pure.

use std::{collections::HashMap, fmt, time::Duration};

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
            Some(after) => scaled(after, 1.0 + self.jitter * rng.f64()).min(self.max_delay()),
            None => scaled(*nominal, 1.0 + self.jitter * (2.0 * rng.f64() - 1.0)),
        })
    }

    /// The longest delay without jitter; zero where there is no retry.
    pub fn max_delay(&self) -> Duration {
        self.delays.iter().max().copied().unwrap_or_default()
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

fn scaled(delay: Duration, factor: f64) -> Duration {
    Duration::try_from_secs_f64(delay.as_secs_f64() * factor).unwrap_or(Duration::MAX)
}

/// A due time as it was read back, made believable: neither in the past nor later than the schedule can have meant. Milliseconds on one
/// clock. A corrupt value, another unit or a clock that jumped delays an event by its schedule's longest, not by years.
pub fn clamp_due(persisted_ms: u64, now_ms: u64, max_delay: Duration) -> u64 {
    let longest = u64::try_from(max_delay.as_millis()).unwrap_or(u64::MAX);
    persisted_ms.clamp(now_ms, now_ms.saturating_add(longest.saturating_add(longest / 10)))
}
