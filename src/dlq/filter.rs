//! Which dead letters are meant.

use chrono::{DateTime, Utc};

use super::Letter;
use crate::event::pattern;

/// Every condition that is set must hold; of a list, any one. Set none, and all are meant.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Event types or patterns.
    pub types: Vec<String>,
    /// `x-dlq-reason`s.
    pub reasons: Vec<String>,
    /// Users.
    pub users: Vec<String>,
    /// Handlers that gave the event up.
    pub handlers: Vec<String>,
    /// Event ids.
    pub ids: Vec<String>,
    /// A part of the error, upper and lower case alike.
    pub error: Option<String>,
    /// Given up at this time or later.
    pub since: Option<DateTime<Utc>>,
    /// Given up before this time.
    pub until: Option<DateTime<Utc>>,
}

impl Filter {
    /// Whether this one is meant.
    pub fn takes(&self, letter: &Letter) -> bool {
        let any = |wanted: &[String], found: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == found);
        any(&self.reasons, &letter.reason)
            && any(&self.users, &letter.user_id)
            && any(&self.ids, &letter.event_id)
            && (self.types.is_empty() || self.types.iter().any(|wanted| pattern::matches(wanted, &letter.event_type)))
            && (self.handlers.is_empty() || self.handlers.iter().any(|wanted| letter.handlers.contains(wanted)))
            && self.error.as_ref().is_none_or(|part| letter.error.to_lowercase().contains(&part.to_lowercase()))
            // Without any time a letter is neither before nor after.
            && self.since.is_none_or(|since| letter.failed_at.is_some_and(|at| at >= since))
            && self.until.is_none_or(|until| letter.failed_at.is_some_and(|at| at < until))
    }

    /// From when on the DLQ has to be read, milliseconds since 1970: a letter is written after its event was given up, by a clock that
    /// may be a little behind the one that stamps records.
    pub fn read_from(&self) -> Option<i64> {
        self.since.map(|since| since.timestamp_millis() - 60_000)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::{super::letter::tests::letter, *};
    use crate::event::time;

    #[test]
    fn every_condition_must_hold_and_of_a_list_any_one() {
        let letter = letter(
            "{}",
            &[
                ("x-dlq-reason", "permanent"),
                ("x-dlq-error", "Connection REFUSED by app"),
                ("x-dlq-event-id", "e1"),
                ("x-dlq-event-type", "task.created"),
                ("x-dlq-user-id", "u1"),
                ("x-dlq-handler", "a,b"),
                ("x-dlq-failed-at", "2025-12-30T10:35:00.000Z"),
            ],
        );
        let list = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect::<Vec<_>>();
        let at = |text| time::parse(text);
        let all = Filter {
            types: list(&["reminder.due", "task.*"]),
            reasons: list(&["permanent", "schema"]),
            users: list(&["u1"]),
            handlers: list(&["b"]),
            ids: list(&["e1"]),
            error: Some("refused".to_owned()),
            since: at("2025-12-30T10:35:00Z"),
            until: at("2025-12-30T10:35:01Z"),
        };
        assert!(all.takes(&letter) && Filter::default().takes(&letter));
        let misses = [
            Filter { types: list(&["task.deleted"]), ..all.clone() },
            Filter { reasons: list(&["exhausted"]), ..all.clone() },
            Filter { users: list(&["u"]), ..all.clone() },
            Filter { handlers: list(&["a,b"]), ..all.clone() },
            Filter { ids: list(&["e2"]), ..all.clone() },
            Filter { error: Some("refusal".to_owned()), ..all.clone() },
            Filter { since: at("2025-12-30T10:35:00.001Z"), ..all.clone() },
            Filter { until: at("2025-12-30T10:35:00Z"), ..all.clone() },
        ];
        for filter in misses {
            assert!(!filter.takes(&letter), "{filter:?}");
        }
        assert!(all.read_from().unwrap() < letter.failed_at.unwrap().timestamp_millis());
    }
}
