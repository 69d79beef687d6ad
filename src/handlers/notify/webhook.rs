//! A request to a webhook, signed with its time.

use chrono::Utc;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::{
    Client, Url,
    header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER},
};
use serde::Serialize;
use sha2::Sha256;

use super::channel::{Message, Refusal};
use crate::{
    config::{Secret, notify::NotifyConfig},
    handlers::http::{
        answer::{Answer, Table},
        client::{client, read_bounded, reason},
    },
    outcome::Failure,
};

/// Longest answer whose status counts.
const LONGEST: usize = 64 * 1024;

/// Posts messages to one URL.
///
/// Headers: `idempotency-key` (the message's id, the same for every run) and, with a secret, `x-worker-signature: t=<seconds since 1970>,v1=<hex>`, HMAC-SHA256
/// of `<t>.<body>`; a second `v1` is the old secret's. A receiver compares in constant time and refuses what is older than some minutes.
pub(super) struct Webhook {
    http: Client,
    url: Url,
    handler: String,
    secrets: Vec<Secret>,
}

/// What is POSTed.
#[derive(Serialize)]
struct Body<'a> {
    id: &'a str,
    handler: &'a str,
    user_id: &'a str,
    event_id: &'a str,
    event_type: &'a str,
    to: Option<&'a str>,
    subject: &'a str,
    text: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    html: Option<&'a str>,
}

impl Webhook {
    pub(super) fn new(config: &NotifyConfig, handler: &str) -> Result<Self, String> {
        // Never the text itself in an error: such URLs are secrets.
        let url = config.webhook.expose().parse().map_err(|_| "`webhook` is no URL")?;
        let http = client().map_err(|error| error.to_string())?;
        let secrets = [&config.webhook_secret, &config.webhook_old_secret].into_iter().filter(|secret| !secret.is_empty());
        Ok(Self { http, url, handler: handler.to_owned(), secrets: secrets.cloned().collect() })
    }

    /// Resolves once the other side has answered 2xx.
    pub(super) async fn send(&self, message: &Message) -> Result<(), Refusal> {
        let words = &message.words;
        let body = Body {
            id: &message.id,
            handler: &self.handler,
            user_id: &message.user_id,
            event_id: &message.event_id,
            event_type: &message.event_type,
            to: words.to.as_deref(),
            subject: &words.subject,
            text: &words.text,
            html: words.html.as_deref(),
        };
        let body = serde_json::to_vec(&body).map_err(|error| Refusal::Failed(error.to_string()))?;
        let mut request = self.http.post(self.url.clone()).header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        request = request.header("idempotency-key", &message.id);
        if let Some(signature) = signature(&self.secrets, Utc::now().timestamp(), &body) {
            request = request.header("x-worker-signature", signature);
        }
        let away = |error: &reqwest::Error| Refusal::later(format!("the webhook: {}", reason(error)));
        let mut answer = request.body(body).send().await.map_err(|error| away(&error))?;
        let retry_after = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let status = answer.status().as_u16();
        let body = read_bounded(&mut answer, LONGEST).await.map_err(|error| away(&error))?.unwrap_or_default();
        let answer = Answer { status, retry_after: retry_after.as_deref(), body: &body, now: Utc::now() };
        verdict(&answer)
    }
}

/// As the kind `http` reads an app's answers; 410: the one who was to be told is gone for good.
fn verdict(answer: &Answer<'_>) -> Result<(), Refusal> {
    let error = format!("the webhook answered {}", answer.status);
    match answer.verdict(Table::Forgiving) {
        Ok(_) => Ok(()),
        Err(Failure::Permanent { .. }) if answer.status == 410 => Err(Refusal::Bounced(error)),
        Err(Failure::Permanent { .. }) => Err(Refusal::Failed(error)),
        Err(Failure::Transient { after, .. }) => Err(Refusal::Later { error, after }),
    }
}

/// One `v1` per secret; `None` without any.
fn signature(secrets: &[Secret], at: i64, body: &[u8]) -> Option<String> {
    let mut text = format!("t={at}");
    for secret in secrets {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes()).ok()?;
        mac.update(format!("{at}.").as_bytes());
        mac.update(body);
        text.push_str(",v1=");
        text.extend(mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")));
    }
    (!secrets.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_made_of_time_and_body_by_each_secret() {
        assert_eq!(signature(&[], 1, b"{}"), None);
        let both = signature(&[Secret::new("new"), Secret::new("old")], 1_700_000_000, b"{}").unwrap_or_default();
        // python3 -c "import hmac; print(hmac.new(b'new', b'1700000000.{}', 'sha256').hexdigest())"
        assert_eq!(
            both,
            "t=1700000000,v1=29810abc729e7b7322b3ce2c7456a99bca762870c031aa43455fd67b43aab3c0,v1=2b5e6fc3cac3432cb8a3476c75510114966afb97256d20b9198872431b7ceca6"
        );
    }

    #[test]
    fn an_answer_is_read_as_an_apps_and_gone_is_bounced() {
        let refused = |status: u16| verdict(&Answer { status, retry_after: Some("7"), body: b"", now: Utc::now() });
        assert_eq!(refused(204), Ok(()));
        assert_eq!(refused(410), Err(Refusal::Bounced("the webhook answered 410".to_owned())));
        assert_eq!(refused(422), Err(Refusal::Failed("the webhook answered 422".to_owned())));
        let after = Some(std::time::Duration::from_secs(7));
        assert_eq!(refused(503), Err(Refusal::Later { error: "the webhook answered 503".to_owned(), after }));
    }
}
