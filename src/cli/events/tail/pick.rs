//! Which records are meant, and from where on.

use crate::{
    cli::moment::moment,
    event::{Catalog, Event, Rejected, pattern},
    kafka::scan::Start,
};

/// What a record turned out to be.
pub(super) type Decoded = Result<Event, Box<Rejected>>;

/// Conditions that must all hold; of a list, any one. A record that is no event is meant where what can be read of it fits.
pub(super) struct Pick {
    types: Vec<String>,
    users: Vec<String>,
}

impl Pick {
    /// Types may be patterns and aliases.
    pub(super) fn new(catalog: &Catalog, types: &[String], users: &[String]) -> Self {
        Self { types: types.iter().map(|name| catalog.canonical_pattern(name).to_owned()).collect(), users: users.to_vec() }
    }

    /// The types as patterns; `*` where none was named.
    pub(super) fn patterns(&self) -> impl Iterator<Item = &str> {
        let every = self.types.is_empty().then_some("*");
        self.types.iter().map(String::as_str).chain(every)
    }

    /// Whether this one is meant.
    pub(super) fn takes(&self, decoded: &Decoded) -> bool {
        let (event_type, user) = match decoded {
            Ok(event) => (Some(&**event.event_type()), Some(event.user_id())),
            Err(rejected) => (rejected.event_type.as_deref(), rejected.user_id.as_deref()),
        };
        let fits = |wanted: &str| event_type.is_some_and(|found| pattern::matches(wanted, found));
        (self.types.is_empty() || self.types.iter().any(|wanted| fits(wanted)))
            && (self.users.is_empty() || self.users.iter().any(|wanted| user == Some(wanted)))
    }
}

/// Reads `--from`.
pub(super) fn start(text: &str) -> Result<Start, String> {
    match text {
        "beginning" => return Ok(Start::Beginning),
        "end" => return Ok(Start::End),
        _ => {}
    }
    if let Ok(offset) = text.parse::<i64>() {
        return Ok(if text.starts_with('-') { Start::Last(offset.saturating_neg()) } else { Start::Offset(offset) });
    }
    moment(text).map(|time| Start::Since(time.timestamp_millis())).map_err(|_| {
        "beginning, end, an offset, -N (that many before the end), a time such as 2026-01-31T12:00:00Z, or how long ago, such as 2h"
            .to_owned()
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::event::{
        Decoder,
        record::{Record, RecordParts, TopicPartition},
    };

    fn decoded(value: &str) -> Decoded {
        let parts = RecordParts { value: Some(value.as_bytes().to_vec()), ..RecordParts::default() };
        Decoder::new(Arc::new(Catalog::embedded().unwrap()), true).decode(Record::copy_of(&TopicPartition::new("t", 0), &parts))
    }

    fn pick(types: &[&str], users: &[&str]) -> Pick {
        let list = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect::<Vec<_>>();
        Pick::new(&Catalog::embedded().unwrap(), &list(types), &list(users))
    }

    #[test]
    fn every_condition_must_hold_and_an_alias_means_its_type() {
        let due = decoded(r#"{"event_type":"reminder.due","user_id":"u1","task_id":1}"#);
        for (types, users, taken) in [
            (&[][..], &[][..], true),
            (&["reminder.triggered"], &["u1"], true),
            (&["task.*", "reminder.*"], &["u0", "u1"], true),
            (&["reminder.*"], &["u2"], false),
            (&["task.*"], &["u1"], false),
        ] {
            assert_eq!(pick(types, users).takes(&due), taken, "{types:?} {users:?}");
        }
        assert_eq!(pick(&["task.*"], &[]).patterns().collect::<Vec<_>>(), ["task.*"]);
        assert_eq!(pick(&[], &[]).patterns().collect::<Vec<_>>(), ["*"]);
    }

    #[test]
    fn what_is_no_event_is_picked_by_what_can_be_read_of_it() {
        let (broken, invalid) = (decoded("{"), decoded(r#"{"event_type":"task.created","user_id":"u1","task_id":1}"#));
        assert!(broken.is_err() && invalid.is_err());
        assert!(pick(&[], &[]).takes(&broken) && !pick(&["*"], &[]).takes(&broken) && !pick(&[], &["u1"]).takes(&broken));
        assert!(pick(&["task.created"], &["u1"]).takes(&invalid) && !pick(&["task.created"], &["u2"]).takes(&invalid));
    }

    #[test]
    fn a_start_is_a_word_an_offset_a_count_or_a_moment() {
        assert_eq!(start("beginning"), Ok(Start::Beginning));
        assert_eq!(start("end"), Ok(Start::End));
        assert_eq!(start("0"), Ok(Start::Offset(0)));
        assert_eq!(start("-10"), Ok(Start::Last(10)));
        assert_eq!(start("2026-01-31T12:00:00Z"), Ok(Start::Since(1_769_860_800_000)));
        assert!(matches!(start("2h"), Ok(Start::Since(_))));
        assert!(start("yesterday").unwrap_err().contains("how long ago"));
    }
}
