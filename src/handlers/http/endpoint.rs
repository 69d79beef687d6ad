//! A URL as requests need it, taken apart once.

use std::{
    fmt,
    hash::{Hash, Hasher},
};

use hyper::Uri;
use reqwest::{Url, header::HeaderValue};

/// Where requests go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    url: Url,
    target: Uri,
    host: HeaderValue,
}

impl Endpoint {
    /// That URL, which may carry secrets.
    ///
    /// # Errors
    /// Where no request can be made for it.
    pub fn new(url: Url) -> Result<Self, String> {
        let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
        let target = format!("{}{query}", url.path()).parse().map_err(|error| format!("has a path that no request takes: {error}"))?;
        let host = url.host_str().ok_or("has no host")?;
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        let host = HeaderValue::try_from(format!("{host}{port}")).map_err(|_| "has a host that no request takes")?;
        Ok(Self { url, target, host })
    }

    /// The whole of it.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Path and query, as a request to the app itself says them.
    pub(super) fn target(&self) -> &Uri {
        &self.target
    }

    /// The header `host`.
    pub(super) fn host(&self) -> &HeaderValue {
        &self.host
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
