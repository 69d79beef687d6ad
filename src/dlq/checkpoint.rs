//! Which dead letters were sent back already, kept with the brokers, so that any machine can go on where another was stopped.
//!
//! Filters pick letters here and there, so one offset per partition cannot say it. Kept is a bit per letter, in blocks of
//! [`BLOCK`] offsets, each the commit metadata of a group of its own that nobody joins: `<group>-dlq-redrive-<block>`. A bit is written
//! when the brokers have acknowledged the copy: what is killed in between sends those few again, with the same count, and the ledger knows
//! them. Whatever filter sent a letter back, no later run sends it again unless asked to.
//!
//! Limits: the brokers forget it with the DLQ topic, which is right, and `offsets.retention.minutes` (7 days by default) after the
//! last run that wrote to a block; two runs at the same time can overwrite each other's bits.

use std::collections::HashMap;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

use crate::{
    event::record::TopicPartition,
    kafka::{KafkaError, marks::Marks},
};

/// Offsets in a block: one bit each makes 3334 characters, within the brokers' 4096.
pub const BLOCK: i64 = 20_000;
/// First word of the text.
const MAGIC: &str = "redriven1";

/// The letters of one block that were sent back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Block {
    bits: Vec<u8>,
    /// Runs with `--again` that touched this block: each sends with a higher count, or the ledger would know the copies.
    pub rounds: u32,
}

impl Block {
    /// Whether the letter at that place of the block was sent back.
    pub fn contains(&self, place: usize) -> bool {
        self.bits.get(place / 8).is_some_and(|byte| byte & (1 << (place % 8)) != 0)
    }

    /// Notes that it was.
    pub fn insert(&mut self, place: usize) {
        if self.bits.len() <= place / 8 {
            self.bits.resize(place / 8 + 1, 0);
        }
        self.bits[place / 8] |= 1 << (place % 8);
    }

    /// As text: a word that says what it is, the rounds, a checksum, the bits.
    pub fn encode(&self) -> String {
        format!("{MAGIC} {} {:08x} {}", self.rounds, crc32fast::hash(&self.bits), BASE64_URL_SAFE_NO_PAD.encode(&self.bits))
    }

    /// Reads it back; `None`: somebody else's text.
    pub fn decode(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        words.next().filter(|magic| *magic == MAGIC)?;
        let rounds = words.next()?.parse().ok()?;
        let sum = u32::from_str_radix(words.next()?, 16).ok()?;
        let bits = BASE64_URL_SAFE_NO_PAD.decode(words.next()?).ok()?;
        (crc32fast::hash(&bits) == sum && i64::try_from(bits.len()).is_ok_and(|bytes| bytes * 8 <= BLOCK)).then_some(Self { bits, rounds })
    }

    /// The place after the last letter that was sent back.
    fn end(&self) -> i64 {
        let last = self.bits.iter().rposition(|byte| *byte != 0);
        last.map_or(0, |at| at as i64 * 8 + 8 - i64::from(self.bits[at].leading_zeros()))
    }
}

/// Why the checkpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The brokers do not answer, or do not allow it.
    #[error("group {group}: {error}")]
    Kafka {
        /// The group.
        group: String,
        /// Why.
        error: KafkaError,
    },
    /// Somebody else commits in that group.
    #[error("group {0} holds commits of another program: nothing can be said of what was sent back; give another group to --checkpoint")]
    Foreign(String),
}

impl CheckpointError {
    /// The kind.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Kafka { error, .. } => error.code(),
            Self::Foreign(_) => "foreign",
        }
    }
}

struct Entry {
    block: Block,
    changed: bool,
}

/// The blocks of one DLQ topic, read when first asked for.
pub struct Checkpoint {
    marks: Marks,
    prefix: String,
    blocks: HashMap<(TopicPartition, i64), Entry>,
    again: bool,
}

impl Checkpoint {
    /// Kept in the groups `<prefix>-<block>`. `again`: letters that were sent back go once more.
    pub fn new(marks: Marks, prefix: String, again: bool) -> Self {
        Self { marks, prefix, blocks: HashMap::new(), again }
    }

