//! How far a client has read: the next offset of each partition, as opaque text. Pure.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use xxhash_rust::xxh3::xxh3_64;

/// Most partitions that a text is read of: more is no position of ours.
const MOST: usize = 4096;

/// Next offsets by partition.
///
/// As text: base64url of 4 bytes of the topic's hash, then a varint per partition from 0 on. It fits a line of `id:` in a stream of Server-Sent Events.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Position(BTreeMap<i32, i64>);

impl Position {
    /// The next offset of a partition; 0 where nothing is known of it.
    pub fn next(&self, partition: i32) -> i64 {
        self.0.get(&partition).copied().unwrap_or(0)
    }

    /// Goes on to an offset; never back.
    pub fn advance(&mut self, partition: i32, next: i64) {
        let known = self.0.entry(partition).or_default();
        *known = next.max(*known);
    }

    /// Partitions and their next offsets.
    pub fn iter(&self) -> impl Iterator<Item = (i32, i64)> {
        self.0.iter().map(|(partition, next)| (*partition, *next))
    }

    /// As a client keeps it.
    pub fn encode(&self, topic: &str) -> String {
        let mut bytes = mark(topic).to_vec();
        let end = self.0.keys().next_back().map_or(0, |last| last + 1);
        (0..end).for_each(|partition| push_varint(&mut bytes, u64::try_from(self.next(partition)).unwrap_or(0)));
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads what [`Position::encode`] wrote; `None` for anything else, and for another topic's.
    pub fn decode(text: &str, topic: &str) -> Option<Self> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        let mut rest = bytes.strip_prefix(&mark(topic))?;
        let mut position = Self::default();
        for partition in 0.. {
            if rest.is_empty() {
                return Some(position);
            }
            let (next, after) = varint(rest).filter(|_| partition < MOST)?;
            position.0.insert(i32::try_from(partition).ok()?, i64::try_from(next).ok()?);
            rest = after;
        }
        None
    }
}

fn mark(topic: &str) -> [u8; 4] {
    let [a, b, c, d, ..] = xxh3_64(topic.as_bytes()).to_be_bytes();
    [a, b, c, d]
}

fn push_varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(u8::try_from(number & 0x7f).unwrap_or(0) | 0x80);
        number >>= 7;
    }
    bytes.push(u8::try_from(number).unwrap_or(0));
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut number = 0_u64;
    for (index, byte) in bytes.iter().enumerate().take(9) {
        number |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((number, &bytes[index + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::{collection::btree_map, prelude::any, prop_assert, prop_assert_eq, proptest};

    use super::Position;

    proptest! {
        #[test]
        fn a_position_is_read_as_it_was_written_and_no_other_topics(nexts in btree_map(0..64_i32, 0..i64::MAX, 0..20)) {
            let mut position = Position::default();
            nexts.iter().for_each(|(partition, next)| position.advance(*partition, *next));
            let text = position.encode("task-updates");
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'));
            let read = Position::decode(&text, "task-updates").unwrap_or_default();
            (0..70).for_each(|partition| assert_eq!(read.next(partition), position.next(partition)));
            prop_assert_eq!(Position::decode(&text, "task-events"), None);
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC*", bytes in any::<Vec<u8>>()) {
            let _ = Position::decode(&text, "t");
            let _ = super::varint(&bytes);
        }
    }
}
