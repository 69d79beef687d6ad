//! `[handlers.reminder]`: keys of handlers of kind `reminder`.

use std::time::Duration;

use serde::Deserialize;

/// The types that schedule, move and remove reminders.
pub const CAUSES: [&str; 5] = ["reminder.scheduled", "reminder.cancelled", "task.updated", "task.completed", "task.deleted"];

/// One `[handlers.reminder]`, below its `[[handlers]]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReminderConfig {
    /// How long removed and fired reminders, and moved due dates, are kept: for events that come late, and for due dates that move on.
    #[serde(default = "one_day", with = "super::units::duration")]
    pub remember: Duration,
}

impl Default for ReminderConfig {
    fn default() -> Self {
        Self { remember: one_day() }
    }
}

fn one_day() -> Duration {
    Duration::from_secs(24 * 3600)
}
