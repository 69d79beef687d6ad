//! The publish listener's token.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header::AUTHORIZATION},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};

/// What callers must present, in `dapr-api-token` or `Authorization: Bearer`.
#[derive(Clone)]
pub struct Token(Arc<str>);

impl Token {
    /// An empty token lets everyone through.
    pub fn new(token: &str) -> Self {
        Self(token.into())
    }

    /// Whether these headers carry it.
    pub fn admits(&self, headers: &HeaderMap) -> bool {
        self.0.is_empty() || presented(headers).is_some_and(|given| same(given, self.0.as_bytes()))
    }
}

/// Lets only requests with the token through to `router`; others get 401 and Dapr's words. Where there is no token nobody is asked for it.
pub fn guard(router: Router, token: Token) -> Router {
    if token.0.is_empty() {
        return router;
    }
    router.layer(middleware::from_fn_with_state(token, check))
}

async fn check(State(token): State<Token>, request: Request, next: Next) -> Response {
    match token.admits(request.headers()) {
        true => next.run(request).await,
        false => (StatusCode::UNAUTHORIZED, "invalid api token").into_response(),
    }
}

fn presented(headers: &HeaderMap) -> Option<&[u8]> {
    if let Some(token) = headers.get("dapr-api-token") {
        return Some(token.as_bytes());
    }
    let (scheme, token) = headers.get(AUTHORIZATION)?.as_bytes().split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

/// Compares in a time that depends on the lengths only, so that a token cannot be guessed byte by byte.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::same;

    #[test]
    fn tokens_are_compared_whole() {
        assert!(same(b"secret", b"secret"));
        assert!(!same(b"secret", b"secreT"));
        assert!(!same(b"secre", b"secret"));
        assert!(!same(b"", b"secret"));
    }
}
