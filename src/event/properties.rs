//! What holds for every value: decoding never panics, and an event that was read is the same event after it was written.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{
    Catalog, Decoder, Event, cheap_user,
    prepare::{Options, prepare},
    record::{Record, RecordParts, TopicPartition},
    render::Seen,
    upcast::upcast,
};

fn record(value: Vec<u8>, headers: Vec<(String, Option<Vec<u8>>)>) -> Record {
    let parts = RecordParts { offset: 9, timestamp: Some(1_767_000_000_000), key: None, value: Some(value), headers };
    Record::copy_of(&TopicPartition::new("task-events", 1), &parts)
}

thread_local! {
    static HISTORIC: Catalog = super::catalog::tests::historic();
    static DECODERS: [Decoder; 3] = {
        let catalog = Arc::new(Catalog::embedded().unwrap());
        let decoder = |validate| Decoder::new(Arc::clone(&catalog), validate);
        [decoder(true), decoder(false), decoder(true).delivering_unknown(true)]
    };
}

/// Everything that can be asked of an event.
fn exhaust(event: &Event) {
    let _ = (
        event.data(),
        event.source(),
        event.task_id(),
        event.correlation_id(),
        event.causation_id(),
        event.traceparent(),
        event.metadata(),
    );
    let anew = Event { seen: Seen::NOTHING, ..event.clone() };
    assert_eq!(anew.traceparent(), event.traceparent());
    for (bytes, anew) in [(event.to_published(), anew.to_published()), (event.to_cloudevent(), anew.to_cloudevent())] {
        let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).ok();
        assert_eq!(json(&bytes), json(&anew), "what decoding has seen saves work and changes nothing");
        // The null of a fallback would mean that something decoded could not be read again.
        assert!(bytes.starts_with(b"{") || event.is_cloudevent(), "{bytes:?}");
    }
}

