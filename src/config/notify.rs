//! `[handlers.notify]`: how users are told.

use std::time::Duration;

use serde::Deserialize;

use super::secret::{Secret, SecretUrl};

/// The keys of a `notify` handler's own.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NotifyConfig {
    /// `smtp://[user:password@]host[:587]`, encrypted by STARTTLS unless `?tls=none` or `?tls=opportunistic`; `smtps://` from the first byte.
    pub smtp: Option<SecretUrl>,
    /// Of `smtp`: the sender, `Todo <todo@example.com>`.
    pub from: Option<String>,
    /// Of `smtp`: a template of the recipient's address; where it comes out empty, the directory's `email`.
    #[serde(default = "address_of_event")]
    pub to: String,
    /// Instead of `smtp`: a URL that is POSTed to.
    #[serde(default)]
    pub webhook: Secret,
    /// Of `webhook`: what requests are signed with; empty: they are not.
    #[serde(default)]
    pub webhook_secret: Secret,
    /// Of `webhook`: a second signature, while its receiver changes from one secret to the next.
    #[serde(default)]
    pub webhook_old_secret: Secret,
    /// Who a user is: a URL with `{user_id}` that answers with `email`, `timezone` and `locale` as JSON.
    pub directory: Option<SecretUrl>,
    /// A folder of templates; the built-in ones for what it lacks.
    pub templates: Option<String>,
    /// Messages of one user in any `rate_window`, later ones wait; 0: no limit.
    #[serde(default)]
    pub rate: usize,
    /// Of `rate`.
    #[serde(default = "one_hour", with = "super::units::duration")]
    pub rate_window: Duration,
    /// How long a message waits for others, to go out as one; zero: not at all.
    #[serde(default, with = "super::units::duration")]
    pub digest: Duration,
    /// `22:00-07:00` by the user's own clock: what comes then waits until they end. The directory's `quiet_hours` go before.
    pub quiet: Option<String>,
    /// Types or patterns of what never waits.
    #[serde(default = "security")]
    pub urgent: Vec<String>,
    /// The zone of users of whom neither the directory nor the event tells one.
    #[serde(default = "utc")]
    pub timezone: String,
}

impl NotifyConfig {
    /// What it reacts to where `events` does not say.
    pub const EVENTS: [&'static str; 4] = ["task.created", "task.completed", "reminder.due", "security.alert"];

    /// Whether messages are ever put off.
    pub fn puts_off(&self) -> bool {
        self.rate > 0 || !self.digest.is_zero() || self.quiet.is_some()
    }

    /// Whether requests go to a webhook, and not mails to a server.
    pub fn is_webhook(&self) -> bool {
        !self.webhook.is_empty()
    }
}

fn address_of_event() -> String {
    "{{ data.email }}".to_owned()
}

fn one_hour() -> Duration {
    Duration::from_secs(3600)
}

fn security() -> Vec<String> {
    vec!["security.*".to_owned()]
}

fn utc() -> String {
    "UTC".to_owned()
}
