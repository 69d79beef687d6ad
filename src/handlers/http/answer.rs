//! What an app's answer means: status, `Retry-After` and body to a verdict. Pure.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::outcome::{Failure, Handled, HandlerResult};

/// Which table an answer is read by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// 2xx is success unless the body's `status` is RETRY or DROP in any case; 400, 410, 413, 415 and 422 are permanent; all else is transient.
    Forgiving,
    /// Dapr's: 2xx with an unknown or differently written `status` is a retry, 404 and DROP end the event, everything else is a retry. Where Dapr
    /// says "to the dead letter topic if one is set", the event goes to the DLQ: here one always is.
    Dapr,
}

/// One answer, as far as it matters.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// The HTTP status.
    pub status: u16,
    /// The header `Retry-After`, if any.
    pub retry_after: Option<&'a str>,
    /// The beginning of the body; an overlong one reads as one without a status.
    pub body: &'a [u8],
    /// When it came, for a `Retry-After` that is a date.
    pub now: DateTime<Utc>,
}

impl Answer<'_> {
    /// The verdict by `table`. Error texts name the status, never the body.
    ///
    /// # Errors
    /// The failure that the answer stands for.
    pub fn verdict(&self, table: Table) -> HandlerResult {
        match (self.status, table) {
            (200..=299, Table::Forgiving) => self.forgiving(),
            (200..=299, Table::Dapr) => self.dapr(),
            (400 | 410 | 413 | 415 | 422, Table::Forgiving) | (404, Table::Dapr) => {
                Err(Failure::permanent(format!("the app answered {}", self.status)))
            }
            _ => Err(self.transient(format!("the app answered {}", self.status))),
        }
    }

    fn forgiving(&self) -> HandlerResult {
        match body_status(self.body) {
            Some(status) if status.eq_ignore_ascii_case("RETRY") => Err(self.transient("the app answered RETRY".to_owned())),
            Some(status) if status.eq_ignore_ascii_case("DROP") => Ok(Handled::Dropped("the app answered DROP".to_owned())),
            _ => Ok(Handled::Done),
        }
    }

    fn dapr(&self) -> HandlerResult {
        match body_status(self.body).as_deref() {
            None | Some("" | "SUCCESS") => Ok(Handled::Done),
            Some("RETRY") => Err(self.transient("the app answered RETRY".to_owned())),
            Some("DROP") => Err(Failure::permanent("the app answered DROP")),
            Some(_) => Err(self.transient("the app answered an unknown status in the body".to_owned())),
        }
    }

    pub(super) fn transient(&self, error: String) -> Failure {
        Failure::Transient { error, after: self.retry_after.and_then(|text| retry_after(text, self.now)) }
    }
}

/// The text of the key `status` (any case) of a JSON object; `None` for any other body. RFC 8259; Go's decoder, whose habits Dapr's apps
/// rely on, takes keys in any case.
fn body_status(body: &[u8]) -> Option<String> {
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return None;
    }
    let Ok(Value::Object(fields)) = serde_json::from_slice(body) else { return None };
    fields.into_iter().find_map(|(key, value)| match value {
        Value::String(status) if key.eq_ignore_ascii_case("status") => Some(status),
        _ => None,
    })
}

