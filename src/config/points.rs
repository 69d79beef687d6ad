//! `[handlers.points]`: what is awarded for what.

use serde::Deserialize;

/// `[handlers.points]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PointsConfig {
    /// For each event. Default 10.
    pub points: u32,
    /// More for the first event of a day, for each day of the streak before it. Default 2.
    pub streak_bonus: u32,
    /// Days of a streak that count, at most. Default 7.
    pub streak_days: u32,
    /// Users on the leaderboard of `/stats`; 0: none. Default 10.
    pub top: usize,
    /// More for some events.
    pub rules: Vec<PointsRule>,
}

/// One `[[handlers.points.rules]]` entry.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PointsRule {
    /// A CEL expression about `event`, with `id`, `type`, `user_id`, `time` and `data`; where it cannot be told of an event, it does not hold.
    #[serde(rename = "match")]
    pub condition: String,
    /// How many.
    pub points: u32,
    /// What for, as `points.awarded` tells it.
    pub reason: String,
}

impl Default for PointsConfig {
    fn default() -> Self {
        Self { points: 10, streak_bonus: 2, streak_days: 7, top: 10, rules: Vec::new() }
    }
}
