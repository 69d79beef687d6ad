//! `[retry]`: backoff schedules by event type or pattern.

use std::collections::BTreeMap;

use serde::Deserialize;

/// `[retry]`: `default` and any number of types or patterns; a field not given comes from `default`.
#[derive(Debug, Clone, Deserialize)]
#[serde(transparent)]
pub struct RetryConfig(pub BTreeMap<String, RetryRule>);

/// One `[retry."<type or pattern>"]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetryRule {
    /// Delays before each retry, such as `"30s"`; empty: no retry.
    pub delays: Option<Vec<String>>,
    /// Part of the delay that chance may add or take, 0 to 0.1.
    pub jitter: Option<f64>,
}
