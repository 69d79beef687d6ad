//! Watches the engine at work and tells what it sees until something has happened.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use anyhow::{anyhow, bail};
use tokio::{sync::mpsc, time::timeout};

use super::{
    app::{Ran, TROUBLE},
    observed::Observed,
    story::{Mark, Story},
};
use crate::retry::Schedules;

/// Between two looks at the counters.
const LOOK: Duration = Duration::from_millis(10);
/// The tour gives up on what has not happened after this long.
const PATIENCE: Duration = Duration::from_secs(15);

/// Who sees and tells.
pub(super) struct Stage {
    pub(super) story: Story,
    pub(super) observed: Observed,
    schedules: Schedules,
    runs: mpsc::Receiver<Ran>,
    /// Users whose runs are told one by one; `None`: all.
    only: Option<&'static str>,
    first_failed: HashMap<String, Instant>,
}

impl Stage {
    pub(super) fn new(story: Story, observed: Observed, schedules: Schedules, runs: mpsc::Receiver<Ran>) -> Self {
        Self { story, observed, schedules, runs, only: None, first_failed: HashMap::new() }
    }

    /// From now on tells that user's runs alone.
    pub(super) fn follow(&mut self, only: Option<&'static str>) {
        self.only = only;
    }

    /// Watches until `enough`, which `what` names.
    pub(super) async fn until(&mut self, what: &str, enough: impl Fn(&Observed) -> bool) -> anyhow::Result<()> {
        let end = Instant::now() + PATIENCE;
        while !enough(&self.observed) {
            if Instant::now() > end {
                bail!("{what}: not seen within {} s", PATIENCE.as_secs());
            }
            self.watch(LOOK).await?;
        }
        Ok(())
    }

    /// Watches for that long.
    pub(super) async fn watch(&mut self, time: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + time;
        // The time is up: the ordinary end.
        while let Ok(ran) = timeout(end.saturating_duration_since(Instant::now()), self.runs.recv()).await {
            let ran = ran.ok_or_else(|| anyhow!("the engine let go of its handler"))?;
            self.take(ran);
        }
        Ok(())
    }

    fn take(&mut self, ran: Ran) {
        if self.only.is_none_or(|only| *only == ran.user) {
            self.tell(&ran);
        }
        self.observed.runs.push(ran);
    }

    fn tell(&mut self, ran: &Ran) {
        let (mark, text) = if ran.failed {
            self.first_failed.entry(ran.id.clone()).or_insert(ran.at);
            (Mark::Failed, format!("run {} failed: {TROUBLE}; {}", ran.attempt, self.next(ran)))
        } else if let Some(first) = self.first_failed.get(&ran.id) {
            let since = ran.at.saturating_duration_since(*first).as_millis();
            (Mark::Done, format!("handled at run {}, {since} ms after it first failed", ran.attempt))
        } else {
            (Mark::Done, "handled".to_owned())
        };
        self.story.event(mark, ran.at, &ran.user, &ran.event_type, &text);
    }

    /// What the schedule says after that failure.
    fn next(&self, ran: &Ran) -> String {
        let failures = usize::try_from(ran.attempt).unwrap_or(usize::MAX);
        self.schedules
            .schedule_for(&ran.event_type)
            .delays()
            .get(failures.saturating_sub(1))
            .map_or_else(|| "its schedule is used up".to_owned(), |delay| format!("again in about {}", humantime::format_duration(*delay)))
    }
}
