//! `[handlers.security]`: which logins are suspicious.

use std::time::Duration;

use serde::Deserialize;

use super::secret::Secret;

/// `[handlers.security]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SecurityConfig {
    /// What addresses and devices are hashed with. A secret; without it, `app_id`, which others may know.
    pub key: Secret,
    /// Which rules are in force. Default: all.
    pub rules: Vec<String>,
    /// What counts as at once. Default 10 minutes.
    #[serde(with = "super::units::duration")]
    pub window: Duration,
    /// Failed logins of one user in a window that are too many. Default 5.
    pub user_failures: u32,
    /// Failed logins from one address in a window that are too many. Default 20.
    pub address_failures: u32,
    /// Users from one address in a window that are too many. Default 10.
    pub address_users: u32,
    /// Logins of one user in a window that nobody makes. Default 20.
    pub user_logins: u32,
    /// How long a device or network is known after it was seen last. Default 90 days.
    #[serde(with = "super::units::duration")]
    pub remember: Duration,
}

/// Every rule.
pub const RULES: [&str; 6] = ["new_device", "new_network", "user_failures", "address_failures", "address_users", "user_logins"];

impl Default for SecurityConfig {
    fn default() -> Self {
        Self {
            key: Secret::default(),
            rules: RULES.map(str::to_owned).to_vec(),
            window: Duration::from_secs(600),
            user_failures: 5,
            address_failures: 20,
            address_users: 10,
            user_logins: 20,
            remember: Duration::from_secs(90 * 24 * 3600),
        }
    }
}
