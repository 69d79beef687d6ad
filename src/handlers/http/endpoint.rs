//! A URL as requests need it, taken apart once.

use std::{
    fmt,
    hash::{Hash, Hasher},
};

use axum::http::Uri;
use reqwest::{Url, header::HeaderValue};

use super::client::AGENT;

/// Where requests go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    url: Url,
    /// How a request to the app itself begins.
    opening: String,
}

impl Endpoint {
    /// That URL, which may carry secrets.
    ///
    /// # Errors
    /// Where no request can be made for it.
    pub fn new(url: Url) -> Result<Self, String> {
        let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
        let target = format!("{}{query}", url.path());
        target.parse::<Uri>().map_err(|error| format!("has a path that no request takes: {error}"))?;
        let host = url.host_str().ok_or("has no host")?;
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        let host = format!("{host}{port}");
        HeaderValue::try_from(&host).map_err(|_| "has a host that no request takes")?;
        let opening = format!("POST {target} HTTP/1.1\r\nhost: {host}\r\nuser-agent: {AGENT}\r\n");
        Ok(Self { url, opening })
    }

    /// The whole of it.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// A request's first lines: what is asked for, of which host, by whom.
    pub(super) fn opening(&self) -> &str {
        &self.opening
    }
}

impl Hash for Endpoint {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // The rest follows from it.
        self.url.hash(state);
    }
}

/// The whole URL: for comparing, not for logs.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)
    }
}
