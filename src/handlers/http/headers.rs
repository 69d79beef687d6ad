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

/// What every request to an app says: the record's headers, then where it stands in Kafka, then what the worker knows; a later one
/// replaces an earlier one of its name.
pub(super) fn headers(run: &Run, route: Option<&Route>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in metadata(run, route) {
        if let Ok(name) = HeaderName::try_from(name) {
            headers.insert(name, header_text(&value));
        }
    }
    headers.insert("idempotency-key", encoded(run.idempotency_key().as_bytes()));
    headers.insert("x-worker-attempt", run.attempt.into());
    headers.insert("x-worker-epoch", run.epoch.into());
    let trace = run.event.traceparent().map(HeaderValue::try_from);
    headers.remove("traceparent");
    match trace {
        Some(Ok(traceparent)) => drop(headers.insert("traceparent", traceparent)),
        _ => drop(headers.remove("tracestate")),
    }
    headers
}

/// The record's headers with lowercase names, and topic, partition, offset, timestamp and key as Dapr names them.
pub(super) fn metadata(run: &Run, route: Option<&Route>) -> Vec<(String, Vec<u8>)> {
    let record = run.event.record();
    let mut found: Vec<(String, Vec<u8>)> = Vec::new();
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
        found.retain(|(earlier, _)| *earlier != name);
        found.push((name, value.to_vec()));
    }
    let mut place = |name: &str, value: Vec<u8>| {
        found.retain(|(earlier, _)| earlier != name);
        found.push((name.to_owned(), value));
    };
    place("__topic", record.topic().as_bytes().to_vec());
    place("__partition", record.partition().partition.to_string().into());
    place("__offset", record.offset().to_string().into());
    if let Some(timestamp) = record.timestamp() {
        place("__timestamp", timestamp.to_string().into());
    }
    match record.key() {
        Some(key) if key.len() <= LONGEST.0 => place("__key", key.to_vec()),
        _ => found.retain(|(name, _)| name != "__key"),
    }
    if let Some(route) = route.filter(|route| !route.pubsub.is_empty()) {
        found.retain(|(name, _)| name != "pubsubname");
        found.push(("pubsubname".to_owned(), route.pubsub.clone().into_bytes()));
    }
    found
}

/// Bytes as a header's value: as they are where HTTP allows it, else percent-encoded.
fn header_text(bytes: &[u8]) -> HeaderValue {
    let plain = bytes.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t'));
    let padded = bytes.first().is_some_and(u8::is_ascii_whitespace) || bytes.last().is_some_and(u8::is_ascii_whitespace);
    if plain && !padded { HeaderValue::from_bytes(bytes).unwrap_or_else(|_| encoded(bytes)) } else { encoded(bytes) }
}

/// Bytes as a header's value: graphic ASCII as it is, any other text percent-encoded, since HTTP forbids it there.
fn encoded(bytes: &[u8]) -> HeaderValue {
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'%';
    let encoded: String = match bytes.iter().all(u8::is_ascii_graphic) {
        true => String::from_utf8_lossy(bytes).into_owned(),
        false => bytes.iter().map(|&byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect(),
    };
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
