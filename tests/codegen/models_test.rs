//! What the generated Rust promises. It stands in a crate of its own, with the generated modules and `catalogue.json` beside it.

use models::*;
use serde_json::{Value, json};

const TIME: &str = "2025-12-30T10:00:00Z";

fn catalogue() -> Vec<Value> {
    serde_json::from_str(include_str!("../catalogue.json")).unwrap()
}

fn canonical(kind: &Value, data: &Value) -> Value {
    json!({
        "event_id": "e-1", "event_type": kind["type"], "event_version": kind["version"], "timestamp": TIME, "source": "s", "data": data
    })
}

fn each<'a>(kind: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    kind[name].as_array().unwrap().iter()
}

macro_rules! prove {
    ($($module:ident: $event:ident),* $(,)?) => {$(
        #[test]
        fn $module() {
            use models::$module::$event as Event;
            let kinds: Vec<_> = catalogue().into_iter().filter(|kind| kind["module"] == stringify!($module)).collect();
            assert!(!kinds.is_empty());
            for kind in &kinds {
                let event = Event::from_value(canonical(kind, &kind["example"])).unwrap();
                assert_eq!(event.to_value(), canonical(kind, &kind["example"]));
                assert_eq!(Event::from_json(&event.to_json()).unwrap(), event);
                assert_eq!((event.validate(), event.user_id()), (vec![], kind["example"]["user_id"].as_str().unwrap()));
                for one in each(kind, "counterexamples") {
                    assert!(Event::from_value(canonical(kind, &one["data"])).is_err(), "{one}");
                }
                for alias in each(kind, "aliases") {
                    let mut sent = canonical(kind, &kind["example"]);
                    sent["event_type"] = alias.clone();
                    assert_eq!(Event::from_value(sent).unwrap(), event);
                }
                for past in each(kind, "past") {
                    let mut old = canonical(kind, &past["example"]);
                    old["event_version"] = past["version"].clone();
                    assert_eq!(Event::from_value(old).unwrap(), Event::from_value(canonical(kind, &past["current"])).unwrap());
                }
                let mut bare = kind["example"].clone();
                let fields = bare.as_object_mut().unwrap();
                let ids: Vec<_> = ["user_id", "task_id"].iter().filter_map(|name| Some((*name, fields.remove(*name)?))).collect();
                for name in each(kind, "filled") {
                    fields.remove(name.as_str().unwrap());
                }
                let mut outside = canonical(kind, &Value::Null);
                outside["payload"] = bare;
                for (name, id) in ids {
                    outside[name] = id;
                }
                let cloud = |data: Value| json!({ "specversion": "1.0", "type": "com.dapr.event.sent", "id": "ce", "data": data });
                let filled = Event::from_value(outside.clone()).unwrap();
                for name in each(kind, "filled") {
                    assert_eq!(filled.to_value()["data"][name.as_str().unwrap()], TIME);
                }
                for shape in [cloud(outside.clone()), cloud(outside.to_string().into())] {
                    assert_eq!(Event::from_value(shape).unwrap(), filled);
                }
            }
        }
    )*};
}

prove! {
    dlq: DlqEvent,
    historic_tasks: TaskEvent,
    keywords_orders: OrderEvent,
    notifications: NotificationEvent,
    points: PointsEvent,
    recurring: RecurringEvent,
    reminders: ReminderEvent,
    schedules: ScheduleEvent,
    tasks: TaskEvent,
    users: UserEvent,
}

#[test]
fn an_event_is_made_of_its_payload() {
    use tasks::{TaskCreatedPayload, TaskEvent, TaskEventType, TaskId, TaskPriority};
    let mut payload = TaskCreatedPayload::new(TaskId::Integer(7), "ada", "Buy groceries");
    payload.priority = Some(TaskPriority::High);
    let event = TaskEvent::new("todo-backend", payload);
    assert_eq!((event.event_type(), event.user_id(), event.event_version.as_str()), (TaskEventType::Created, "ada", "1.0"));
    assert_eq!(event.to_value()["data"]["created_at"], event.to_value()["timestamp"]);
    assert!(event.validate().is_empty());
    let long = TaskEvent::new("s", TaskCreatedPayload::new(7, "ada", "x".repeat(201)));
    assert_eq!(long.validate(), ["data.title: more than 200 characters"]);
    assert!(TaskEvent::from_value(long.to_value()).is_err());
    let read: TaskEvent = serde_json::from_value(json!({ "event_type": "task.deleted", "user_id": "u", "task_id": 1, "note": [1] })).unwrap();
    assert_eq!((read.to_value()["note"].clone(), read.to_value().get("user_id")), (json!([1]), None));
}

#[test]
fn a_time_is_read_as_the_worker_reads_it() {
    let times = &catalogue()[0]["times"];
    for pair in each(times, "valid") {
        let read: tasks::Timestamp = serde_json::from_value(pair[0].clone()).unwrap();
        assert_eq!(read.to_string(), pair[1].as_str().unwrap(), "{pair}");
    }
    for text in each(times, "invalid") {
        assert!(serde_json::from_value::<tasks::Timestamp>(text.clone()).is_err(), "{text}");
    }
}

#[test]
fn publish_posts_the_canonical_event_and_answers_where_it_stands() {
    use std::io::{BufRead, BufReader, Read, Write};
    use tasks::{PublishError, TaskDeletedPayload, TaskEvent};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = std::thread::spawn(move || {
        let answers = [("202 Accepted", r#"{"accepted":1,"events":[{"event_id":"e","topic":"t","partition":3,"offset":7}]}"#), ("503 Away", "{}")];
        answers.map(|(status, answer)| {
            let mut reader = BufReader::new(listener.accept().unwrap().0);
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                reader.read_line(&mut head).unwrap();
            }
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            let mut body = vec![0; length.parse().unwrap()];
            reader.read_exact(&mut body).unwrap();
            write!(reader.get_mut(), "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{answer}", answer.len()).unwrap();
            (head, serde_json::from_slice::<Value>(&body).unwrap())
        })
    });
    let event = TaskEvent::new("s", TaskDeletedPayload::new(1, "ada"));
    assert_eq!(event.publish(&address, Some("secret")).unwrap().offset, 7);
    assert!(matches!(event.publish(&address, None), Err(PublishError::Refused { status: 503, .. })));
    let [(head, body), _] = server.join().unwrap();
    assert!(head.starts_with("POST /events HTTP/1.1\r\n") && head.contains("\r\ndapr-api-token: secret\r\n"), "{head}");
    assert_eq!(body, event.to_value());
    assert!(matches!(event.publish(&address, None), Err(PublishError::Away(_))), "nobody listens any more");
}
