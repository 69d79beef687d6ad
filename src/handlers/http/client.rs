//! The HTTP client of a handler: one pool of kept-alive connections to one app, and nothing that the environment smuggles in.

use std::{error::Error, time::Duration};

use reqwest::{Client, Response, Url, redirect::Policy};

/// Kept-alive connections are given up before the apps' side does: uvicorn and Node close after 5 s of silence, and a POST that meets the
/// closing is neither clearly sent nor clearly not.
pub(super) const IDLE: Duration = Duration::from_secs(4);
/// What a request says sent it.
pub(super) const AGENT: &str = concat!("worker/", env!("CARGO_PKG_VERSION"));
/// Longest wait for a connection; a handler's own timeout may be shorter.
pub(super) const CONNECT: Duration = Duration::from_secs(5);

/// A client without proxies from the environment, redirects or compression.
///
/// # Errors
/// Where the TLS library cannot be set up.
pub fn client() -> Result<Client, reqwest::Error> {
    Client::builder().user_agent(AGENT).no_proxy().redirect(Policy::none()).pool_idle_timeout(IDLE).connect_timeout(CONNECT).build()
}

/// The body, or `None` where it is longer than `limit` bytes: then the rest is not read.
///
/// # Errors
/// Where the connection breaks.
pub async fn read_bounded(response: &mut Response, limit: usize) -> Result<Option<Vec<u8>>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > limit {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body))
}

/// An error in one line: the innermost cause, which says what a person can act on, without the URL, which may carry a secret.
pub fn reason(error: &reqwest::Error) -> String {
    let cause = innermost(error);
    let what = if error.is_connect() { "cannot connect" } else { "the connection broke" };
    match cause.downcast_ref::<reqwest::Error>() {
        Some(_) => what.to_owned(),
        None => format!("{what}: {cause}"),
    }
}

/// What an error comes from in the end.
pub(super) fn innermost<'a>(mut error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    while let Some(inner) = error.source() {
        error = inner;
    }
    error
}

/// A URL for logs: without user, password, query and fragment.
pub fn shown(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_url_in_a_log_line_carries_no_secret() {
        let url = "https://user:password@app:8443/events?token=secret#part".parse().unwrap();
        assert_eq!(shown(&url), "https://app:8443/events");
    }
}
