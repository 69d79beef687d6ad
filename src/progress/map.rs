//! The commit map and its text in the commit's metadata.
//!
//! Bytes, before they become text ([`super::text`]):
//!
//! ```text
//! 'w'  version 1  tier  epoch  frontier - committed + 1  [tier 0: base, scale]  n  n x head  crc32
//! head = tier 0, 1:  (delta << 1 | failed) [attempts u8 [tier 0: due u16]]      only a failed head has the rest
//!        tier 2, 3:   delta
//! ```
//!
//! Numbers without a width are varints (7 bits a byte, lowest first); a delta counts from the head before, the first from the committed
//! offset. A due time is `base + due * scale` milliseconds since 1970, rounded up, 65 535 for none. The checksum (big endian, as the
//! fixed-width numbers) covers the committed offset too: tools that copy a group's commits to another cluster translate the offset and
//! keep the metadata, and the deltas must not be believed at another place.

use super::{
    Rules,
    text::{self, Alphabet},
};

const MAGIC: u8 = b'w';
const VERSION: u8 = 1;
const NO_DUE: u16 = u16::MAX;
/// A commit's metadata is a string of at most 32 767 bytes in Kafka's protocol, three per character.
const MOST_CHARS: usize = 10_000;

/// What is settled at and above a committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Map {
    /// Lowest unsettled offset: the one that the group commits. It is not part of the text.
    pub committed: i64,
    /// Highest settled offset; `committed - 1` where nothing above the committed offset is settled.
    pub frontier: i64,
    /// Of the owner that wrote it.
    pub epoch: u64,
    /// The lowest unsettled event of each lane, ascending: all up to the frontier, and above it those that have failed.
    pub heads: Vec<MapHead>,
}

/// One lane's lowest unsettled event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapHead {
    /// Where it stands.
    pub offset: i64,
    /// Finished failures; the map holds up to 255.
    pub attempts: u32,
    /// When it runs again, milliseconds since 1970.
    pub due_ms: Option<u64>,
}

/// How much of a map found room, from all to nothing. Each is safe: what is left out is replayed, never skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// Heads, attempts, due times.
    Full,
    /// Without due times: a waiting event runs at once after a restart.
    Attempts,
    /// Heads only: schedules are remembered by the store alone.
    Heads,
    /// The lowest heads, and the frontier pulled back to just below the first head that is left out.
    Partial,
    /// No text at all: everything from the committed offset is replayed.
    Nothing,
}

impl Tier {
    /// The name in logs.
    pub fn code(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Attempts => "attempts",
            Self::Heads => "heads",
            Self::Partial => "partial",
            Self::Nothing => "nothing",
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Full, Self::Attempts, Self::Heads, Self::Partial].into_iter().find(|tier| *tier as u8 == byte)
    }
}

/// How long the text may be. The broker's limit (`offset.metadata.max.bytes`, 4096) counts UTF-16 units, and so does this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapLimits {
    /// Characters, 3800 by default; never more than 10 000.
    pub max_chars: usize,
    /// Plain ASCII, for a broker that refuses other characters or counts bytes.
    pub base64url: bool,
}

impl Default for MapLimits {
    fn default() -> Self {
        Self { max_chars: 3800, base64url: false }
    }
}

impl MapLimits {
    /// Half the room: the answer to a broker that finds the metadata too large. Ends at none, where the text is empty and always fits.
    #[must_use]
    pub fn halved(self) -> Self {
        Self { max_chars: self.max_chars.min(MOST_CHARS) / 2, ..self }
    }

    fn alphabet(self) -> Alphabet {
        if self.base64url { Alphabet::Base64Url } else { Alphabet::Wide }
    }

    /// Bytes that find room.
    fn bytes(self) -> usize {
        self.alphabet().capacity(self.max_chars.min(MOST_CHARS))
    }
}

/// A map as text, and what had to be left out for it to fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The commit's metadata.
    pub text: String,
    /// How much of the map is in it.
    pub tier: Tier,
}

/// Why a commit's metadata is no map. In every case the partition is replayed from the committed offset, which is not settled itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// Another program's.
    #[error("the commit's metadata is another program's")]
    Foreign,
    /// A later version's.
    #[error("the commit map is of version {0}, this program reads version {VERSION}")]
    Version(u8),
    /// Ours, but broken or moved to another offset.
    #[error("the commit map is damaged or belongs to another offset")]
    Damaged,
}

impl MapError {
    /// The metric label.
    pub fn code(self) -> &'static str {
        match self {
            Self::Foreign => "foreign",
            Self::Version(_) => "version",
            Self::Damaged => "damaged",
        }
    }
}

impl Map {
    /// Reads the metadata of a commit at `committed`; `None` where there is none.
    ///
    /// # Errors
    /// Where the text is no map of that offset. The caller logs it once, counts it, and goes on without a map.
    pub fn decode(committed: i64, metadata: &str) -> Result<Option<Self>, MapError> {
        if metadata.is_empty() {
            return Ok(None);
        }
        let bytes = text::read(metadata).ok_or(MapError::Foreign)?;
        match bytes[..] {
            [MAGIC, VERSION, ..] => Self::from_bytes(committed, &bytes).map(Some).ok_or(MapError::Damaged),
            [MAGIC, version, ..] => Err(MapError::Version(version)),
            _ => Err(MapError::Foreign),
        }
    }

    /// The map as text that fits `limits`, with as much as finds room.
    pub fn encode(&self, limits: MapLimits) -> Encoded {
        self.encode_by(limits, Rules::ALL)
    }

