use std::{collections::BTreeMap, sync::LazyLock};

use chrono::DateTime;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::super::{
    catalog::{Catalog, EventType},
    complete::{self, Facts},
    view,
};

static CATALOG: LazyLock<Catalog> = LazyLock::new(|| Catalog::embedded().unwrap());

/// What the quick check and the whole validator say of one event.
fn both(kind: &EventType, event: &str) -> (bool, bool) {
    view::open_text(event, None, |view| {
        let view = view.unwrap();
        let user_id = view.user();
        let facts = Facts { kind: Some(kind), version: kind.version, time: DateTime::default(), user_id };
        (complete::surely_valid(view, facts), kind.schema.check(&complete::value(view, facts)).is_ok())
    })
}

fn event(kind: &EventType, top: &Map<String, Value>, data: &Value) -> String {
    let mut event = json!({ "event_id": "e", "event_type": &*kind.name, "data": data });
    event.as_object_mut().unwrap().extend(top.clone());
    event.to_string()
}

#[test]
fn an_ordinary_event_of_nearly_every_type_needs_no_tree_of_values() {
    let slow: Vec<_> =
        CATALOG.types().filter(|kind| !both(kind, &event(kind, &Map::new(), &kind.example)).0).map(|kind| &*kind.name).collect();
    // Three hold objects within the data; one says something about the object as a whole.
    assert_eq!(slow, ["dlq.failed", "notification.due", "reminder.scheduled", "security.alert"]);
}

#[test]
fn what_is_missing_is_found_where_it_stands() {
    let kind = CATALOG.get("task.completed").unwrap();
    for text in [
        r#"{"event_type":"task.completed","user_id":"u","task_id":7}"#,
        r#"{"event_type":"task.completed","user_id":"u","task_id":"880e8400-e29b-41d4-a716-446655440003","data":{}}"#,
        r#"{"event_type":"task.completed","user_id":"u","task_id":7,"data":{"task_id":null,"user_id":null}}"#,
    ] {
        assert_eq!(both(kind, text), (true, true), "{text}");
    }
    assert_eq!(both(kind, r#"{"event_type":"task.completed","user_id":"u"}"#), (false, false));
}

#[test]
fn no_counterexample_is_taken() {
    for kind in CATALOG.types() {
        for bad in &kind.counterexamples {
            assert!(!both(kind, &event(kind, &Map::new(), &bad.data)).0, "{}: {}", kind.name, bad.why);
        }
    }
}

/// Values that rules differ about.
fn values() -> impl Strategy<Value = Value> {
    let texts = ["", "x", "high", "email", "due_soon", "2026-01-01T00:00:00Z", "2026-01-01", "not a time", "a\nb\u{e9}\u{1f600}"];
    let uuids = ["880e8400-e29b-41d4-a716-446655440003", "880e8400e29b41d4a716446655440003", "{880e8400-e29b-41d4-a716-44665544000}"];
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        Just(json!(7.0)),
        Just(json!(7.5)),
        Just(json!(1e300)),
        proptest::sample::select([&texts[..], &uuids[..]].concat()).prop_map(Value::from),
        (195_usize..206).prop_map(|length| Value::from("\u{e9}".repeat(length))),
        Just(json!([])),
        Just(json!(["a", "b"])),
        Just(json!(["a", 7, null])),
        Just(json!({ "failed_at": "never" })),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// The whole validator is never overruled.
    #[test]
    fn what_is_taken_is_valid(
        number in 0_usize..100,
        changes in proptest::collection::vec((0_usize..40, proptest::option::of(values())), 0..4),
        top in proptest::collection::btree_map(proptest::sample::select(vec!["task_id", "user_id", "title"]), values(), 0..3),
    ) {
            let kinds: Vec<_> = CATALOG.types().collect();
        let kind = kinds[number % kinds.len()];
        let mut names: Vec<String> = kind.schema.json()["properties"].as_object().unwrap().keys().cloned().collect();
        names.push("unheard_of".to_owned());
        let mut data = kind.example.as_object().unwrap().clone();
        for (at, value) in changes {
            let name = &names[at % names.len()];
            match value {
                Some(value) => drop(data.insert(name.clone(), value)),
                None => drop(data.remove(name)),
            }
        }
        let top: BTreeMap<_, _> = top;
        let top = top.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let text = event(kind, &top, &Value::Object(data));
        let (sure, valid) = both(kind, &text);
        prop_assert!(!sure || valid, "{text}");
    }
}
