//! One schedule: when it is due, and what each tick is called.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::target::Target;
use crate::{
    calendar::{
        cron::Cron,
        due::{CatchUp, Due, due},
    },
    config::schedules::{Overlap, ScheduleConfig},
    event::ids,
};

/// A schedule as configured.
#[derive(Debug)]
pub struct Entry {
    /// Its name.
    pub name: Arc<str>,
    /// When it is due.
    pub cron: Cron,
    /// What becomes of missed ticks.
    pub catch_up: CatchUp,
    /// Whether a tick is skipped while another one runs.
    pub exclusive: bool,
    jitter: Duration,
    target: Option<Target>,
}

impl Entry {
    /// Reads the entry's times. It has nothing to fire yet.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(config: &ScheduleConfig) -> Result<Self, String> {
        Ok(Self {
            name: config.name.as_str().into(),
            cron: Cron::parse(&config.cron, &config.timezone)?,
            catch_up: config.catch_up,
            exclusive: config.http.is_some() && config.overlap == Overlap::Skip,
            jitter: config.jitter,
            target: None,
        })
    }

    pub(super) fn aimed_at(self, target: Target) -> Self {
        Self { target: Some(target), ..self }
    }

    pub(super) fn target(&self) -> Option<&Target> {
        self.target.as_ref()
    }

    /// The tick's id: the same on every replica, so that whatever it causes is recognised when it comes twice.
    pub fn id(&self, tick: DateTime<Utc>) -> Uuid {
        ids::of_tick(&self.name, tick)
    }

    /// When the tick is to be fired: up to the jitter after its time, by the chance that its id holds, so the same on every replica.
    pub fn due_at(&self, tick: DateTime<Utc>) -> DateTime<Utc> {
        let [.., a, b, c, d] = *self.id(tick).as_bytes();
        let part = f64::from(u32::from_be_bytes([a, b, c, d])) / (f64::from(u32::MAX) + 1.0);
        tick + TimeDelta::from_std(self.jitter.mul_f64(part)).unwrap_or_default()
    }

    /// When the next tick after `cursor` is to be fired.
    pub fn next_due(&self, cursor: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.cron.next_after(cursor).map(|tick| self.due_at(tick))
    }

    /// What is due at `now` of the ticks after `cursor`, and the cursor behind it; `None`: nothing yet.
    pub fn plan(&self, cursor: DateTime<Utc>, now: DateTime<Utc>) -> Option<(Due, DateTime<Utc>)> {
        let next = self.cron.next_after(cursor)?;
        let until = now - (self.due_at(next) - next);
        (next <= until).then(|| (due(&self.cron, cursor, until, self.catch_up), until))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::time::Duration;

    use chrono::TimeDelta;

    use super::Entry;
    use crate::{calendar::due::CatchUp, config::schedules::ScheduleConfig};

    #[test]
    fn jitter_moves_a_tick_by_its_own_chance_and_not_by_the_replicas() {
        let config = ScheduleConfig {
            name: "a".to_owned(),
            cron: "@hourly".to_owned(),
            timezone: "UTC".to_owned(),
            event: None,
            user_id: None,
            http: None,
            route: None,
            timeout: Duration::from_secs(30),
            overlap: crate::config::schedules::Overlap::Skip,
            catch_up: CatchUp::Skip,
            jitter: Duration::from_secs(600),
        };
        let (one, two) = (Entry::new(&config).unwrap(), Entry::new(&config).unwrap());
        let start = "2026-01-01T00:00:00Z".parse().unwrap();
        let ticks: Vec<_> = std::iter::successors(one.cron.next_after(start), |tick| one.cron.next_after(*tick)).take(100).collect();
        let moved: Vec<_> = ticks.iter().map(|tick| one.due_at(*tick) - *tick).collect();
        assert!(ticks.iter().all(|tick| one.due_at(*tick) == two.due_at(*tick)));
        assert!(moved.iter().all(|by| *by >= TimeDelta::zero() && *by < TimeDelta::seconds(600)));
        assert!(moved.iter().any(|by| *by < TimeDelta::seconds(120)) && moved.iter().any(|by| *by > TimeDelta::seconds(480)), "spread");
        // Not due before it is, and planned when it is.
        let due = one.due_at(ticks[0]);
        assert_eq!(one.plan(start, due - TimeDelta::milliseconds(1)), None);
        assert_eq!(one.plan(start, due).unwrap().0.fire, [ticks[0]]);
    }
}
