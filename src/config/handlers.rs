//! `[[handlers]]` and `[[schedules]]`: who reacts to what, and what fires when.

use std::time::Duration;

use serde::Deserialize;

use super::secret::SecretUrl;

/// One `[[handlers]]` entry.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HandlerConfig {
    /// Unique name: metric label, part of every retry and dead letter.
    pub name: String,
    /// Which kind, and the keys of that kind.
    pub kind: HandlerKind,
    /// Type patterns, aliases match too; default: every type.
    #[serde(default = "every_type")]
    pub events: Vec<String>,
    /// Of `http`: where events are POSTed.
    pub url: Option<SecretUrl>,
    /// Of `http`: an app whose routes are read from `/dapr/subscribe`.
    pub discover: Option<SecretUrl>,
    /// Of `http`: Dapr's exact answer table.
    #[serde(default)]
    pub strict_dapr: bool,
    /// Of `http`: what the body is.
    #[serde(default)]
    pub body: HttpBody,
    /// Longest run; past it the run counts as transiently failed.
    #[serde(default = "thirty_seconds", with = "super::units::duration")]
    pub timeout: Duration,
    /// Runs of this handler at once; default: `engine.concurrency`.
    pub concurrency: Option<usize>,
}

/// The kinds of handler that configuration can bind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HandlerKind {
    /// One log line per event, without its payload.
    Log,
    /// Delivery to an app.
    Http,
}

/// What the `http` handler sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HttpBody {
    /// The stored CloudEvent, or one made around the event.
    #[default]
    Cloudevent,
    /// The event itself at the top level, in the shape it was published in.
    Event,
}

/// One `[[schedules]]` entry.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleConfig {
    /// Unique name.
    pub name: String,
    /// 5 or 6 fields, `@hourly`, `@every 1h`.
    pub cron: String,
    /// IANA zone.
    #[serde(default = "utc")]
    pub timezone: String,
    /// The event that a tick publishes.
    pub event: Option<String>,
    /// Or the URL that a tick POSTs to.
    pub http: Option<SecretUrl>,
}

fn every_type() -> Vec<String> {
    vec!["*".to_owned()]
}

fn thirty_seconds() -> Duration {
    Duration::from_secs(30)
}

fn utc() -> String {
    "UTC".to_owned()
}
