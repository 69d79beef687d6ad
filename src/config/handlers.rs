//! `[[handlers]]`: who reacts to what.

use std::time::Duration;

use serde::Deserialize;

use super::{
    analytics::AnalyticsConfig,
    audit::AuditConfig,
    notify::NotifyConfig,
    points::PointsConfig,
    reminder::{self, ReminderConfig},
    secret::{Secret, SecretUrl},
    security::SecurityConfig,
};

/// One `[[handlers]]` entry.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HandlerConfig {
    /// Unique name: metric label, part of every retry and dead letter.
    pub name: String,
    /// Which kind, and the keys of that kind.
    pub kind: HandlerKind,
    /// Type patterns, aliases match too; default: what the kind reacts to ([`HandlerConfig::events`]).
    pub events: Option<Vec<String>>,
    /// Of `forward`: the topic that gets a copy of each event.
    pub to: Option<String>,
    /// Of `analytics`: how long figures are kept.
    pub analytics: Option<AnalyticsConfig>,
    /// Of `audit`: where records are kept, and what of events.
    pub audit: Option<AuditConfig>,
    /// Of `points`: what is awarded.
    pub points: Option<PointsConfig>,
    /// Of `security`: which logins are suspicious.
    pub security: Option<SecurityConfig>,
    /// Of `recurrence` and `points`: the zone of users whose events name none. Of `analytics`: whose days are counted.
    #[serde(default = "utc")]
    pub timezone: String,
    /// Of `recurrence`: what the next time is counted from.
    #[serde(default)]
    pub repeat_from: RepeatFrom,
    /// Of `reminder`: `[handlers.reminder]`.
    pub reminder: Option<ReminderConfig>,
    /// Of `notify`: how users are told.
    pub notify: Option<NotifyConfig>,
    /// Of `http`: where events are POSTed.
    pub url: Option<SecretUrl>,
    /// Of `http`: an app whose routes are read from `/dapr/subscribe`.
    pub discover: Option<SecretUrl>,
    /// Of `discover`: how often the routes are read again; SIGHUP reads them at once.
    #[serde(default = "one_minute", with = "super::units::duration")]
    pub discover_every: Duration,
    /// Of `discover`: what the app is sent as `dapr-api-token`; also `APP_API_TOKEN`.
    #[serde(default)]
    pub api_token: Secret,
    /// Of `discover`: routes that the app does not tell itself. What it tells for a topic replaces the entry.
    #[serde(default)]
    pub routes: Vec<RouteConfig>,
    /// Of `http`: Dapr's exact answer table.
    #[serde(default)]
    pub strict_dapr: bool,
    /// Of `http`: what the body is.
    #[serde(default)]
    pub body: HttpBody,
    /// Longest run; past it the run counts as transiently failed.
    #[serde(default = "thirty_seconds", with = "super::units::duration")]
    pub timeout: Duration,
    /// Runs of this handler at once; default: `engine.concurrency`, of `notify` 10.
    pub concurrency: Option<usize>,
}

impl HandlerConfig {
    /// Type patterns: the configured ones, else what the kind reacts to.
    pub fn events(&self) -> Vec<&str> {
        match &self.events {
            Some(events) => events.iter().map(String::as_str).collect(),
            None => self.kind.reacts_to().to_vec(),
        }
    }

    /// The topic that it writes what are no events of its own to.
    pub fn writes_to(&self) -> Option<&String> {
        self.to.as_ref().or_else(|| self.audit.as_ref()?.topic.as_ref())
    }
}

/// One `[[handlers.routes]]` entry: a subscription, as an app would tell it at `/dapr/subscribe`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// What is read.
    pub topic: String,
    /// The app's name for the brokers: the header `pubsubname`.
    #[serde(default)]
    pub pubsub: String,
    /// Where events go that no rule takes; none: they are dropped, or go to `dead_letter_topic`.
    pub path: Option<String>,
    /// Asked in order; the first that holds decides.
    #[serde(default)]
    pub rules: Vec<RuleConfig>,
    /// Takes this topic's dead letters instead of `dlq.topic`.
    pub dead_letter_topic: Option<String>,
    /// The value is opaque bytes, sent inside a CloudEvent's `data_base64`.
    #[serde(default)]
    pub raw_payload: bool,
    /// Many users' events in one request.
    #[serde(default)]
    pub bulk: bool,
    /// Of `bulk`: most events in one request.
    #[serde(default = "eighty")]
    pub bulk_events: usize,
    /// Of `bulk`: longest wait for others.
    #[serde(default = "hundred_millis", with = "super::units::duration")]
    pub bulk_wait: Duration,
}

/// One `[[handlers.routes.rules]]` entry.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleConfig {
    /// A CEL expression about `event`, the CloudEvent; empty: always.
    #[serde(rename = "match")]
    pub condition: String,
    /// Where the event goes then.
    pub path: String,
}

/// The kinds of handler that configuration can bind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HandlerKind {
    /// One log line per event, without its payload.
    Log,
    /// Delivery to an app.
    Http,
    /// A copy on another topic.
    Forward,
    /// The next occurrence of a recurring task.
    Recurrence,
    /// Reminders, published when they are due.
    Reminder,
    /// A mail, or a request to a webhook, for the event's user.
    Notify,
    /// Points for completed tasks.
    Points,
    /// A record of each event that shows when it is removed.
    Audit,
    /// Figures by day.
    Analytics,
    /// Alerts for suspicious logins.
    Security,
}

/// What an `analytics` handler counts.
const COUNTED: [&str; 10] = [
    "task.created",
    "task.completed",
    "user.logged_in",
    "points.awarded",
    "recurring.triggered",
    "reminder.sent",
    "reminder.failed",
    "notification.delivered",
    "notification.failed",
    "notification.bounced",
];

impl HandlerKind {
    /// The types that it handles where `events` is not given.
    pub fn reacts_to(self) -> &'static [&'static str] {
        match self {
            Self::Log | Self::Http | Self::Forward => &["*"],
            Self::Recurrence | Self::Points => &["task.completed"],
            Self::Reminder => &reminder::CAUSES,
            Self::Notify => &NotifyConfig::EVENTS,
            Self::Audit => &["task.deleted"],
            Self::Analytics => &COUNTED,
            Self::Security => &["user.logged_in"],
        }
    }

    /// The type that it publishes itself, and so must not react to.
    pub fn causes(self) -> Option<&'static str> {
        match self {
            Self::Points => Some("points.awarded"),
            Self::Security => Some("security.alert"),
            _ => None,
        }
    }
}

/// What a recurring task's next time is counted from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RepeatFrom {
    /// When it was due: every Monday stays every Monday.
    #[default]
    Due,
    /// When it was done: every three days are three days of rest.
    Completion,
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

fn utc() -> String {
    "UTC".to_owned()
}

fn one_minute() -> Duration {
    Duration::from_secs(60)
}

fn eighty() -> usize {
    80
}

fn hundred_millis() -> Duration {
    Duration::from_millis(100)
}

fn thirty_seconds() -> Duration {
    Duration::from_secs(30)
}
