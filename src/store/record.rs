//! How an exceptional record is written in Redis: a few dozen bytes that a script can count starts in.
//!
//! ```text
//! byte 0        version, 2
//! 1..17         the event's id
//! 17..21        starts, big-endian                      these two are also written by the script that counts starts;
//! 21..29        epoch that counted the last start       the second by it alone
//! 29..37        first failure, milliseconds since 1970, 0: none
//! 37..39        handlers, then for each:
//!     u16 + bytes   name
//!     u32           attempts
//!     u64           due, milliseconds since 1970, 0: none waits
//!     u8            0 done, 1 dropped, 2 retry, 3 dead; after 3 also
//!     u8 + bytes    reason
//!     u16 + bytes   error
//! ```
//! All numbers are big-endian. Version 1 is still read: it has one due time before the first failure, which holds for every handler that
//! waits, and none per handler. A newer version is read as no record: the attempts then come from the commit map.

use crate::{
    engine::ports::{EventRecord, HandlerRecord, HandlerState},
    outcome::DeadReason,
};

/// First byte of a record.
const VERSION: u8 = 2;
/// The version with one due time for all handlers.
const ONE_DUE: u8 = 1;
/// Longest error text kept, in bytes; the dead letter of a restarted process shows no more.
const ERROR_BYTES: usize = 1024;

/// The record as Redis keeps it. The epoch of the last start is 0 here: the saving script keeps the one it finds.
pub(super) fn encode(record: &EventRecord) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + record.handlers.len() * 32);
    out.push(VERSION);
    out.extend(record.id);
    out.extend(record.starts.to_be_bytes());
    out.extend(0_u64.to_be_bytes());
    out.extend(record.first_failed_ms.to_be_bytes());
    let handlers = &record.handlers[..record.handlers.len().min(usize::from(u16::MAX))];
    out.extend(short(handlers.len()));
    for handler in handlers {
        put_text(&mut out, &handler.handler, usize::from(u16::MAX));
        out.extend(handler.attempts.to_be_bytes());
        out.extend(handler.due_ms.to_be_bytes());
        match &handler.state {
            HandlerState::Done => out.push(0),
            HandlerState::Dropped => out.push(1),
            HandlerState::Retry => out.push(2),
            HandlerState::Dead { reason, error } => {
                out.push(3);
                let code = reason.code();
                out.push(u8::try_from(code.len()).unwrap_or(u8::MAX));
                out.extend(code.as_bytes());
                put_text(&mut out, error, ERROR_BYTES);
            }
        }
    }
    out
}

/// The record, or `None` where the bytes are no record of a version known here.
pub(super) fn decode(bytes: &[u8]) -> Option<EventRecord> {
    let mut bytes = Reader(bytes);
    let [version @ (ONE_DUE | VERSION)] = bytes.take::<1>()? else { return None };
    let id = bytes.take()?;
    let starts = u32::from_be_bytes(bytes.take()?);
    let _started_by: [u8; 8] = bytes.take()?;
    let for_all = if version == ONE_DUE { Some(u64::from_be_bytes(bytes.take()?)) } else { None };
    let first_failed_ms = u64::from_be_bytes(bytes.take()?);
    let count = u16::from_be_bytes(bytes.take()?);
    let mut handlers = Vec::with_capacity(usize::from(count.min(64)));
    for _ in 0..count {
        let handler = bytes.text16()?;
        let attempts = u32::from_be_bytes(bytes.take()?);
        let own = if version == ONE_DUE { None } else { Some(u64::from_be_bytes(bytes.take()?)) };
        let state = match bytes.take::<1>()? {
            [0] => HandlerState::Done,
            [1] => HandlerState::Dropped,
            [2] => HandlerState::Retry,
            [3] => {
                let [length] = bytes.take()?;
                let reason = DeadReason::from_code(std::str::from_utf8(bytes.slice(usize::from(length))?).ok()?)?;
                HandlerState::Dead { reason, error: bytes.text16()? }
            }
            _ => return None,
        };
        let due_ms = own.or(for_all.filter(|_| state == HandlerState::Retry)).unwrap_or_default();
        handlers.push(HandlerRecord { handler, attempts, due_ms, state });
    }
    bytes.0.is_empty().then_some(EventRecord { id, starts, first_failed_ms, handlers })
}

