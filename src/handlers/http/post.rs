//! One POST to an app, and its answer as far as it matters.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use reqwest::{
    Client, Url,
    header::{HeaderMap, HeaderValue, RETRY_AFTER},
};

use super::{answer::Table, client};
use crate::{health::Reporter, outcome::Failure};

/// Longest answer whose statuses count; apps answer with a few bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// Posts to one app.
pub(super) struct Poster {
    http: Client,
    token: Option<HeaderValue>,
    table: Table,
    app: Reporter,
}

/// What came of a POST.
pub(super) enum Posted {
    /// The app answered.
    Answered {
        /// The HTTP status.
        status: u16,
        /// The header `Retry-After`.
        retry_after: Option<String>,
        /// The body; empty where it is overlong.
        body: Vec<u8>,
        /// When it came.
        now: DateTime<Utc>,
    },
    /// There is no answer, or not all of it.
    Failed(Failure),
}

impl Poster {
    /// Posts with `http`, which the app should have to itself. `token`: sent as `dapr-api-token`; `app` is told whether the app is there.
    pub(super) fn new(http: Client, token: Option<HeaderValue>, table: Table, app: Reporter) -> Self {
        Self { http, token, table, app }
    }

    /// How its answers are read.
    pub(super) fn table(&self) -> Table {
        self.table
    }

    pub(super) async fn post(&self, url: Url, mut headers: HeaderMap, body: Bytes) -> Posted {
        if let Some(token) = &self.token {
            headers.insert("dapr-api-token", token.clone());
        }
        let mut response = match self.http.post(url).headers(headers).body(body).send().await {
            Ok(response) => response,
            Err(error) => {
                let reason = client::reason(&error);
                self.app.fail(reason.clone());
                return Posted::Failed(Failure::transient(reason));
            }
        };
        self.app.ok();
        let status = response.status();
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::to_owned);
        // Read whatever the status, so that the connection can be used again.
        let body = match client::read_bounded(&mut response, MAX_ANSWER).await {
            Ok(body) => body.unwrap_or_default(),
            Err(error) if status.is_success() => {
                return Posted::Failed(Failure::transient(format!("the answer broke off: {}", client::reason(&error))));
            }
            Err(_) => Vec::new(),
        };
        Posted::Answered { status: status.as_u16(), retry_after, body, now: Utc::now() }
    }
}
