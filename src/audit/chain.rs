//! One record after the other, each with the hash of the last. Pure.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::event::time;

/// What the first record of a chain has for the hash of the one before it.
pub const NOTHING: &str = "0000000000000000000000000000000000000000000000000000000000000000";
/// `,"hash":"` and 64 digits, `"` and `}`.
const TAIL: usize = 9 + 64 + 2;

/// What a record is about.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// A chain, or a file of one, begins.
    Open(Value),
    /// The writer of a file ended in the middle of a line, and another one goes on.
    Resumed(Value),
    /// An event.
    Event(Value),
}

impl Body {
    fn parts(&self) -> (&'static str, &Value) {
        match self {
            Self::Open(value) => ("open", value),
            Self::Resumed(value) => ("resumed", value),
            Self::Event(value) => ("event", value),
        }
    }
}

/// Where a chain stands: its last record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: Arc<str>,
    /// The last record's number; 0: there is none yet.
    pub seq: u64,
    /// The last record's hash, in hexadecimal.
    pub hash: String,
}

impl Chain {
    /// A chain without records.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), seq: 0, hash: NOTHING.to_owned() }
    }

    /// The next record's line, with its newline; the chain stands there now.
    pub fn append(&mut self, at: DateTime<Utc>, body: &Body) -> String {
        let (kind, value) = body.parts();
        let (seq, prev, chain, at) = (self.seq + 1, &self.hash, Value::from(&*self.name), time::format(at));
        let text = format!(r#"{{"seq":{seq},"prev":"{prev}","chain":{chain},"at":"{at}","{kind}":{value}"#);
        let hash = hex(&Sha256::digest(text.as_bytes()));
        let line = format!("{text},\"hash\":\"{hash}\"}}\n");
        (self.seq, self.hash) = (seq, hash);
        line
    }
}

/// A record as it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Whose.
    pub chain: Arc<str>,
    /// Its number.
    pub seq: u64,
    /// The hash of the one before it.
    pub prev: String,
    /// When it was written.
    pub at: String,
    /// What it is about.
    pub body: Body,
    /// Its own hash.
    pub hash: String,
}

#[derive(Deserialize)]
struct Fields {
    seq: u64,
    prev: String,
    chain: Arc<str>,
    at: String,
    open: Option<Value>,
    resumed: Option<Value>,
    event: Option<Value>,
    hash: String,
}

impl Record {
    /// Reads a line without its newline. `None`: its hash is not that of its text, or it is no record at all.
    pub fn read(line: &[u8]) -> Option<Self> {
        let (text, tail) = line.split_at_checked(line.len().checked_sub(TAIL)?)?;
        let hash = std::str::from_utf8(tail.strip_prefix(br#","hash":""#)?.strip_suffix(br#""}"#)?).ok()?;
        if hex(&Sha256::digest(text)) != hash {
            return None;
        }
        let fields: Fields = serde_json::from_slice(line).ok()?;
        let body = match (fields.open, fields.resumed, fields.event) {
            (Some(value), None, None) => Body::Open(value),
            (None, Some(value), None) => Body::Resumed(value),
            (None, None, Some(value)) => Body::Event(value),
            _ => return None,
        };
        Some(Self { chain: fields.chain, seq: fields.seq, prev: fields.prev, at: fields.at, body, hash: fields.hash })
    }

    /// The chain as it stood when this was its last record.
    pub fn chain(&self) -> Chain {
        Chain { name: Arc::clone(&self.chain), seq: self.seq, hash: self.hash.clone() }
    }
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The SHA-256 of a text or value, in hexadecimal.
pub fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written_and_names_the_one_before_it() {
        let mut chain = Chain::new("a \"quoted\" name");
        let first = chain.append(DateTime::UNIX_EPOCH, &Body::Open(json!({ "file": 1 })));
        let second = chain.append(DateTime::UNIX_EPOCH, &Body::Event(json!({ "id": "e", "hash": "},\"hash\":\"" })));
        let [first, second] = [&first, &second].map(|line| Record::read(line.strip_suffix('\n').unwrap().as_bytes()).unwrap());
        assert_eq!((first.seq, first.prev.as_str(), second.seq, second.prev), (1, NOTHING, 2, first.hash));
        assert_eq!(second.body, Body::Event(json!({ "id": "e", "hash": "},\"hash\":\"" })));
        assert_eq!(second.chain, chain.name);
        assert_eq!(second.hash, chain.hash);
    }

    #[test]
    fn a_hash_is_what_any_other_program_makes_of_the_line() {
        let line = Chain::new("c").append(DateTime::UNIX_EPOCH, &Body::Event(json!({ "id": "e" })));
        let text = format!(r#"{{"seq":1,"prev":"{NOTHING}","chain":"c","at":"1970-01-01T00:00:00Z","event":{{"id":"e"}}"#);
        assert_eq!(line, format!("{text},\"hash\":\"{}\"}}\n", digest(text.as_bytes())));
        assert_eq!(digest(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    proptest::proptest! {
        #[test]
        fn no_byte_of_a_record_can_be_changed(at in 0..200_usize, to: u8) {
            let mut line = Chain::new("c").append(DateTime::UNIX_EPOCH, &Body::Event(json!({ "id": "e" }))).into_bytes();
            line.pop();
            let at = at % line.len();
            proptest::prop_assume!(line[at] != to);
            line[at] = to;
            proptest::prop_assert_eq!(Record::read(&line), None);
        }
    }
}
