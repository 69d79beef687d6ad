//! What is sent back: the original to its topic, with what lets it past the ledger and to the right handlers.

use bytes::Bytes;

use super::{Form, Letter, Pointer, letter::without_metadata};
use crate::{
    engine::{HANDLER, PREFIX, REDRIVES, ports::Message},
    event::{Catalog, record::Record},
};

/// What a sidecar adds to the headers of its dead letters.
const OF_DAPR: [&str; 6] = ["__topic", "__partition", "__offset", "__timestamp", "__key", "pubsubName"];

/// Why a letter is not sent back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It came back as often as is allowed: it will come back again.
    #[error("was sent back {redrives} times already, --max-redrives is {max}")]
    TooOften {
        /// How often.
        redrives: u32,
        /// What is allowed.
        max: u32,
    },
    /// Nothing says which topic it came from.
    #[error("nothing says which topic it came from")]
    NoSource,
    /// The value stayed at the source, and is not there any more.
    #[error("the original is no longer at {0}")]
    OriginalGone(String),
}

impl Refusal {
    /// Its name in JSON.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooOften { .. } => "too_often",
            Self::NoSource => "no_source",
            Self::OriginalGone(_) => "original_gone",
        }
    }
}

/// How a letter is sent back.
#[derive(Debug, Clone)]
pub enum Plan {
    /// As this record.
    Ready(Message),
    /// As [`restore`] makes it of the original, which is to be read from there first.
    Fetch(Pointer),
}

/// The `x-dlq-redrives` of a letter that is sent back, `rounds` times more than its own count says.
pub fn redrives(letter: &Letter, rounds: u32) -> u32 {
    letter.redrives.saturating_add(1).saturating_add(rounds)
}

/// Decides how a letter goes back: key, value and headers of the original, `x-dlq-redrives`, and `x-dlq-handler` where handlers had given
/// it up: they alone run again.
///
/// # Errors
/// Why it stays.
pub fn plan(letter: &Letter, rounds: u32, max: u32, catalog: &Catalog) -> Result<Plan, Refusal> {
    let redrives = redrives(letter, rounds);
    if redrives > max {
        return Err(Refusal::TooOften { redrives: redrives - 1, max });
    }
    let record = &letter.record;
    if letter.is_stub() {
        return letter.source.clone().map(Plan::Fetch).ok_or(Refusal::NoSource);
    }
    let (topic, value) = match (letter.form, &letter.source) {
        (_, Some(source)) => (source.topic.clone(), record.value_bytes()),
        // The event as it was before the other program gave it up, to where its type is at home.
        (Form::Failed, None) => {
            let topic = catalog.topics_for(&letter.event_type).into_iter().next().filter(|_| letter.event_type != "dlq.failed");
            let event = record.value().and_then(without_metadata).ok_or(Refusal::NoSource)?;
            (topic.ok_or(Refusal::NoSource)?, Some(Bytes::from(event.to_string())))
        }
        _ => return Err(Refusal::NoSource),
    };
    let key = record.key_bytes().or_else(|| record.header("__key").filter(|_| letter.form == Form::Dapr).map(Bytes::copy_from_slice));
    Ok(Plan::Ready(Message { topic, key, value, headers: headers(letter, record, redrives), partition: None }))
}

/// How a letter whose value stayed at the source goes back. `original`: what stands there now.
///
/// # Errors
/// [`Refusal::OriginalGone`] where that is nothing, or another record: the topic was made anew.
pub fn restore(letter: &Letter, rounds: u32, source: &Pointer, original: Option<&Record>) -> Result<Message, Refusal> {
    let is_it =
        |found: &&Record| found.key() == letter.record.key() && (source.timestamp.is_none() || found.timestamp() == source.timestamp);
    let gone = || Refusal::OriginalGone(format!("{}:{}@{}", source.topic, source.partition, source.offset));
    let original = original.filter(is_it).ok_or_else(gone)?;
    Ok(Message {
        topic: source.topic.clone(),
        key: original.key_bytes(),
        value: original.value_bytes(),
        headers: headers(letter, original, redrives(letter, rounds)),
        partition: None,
    })
}