/// Delay asked for by `Retry-After` (RFC 9110, 10.2.3): seconds, or a date; one in the past asks for none.
fn retry_after(text: &str, now: DateTime<Utc>) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = DateTime::parse_from_rfc2822(text).ok()?;
    Some((date.with_timezone(&Utc) - now).to_std().unwrap_or_default())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    fn answer<'a>(status: u16, body: &'a str) -> Answer<'a> {
        Answer { status, retry_after: None, body: body.as_bytes(), now: "1994-11-06T08:49:07Z".parse().unwrap() }
    }

    fn kind(result: &HandlerResult) -> &'static str {
        match result {
            Ok(Handled::Done) => "done",
            Ok(Handled::Dropped(_)) => "dropped",
            Err(Failure::Transient { .. }) => "transient",
            Err(Failure::Permanent { .. }) => "permanent",
        }
    }

    #[test]
    fn any_2xx_is_success_unless_its_status_says_retry_or_drop_in_any_case() {
        for (body, expected) in [
            ("", "done"),
            ("ok", "done"),
            ("null", "done"),
            ("[]", "done"),
            ("{}", "done"),
            (r#"{"status":""}"#, "done"),
            (r#"{"status":"SUCCESS"}"#, "done"),
            (r#"{"status":"success"}"#, "done"),
            (r#"{"status":"ok"}"#, "done"),
            (r#"{"status":"created"}"#, "done"),
            (r#"{"status":7}"#, "done"),
            (r#"{"status":"RETRY"}"#, "transient"),
            (r#" {"status":"retry"}"#, "transient"),
            (r#"{"Status":"Retry"}"#, "transient"),
            (r#"{"status":"DROP"}"#, "dropped"),
            (r#"{"id":1,"status":"drop"}"#, "dropped"),
            (r#"{"status":"RETRY""#, "done"),
        ] {
            for status in [200, 201, 202, 204, 299] {
                assert_eq!(kind(&answer(status, body).verdict(Table::Forgiving)), expected, "{status} {body}");
            }
        }
    }

    #[test]
    fn the_five_permanent_statuses_are_permanent_and_every_other_one_is_transient() {
        for status in (300..600).chain([101]) {
            let expected = if [400, 410, 413, 415, 422].contains(&status) { "permanent" } else { "transient" };
            assert_eq!(kind(&answer(status, "").verdict(Table::Forgiving)), expected, "{status}");
            assert_eq!(
                kind(&answer(status, r#"{"status":"SUCCESS"}"#).verdict(Table::Forgiving)),
                expected,
                "{status}: the body is ignored"
            );
        }
    }

    #[test]
    fn the_strict_table_is_daprs_to_the_letter() {
        for (body, expected) in [
            ("", "done"),
            ("ok", "done"),
            ("null", "done"),
            ("[1]", "done"),
            ("{}", "done"),
            (r#"{"status":""}"#, "done"),
            (r#"{"status":1}"#, "done"),
            (r#"{"status":"SUCCESS"}"#, "done"),
            (r#"{"STATUS":"SUCCESS"}"#, "done"),
            (r#"{"status":"RETRY"}"#, "transient"),
            (r#"{"status":"DROP"}"#, "permanent"),
            (r#"{"status":"success"}"#, "transient"),
            (r#"{"status":"ok"}"#, "transient"),
            (r#"{"status":"created"}"#, "transient"),
            (r#"{"status":"drop"}"#, "transient"),
        ] {
            assert_eq!(kind(&answer(200, body).verdict(Table::Dapr)), expected, "{body}");
        }
        for status in 300..600 {
            let expected = if status == 404 { "permanent" } else { "transient" };
            assert_eq!(kind(&answer(status, r#"{"status":"SUCCESS"}"#).verdict(Table::Dapr)), expected, "{status}");
        }
    }

    #[test]
    fn retry_after_is_obeyed_in_seconds_and_as_a_date() {
        for (text, expected) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(30)),
            ("Sun, 06 Nov 1994 08:40:00 GMT", Some(0)),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ] {
            for (status, body) in [(503, ""), (429, ""), (200, r#"{"status":"RETRY"}"#)] {
                let answer = Answer { retry_after: Some(text), ..answer(status, body) };
                let Err(Failure::Transient { after, .. }) = answer.verdict(Table::Forgiving) else { panic!("{status} is transient") };
                assert_eq!(after, expected.map(Duration::from_secs), "{status} {text}");
            }
        }
    }

    #[test]
    fn an_error_never_quotes_the_body() {
        let failure = answer(422, r#"{"detail":"secret"}"#).verdict(Table::Forgiving).unwrap_err();
        assert_eq!(failure.error(), "the app answered 422");
    }
}
