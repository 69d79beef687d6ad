//! Headers of a delivery, and their like in a bulk request: the record's own, where it stands, and the worker's.

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use super::routes::Route;
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

/// What every request to an app says: the record's headers, then where it stands in Kafka, then what the worker knows; a later one
/// replaces an earlier one of its name.
pub(super) fn headers(run: &Run, route: Option<&Route>) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(16);
    metadata(run, route, |name, value| {
        let name = match name {
            Name::Own(name) => HeaderName::try_from(name).ok(),
            Name::Ours(name) => Some(HeaderName::from_static(name)),
        };
        if let Some(name) = name {
            headers.insert(name, header_text(value));
        }
    });
    headers.insert("idempotency-key", encoded(run.idempotency_key().as_bytes()));
    headers.insert("x-worker-attempt", run.attempt.into());
    headers.insert("x-worker-epoch", run.epoch.into());
    let trace = run.event.traceparent().map(HeaderValue::try_from);
    match trace {
        Some(Ok(traceparent)) => drop(headers.insert("traceparent", traceparent)),
        _ => {
            headers.remove("traceparent");
            headers.remove("tracestate");
        }
    }
    headers
}

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

/// Bytes as a header's value: as they are where HTTP allows it, else percent-encoded.
fn header_text(bytes: &[u8]) -> HeaderValue {
    let padded = bytes.first().is_some_and(u8::is_ascii_whitespace) || bytes.last().is_some_and(u8::is_ascii_whitespace);
    if bytes.is_ascii() && !padded { HeaderValue::from_bytes(bytes).unwrap_or_else(|_| encoded(bytes)) } else { encoded(bytes) }
}

/// Bytes as a header's value: graphic ASCII as it is, any other text percent-encoded, since HTTP forbids it there.
fn encoded(bytes: &[u8]) -> HeaderValue {
    if bytes.iter().all(u8::is_ascii_graphic) {
        return HeaderValue::from_bytes(bytes).unwrap_or(HeaderValue::from_static(""));
    }
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'%';
    let encoded: String =
        bytes.iter().map(|&byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect();
    // Only graphic ASCII is left, which every header takes.
    HeaderValue::try_from(encoded).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::{encoded, header_text};

    #[test]
    fn an_id_that_is_no_header_text_is_percent_encoded() {
        assert_eq!(encoded(b"550e8400-e29b"), "550e8400-e29b");
        assert_eq!(encoded(b"50%"), "50%");
        assert_eq!(encoded("a b\nü%".as_bytes()), "a%20b%0A%C3%BC%25");
    }

    #[test]
    fn a_records_header_keeps_its_spaces_and_loses_nothing() {
        assert_eq!(header_text(b"Buy milk"), "Buy milk");
        assert_eq!(header_text(b""), "");
        assert_eq!(header_text(b" padded"), "%20padded");
        assert_eq!(header_text(b"\x00\xff"), "%00%FF");
        assert_eq!(header_text("naïve".as_bytes()), "na%C3%AFve");
    }
}