fn short(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes()
}

/// Writes length and text, cut at a character's border to at most `limit` bytes.
fn put_text(out: &mut Vec<u8>, text: &str, limit: usize) {
    let mut end = text.len().min(limit);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let text = &text[..end];
    out.extend(short(text.len()));
    out.extend(text.as_bytes());
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.slice(N)?.try_into().ok()
    }

    fn slice(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn text16(&mut self) -> Option<String> {
        let length = u16::from_be_bytes(self.take()?);
        String::from_utf8(self.slice(usize::from(length))?.to_vec()).ok()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_record() -> impl Strategy<Value = EventRecord> {
        let state = prop_oneof![
            Just(HandlerState::Done),
            Just(HandlerState::Dropped),
            Just(HandlerState::Retry),
            (0..DeadReason::ALL.len(), "\\PC{0,40}").prop_map(|(at, error)| HandlerState::Dead { reason: DeadReason::ALL[at], error }),
        ];
        let handler = ("\\PC{0,20}", any::<u32>(), any::<u64>(), state).prop_map(|(handler, attempts, due_ms, state)| HandlerRecord {
            handler,
            attempts,
            due_ms,
            state,
        });
        (any::<[u8; 16]>(), any::<u32>(), any::<u64>(), prop::collection::vec(handler, 0..5))
            .prop_map(|(id, starts, first_failed_ms, handlers)| EventRecord { id, starts, first_failed_ms, handlers })
    }

    proptest! {
        #[test]
        fn a_record_is_read_as_it_was_written(record in any_record()) {
            prop_assert_eq!(decode(&encode(&record)), Some(record));
        }

        #[test]
        fn damaged_bytes_are_no_record_and_no_panic(record in any_record(), cut in any::<prop::sample::Index>(), noise in any::<Vec<u8>>()) {
            let whole = encode(&record);
            prop_assert_eq!(decode(&whole[..cut.index(whole.len())]), None);
            let _ = decode(&noise);
        }
    }

    #[test]
    fn a_long_error_is_cut_between_two_characters() {
        let dead = HandlerState::Dead { reason: DeadReason::Exhausted, error: "ä".repeat(5000) };
        let record = EventRecord {
            handlers: vec![HandlerRecord { handler: "h".into(), attempts: 4, due_ms: 0, state: dead }],
            ..EventRecord::default()
        };
        let read = decode(&encode(&record)).unwrap();
        assert_eq!(read.handlers[0].state, HandlerState::Dead { reason: DeadReason::Exhausted, error: "ä".repeat(512) });
    }

    #[test]
    fn records_written_by_an_older_program_are_still_read() {
        let bytes: &[u8] = b"\x01abcdefghijklmnop\0\0\0\x02\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\x04\0\x02\0\x03app\0\0\0\x03\x03\x09exhausted\0\x02no\0\x04mail\0\0\0\x01\x02";
        let record = decode(bytes).unwrap();
        assert_eq!((record.id, record.starts, record.first_failed_ms), (*b"abcdefghijklmnop", 2, 4));
        let dead = HandlerState::Dead { reason: DeadReason::Exhausted, error: "no".into() };
        let app = HandlerRecord { handler: "app".into(), attempts: 3, due_ms: 0, state: dead };
        let mail = HandlerRecord { handler: "mail".into(), attempts: 1, due_ms: 5, state: HandlerState::Retry };
        assert_eq!(record.handlers, [app, mail]);
        assert_eq!(decode(b"\x03abcdefghijklmnop"), None);
    }
}
