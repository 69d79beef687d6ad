//! `[engine]`, `[dlq]`, `[catalog]`: limits of the engine, where the dead go, what an event may look like.

use std::{path::PathBuf, time::Duration};

use serde::Deserialize;

/// `[engine]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineConfig {
    /// Handler runs at once.
    pub concurrency: usize,
    /// Held events, in bytes.
    #[serde(with = "size")]
    pub memory: u64,
    /// Events of one user kept whole in memory; later ones wait as stubs.
    pub lane_events: usize,
    /// Time for runs in flight at shutdown and revoke.
    #[serde(with = "duration")]
    pub drain_timeout: Duration,
    /// Settled to committed, at most.
    #[serde(with = "duration")]
    pub commit_interval: Duration,
    /// For a group with no commit.
    pub start_at: StartAt,
    /// Of one user behind a failing event; beyond it the backlog goes to the DLQ.
    pub max_held_events: u64,
    /// As `max_held_events`, by age of the hold.
    #[serde(with = "duration")]
    pub max_hold_age: Duration,
    /// What happens beyond either.
    pub on_overflow: OnOverflow,
}

/// For a group with no commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StartAt {
    /// From the oldest record kept.
    Earliest,
    /// From the records to come.
    Latest,
}

/// What happens to a user's backlog beyond `max_held_events` or `max_hold_age`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnOverflow {
    /// To the DLQ in order, `user_overflow`.
    Dlq,
    /// The partition is held until the failing event settles.
    PausePartition,
}

/// `[dlq]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DlqConfig {
    /// The topic.
    pub topic: String,
    /// Part of recent settlements that may be dead before dead-lettering stops.
    pub breaker_ratio: f64,
    /// URL told of dead letters, rate limited; empty: none. A secret.
    pub alert_webhook: String,
}

/// `[catalog]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CatalogConfig {
    /// Folder of `topics.yaml` and `events/*.yaml`; where the default folder is missing, the embedded catalogue is used.
    pub dir: PathBuf,
    /// What happens to a type that the catalogue does not know.
    pub unknown_type: UnknownType,
    /// Whether `data` is checked against its schema when consumed.
    pub validate: bool,
}

/// What happens to a type that the catalogue does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnknownType {
    /// To the DLQ, `unknown_type`.
    Dlq,
    /// Settled as dropped, counted.
    Skip,
}

/// Durations as people write them: `"30s"`, `"1h 30m"`.
pub mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, de::Error};

    /// Reads `"30s"`.
    ///
    /// # Errors
    /// Where the text is no duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(from)?;
        humantime::parse_duration(&text)
            .map_err(|error| D::Error::custom(format!("`{text}` is no duration ({error}); write it like \"30s\" or \"5m\"")))
    }
}

/// Sizes as people write them: `"256MiB"`, `"64KiB"`, `"1000"` bytes.
pub mod size {
    use serde::{Deserialize, Deserializer, de::Error};

    /// Reads `"256MiB"`.
    ///
    /// # Errors
    /// Where the text is no size.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        let text = String::deserialize(from)?;
        parse(&text).ok_or_else(|| D::Error::custom(format!("`{text}` is no size; write it like \"256MiB\"")))
    }

    /// Bytes of `"256MiB"`; units B, KiB, MiB, GiB, kB, MB, GB.
    pub fn parse(text: &str) -> Option<u64> {
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let scale: u64 = match unit.trim() {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "kB" | "KB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            _ => return None,
        };
        number.parse::<u64>().ok()?.checked_mul(scale)
    }
}
