//! The body of a request with many events, as Dapr's bulk subscription writes it. Pure.

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::{BufMut, Bytes, BytesMut};
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::value::RawValue;

use super::{bulk::Joining, headers, routes::Route};

/// What an entry takes besides its event: about that much metadata.
const BESIDES: usize = 256;

/// The entries of a batch, written into `room`; their `entryId`s are 0, 1, ..
pub(super) fn write<'a>(room: &mut BytesMut, topic: &str, route: &Route, entries: impl Iterator<Item = &'a Joining>) -> Bytes {
    let entries: Vec<_> = entries.enumerate().map(|(index, joining)| Entry { index, joining, route }).collect();
    room.reserve(entries.iter().map(|entry| entry.joining.event.len() + BESIDES).sum());
    // Nothing in it can fail to be written.
    let _written = serde_json::to_writer(
        (&mut *room).writer(),
        &Body {
            id: uuid::Uuid::new_v4(),
            r#type: "com.dapr.event.sent.bulk",
            topic,
            pubsubname: &route.pubsub,
            metadata: About { pubsub_name: &route.pubsub },
            entries,
        },
    );
    room.split().freeze()
}

#[derive(Serialize)]
struct Body<'a> {
    id: uuid::Uuid,
    r#type: &'static str,
    topic: &'a str,
    pubsubname: &'a str,
    metadata: About<'a>,
    entries: Vec<Entry<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct About<'a> {
    pubsub_name: &'a str,
}

struct Entry<'a> {
    index: usize,
    joining: &'a Joining,
    route: &'a Route,
}

impl Serialize for Entry<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Joining { event, content_type, .. } = self.joining;
        let mut entry = to.serialize_map(Some(4))?;
        entry.serialize_entry("entryId", &Digits(self.index))?;
        // Opaque bytes as base64, as Dapr does it.
        match serde_json::from_slice::<&RawValue>(event).ok().filter(|_| !self.route.raw) {
            Some(json) => entry.serialize_entry("event", json)?,
            None => entry.serialize_entry("event", &BASE64_STANDARD.encode(event))?,
        }
        entry.serialize_entry("metadata", &Metadata(self))?;
        entry.serialize_entry("contentType", content_type)?;
        entry.end()
    }
}

/// A number as a string.
struct Digits(usize);

impl Serialize for Digits {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&self.0)
    }
}

struct Metadata<'a>(&'a Entry<'a>);

impl Serialize for Metadata<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        let mut result = Ok(());
        headers::metadata(&self.0.joining.run, Some(self.0.route), |name, value| {
            if result.is_ok() {
                result = map.serialize_entry(name.text(), &String::from_utf8_lossy(value));
            }
        });
        result?;
        map.end()
    }
}