    async fn entry(&mut self, partition: &TopicPartition, offset: i64) -> Result<(&mut Entry, usize), CheckpointError> {
        let (number, place) = (offset.div_euclid(BLOCK), offset.rem_euclid(BLOCK) as usize);
        let key = (partition.clone(), number);
        if !self.blocks.contains_key(&key) {
            let group = format!("{}-{number}", self.prefix);
            let text = match self.marks.read(&group, partition).await {
                Ok(text) => text,
                Err(error) => return Err(CheckpointError::Kafka { group, error }),
            };
            let mut block = match text {
                Some(text) => Block::decode(&text).ok_or(CheckpointError::Foreign(group))?,
                None => Block::default(),
            };
            // Kept before anything is sent: a run that is killed must not be followed by one with the same counts.
            block.rounds += u32::from(self.again);
            self.blocks.insert(key.clone(), Entry { block, changed: self.again });
        }
        let entry = self.blocks.entry(key).or_insert_with(|| Entry { block: Block::default(), changed: false });
        Ok((entry, place))
    }

    /// Whether a letter was sent back; with `again`, how often the count is to be raised beyond its own.
    ///
    /// # Errors
    /// Where the group cannot be read.
    pub async fn state(&mut self, partition: &TopicPartition, offset: i64) -> Result<State, CheckpointError> {
        let again = self.again;
        let (entry, place) = self.entry(partition, offset).await?;
        Ok(match (entry.block.contains(place), again) {
            (false, _) => State::Waiting { rounds: 0 },
            (true, false) => State::SentBack,
            (true, true) => State::Waiting { rounds: entry.block.rounds },
        })
    }

    /// Notes that the brokers have its copy. Kept by [`Checkpoint::save`].
    ///
    /// # Errors
    /// Where the group cannot be read.
    pub async fn sent(&mut self, partition: &TopicPartition, offset: i64) -> Result<(), CheckpointError> {
        let (entry, place) = self.entry(partition, offset).await?;
        entry.block.insert(place);
        entry.changed = true;
        Ok(())
    }

    /// Writes what was noted; returns when the brokers have it.
    ///
    /// # Errors
    /// Where the group cannot be written.
    pub async fn save(&mut self) -> Result<(), CheckpointError> {
        for ((partition, number), entry) in self.blocks.iter_mut().filter(|(_, entry)| entry.changed) {
            let group = format!("{}-{number}", self.prefix);
            let (offset, text) = (number * BLOCK + entry.block.end(), entry.block.encode());
            if let Err(error) = self.marks.write(&group, partition, offset, text).await {
                return Err(CheckpointError::Kafka { group, error });
            }
            entry.changed = false;
        }
        Ok(())
    }
}

/// What the checkpoint says of a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It may go; its count rises by one, and by `rounds` more.
    Waiting {
        /// Runs with `--again` that came to it before and now.
        rounds: u32,
    },
    /// It went.
    SentBack,
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_full_block_fits_a_commit_and_no_foreign_text_is_one() {
        let mut full = Block { rounds: u32::MAX, ..Block::default() };
        (0..BLOCK as usize).for_each(|place| full.insert(place));
        let text = full.encode();
        assert!(text.len() <= 3800 && text.is_ascii(), "{}", text.len());
        assert_eq!((Block::decode(&text), full.end()), (Some(full), BLOCK));
        for foreign in ["", "redriven1", "redriven1 0 00000001 ", "redriven2 0 00000000 ", "{}", &text[..text.len() - 4]] {
            assert_eq!(Block::decode(foreign), None, "{foreign}");
        }
    }

    proptest! {
        #[test]
        fn what_was_sent_back_and_nothing_else_is_read_back(places in prop::collection::hash_set(0..BLOCK as usize, 0..200)) {
            let mut block = Block::default();
            places.iter().for_each(|place| block.insert(*place));
            let read = Block::decode(&block.encode()).unwrap();
            prop_assert!((0..BLOCK as usize).all(|place| read.contains(place) == places.contains(&place)));
            prop_assert_eq!(read.end(), places.iter().max().map_or(0, |last| *last as i64 + 1));
        }
    }
}
