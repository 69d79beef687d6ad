//! `[handlers.analytics]`: how long figures are kept, and how late an event may come.

use std::time::Duration;

use serde::Deserialize;

/// `[handlers.analytics]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AnalyticsConfig {
    /// How long a day's figures are kept. Default 90 days.
    #[serde(with = "super::units::duration")]
    pub keep: Duration,
    /// How long after its end a day is still added to; its events are known for as long. Default 8 days.
    #[serde(with = "super::units::duration")]
    pub late: Duration,
}

impl Default for AnalyticsConfig {
    fn default() -> Self {
        Self { keep: 90 * DAY, late: 8 * DAY }
    }
}

const DAY: Duration = Duration::from_secs(24 * 3600);
