//! One POST to an app, and its answer as far as it matters.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::{FutureExt, future::Either};
use http_body_util::Full;
use hyper::{Method, Request};
use reqwest::{
    Client, RequestBuilder, Url,
    header::{ACCEPT, HOST, HeaderMap, HeaderValue, RETRY_AFTER, USER_AGENT},
};

use super::{
    answer::Table,
    client::{self, AGENT},
    endpoint::Endpoint,
    wire::{Post, Wire},
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

/// An answer's head, and its body where that came whole: `None` where it is overlong.
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Result<Option<Vec<u8>>, String>,
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

    /// Posts to one of the app's endpoints.
    pub(super) fn post<'a>(
        &'a self,
        endpoint: &Endpoint,
        mut headers: HeaderMap,
        body: Bytes,
    ) -> impl Future<Output = Posted> + Send + use<'a> {
        if let Some(token) = &self.token {
            headers.insert("dapr-api-token", token.clone());
        }
        // Made before the future, whose state would hold each step of the making; the other way's is large.
        let exchange = match &self.way {
            Way::Plain(wire) => Either::Left(wire.send(plain(endpoint, headers, body), MAX_ANSWER).map(|answer| match answer {
                Ok(answer) => Ok(Answer {
                    status: answer.head.status.as_u16(),
                    headers: answer.head.headers,
                    body: answer.body.map_err(|error| error.to_string()),
                }),
                Err(error) => Err(error.to_string()),
            })),
            Way::Client(http) => Either::Right(with_client(http.post(endpoint.url().clone()).headers(headers).body(body)).boxed()),
        };
        exchange.map(|answer| self.read(answer))
    }

    fn read(&self, answer: Result<Answer, String>) -> Posted {
        let Answer { status, headers, body } = match answer {
            Ok(answer) => answer,
            Err(reason) => {
                self.app.fail(reason.clone());
                return Posted::Failed(Failure::transient(reason));
            }
        };
        self.app.ok();
        let retry_after = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::to_owned);
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

fn plain(endpoint: &Endpoint, mut headers: HeaderMap, body: Bytes) -> Post {
    headers.insert(HOST, endpoint.host().clone());
    headers.entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    let mut post = Request::new(Full::new(body));
    *post.method_mut() = Method::POST;
    *post.uri_mut() = endpoint.target().clone();
    *post.headers_mut() = headers;
    post
}

async fn with_client(request: RequestBuilder) -> Result<Answer, String> {
    let mut response = request.send().await.map_err(|error| client::reason(&error))?;
    // Read whatever the status, so that the connection can be used again.
    let body = client::read_bounded(&mut response, MAX_ANSWER).await.map_err(|error| client::reason(&error));
    Ok(Answer { status: response.status().as_u16(), headers: std::mem::take(response.headers_mut()), body })
}
