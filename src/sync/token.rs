//! Tokens that say who a client is: JSON Web Tokens (RFC 7519) signed with HS256, and with nothing else. Pure.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use sha2::Sha256;

use crate::config::Secret;

/// Longest token.
const LONGEST: usize = 8192;

/// Whose a token is, and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// `sub`.
    pub user_id: String,
    /// `exp`.
    pub expires: DateTime<Utc>,
}

/// Why a token counts for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// There is none.
    #[error("no token: send it as Authorization: Bearer, or as ?token=")]
    Missing,
    /// It is no JSON Web Token, or one that is signed in another way.
    #[error("the token is no JSON Web Token signed with HS256")]
    Malformed,
    /// Somebody else signed it, or it was changed.
    #[error("the token's signature is wrong")]
    Forged,
    /// It says no user, or no end.
    #[error("the token needs sub, the user's id, and exp")]
    Incomplete,
    /// It was valid.
    #[error("the token has expired")]
    Expired,
    /// It will be (`nbf`).
    #[error("the token is not valid yet")]
    Early,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    /// Extensions that must be understood (RFC 7515, 4.1.11): none are.
    crit: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Body {
    sub: Option<String>,
    exp: Option<f64>,
    nbf: Option<f64>,
}

/// Checks a token: the signature before anything that it says. `exp` is needed; there is no leeway.
///
/// # Errors
/// The first reason that applies.
pub fn verify(token: &str, secret: &Secret, now: DateTime<Utc>) -> Result<Claims, TokenError> {
    let signed = Some(token).filter(|token| token.len() <= LONGEST).and_then(|token| token.rsplit_once('.'));
    let (signed, signature) = signed.ok_or(TokenError::Malformed)?;
    let (header, body) = signed.split_once('.').ok_or(TokenError::Malformed)?;
    let header: Header = part(header).ok_or(TokenError::Malformed)?;
    // Never what the token itself asks for: `none`, or a public key taken for a secret.
    if header.alg != "HS256" || header.crit.is_some() {
        return Err(TokenError::Malformed);
    }
    let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).map_err(|_| TokenError::Malformed)?;
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()).map_err(|_| TokenError::Forged)?;
    mac.update(signed.as_bytes());
    mac.verify_slice(&signature).map_err(|_| TokenError::Forged)?;
    let body: Body = part(body).ok_or(TokenError::Incomplete)?;
    let user_id = body.sub.filter(|user| !user.is_empty()).ok_or(TokenError::Incomplete)?;
    let expires = body.exp.and_then(moment).ok_or(TokenError::Incomplete)?;
    if expires <= now {
        return Err(TokenError::Expired);
    }
    match body.nbf.map(moment) {
        Some(None) => Err(TokenError::Incomplete),
        Some(Some(begins)) if begins > now => Err(TokenError::Early),
        _ => Ok(Claims { user_id, expires }),
    }
}

fn part<T: for<'de> Deserialize<'de>>(text: &str) -> Option<T> {
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(text).ok()?).ok()
}

/// Seconds since 1970, also with decimals; `None` beyond the calendar.
fn moment(seconds: f64) -> Option<DateTime<Utc>> {
    // In whole seconds 2^53 milliseconds are beyond every calendar: no number is cut in between.
    #[expect(clippy::cast_possible_truncation, reason = "bounded before")]
    let millis = (seconds.abs() < 1e13).then_some((seconds * 1000.0) as i64)?;
    DateTime::from_timestamp_millis(millis)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::{prop_assert, proptest};
    use serde_json::{Value, json};

    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn sign(header: &Value, body: &Value, secret: &str) -> String {
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(body));
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(signed.as_bytes());
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
    }

    fn check(header: Value, body: Value) -> Result<Claims, TokenError> {
        verify(&sign(&header, &body, SECRET), &Secret::new(SECRET), DateTime::from_timestamp_millis(1_000_000).unwrap())
    }

    fn hs256() -> Value {
        json!({ "alg": "HS256", "typ": "JWT" })
    }

    #[test]
    fn a_token_says_who_and_until_when() {
        let expires = DateTime::from_timestamp_millis(1_001_500).unwrap();
        assert_eq!(check(hs256(), json!({ "sub": "ada", "exp": 1001.5, "iat": 1 })), Ok(Claims { user_id: "ada".to_owned(), expires }));
        // python3 -c "import jwt; print(jwt.encode({'sub': 'ada', 'exp': 4102444800}, '0123456789abcdef0123456789abcdef'))"
        let of_python =
            "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhZGEiLCJleHAiOjQxMDI0NDQ4MDB9.PoTWVBJDTgsg3kJyxx7wBtDhIsBRXY03TUPmOCJQLPQ";
        assert_eq!(verify(of_python, &Secret::new(SECRET), DateTime::UNIX_EPOCH).unwrap().user_id, "ada");
    }

    #[test]
    fn the_first_reason_against_a_token_is_told() {
        let ada = json!({ "sub": "ada", "exp": 2000 });
        assert_eq!(check(json!({ "alg": "none" }), ada.clone()), Err(TokenError::Malformed));
        assert_eq!(check(json!({ "alg": "RS256" }), ada.clone()), Err(TokenError::Malformed));
        assert_eq!(check(json!({ "alg": "HS256", "crit": ["b64"] }), ada.clone()), Err(TokenError::Malformed));
        assert_eq!(check(hs256(), json!({ "sub": "ada", "exp": 1000 })), Err(TokenError::Expired));
        assert_eq!(check(hs256(), json!({ "sub": "ada", "exp": 2000, "nbf": 1001 })), Err(TokenError::Early));
        for body in [
            json!({ "sub": "ada" }),
            json!({ "exp": 2000 }),
            json!({ "sub": "", "exp": 2000 }),
            json!({ "sub": 7, "exp": 2000 }),
            json!({ "sub": "ada", "exp": "soon" }),
            json!([]),
            json!({ "sub": "ada", "exp": 1e300 }),
        ] {
            assert_eq!(check(hs256(), body.clone()), Err(TokenError::Incomplete), "{body}");
        }
        let now = DateTime::UNIX_EPOCH;
        assert_eq!(verify(&sign(&hs256(), &ada, "another secret of thirty-two bytes"), &Secret::new(SECRET), now), Err(TokenError::Forged));
        let [header, _, signature] = sign(&hs256(), &ada, SECRET).split('.').map(str::to_owned).collect::<Vec<_>>().try_into().unwrap();
        let body = BASE64_URL_SAFE_NO_PAD.encode(json!({ "sub": "bob", "exp": 2000 }).to_string());
        assert_eq!(verify(&format!("{header}.{body}.{signature}"), &Secret::new(SECRET), now), Err(TokenError::Forged));
        assert_eq!(verify(&format!("{header}.{body}."), &Secret::new(SECRET), now), Err(TokenError::Forged), "without a signature");
        for text in ["", ".", "..", "a.b.c", "a.b"] {
            assert_eq!(verify(text, &Secret::new(SECRET), now), Err(TokenError::Malformed), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_a_token(text in "([A-Za-z0-9_-]*\\.){0,3}\\PC*") {
            prop_assert!(verify(&text, &Secret::new(SECRET), DateTime::UNIX_EPOCH).is_err());
        }
    }
}