/// The original's headers, then ours.
fn headers(letter: &Letter, original: &Record, redrives: u32) -> Vec<(String, Option<Bytes>)> {
    let is_ours = |name: &str| name.starts_with(PREFIX) || (letter.form == Form::Dapr && OF_DAPR.contains(&name));
    let kept = original.headers().filter(|(name, _)| !is_ours(name));
    let mut headers: Vec<_> = kept.map(|(name, value)| (name.to_owned(), value.map(Bytes::copy_from_slice))).collect();
    headers.push((REDRIVES.to_owned(), Some(Bytes::from(redrives.to_string()))));
    if !letter.handlers.is_empty() {
        headers.push((HANDLER.to_owned(), Some(Bytes::from(letter.handlers.join(",")))));
    }
    headers
}

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use super::{super::letter::tests::letter, *};
    use crate::event::record::{RecordParts, TopicPartition};

    fn catalog() -> Catalog {
        Catalog::open(std::path::Path::new("topics"), true).unwrap()
    }

    fn ready(letter: &Letter, rounds: u32) -> Message {
        match plan(letter, rounds, 3, &catalog()) {
            Ok(Plan::Ready(message)) => message,
            other => panic!("{other:?}"),
        }
    }

    fn texts(message: &Message) -> Vec<(&str, &str)> {
        let text = |value: &Option<Bytes>| std::str::from_utf8(value.as_deref().unwrap()).unwrap().to_owned().leak() as &str;
        message.headers.iter().map(|(name, value)| (name.as_str(), text(value))).collect()
    }

    const OURS: [(&str, &str); 7] = [
        ("traceparent", "00-1"),
        ("x-dlq-reason", "exhausted"),
        ("x-dlq-error", "refused"),
        ("x-dlq-handler", "a,b"),
        ("x-dlq-source-topic", "task-events"),
        ("x-dlq-source-partition", "3"),
        ("x-dlq-redrives", "1"),
    ];

    /// F69, F70.
    #[test]
    fn the_original_goes_back_with_its_count_and_its_handlers_and_nothing_else_of_ours() {
        let message = ready(&letter("{\"a\": 1}", &OURS), 0);
        assert_eq!(
            (&*message.topic, message.key.as_deref(), message.value.as_deref()),
            ("task-events", Some(&b"user_abc"[..]), Some(&b"{\"a\": 1}"[..]))
        );
        assert_eq!(texts(&message), [("traceparent", "00-1"), ("x-dlq-redrives", "2"), ("x-dlq-handler", "a,b")]);
        let again = ready(&letter("{}", &OURS), 1);
        assert_eq!(texts(&again)[1], ("x-dlq-redrives", "3"), "another round is another member of the ledger");
    }

    #[test]
    fn a_letter_that_came_back_too_often_stays() {
        let mut letter = letter("{}", &OURS);
        letter.redrives = 3;
        assert_eq!(plan(&letter, 0, 3, &catalog()).map(drop), Err(Refusal::TooOften { redrives: 3, max: 3 }));
        assert!(plan(&letter, 0, 4, &catalog()).is_ok());
        letter.redrives = u32::MAX;
        assert!(plan(&letter, 7, 3, &catalog()).is_err(), "a count that somebody made up does not wrap");
    }

    #[test]
    fn a_sidecars_letter_goes_back_to_every_handler() {
        let headers = [("tenant", "t1"), ("__topic", "task-events"), ("__partition", "2"), ("__offset", "41"), ("pubsubName", "p")];
        let message = ready(&letter("{}", &headers), 0);
        assert_eq!((&*message.topic, texts(&message)), ("task-events", vec![("tenant", "t1"), ("x-dlq-redrives", "1")]));
    }

    #[test]
    fn an_event_with_dlq_metadata_goes_back_without_it_to_where_its_type_is_at_home() {
        let value = r#"{"event_type":"reminder.due","user_id":"u1","dlq_metadata":{"failed_at":"2025-12-30T10:35:00Z","error":"e","retry_count":3}}"#;
        let message = ready(&letter(value, &[]), 0);
        assert_eq!(
            (&*message.topic, message.value.as_deref()),
            ("reminders", Some(&br#"{"event_type":"reminder.due","user_id":"u1"}"#[..]))
        );
        let nameless = value.replace("reminder.due", "dlq.failed");
        assert_eq!(plan(&letter(&nameless, &[]), 0, 3, &catalog()).map(drop), Err(Refusal::NoSource));
        assert_eq!(plan(&letter("?", &[]), 0, 3, &catalog()).map(drop), Err(Refusal::NoSource));
    }

    #[test]
    fn a_stub_goes_back_as_the_original_and_never_as_another_record_at_its_place() {
        let stub = letter(
            "",
            &[&OURS[..], &[("x-dlq-original-size", "2000000"), ("x-dlq-source-offset", "5"), ("x-dlq-source-timestamp", "77")]].concat(),
        );
        let Ok(Plan::Fetch(source)) = plan(&stub, 0, 3, &catalog()) else { panic!("a stub has no value to send") };
        let parts = RecordParts {
            offset: 5,
            timestamp: Some(77),
            key: Some(b"user_abc".to_vec()),
            value: Some(b"big".to_vec()),
            headers: vec![("tenant".to_owned(), Some(b"t1".to_vec())), ("x-dlq-redrives".to_owned(), Some(b"1".to_vec()))],
        };
        let at = TopicPartition::new("task-events", 3);
        let original = Record::copy_of(&at, &parts);
        let message = restore(&stub, 0, &source, Some(&original)).unwrap();
        assert_eq!(message.value.as_deref(), Some(&b"big"[..]));
        assert_eq!(texts(&message), [("tenant", "t1"), ("x-dlq-redrives", "2"), ("x-dlq-handler", "a,b")]);

        let other = Record::copy_of(&at, &RecordParts { timestamp: Some(78), ..parts });
        for found in [Some(&other), None] {
            assert_eq!(restore(&stub, 0, &source, found).map(drop), Err(Refusal::OriginalGone("task-events:3@5".to_owned())));
        }
    }
}