    pub(super) fn encode_by(&self, limits: MapLimits, rules: Rules) -> Encoded {
        let room = limits.bytes();
        for tier in [Tier::Full, Tier::Attempts, Tier::Heads] {
            let bytes = self.to_bytes(tier);
            if bytes.len() <= room {
                return Encoded { text: limits.alphabet().write(&bytes), tier };
            }
        }
        let bytes = self.lowest(room, rules).to_bytes(Tier::Partial);
        if bytes.len() <= room {
            Encoded { text: limits.alphabet().write(&bytes), tier: Tier::Partial }
        } else {
            Encoded { text: String::new(), tier: Tier::Nothing }
        }
    }

    /// The map with as many of its lowest heads as `room` bytes hold. A head left out while the frontier stayed would turn its lane's
    /// events into settled ones: the frontier goes back to just below it, which only makes more of the log unsettled.
    fn lowest(&self, room: usize, rules: Rules) -> Self {
        let empty = Self { heads: Vec::new(), ..*self };
        let longest_count = varint_len(self.heads.len() as u64);
        let mut size = empty.to_bytes(Tier::Partial).len() - 1 + longest_count;
        let mut heads = Vec::new();
        let mut before = self.committed;
        for head in self.heads.iter().filter(|head| head.offset <= self.frontier) {
            size += varint_len(distance(before, head.offset));
            if size > room {
                let frontier = if rules.pull_back { head.offset - 1 } else { self.frontier };
                return Self { heads, frontier, ..*self };
            }
            heads.push(*head);
            before = head.offset;
        }
        Self { heads, ..*self }
    }

    fn to_bytes(&self, tier: Tier) -> Vec<u8> {
        let mut out = vec![MAGIC, VERSION, tier as u8];
        put_varint(&mut out, self.epoch);
        put_varint(&mut out, distance(self.committed - 1, self.frontier));
        let dues = Dues::of(&self.heads);
        if tier == Tier::Full {
            put_varint(&mut out, dues.base);
            put_varint(&mut out, dues.scale);
        }
        // What stands above the frontier is replayed anyway; it is listed for its attempts alone.
        let listed = |head: &&MapHead| tier <= Tier::Attempts || head.offset <= self.frontier;
        put_varint(&mut out, self.heads.iter().filter(listed).count() as u64);
        let mut before = self.committed;
        for head in self.heads.iter().filter(listed) {
            let delta = distance(before, head.offset);
            before = head.offset;
            if tier > Tier::Attempts {
                put_varint(&mut out, delta);
                continue;
            }
            let failed = head.attempts > 0 || head.due_ms.is_some();
            put_varint(&mut out, delta << 1 | u64::from(failed));
            if failed {
                out.push(u8::try_from(head.attempts).unwrap_or(u8::MAX));
                if tier == Tier::Full {
                    out.extend(dues.pack(head.due_ms).to_be_bytes());
                }
            }
        }
        let sum = checksum(self.committed, &out);
        out.extend(sum.to_be_bytes());
        out
    }

    fn from_bytes(committed: i64, bytes: &[u8]) -> Option<Self> {
        let mut rest = Reader(bytes.get(2..)?);
        let tier = Tier::from_byte(rest.byte()?)?;
        let epoch = rest.varint()?;
        let frontier = committed.checked_sub(1)?.checked_add_unsigned(rest.varint()?)?;
        let dues = if tier == Tier::Full { Dues { base: rest.varint()?, scale: rest.varint()? } } else { Dues { base: 0, scale: 1 } };
        let count = usize::try_from(rest.varint()?).ok().filter(|count| *count <= bytes.len())?;
        let mut heads = Vec::with_capacity(count);
        let mut offset = committed;
        for index in 0..count {
            let mut delta = rest.varint()?;
            let mut failed = false;
            if tier <= Tier::Attempts {
                failed = delta & 1 == 1;
                delta >>= 1;
            }
            if delta == 0 && index > 0 {
                return None;
            }
            offset = offset.checked_add_unsigned(delta)?;
            let attempts = if failed { u32::from(rest.byte()?) } else { 0 };
            let due_ms = if failed && tier == Tier::Full { dues.unpack(rest.u16()?) } else { None };
            heads.push(MapHead { offset, attempts, due_ms });
        }
        let body = bytes.len() - rest.0.len();
        let sum = u32::from_be_bytes([rest.byte()?, rest.byte()?, rest.byte()?, rest.byte()?]);
        // The last character can hold a byte's worth of filling.
        let whole = sum == checksum(committed, &bytes[..body]) && rest.0.len() <= 1 && rest.0.iter().all(|byte| *byte == 0);
        whole.then_some(Self { committed, frontier, epoch, heads })
    }
}

/// Due times as 16 bits each: milliseconds from the earliest where that is enough, coarser where they lie further apart.
struct Dues {
    base: u64,
    scale: u64,
}

impl Dues {
    fn of(heads: &[MapHead]) -> Self {
        let dues = || heads.iter().filter_map(|head| head.due_ms);
        let base = dues().min().unwrap_or(0);
        let span = dues().max().unwrap_or(0) - base;
        Self { base, scale: span.div_ceil(u64::from(NO_DUE) - 1).max(1) }
    }

    fn pack(&self, due_ms: Option<u64>) -> u16 {
        due_ms.and_then(|due| u16::try_from((due - self.base).div_ceil(self.scale)).ok()).unwrap_or(NO_DUE)
    }

    fn unpack(&self, due: u16) -> Option<u64> {
        (due != NO_DUE).then(|| self.base.saturating_add(u64::from(due).saturating_mul(self.scale)))
    }
}

fn checksum(committed: i64, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&committed.to_be_bytes());
    hasher.update(bytes);
    hasher.finalize()
}

/// `to - from`, both offsets of one log.
fn distance(from: i64, to: i64) -> u64 {
    to.abs_diff(from)
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes([self.byte()?, self.byte()?]))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                return None;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
