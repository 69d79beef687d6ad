//! One POST to an app, and its answer as far as it matters.

use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use reqwest::{
    Client, RequestBuilder, Url,
    header::{HeaderMap, HeaderValue, RETRY_AFTER},
};

use super::{
    answer::Table,
    client,
    endpoint::Endpoint,
    request::{Head, Request},
    wire::{Answer, Unsent, Wire},
};
use crate::{health::Reporter, outcome::Failure};

/// Longest answer whose statuses count; apps answer with a few bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// Posts to one app.
pub(super) struct Poster {
    way: Way,
    token: Option<HeaderValue>,
    table: Table,
    app: Reporter,
}

/// How requests travel.
enum Way {
    /// Without TLS: HTTP/1.1, for which nothing stands between a run and its connection.
    Plain(Wire),
    /// With TLS, and HTTP/2 where the app speaks it; or with a user and a password in the URL.
    Client(Client),
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
    /// Posts to the app at `base`, with `http` where that is how it is spoken to. `token`: sent as `dapr-api-token`; `app` is told whether the app
    /// is there.
    pub(super) fn new(base: &Url, http: Client, token: Option<HeaderValue>, table: Table, app: Reporter) -> Self {
        let way = Wire::to(base).map_or(Way::Client(http), Way::Plain);
        Self { way, token, table, app }
    }

    /// How its answers are read.
    pub(super) fn table(&self) -> Table {
        self.table
    }

    /// A request to one of the app's endpoints, to be filled.
    pub(super) fn request(&self, endpoint: &Endpoint) -> Request {
        let mut request = match &self.way {
            Way::Plain(wire) => wire.request(endpoint.opening()),
            Way::Client(_) => Request { head: Head::Map(HeaderMap::with_capacity(16)), body: Vec::new() },
        };
        if let Some(token) = &self.token {
            request.header("dapr-api-token", token.as_bytes());
        }
        request
    }

    /// Sends it there.
    pub(super) async fn send(&self, endpoint: &Endpoint, Request { head, body }: Request) -> Posted {
        let answer = match (&self.way, head) {
            (Way::Plain(wire), Head::Text(head)) => wire.send(Unsent { head, body }, MAX_ANSWER).await.map_err(|error| error.to_string()),
            // Seldom: its state would make that of every run larger.
            (Way::Client(http), Head::Map(headers)) => {
                with_client(http.post(endpoint.url().clone()).headers(headers).body(body)).boxed().await
            }
            // A request is made for the way that it goes.
            (Way::Plain(_), Head::Map(_)) | (Way::Client(_), Head::Text(_)) => Err("a request for another way".to_owned()),
        };
        self.read(answer)
    }

    fn read(&self, answer: Result<Answer, String>) -> Posted {
        let Answer { status, retry_after, body } = match answer {
            Ok(answer) => answer,
            Err(reason) => {
                self.app.fail(reason.clone());
                return Posted::Failed(Failure::transient(reason));
            }
        };
        self.app.ok();
        let body = match body {
            Ok(body) => body.unwrap_or_default(),
            Err(reason) if (200..=299).contains(&status) => {
                return Posted::Failed(Failure::transient(format!("the answer broke off: {reason}")));
            }
            Err(_) => Vec::new(),
        };
        Posted::Answered { status, retry_after, body, now: Utc::now() }
    }
}

async fn with_client(request: RequestBuilder) -> Result<Answer, String> {
    let mut response = request.send().await.map_err(|error| client::reason(&error))?;
    // Read whatever the status, so that the connection can be used again.
    let body = client::read_bounded(&mut response, MAX_ANSWER).await.map_err(|error| client::reason(&error));
    let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::to_owned);
    Ok(Answer { status: response.status().as_u16(), retry_after, body })
}
