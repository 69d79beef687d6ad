//! A short text of an event, kept as the place where the record says it: an event that waits has no copy of its own id and user.

use std::ops::Range;

use super::record::Record;

/// A text of an event.
#[derive(Debug, Clone)]
pub(crate) enum Excerpt {
    /// It stands there in the record's value.
    Place(Range<u32>),
    /// It stands nowhere as it is: it was written with escapes, or made here.
    Copy(Box<str>),
}

impl Excerpt {
    /// Of a text that was read from `value`, or was not.
    pub(super) fn of(text: &str, value: Option<&[u8]>) -> Self {
        place(text, value.unwrap_or_default()).map_or_else(|| Self::Copy(text.into()), Self::Place)
    }

    /// The text. `record`: whose value it was read from.
    pub(super) fn read<'a>(&'a self, record: &'a Record) -> &'a str {
        match self {
            Self::Copy(text) => text,
            // It was a text when it was read, and a record does not change: the empty one is never seen.
            Self::Place(place) => part(record.value().unwrap_or_default(), place).unwrap_or_default(),
        }
    }
}

/// Where a part of `whole` stands in it; `None` where it was copied out of it.
pub(super) fn place(text: &str, whole: &[u8]) -> Option<Range<u32>> {
    let start = (text.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
    let end = start + text.len();
    if end > whole.len() {
        return None;
    }
    Some(start.try_into().ok()?..end.try_into().ok()?)
}

/// The text that stands there.
pub(super) fn part<'a>(whole: &'a [u8], place: &Range<u32>) -> Option<&'a str> {
    std::str::from_utf8(whole.get(place.start as usize..place.end as usize)?).ok()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::event::record::{RecordParts, TopicPartition};

    #[test]
    fn a_text_is_read_from_where_it_stands_and_a_copy_where_it_does_not() {
        let parts = RecordParts { value: Some("id: käse".into()), ..RecordParts::default() };
        let record = Record::copy_of(&TopicPartition::new("topic", 0), &parts);
        let value = record.value();
        let inside = Excerpt::of(std::str::from_utf8(&value.unwrap()[4..]).unwrap(), value);
        assert!(matches!(inside, Excerpt::Place(Range { start: 4, end: 9 })));
        let elsewhere = Excerpt::of("käse", value);
        assert!(matches!(elsewhere, Excerpt::Copy(_)));
        assert_eq!((inside.read(&record), elsewhere.read(&record), Excerpt::of("", None).read(&record)), ("käse", "käse", ""));
    }
}
