//! One question to the token endpoint: the client credentials grant (RFC 6749, 4.4).

use std::{
    ffi::CString,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use reqwest::{Client, ClientBuilder, RequestBuilder, Response, StatusCode, Url, header};
use serde::Deserialize;
use serde_json::Value;

use super::{Token, USED};
use crate::config::{
    oidc::{Authority, Oidc},
    secret::Secret,
};

/// Time for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest answer: brokers take no token of that length.
const LONGEST: usize = 256 << 10;

/// Who gives tokens, and to whom.
pub(super) struct Endpoint {
    url: Url,
    client_id: String,
    client_secret: Secret,
    body: Vec<(&'static str, String)>,
    http: Client,
}

#[derive(Deserialize)]
struct Answer {
    access_token: Option<String>,
    /// Seconds; some send them as text.
    expires_in: Option<Value>,
    error: Option<String>,
}

/// What a signed token says of itself.
#[derive(Default, Deserialize)]
struct Claims {
    sub: Option<String>,
    /// Seconds since 1970.
    exp: Option<f64>,
}

impl Endpoint {
    /// Sets up the client. As with other programs, proxies come from the environment: a provider is often on another network.
    pub(super) fn new(oidc: &Oidc) -> Result<Self, String> {
        let url: Url = oidc.endpoint.parse().map_err(|error| format!("sasl.oauthbearer.token.endpoint.url is no URL: {error}"))?;
        let agent = concat!("worker/", env!("CARGO_PKG_VERSION"));
        let builder = Client::builder().user_agent(agent).timeout(PATIENCE).pool_max_idle_per_host(0);
        let http = trusting(builder, oidc.authority.as_ref())?.build().map_err(|error| reason(&error))?;
        let mut body = vec![("grant_type", "client_credentials".to_owned())];
        body.extend(oidc.scope.clone().map(|scope| ("scope", scope)));
        let (client_id, client_secret) = (oidc.client_id.clone(), oidc.client_secret.clone());
        Ok(Self { url, client_id, client_secret, body, http })
    }

    /// For logs: without user, password and query.
    pub(super) fn shown(&self) -> String {
        let port = self.url.port().map(|port| format!(":{port}")).unwrap_or_default();
        format!("{}://{}{port}{}", self.url.scheme(), self.url.host_str().unwrap_or_default(), self.url.path())
    }

    /// A new token, or why there is none: never with a secret in it.
    pub(super) async fn ask(&self) -> Result<Token, String> {
        let mut answer = self.post(self.in_header()).await?;
        if matches!(answer.status(), StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED) {
            // Both places are in use; which one a provider wants, it says by refusing the other.
            let second = self.post(self.in_body()).await?;
            if second.status().is_success() {
                answer = second;
            }
        }
        read(answer).await
    }

    fn request(&self, fields: &[(&str, String)]) -> RequestBuilder {
        self.http
            .post(self.url.clone())
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form(fields))
    }

    fn in_header(&self) -> RequestBuilder {
        // RFC 6749, 2.3.1: each is encoded like a field of a form first.
        let encoded = |text: &str| form(&[("", text.to_owned())]).trim_start_matches('=').to_owned();
        self.request(&self.body).basic_auth(encoded(&self.client_id), Some(encoded(self.client_secret.expose())))
    }

    fn in_body(&self) -> RequestBuilder {
        let mut fields = self.body.clone();
        fields.push(("client_id", self.client_id.clone()));
        fields.push(("client_secret", self.client_secret.expose().to_owned()));
        self.request(&fields)
    }

    async fn post(&self, request: RequestBuilder) -> Result<Response, String> {
        request.send().await.map_err(|error| reason(&error))
    }
}

#[cfg(feature = "tls")]
fn trusting(builder: ClientBuilder, authority: Option<&Authority>) -> Result<ClientBuilder, String> {
    let pem = match authority {
        None => return Ok(builder),
        Some(Authority::Text(text)) => text.clone().into_bytes(),
        Some(Authority::File(file)) => {
            std::fs::read(file).map_err(|error| format!("https.ca.location: cannot read {}: {error}", file.display()))?
        }
    };
    let found = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| format!("https.ca: {}", reason(&error)))?;
    if found.is_empty() {
        return Err("https.ca: holds no certificate in PEM form".to_owned());
    }
    Ok(found.into_iter().fold(builder, ClientBuilder::add_root_certificate))
}

#[cfg(not(feature = "tls"))]
fn trusting(builder: ClientBuilder, authority: Option<&Authority>) -> Result<ClientBuilder, String> {
    match authority {
        None => Ok(builder),
        Some(_) => Err("https.ca: this worker is built without TLS".to_owned()),
    }
}

fn form(fields: &[(&str, String)]) -> String {
    // The URL type encodes forms; its own text is of no matter.
    let Ok(mut url) = Url::parse("form:") else { return String::new() };
    url.query_pairs_mut().extend_pairs(fields);
    url.query().unwrap_or_default().to_owned()
}

