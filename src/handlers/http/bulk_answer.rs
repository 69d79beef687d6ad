//! What an app's answer to a batch means: one verdict per entry. Pure.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::answer::{Answer, Table};
use crate::outcome::{Failure, Handled, HandlerResult};

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdicts {
    /// One per entry, in the batch's order.
    Each(Vec<HandlerResult>),
    /// The app will not have the batch: which of its entries is to blame, it does not say.
    Refused(Failure),
}

/// Reads the answer to a batch of `count` entries whose `entryId`s are 0, 1, ..
///
/// Unlike for a single event, what is not answered is not done: an entry that the answer does not name, or names without a status of
/// SUCCESS or DROP, comes again, by both tables.
pub(super) fn verdicts(answer: &Answer<'_>, table: Table, count: usize) -> Verdicts {
    if !(200..=299).contains(&answer.status) {
        return match (answer.verdict(table), table) {
            (Err(failure @ Failure::Permanent { .. }), Table::Forgiving) => Verdicts::Refused(failure),
            (verdict, _) => Verdicts::Each(vec![verdict; count]),
        };
    }
    let again = |error: &str| Err(answer.transient(error.to_owned()));
    let Some(statuses) = statuses(answer.body) else {
        return Verdicts::Each(vec![again("the app answered no list of statuses"); count]);
    };
    let mut verdicts = vec![None; count];
    for (entry, status) in statuses {
        let Some(verdict) = entry.parse().ok().and_then(|index: usize| verdicts.get_mut(index)) else { continue };
        let known = ["SUCCESS", "DROP", "RETRY"];
        let meant = known.into_iter().find(|known| table == Table::Forgiving && status.eq_ignore_ascii_case(known));
        *verdict = Some(match (meant.unwrap_or(&status), table) {
            ("SUCCESS", _) => Ok(Handled::Done),
            ("DROP", Table::Forgiving) => Ok(Handled::Dropped("the app answered DROP".to_owned())),
            ("DROP", Table::Dapr) => Err(Failure::permanent("the app answered DROP")),
            ("RETRY", _) => again("the app answered RETRY"),
            _ => again("the app answered an unknown status for this entry"),
        });
    }
    Verdicts::Each(
        verdicts.into_iter().map(|verdict| verdict.unwrap_or_else(|| again("the app's answer does not name this entry"))).collect(),
    )
}

/// An answer as Dapr's documentation writes it.
#[derive(Deserialize)]
struct Written<'a> {
    #[serde(borrow)]
    statuses: Vec<WrittenStatus<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenStatus<'a> {
    #[serde(borrow)]
    entry_id: Cow<'a, str>,
    #[serde(borrow)]
    status: Cow<'a, str>,
}

/// `entryId` and `status` of each listed entry; keys in any case.
fn statuses(body: &[u8]) -> Option<Vec<(Cow<'_, str>, Cow<'_, str>)>> {
    if let Ok(Written { statuses }) = serde_json::from_slice(body) {
        return Some(statuses.into_iter().map(|WrittenStatus { entry_id, status }| (entry_id, status)).collect());
    }
    let fields: Map<String, Value> = serde_json::from_slice(body).ok()?;
    let entries = get(&fields, "statuses")?.as_array()?;
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    };
    let entry = |entry: &Value| {
        let fields = entry.as_object()?;
        Some((text(get(fields, "entryId")?).into(), get(fields, "status").map(text).unwrap_or_default().into()))
    };
    Some(entries.iter().filter_map(entry).collect())
}

fn get<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(status: u16, body: &str, table: Table, count: usize) -> Vec<&'static str> {
        let answer = Answer { status, retry_after: None, body: body.as_bytes(), now: chrono::DateTime::UNIX_EPOCH };
        match verdicts(&answer, table, count) {
            Verdicts::Refused(_) => vec!["refused"],
            Verdicts::Each(verdicts) => verdicts
                .iter()
                .map(|verdict| match verdict {
                    Ok(Handled::Done) => "done",
                    Ok(Handled::Dropped(_)) => "dropped",
                    Err(Failure::Transient { .. }) => "transient",
                    Err(Failure::Permanent { .. }) => "permanent",
                })
                .collect(),
        }
    }

    const ALL: &str = r#"{"statuses":[{"entryId":"0","status":"SUCCESS"},{"entryId":"1","status":"RETRY"},{"entryId":"2","status":"DROP"},
                          {"entryId":"3","status":"success"},{"entryId":"4","status":""},{"entryId":"9","status":"SUCCESS"}]}"#;

    #[test]
    fn each_entry_has_its_own_verdict_and_what_is_not_named_comes_again() {
        assert_eq!(
            kinds(200, ALL, Table::Forgiving, 6),
            ["done", "transient", "dropped", "done", "transient", "transient"],
            "in any case; an empty status and a missing entry come again"
        );
        assert_eq!(kinds(200, ALL, Table::Dapr, 6), ["done", "transient", "permanent", "transient", "transient", "transient"]);
        let numbers = r#"{"Statuses":[{"EntryId":1,"Status":"SUCCESS"}]}"#;
        assert_eq!(kinds(201, numbers, Table::Dapr, 2), ["transient", "done"]);
    }

    #[test]
    fn an_answer_without_statuses_repeats_the_whole_batch() {
        for body in ["", "ok", "null", "[]", "{}", r#"{"status":"SUCCESS"}"#, r#"{"statuses":7}"#] {
            for table in [Table::Forgiving, Table::Dapr] {
                assert_eq!(kinds(200, body, table, 2), ["transient", "transient"], "{body}");
            }
        }
    }

    #[test]
    fn a_status_of_the_whole_batch_is_every_entrys() {
        assert_eq!(kinds(500, ALL, Table::Forgiving, 2), ["transient", "transient"]);
        assert_eq!(kinds(422, "", Table::Forgiving, 2), ["refused"], "which one it was, the app does not say");
        assert_eq!(kinds(404, "", Table::Forgiving, 2), ["transient", "transient"]);
        assert_eq!(kinds(404, "", Table::Dapr, 2), ["permanent", "permanent"]);
        assert_eq!(kinds(422, "", Table::Dapr, 2), ["transient", "transient"]);
    }
}
