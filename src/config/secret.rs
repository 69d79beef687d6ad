//! Text that no log, error or page may show.

use std::{fmt, ops::Deref};

use serde::Deserialize;

/// What stands in place of a secret.
pub const MASK: &str = "***";

/// Names of librdkafka properties whose value is a secret, whichever table they stand in.
pub const SECRET_PROPERTIES: &[&str] = &[
    "sasl.password",
    "ssl.key.password",
    "ssl.key.pem",
    "ssl.keystore.password",
    "ssl.truststore.password",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.client.credentials.client.secret",
    "sasl.jaas.config",
    "sasl.oauthbearer.config",
    "sasl.oauthbearer.assertion.private.key.passphrase",
    "sasl.oauthbearer.assertion.private.key.pem",
];

/// A token or the like: shown nowhere, read by [`Secret::expose`] where it is used.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether none is set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "\"\"" } else { MASK })
    }
}

/// A URL that may carry a user and a password.
///
/// Derefs to the whole text for whoever connects; [`SecretUrl::masked`] and `Debug` leave the password out. There is no
/// `Display`, so that it cannot reach a log line by accident.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct SecretUrl(String);

impl SecretUrl {
    /// Wraps a URL.
    pub fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// The URL with its password masked: for logs and errors.
    pub fn masked(&self) -> String {
        mask_userinfo(&self.0)
    }
}

impl Deref for SecretUrl {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl PartialEq<str> for SecretUrl {
    fn eq(&self, other: &str) -> bool {
        self.0 == other
    }
}

impl PartialEq<&str> for SecretUrl {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.masked())
    }
}

/// The text with the user's part of each URL in it masked: `redis://app:pw@host` becomes `redis://app:***@host`, and
/// `http://token@host` becomes `http://***@host`. Text without `://..@` is unchanged.
pub fn mask_userinfo(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("://") {
        let (before, authority) = rest.split_at(start + 3);
        masked.push_str(before);
        // A password may hold `/`, `?` or `#` unescaped; the last `@` before white space or a quote ends it.
        let end = authority.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'')).unwrap_or(authority.len());
        match authority[..end].rfind('@') {
            Some(at) => {
                if let Some((user, _)) = authority[..at].split_once(':') {
                    masked.push_str(user);
                    masked.push(':');
                }
                masked.push_str(MASK);
                masked.push_str(&authority[at..end]);
            }
            None => masked.push_str(&authority[..end]),
        }
        rest = &authority[end..];
    }
    masked.push_str(rest);
    masked
}

/// Whether the value of that librdkafka property is a secret.
pub fn is_secret_property(name: &str) -> bool {
    SECRET_PROPERTIES.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::{Secret, SecretUrl, mask_userinfo};

    #[test]
    fn a_secret_is_not_in_its_debug_text() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "***");
        assert_eq!(format!("{:?}", Secret::default()), "\"\"");
        assert_eq!(format!("{:?}", SecretUrl::new("redis://app:hunter2@db:6379/0")), "\"redis://app:***@db:6379/0\"");
    }

    #[test]
    fn a_url_shows_its_user_and_host_and_never_its_password() {
        assert_eq!(mask_userinfo("redis://localhost:6379/0"), "redis://localhost:6379/0");
        assert_eq!(mask_userinfo("redis://:hunter2@db/0"), "redis://:***@db/0");
        assert_eq!(mask_userinfo("http://hunter2@app/x"), "http://***@app/x");
        assert_eq!(mask_userinfo("http://a:p@q/r#s@app/x?mail=no"), "http://a:***@app/x?mail=no");
        assert_eq!(mask_userinfo("see http://a:b@c and http://d:e@f"), "see http://a:***@c and http://d:***@f");
        assert_eq!(mask_userinfo("user@host"), "user@host");
    }
}
