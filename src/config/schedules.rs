//! `[[schedules]]`: what fires when.

use std::time::Duration;

use serde::Deserialize;

use super::secret::SecretUrl;
use crate::calendar::due::CatchUp;

/// One `[[schedules]]` entry.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleConfig {
    /// Unique name.
    pub name: String,
    /// 5 or 6 fields, `@hourly`, `@every 1h`, each also after `CRON_TZ=Area/City `.
    pub cron: String,
    /// IANA zone; a `CRON_TZ=` in `cron` wins.
    #[serde(default = "utc")]
    pub timezone: String,
    /// Type of the event that a tick publishes; default, where there is no `http`: `schedule.ticked`.
    pub event: Option<String>,
    /// Of `event`: whose event it is, and so its key; default: `schedule:<name>`.
    pub user_id: Option<String>,
    /// Or the URL that a tick POSTs to; without a path, an app's, as Dapr's cron binding calls it.
    pub http: Option<SecretUrl>,
    /// Of an app in `http`: the path; default: `/<name>`, and `/bindings/<name>` where that is answered 404.
    pub route: Option<String>,
    /// Of `http`: longest wait for an answer.
    #[serde(default = "thirty_seconds", with = "super::units::duration")]
    pub timeout: Duration,
    /// Of `http`: what happens to ticks while another one runs.
    #[serde(default)]
    pub overlap: Overlap,
    /// What happens to ticks that nobody was there for.
    #[serde(default)]
    pub catch_up: CatchUp,
    /// Each tick fires up to this much later, by its own chance, the same on every replica.
    #[serde(default, with = "super::units::duration")]
    pub jitter: Duration,
}

/// What happens to ticks while another one of the same schedule runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Overlap {
    /// They do not fire.
    #[default]
    Skip,
    /// They fire beside it.
    Allow,
}

impl ScheduleConfig {
    /// Type of the event of a schedule that names neither `event` nor `http`.
    pub const EVENT: &'static str = "schedule.ticked";

    /// The event that a tick publishes; `None`: it POSTs.
    pub fn event(&self) -> Option<&str> {
        match (&self.event, &self.http) {
            (Some(event), _) => Some(event),
            (None, None) => Some(Self::EVENT),
            (None, Some(_)) => None,
        }
    }
}

fn thirty_seconds() -> Duration {
    Duration::from_secs(30)
}

fn utc() -> String {
    "UTC".to_owned()
}
