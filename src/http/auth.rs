//! The publish listener's token.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header::AUTHORIZATION},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};

/// Lets only requests with `token` in `dapr-api-token` or `Authorization: Bearer` through to `router`; others get 401 and Dapr's words. An empty token
/// lets everyone through.
pub fn guard(router: Router, token: &str) -> Router {
    if token.is_empty() {
        return router;
    }
    router.layer(middleware::from_fn_with_state(Arc::<str>::from(token), check))
}

async fn check(State(token): State<Arc<str>>, request: Request, next: Next) -> Response {
    match presented(request.headers()).is_some_and(|given| same(given, token.as_bytes())) {
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
