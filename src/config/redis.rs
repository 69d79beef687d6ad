//! `[store]`: where finished events are remembered.

use std::time::Duration;

use serde::Deserialize;

use super::secret::SecretUrl;

/// `[store]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreConfig {
    /// `redis://..`, `rediss://..`, or `memory`: in-process, bounded, this process only. May carry a password: a secret.
    pub url: SecretUrl,
    /// First part of every key.
    pub prefix: String,
    /// How long a duplicate is recognised.
    #[serde(with = "super::units::duration")]
    pub retention: Duration,
    /// What happens while the store is away.
    pub when_down: WhenDown,
    /// With `bypass`: hold this long first.
    #[serde(with = "super::units::duration")]
    pub bypass_after: Duration,
    /// Whether a Redis that throws keys away when it is full is accepted: finished events can then run twice.
    pub allow_eviction: bool,
}

/// What happens while the store is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenDown {
    /// Nothing is dispatched; polling goes on; nothing is lost.
    Hold,
    /// After `bypass_after`, events run without dedupe.
    Bypass,
}

impl StoreConfig {
    /// The value of `url` that means the in-process store.
    pub const MEMORY: &'static str = "memory";

    /// Whether the store lives in this process alone.
    pub fn is_memory(&self) -> bool {
        self.url == Self::MEMORY
    }
}
