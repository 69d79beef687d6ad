//! The body of a request with many events, as Dapr's bulk subscription writes it. Pure.

use super::{content::Content, headers, routes::Route};
use crate::{event::quote, handler::Run};

/// Appends the entries of a batch; their `entryId`s are 0, 1, ..
pub(super) fn write<'a>(out: &mut Vec<u8>, topic: &str, route: &Route, content: Content, runs: impl Iterator<Item = &'a Run>) {
    let mut digits = itoa::Buffer::new();
    out.extend_from_slice(b"{\"id\":\"");
    out.extend_from_slice(uuid::Uuid::new_v4().hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()).as_bytes());
    put(out, "\",\"type\":\"com.dapr.event.sent.bulk\",\"topic\":", topic);
    put(out, ",\"pubsubname\":", &route.pubsub);
    put(out, ",\"metadata\":{\"pubsubName\":", &route.pubsub);
    out.extend_from_slice(b"},\"entries\":[");
    for (index, run) in runs.enumerate() {
        out.extend_from_slice(if index == 0 { b"{\"entryId\":\"" } else { b",{\"entryId\":\"" });
        out.extend_from_slice(digits.format(index).as_bytes());
        out.extend_from_slice(b"\",\"event\":");
        let content_type = content.write_entry(&run.event, route, out);
        out.extend_from_slice(b",\"metadata\":{");
        let mut first = true;
        headers::metadata(run, Some(route), |name, value| {
            put(out, if std::mem::take(&mut first) { "" } else { "," }, name.text());
            put(out, ":", &String::from_utf8_lossy(value));
        });
        put(out, "},\"contentType\":", content_type);
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
}

/// Appends what is JSON, then a text as JSON.
fn put(out: &mut Vec<u8>, json: &str, text: &str) {
    out.extend_from_slice(json.as_bytes());
    quote(text, out);
}