/// Decodes a record both ways; whatever comes out must survive being written as shape A.
fn survive(record: &Record) {
    DECODERS.with(|decoders| {
        for decoder in decoders {
            let user = cheap_user(record);
            match decoder.decode(record.clone()) {
                Ok(event) => {
                    assert_eq!(user.as_deref(), Some(event.user_id()));
                    exhaust(&event);
                    let again = decoder.decode(self::record(event.to_canonical().to_vec(), Vec::new())).unwrap();
                    assert_eq!(
                        (again.id(), again.event_type(), again.user_id(), again.time(), again.data()),
                        (event.id(), event.event_type(), event.user_id(), event.time(), event.data())
                    );
                    assert_eq!(again.to_canonical(), event.to_canonical(), "writing is idempotent");
                    // With one more field it is not taken for what is written in order, without a second look.
                    let alone = record.headers().next().is_none();
                    let other = record.value().filter(|_| alone).and_then(|value| value.strip_prefix(b"{\""));
                    if let Some(other) = other.map(|rest| [b"{\"zz\":0,\"", rest].concat()) {
                        let other = decoder.decode(self::record(other, Vec::new())).unwrap();
                        let mut written: Map<String, Value> = serde_json::from_slice(&other.to_canonical()).unwrap();
                        written.remove("zz");
                        assert_eq!(written, serde_json::from_slice(&event.to_canonical()).unwrap());
                    }
                }
                Err(rejected) => {
                    assert!(!rejected.id.is_empty());
                    assert!(rejected.error.len() < 400, "an error is no copy of the payload: {}", rejected.error);
                }
            }
        }
    });
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_filter("finite", |number| number.is_finite()).prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        Just(json!("2025-12-30 10:00:00.5")),
        Just(json!("task.completed.v1")),
        Just(json!("1.0")),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((field(), inner), 0..4).prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn field() -> impl Strategy<Value = String> {
    let known = [
        "event_id",
        "event_type",
        "event_version",
        "timestamp",
        "source",
        "data",
        "payload",
        "metadata",
        "user_id",
        "task_id",
        "specversion",
        "type",
        "id",
        "time",
        "expiration",
        "traceparent",
        "data_base64",
        "title",
        "created_at",
        "dlq_metadata",
        "userid",
    ];
    prop_oneof![4 => prop::sample::select(known.to_vec()).prop_map(str::to_owned), 1 => ".{0,6}"]
}

/// One of the six shapes of an event of any type, with its example as data.
fn shaped() -> impl Strategy<Value = Value> {
    let examples: Vec<(String, Value)> =
        Catalog::embedded().unwrap().types().map(|kind| (kind.name.to_string(), kind.example.clone())).collect();
    (prop::sample::select(examples), 0..6_u8).prop_map(|((name, data), shape)| {
        let time = "2025-12-30T10:00:00Z";
        let mut bare = data.clone();
        let user = bare.as_object_mut().unwrap().remove("user_id").unwrap();
        match shape {
            0 => json!({ "event_id": "a", "event_type": name, "event_version": "1.0", "timestamp": time, "source": "s", "data": data }),
            1 => json!({ "event_id": "b", "event_type": name, "user_id": user, "timestamp": time, "payload": bare }),
            2 => json!({ "event_type": name, "user_id": user, "task_id": data.get("task_id"), "data": bare, "more": [1, { "deep": null }] }),
            3 => json!({ "specversion": "1.0", "type": "com.dapr.event.sent", "id": "d", "data": { "event_type": name, "user_id": user, "data": bare } }),
            4 => json!({ "specversion": "1.0", "type": name, "source": "s", "id": "d", "data": data }),
            _ => json!({ "event_type": name, "metadata": { "user_id": user }, "timestamp": "2025-12-30T10:00:00.25", "data": bare }),
        }
    })
}

/// A shape with some of its fields changed, at the top or one level deeper.
fn broken() -> impl Strategy<Value = Value> {
    (shaped(), prop::collection::vec((field(), prop::option::of(any_json()), any::<bool>()), 0..4)).prop_map(|(mut event, changes)| {
        for (name, value, deeper) in changes {
            let top = event.as_object_mut().unwrap();
            let place: &mut Map<String, Value> =
                if deeper && top.get("data").is_some_and(Value::is_object) { top["data"].as_object_mut().unwrap() } else { top };
            match value {
                Some(value) => drop(place.insert(name, value)),
                None => drop(place.shift_remove(&name)),
            }
        }
        event
    })
}

#[test]
fn every_value_of_the_corpus_is_refused_or_comes_back_the_same() {
    let files = std::fs::read_dir(super::tests::fixtures().join("corpus")).unwrap();
    let values: Vec<_> = files.map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect();
    assert!(values.len() > 20);
    for value in values {
        survive(&record(value.clone(), Vec::new()));
        let is_read = DECODERS.with(|decoders| decoders[1].decode(record(value.clone(), Vec::new())).is_ok());
        let json = value.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&value);
        assert!(!is_read || serde_json::from_slice::<Value>(json).is_ok(), "{}", value.escape_ascii());
        survive(&record(value, vec![("ce_type".to_owned(), Some(b"task.completed".to_vec()))]));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(value in prop::collection::vec(any::<u8>(), 0..256), kind in ".{0,8}") {
        survive(&record(value.clone(), Vec::new()));
        survive(&record(value, vec![("ce_type".to_owned(), Some(kind.into_bytes()))]));
    }

    #[test]
    fn arbitrary_json_never_panics(value in any_json()) {
        survive(&record(value.to_string().into_bytes(), Vec::new()));
        survive(&record(value.to_string().into_bytes(), vec![("ce_type".to_owned(), Some(b"task.completed".to_vec()))]));
    }

    #[test]
    fn every_shape_of_every_type_decodes_and_comes_back_the_same(value in shaped()) {
        let record = record(value.to_string().into_bytes(), Vec::new());
        DECODERS.with(|decoders| assert!(decoders[0].decode(record.clone()).is_ok(), "{value}"));
        survive(&record);
    }

    #[test]
    fn broken_events_are_refused_or_come_back_the_same(value in broken()) {
        survive(&record(value.to_string().into_bytes(), Vec::new()));
    }

    #[test]
    fn a_cut_or_flipped_event_never_panics(value in shaped(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = value.to_string().into_bytes();
        let at = at.index(bytes.len());
        survive(&record(bytes[..at].to_vec(), Vec::new()));
        bytes[at] = byte;
        survive(&record(bytes, Vec::new()));
    }

    #[test]
    fn what_may_be_published_can_be_consumed_with_the_same_id_and_user(value in broken()) {
        DECODERS.with(|decoders| {
            let catalog = decoders[0].catalog();
            let now = chrono::DateTime::from_timestamp(1_767_000_000, 5).unwrap();
            let options = Options { topic: None, validate: true, user_optional: false, now, source: "here" };
            if let Ok(ready) = prepare(catalog, value.to_string().as_bytes(), &options) {
                let event = decoders[0].decode(record(ready.value.to_vec(), Vec::new())).unwrap();
                assert_eq!((event.id(), Some(event.user_id())), (ready.event_id.as_str(), ready.user_id.as_deref()));
            }
        });
    }

    #[test]
    fn upcasting_twice_is_upcasting_once(value in any_json()) {
        HISTORIC.with(|catalog| {
            let kind = catalog.get("task.created").unwrap();
            for past in &kind.past {
                let once = upcast(&value, kind.upcast_from(past.version));
                assert_eq!(upcast(&once, kind.upcast_from(past.version)), once);
            }
        });
    }
}