async fn read(mut response: Response) -> Result<Token, String> {
    let status = response.status();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| reason(&error))? {
        if body.len() + chunk.len() > LONGEST {
            return Err(format!("answered {status} with more than {LONGEST} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    let answer: Option<Answer> = serde_json::from_slice(&body).ok();
    if !status.is_success() {
        // The error's code is from a closed list (RFC 6749, 5.2); what else is in the body is not for logs.
        let code = answer.and_then(|answer| answer.error).filter(|code| code.len() <= 64 && code.chars().all(|c| c.is_ascii_graphic()));
        return Err(code.map_or_else(|| format!("answered {status}"), |code| format!("answered {status}: {code}")));
    }
    let answer = answer.ok_or_else(|| format!("answered {status} with something that is no JSON"))?;
    token(answer, SystemTime::now())
}

fn token(answer: Answer, now: SystemTime) -> Result<Token, String> {
    let text = answer.access_token.filter(|text| !text.is_empty()).ok_or("its answer has no access_token")?;
    if !text.chars().all(|c| c.is_ascii_graphic()) {
        return Err("its access_token has characters that no token has".to_owned());
    }
    let claims = claims(&text);
    let seconds = answer.expires_in.as_ref().and_then(|value| value.as_f64().or_else(|| value.as_str()?.trim().parse().ok()));
    // What lasts so long after now is told without comparing two machines' clocks.
    let ends = match (seconds, claims.exp) {
        (Some(seconds), _) => Duration::try_from_secs_f64(seconds).ok().and_then(|life| now.checked_add(life)),
        (None, Some(exp)) => Duration::try_from_secs_f64(exp).ok().and_then(|since_1970| UNIX_EPOCH.checked_add(since_1970)),
        (None, None) => return Err("its token says not how long it lives: neither expires_in nor exp".to_owned()),
    };
    let life = ends.and_then(|ends| ends.duration_since(now).ok()).filter(|life| !life.is_zero()).ok_or("its token is over already")?;
    // Kafka names the user by what the token says; here the name is for the library's logs alone.
    let principal = CString::new(claims.sub.unwrap_or_default()).unwrap_or_default();
    let value = CString::new(text).map_err(|_| "its access_token holds a NUL")?;
    Ok(Token { value, principal, ends: now + life, renew: now + life.mul_f64(USED) })
}

/// A token that is no JWT says nothing of itself.
fn claims(token: &str) -> Claims {
    let payload = token.split('.').nth(1).unwrap_or_default().trim_end_matches('=');
    URL_SAFE_NO_PAD.decode(payload).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

/// The innermost cause, without the URL.
fn reason(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    match (cause.downcast_ref::<reqwest::Error>(), error.is_timeout(), error.is_connect()) {
        (_, true, _) => format!("no answer within {} s", PATIENCE.as_secs()),
        (Some(_), _, true) => "cannot connect".to_owned(),
        (None, _, true) => format!("cannot connect: {cause}"),
        (Some(_), ..) => "the connection broke".to_owned(),
        (None, ..) => format!("the connection broke: {cause}"),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn jwt(payload: &str) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(payload))
    }

    fn read(answer: &Value) -> Result<(String, u64, u64), String> {
        let now = UNIX_EPOCH + Duration::from_secs(1000);
        let found = token(serde_json::from_value(answer.clone()).unwrap(), now)?;
        let after = |at: SystemTime| at.duration_since(now).unwrap().as_secs();
        Ok((found.principal.into_string().unwrap(), after(found.ends), after(found.renew)))
    }

    #[test]
    fn a_token_lives_as_its_answer_says_or_else_as_it_says_itself_and_is_renewed_after_four_fifths() {
        let signed = jwt("{\"sub\":\"worker\",\"exp\":1500}");
        assert_eq!(read(&serde_json::json!({"access_token": signed, "expires_in": 100})), Ok(("worker".to_owned(), 100, 80)));
        assert_eq!(read(&serde_json::json!({"access_token": "opaque", "expires_in": "100"})), Ok((String::new(), 100, 80)));
        assert_eq!(read(&serde_json::json!({"access_token": signed})), Ok(("worker".to_owned(), 500, 400)));
    }

    #[test]
    fn an_answer_that_is_no_use_says_why_and_shows_no_token() {
        for (answer, words) in [
            (serde_json::json!({}), "no access_token"),
            (serde_json::json!({"access_token": "opaque"}), "neither expires_in nor exp"),
            (serde_json::json!({"access_token": jwt("{\"exp\":900}")}), "over already"),
            (serde_json::json!({"access_token": "opaque", "expires_in": 0}), "over already"),
            (serde_json::json!({"access_token": "opaque", "expires_in": -5}), "over already"),
            (serde_json::json!({"access_token": "opaque\n", "expires_in": 5}), "characters that no token has"),
        ] {
            let why = read(&answer).unwrap_err();
            assert!(why.contains(words) && !why.contains("opaque"), "{why}");
        }
    }

    #[test]
    fn credentials_are_encoded_like_a_form() {
        assert_eq!(
            form(&[("scope", "openid kafka".to_owned()), ("client_secret", "a+b&c:d/é".to_owned())]),
            "scope=openid+kafka&client_secret=a%2Bb%26c%3Ad%2F%C3%A9"
        );
    }
}
