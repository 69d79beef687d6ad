//! Any record: decoding never panics, an error is no copy of the payload, an event that was read is the same after it was written, and the
//! ways around serde_json and the whole validator take nothing that these refuse.
//!
//! The input is a record's value. `H` before it begins headers: `Hce_type: task.completed`, a line each, an empty line, the value.

#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use worker::event::{
    Catalog, Decoder, cheap_user,
    record::{Record, RecordParts, TopicPartition},
};

static DECODERS: LazyLock<[Decoder; 3]> = LazyLock::new(|| {
    let catalog = Arc::new(Catalog::embedded().expect("the catalogue in the binary"));
    let decoder = |validate| Decoder::new(Arc::clone(&catalog), validate);
    [decoder(true), decoder(false), decoder(true).delivering_unknown(true)]
});

type Headers = Vec<(String, Option<Vec<u8>>)>;

fn split(input: &[u8]) -> (Headers, &[u8]) {
    let Some(lines) = input.strip_prefix(b"H") else { return (Vec::new(), input) };
    let end = lines.windows(2).position(|pair| pair == b"\n\n").unwrap_or(lines.len());
    let value = lines.get(end + 2..).unwrap_or_default();
    let header = |line: &[u8]| {
        let text = String::from_utf8_lossy(line).into_owned();
        let (name, value) = text.split_once(": ")?;
        Some((name.to_owned(), Some(value.as_bytes().to_vec())))
    };
    (lines[..end].split(|byte| *byte == b'\n').filter_map(header).collect(), value)
}

fn record(value: &[u8], headers: Headers) -> Record {
    let parts = RecordParts { offset: 9, timestamp: Some(1_767_000_000_000), key: None, value: Some(value.to_vec()), headers };
    Record::copy_of(&TopicPartition::new("task-events", 1), &parts)
}

fuzz_target!(|input: &[u8]| {
    let (headers, value) = split(input);
    let tree = headers.is_empty().then(|| serde_json::from_slice::<Value>(value.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(value)));
    let record = record(value, headers);
    let user = cheap_user(&record);
    for (decoder, validates) in DECODERS.iter().zip([true, false, true]) {
        match decoder.decode(record.clone()) {
            Ok(event) => {
                if validates && !event.kind().unlisted {
                    assert_eq!(event.kind().schema.check(&event.data()), Ok(()), "what is surely valid is valid");
                }
                assert_eq!(user.as_deref(), Some(event.user_id()));
                if let Some(tree) = &tree {
                    let tree = tree.as_ref().expect("what is read in one pass is JSON to others too");
                    let top = tree["user_id"].as_str().filter(|user| !user.is_empty() && !event.is_cloudevent());
                    assert!(top.is_none_or(|top| top == event.user_id()));
                }
                let _ =
                    (event.source(), event.task_id(), event.correlation_id(), event.causation_id(), event.traceparent(), event.metadata());
                for bytes in [event.to_published(), event.to_cloudevent()] {
                    // Stored bytes are published as they are, with the spaces before them.
                    assert!(bytes.trim_ascii_start().starts_with(b"{") || event.is_cloudevent());
                }
                let again = decoder.decode(self::record(&event.to_canonical(), Vec::new())).expect("what was written can be read");
                assert_eq!((again.id(), again.event_type(), again.user_id()), (event.id(), event.event_type(), event.user_id()));
                assert_eq!((again.time(), again.data()), (event.time(), event.data()));
                assert_eq!(again.to_canonical(), event.to_canonical(), "writing is idempotent");
            }
            Err(rejected) => {
                assert!(!rejected.id.is_empty());
                assert!(rejected.error.len() < 400, "an error is no copy of the payload");
            }
        }
    }
});
