//! `[retry]`: backoff schedules by event type or pattern.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;

/// `[retry]`: `default` and any number of types or patterns; the most specific wins, and a field not given comes from `default`.
/// A loaded configuration always has a `default` with both fields.
#[derive(Debug, Clone, Deserialize)]
#[serde(transparent)]
pub struct RetryConfig(pub BTreeMap<String, RetryRule>);

/// One `[retry."<type or pattern>"]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetryRule {
    /// Delays before each retry; empty: no retry.
    #[serde(default, with = "super::units::durations")]
    pub delays: Option<Vec<Duration>>,
    /// Part of the delay that chance may add or take, 0 to 0.1.
    pub jitter: Option<f64>,
}
