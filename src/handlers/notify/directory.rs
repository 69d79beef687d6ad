//! Who a user is: asked of the directory, remembered for a minute.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use reqwest::{Client, StatusCode, Url};
use serde::Deserialize;
use tokio::time::Instant;

use super::Person;
use crate::{
    handlers::http::client::{read_bounded, reason},
    outcome::Failure,
};

/// How long an answer counts.
const FRESH: Duration = Duration::from_secs(60);
/// Users that are remembered at once.
const KNOWN: usize = 10_000;
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest answer.
const LONGEST: usize = 64 * 1024;

/// Answers who a user is.
///
/// `GET` on the URL with the user's id, percent-encoded, in place of `{user_id}`; JSON with `email`, `timezone`, `locale` and `quiet_hours`, each of which may be null or missing.
pub(super) struct Directory {
    url: String,
    http: Client,
    known: Mutex<HashMap<String, (Instant, Person)>>,
}

#[derive(Deserialize)]
struct Entry {
    email: Option<String>,
    timezone: Option<String>,
    locale: Option<String>,
    quiet_hours: Option<String>,
}

impl Directory {
    pub(super) fn new(url: &str, http: Client) -> Result<Self, String> {
        url.replace("{user_id}", "u").parse::<Url>().map_err(|error| format!("`directory` is no URL: {error}"))?;
        Ok(Self { url: url.to_owned(), http, known: Mutex::default() })
    }

    /// Asks, unless the answer is fresh.
    ///
    /// # Errors
    /// Permanent where the directory does not know the user or answers with something else; transient where it is away.
    pub(super) async fn find(&self, user_id: &str) -> Result<Person, Failure> {
        let now = Instant::now();
        if let Some((at, person)) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(user_id)
            && now.duration_since(*at) < FRESH
        {
            return Ok(person.clone());
        }
        let person = self.ask(user_id).await?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN {
            known.retain(|_, (at, _)| now.duration_since(*at) < FRESH);
        }
        if known.len() < KNOWN {
            known.insert(user_id.to_owned(), (now, person.clone()));
        }
        Ok(person)
    }

    async fn ask(&self, user_id: &str) -> Result<Person, Failure> {
        let away = |error: &reqwest::Error| Failure::transient(format!("the directory: {}", reason(error)));
        // Dots alone are a way up in a path, also when they are encoded.
        if matches!(user_id, "." | "..") {
            return Err(Failure::permanent("the user's id can be no part of the directory's URL"));
        }
        let url = self.url.replace("{user_id}", &encoded(user_id));
        let mut answer = self.http.get(url).timeout(PATIENCE).send().await.map_err(|error| away(&error))?;
        match answer.status() {
            StatusCode::NOT_FOUND | StatusCode::GONE => return Err(Failure::permanent("the directory does not know the user")),
            status if !status.is_success() => return Err(Failure::transient(format!("the directory answered {}", status.as_u16()))),
            _ => {}
        }
        let body = read_bounded(&mut answer, LONGEST).await.map_err(|error| away(&error))?;
        let entry: Option<Entry> = body.and_then(|body| serde_json::from_slice(&body).ok());
        let entry = entry
            .ok_or_else(|| Failure::permanent("the directory's answer is no JSON with email, timezone, locale and quiet_hours as text"))?;
        let email = entry.email.map(|email| email.trim().to_owned()).filter(|email| !email.is_empty());
        let zone = match entry.timezone {
            Some(name) => Some(name.parse().map_err(|_| Failure::permanent("the directory's timezone is none"))?),
            None => None,
        };
        let quiet = match entry.quiet_hours.filter(|hours| !hours.is_empty()) {
            Some(hours) => Some(hours.parse().map_err(|_| Failure::permanent("the directory's quiet_hours are none"))?),
            None => None,
        };
        Ok(Person { has_no_address: email.is_none(), email, zone, locale: entry.locale, quiet })
    }
}

/// An id as one segment of a path (RFC 3986, 2.3): what is not unreserved is encoded, so that no id reaches another user's entry.
fn encoded(id: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    id.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::encoded;

    #[test]
    fn an_id_stays_one_segment_of_the_path() {
        assert_eq!(encoded("user-1.a_b~"), "user-1.a_b~");
        assert_eq!(encoded("a/../b?c=d#e@f g\u{e4}"), "a%2F..%2Fb%3Fc%3Dd%23e%40f%20g%C3%A4");
    }
}
