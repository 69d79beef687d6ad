//! `[sync]`: the feed of each user's events for browsers.

use std::time::Duration;

use serde::Deserialize;

use super::secret::Secret;

/// `[sync]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyncConfig {
    /// Address of `GET /sync/{user_id}`, in the consumer role; empty: off.
    pub listen: String,
    /// What tokens are signed with: HMAC-SHA256, at least 32 bytes.
    pub secret: Secret,
    /// Where pages that may read it come from: `https://app.example.com`, or `*`.
    pub origins: Vec<String>,
    /// The topic whose events are told.
    pub topic: String,
    /// How far back a client that was away can take up again.
    #[serde(with = "super::units::duration")]
    pub history: Duration,
    /// The same in bytes, over all users; what is older is forgotten first.
    #[serde(with = "super::units::size")]
    pub memory: u64,
    /// Clients at once.
    pub max_connections: usize,
}

impl SyncConfig {
    /// Whether there is a feed.
    pub fn is_on(&self) -> bool {
        !self.listen.is_empty()
    }
}
