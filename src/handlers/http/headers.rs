//! Headers of a delivery, and their like in a bulk request: the record's own, where it stands, and the worker's.

use std::borrow::Cow;

use reqwest::header::HeaderName;

use super::{request::Request, routes::Route};
use crate::handler::Run;

/// Longest value of a record's header that is passed on, and all of them together: servers refuse requests with more than 8 to 16 KiB.
const LONGEST: (usize, usize) = (4 * 1024, 8 * 1024);

/// Headers of a record that would change the request itself, or claim to be the worker.
const NOT_PASSED: [&str; 17] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "dapr-api-token",
    "dapr-app-id",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];

/// Where a record stands, as Dapr names it; a record's own headers of these names are not passed on.
const PLACE: [&str; 5] = ["__topic", "__partition", "__offset", "__timestamp", "__key"];

/// Writes what every request to an app says: the record's headers, then where it stands in Kafka, then what the worker knows; of a name that
/// comes twice the later one counts. `accept` is anything, unless the record says otherwise.
pub(super) fn write(run: &Run, route: Option<&Route>, request: &mut Request) {
    let trace = run.event.traceparent().filter(|trace| is_text(trace.as_bytes()));
    let mut accepts = false;
    metadata(run, route, |name, value| {
        if let Name::Own(name) = name {
            let replaced = name == IDEMPOTENCY_KEY || name == TRACEPARENT || name == TRACESTATE && trace.is_none();
            if replaced || HeaderName::try_from(name).is_err() {
                return;
            }
            accepts |= name == "accept";
        }
        request.header(name.text(), &header_text(value));
    });
    if !accepts {
        request.header("accept", b"*/*");
    }
    request.header(IDEMPOTENCY_KEY, &encoded(run.idempotency_key().as_bytes()));
    request.number("x-worker-attempt", run.attempt);
    request.number("x-worker-epoch", run.epoch);
    if let Some(trace) = trace {
        request.header(TRACEPARENT, trace.as_bytes());
    }
}

const IDEMPOTENCY_KEY: &str = "idempotency-key";
const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

/// A header's name.
#[derive(Debug, Clone, Copy)]
pub(super) enum Name<'a> {
    /// The record's own, in lowercase.
    Own(&'a str),
    /// One that says where the record stands.
    Ours(&'static str),
}

impl<'a> Name<'a> {
    /// The name.
    pub(super) fn text(self) -> &'a str {
        match self {
            Self::Own(name) | Self::Ours(name) => name,
        }
    }
}

/// Shows the record's headers with lowercase names, then topic, partition, offset, timestamp and key as Dapr names them: each name once.
pub(super) fn metadata(run: &Run, route: Option<&Route>, mut each: impl FnMut(Name<'_>, &[u8])) {
    let record = run.event.record();
    let pubsub = route.map(|route| route.pubsub.as_str()).filter(|pubsub| !pubsub.is_empty());
    let mut own: Vec<(String, &[u8])> = Vec::new();
    let mut total = 0;
    for (name, value) in record.headers() {
        let name = name.to_ascii_lowercase();
        let value = value.unwrap_or_default();
        let size = name.len() + value.len();
        let passes = !NOT_PASSED.contains(&name.as_str()) && !name.ends_with("-bin") && !name.starts_with("x-worker-");
        if !passes || value.len() > LONGEST.0 || total + size > LONGEST.1 {
            continue;
        }
        total += size;
        own.retain(|(earlier, _)| *earlier != name);
        let ours = PLACE.contains(&name.as_str()) || name == PUBSUB && pubsub.is_some();
        if !ours {
            own.push((name, value));
        }
    }
    for (name, value) in own {
        each(Name::Own(&name), value);
    }
    let mut digits = itoa::Buffer::new();
    let [topic, partition, offset, timestamp, key] = PLACE.map(Name::Ours);
    each(topic, record.topic().as_bytes());
    each(partition, digits.format(record.partition().partition).as_bytes());
    each(offset, digits.format(record.offset()).as_bytes());
    if let Some(at) = record.timestamp() {
        each(timestamp, digits.format(at).as_bytes());
    }
    if let Some(found) = record.key().filter(|key| key.len() <= LONGEST.0) {
        each(key, found);
    }
    if let Some(pubsub) = pubsub {
        each(Name::Ours(PUBSUB), pubsub.as_bytes());
    }
}

/// The app's name for the brokers.
const PUBSUB: &str = "pubsubname";

/// Whether HTTP allows these bytes as a header's value, read as ASCII.
fn is_text(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t'))
}

/// Bytes as a header's value: as they are where HTTP allows it, else percent-encoded.
pub(super) fn header_text(bytes: &[u8]) -> Cow<'_, [u8]> {
    let padded = bytes.first().is_some_and(u8::is_ascii_whitespace) || bytes.last().is_some_and(u8::is_ascii_whitespace);
    if is_text(bytes) && !padded { Cow::Borrowed(bytes) } else { encoded(bytes) }
}

/// Bytes as a header's value: graphic ASCII as it is, any other text percent-encoded, since HTTP forbids it there.
fn encoded(bytes: &[u8]) -> Cow<'_, [u8]> {
    if bytes.iter().all(u8::is_ascii_graphic) {
        return Cow::Borrowed(bytes);
    }
    let mut encoded = Vec::with_capacity(bytes.len() * 3);
    for &byte in bytes {
        if byte.is_ascii_graphic() && byte != b'%' {
            encoded.push(byte);
        } else {
            encoded.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
    Cow::Owned(encoded)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use reqwest::header::HeaderValue;

    use super::{encoded, header_text};

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    #[test]
    fn an_id_that_is_no_header_text_is_percent_encoded() {
        assert_eq!(text(&encoded(b"550e8400-e29b")), "550e8400-e29b");
        assert_eq!(text(&encoded(b"50%")), "50%");
        assert_eq!(text(&encoded("a b\nü%".as_bytes())), "a%20b%0A%C3%BC%25");
    }

    #[test]
    fn a_records_header_keeps_its_spaces_and_loses_nothing() {
        assert_eq!(text(&header_text(b"Buy milk")), "Buy milk");
        assert_eq!(text(&header_text(b"")), "");
        assert_eq!(text(&header_text(b" padded")), "%20padded");
        assert_eq!(text(&header_text(b"\x00\xff")), "%00%FF");
        assert_eq!(text(&header_text("naïve".as_bytes())), "na%C3%AFve");
    }

    proptest! {
        #[test]
        fn no_bytes_of_a_record_end_a_header_or_begin_another(bytes: Vec<u8>) {
            for value in [header_text(&bytes), encoded(&bytes)] {
                prop_assert!(HeaderValue::from_bytes(&value).is_ok() && value.is_ascii());
            }
        }
    }
}
