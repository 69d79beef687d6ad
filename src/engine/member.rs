//! Who an event is in the done ledger: 128 bits that stay the same for as long as a ledger is kept.

use xxhash_rust::xxh3::{Xxh3, xxh3_64, xxh3_128};

use crate::{engine::ports::Member, event::Event};

/// The event's place in the ledger: what must be equal for two deliveries to be one event.
///
/// A forwarded copy (another topic), another user's equal id and a redriven event (`x-dlq-redrives` counted up) are events of their own.
/// `from_offset` is given for an id that was made from topic, partition and offset: record timestamp and value, since a recreated topic
/// counts from 0 again and would otherwise find its first events done. An event without a user passes an empty `user_id`.
///
/// **Stable**: members outlive the program that wrote them, so neither framing nor hash may ever change; a test holds known answers. Each
/// field is written with its length, so that no two different events share one text. The hash is XXH3 (128 bits, big-endian): a chance
/// collision among 10^9 events has a probability of about 10^-21. It is no defence against somebody who forges ids to collide on purpose:
/// such a user can only hide an event of their own, because user_id is hashed as well.
pub fn member(topic: &str, user_id: &str, event_id: &str, redrives: u32, from_offset: Option<(Option<i64>, Option<&[u8]>)>) -> Member {
    let mut text = Text::default();
    for name in [topic, user_id, event_id] {
        text.framed(name.as_bytes());
    }
    text.push(&redrives.to_le_bytes());
    if let Some((timestamp, value)) = from_offset {
        text.push(&[1, u8::from(timestamp.is_some())]);
        text.push(&timestamp.unwrap_or(0).to_le_bytes());
        text.push(&[u8::from(value.is_some())]);
        text.framed(value.unwrap_or_default());
    } else {
        text.push(&[0]);
    }
    Member { id: text.digest().to_be_bytes(), user: xxh3_64(user_id.as_bytes()) }
}

/// What is hashed. Names are short: in one piece they cost a quarter of what a stream of parts costs, for the same hash.
struct Text {
    short: [u8; 240],
    len: usize,
    /// Of a text that outgrew `short`.
    long: Option<Box<Xxh3>>,
}

impl Default for Text {
    fn default() -> Self {
        Self { short: [0; 240], len: 0, long: None }
    }
}

impl Text {
    // A number is then a few instructions and no call.
    #[inline]
    fn push(&mut self, bytes: &[u8]) {
        match self.short.get_mut(self.len..self.len + bytes.len()) {
            Some(place) if self.long.is_none() => {
                place.copy_from_slice(bytes);
                self.len += bytes.len();
            }
            _ => self.push_long(bytes),
        }
    }

    #[cold]
    fn push_long(&mut self, bytes: &[u8]) {
        let long = self.long.get_or_insert_with(|| {
            let mut long = Box::new(Xxh3::new());
            long.update(&self.short[..self.len]);
            long
        });
        long.update(bytes);
    }

    fn framed(&mut self, bytes: &[u8]) {
        self.push(&(bytes.len() as u64).to_le_bytes());
        self.push(bytes);
    }

    fn digest(&self) -> u128 {
        self.long.as_ref().map_or_else(|| xxh3_128(&self.short[..self.len]), |long| long.digest128())
    }
}

/// The member of a decoded event that was redriven `redrives` times.
pub fn member_of(event: &Event, redrives: u32) -> Member {
    let record = event.record();
    let from_offset = event.id_from_offset().then(|| (record.timestamp(), record.value()));
    member(record.topic(), event.user_id(), event.id(), redrives, from_offset)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn hex(member: Member) -> String {
        member.id.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The known answers come from another implementation of XXH3, given the framing above.
    #[test]
    fn members_written_by_an_older_program_are_still_found() {
        assert_eq!(hex(member("task-events", "user-7", "evt-1", 0, None)), "5194007aab0ddbca3be29cad47a31696");
        assert_eq!(hex(member("task-events", "user-7", "evt-1", 1, None)), "14710b96223d9f99f170f42263e47c00");
        assert_eq!(
            hex(member("task-events", "", "task-events:3:17", 0, Some((Some(1_700_000_000_000), Some(b"{}"))))),
            "1951767af55f47d78f63176f8ebab248"
        );
        assert_eq!(member("task-events", "user-7", "evt-1", 0, None).user, 12_816_815_963_197_343_038);
    }

    /// F85.
    #[test]
    fn only_the_same_event_of_the_same_user_on_the_same_topic_is_the_same_member() {
        let value: &[u8] = b"value";
        let all = [
            member("topic", "user", "id", 0, None),
            member("topic2", "user", "id", 0, None),
            member("topic", "user2", "id", 0, None),
            member("topic", "user", "id2", 0, None),
            member("topic", "user", "id", 1, None),
            member("topicu", "ser", "id", 0, None),
            member("topic", "useri", "d", 0, None),
            member("topic", "user", "id", 0, Some((None, None))),
            member("topic", "user", "id", 0, Some((Some(0), None))),
            member("topic", "user", "id", 0, Some((Some(0), Some(b"")))),
            member("topic", "user", "id", 0, Some((None, Some(b"")))),
            member("topic", "user", "id", 0, Some((Some(1), Some(value)))),
            member("topic", "user", "id", 0, Some((Some(2), Some(value)))),
            member("topic", "user", "id", 0, Some((Some(1), Some(b"other")))),
        ];
        assert_eq!(all.iter().map(|member| member.id).collect::<HashSet<_>>().len(), all.len());
        assert_eq!(all[0], member("topic", "user", "id", 0, None));
    }

    #[test]
    fn names_of_any_length_are_hashed_as_one_text() {
        for lengths in [[0, 0, 0], [5, 6, 7], [5, 100, 94], [5, 100, 95], [5, 100, 200], [300, 0, 300]] {
            let [topic, user, id] = lengths.map(|length| "x".repeat(length));
            let mut text = Vec::new();
            for name in [&topic, &user, &id] {
                text.extend_from_slice(&(name.len() as u64).to_le_bytes());
                text.extend_from_slice(name.as_bytes());
            }
            text.extend_from_slice(&[3, 0, 0, 0, 0]);
            assert_eq!(member(&topic, &user, &id, 3, None).id, xxh3_128(&text).to_be_bytes(), "{lengths:?}");
        }
    }

    #[test]
    fn all_events_of_a_user_share_a_shard_whatever_their_topic() {
        assert_eq!(member("a", "user", "1", 0, None).user, member("b", "user", "2", 3, Some((None, None))).user);
        assert_ne!(member("a", "user", "1", 0, None).user, member("a", "user2", "1", 0, None).user);
    }
}
