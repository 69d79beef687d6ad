//! What an app subscribes to, as it does with a sidecar, end to end: dead-letter topics, opaque values, batches, changes while running.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    stack_or_skip,
    support::{
        app::{Answer, App},
        stack::Stack,
        unique,
        worker::Launch,
    },
};

const LONG: Duration = Duration::from_secs(60);

fn event(user: &str, task: usize) -> String {
    json!({"event_id": format!("{user}-{task}"), "event_type": "task.completed", "user_id": user, "task_id": task}).to_string()
}

/// An app that tells `subscriptions`, which the test may change, and answers everything else by `script`.
async fn subscriber(
    subscriptions: &Arc<Mutex<Value>>,
    script: impl Fn(&crate::support::app::Delivery) -> Answer + Send + Sync + 'static,
) -> App {
    let subscriptions = Arc::clone(subscriptions);
    App::start(move |delivery| match delivery.path.as_str() {
        "/dapr/subscribe" => Answer::json(&subscriptions.lock().unwrap().to_string()),
        _ => script(delivery),
    })
    .await
}

fn toml(app: &App, more: &str) -> String {
    format!(
        "[retry.default]\ndelays = []\n[retry.\"task.completed\"]\ndelays = []\n[[handlers]]\nname = \"app\"\nkind = \"http\"\ndiscover = \"{}\"\ndiscover_every = \"1h\"\n{more}",
        app.url("")
    )
}

fn deliveries(app: &App, path: &str) -> Vec<crate::support::app::Delivery> {
    app.deliveries().into_iter().filter(|delivery| delivery.path == path).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_go_to_the_subscriptions_topic_with_the_reason_and_those_of_others_to_the_dlq() {
    let stack = stack_or_skip!(Stack::shared());
    let (kafka, name) = (stack.kafka(), unique("dead"));
    let [one, other, dead, dlq] = ["one", "other", "dead", "dlq"].map(|part| format!("{name}-{part}"));
    for topic in [&one, &other, &dead, &dlq] {
        kafka.create_topic(topic, 1, &[]).await;
    }
    let subscriptions = Arc::new(Mutex::new(json!([
        {"pubsubname": "kafka-pubsub", "topic": one, "route": "/one", "deadLetterTopic": dead},
        {"pubsubname": "kafka-pubsub", "topic": other, "route": "/other"},
        {"pubsubname": "kafka-pubsub", "topic": dead, "route": "/dead", "deadLetterTopic": one},
    ])));
    let app = subscriber(&subscriptions, |_| Answer::status(422)).await;
    let toml = format!("[dlq]\ntopic = \"{dlq}\"\nbreaker_ratio = 1.0\n{}", toml(&app, ""));
    let mut worker = Launch::role("consumer", &stack, &name, &toml).start_ready().await;
    kafka.produce(&one, "ada", event("ada", 1).as_bytes(), &[("tenant", "t1")]).await;
    kafka.produce(&one, "bob", b"no event", &[]).await;
    kafka.produce(&other, "eve", event("eve", 1).as_bytes(), &[]).await;
    let expired = json!({"specversion": "1.0", "id": "late", "type": "com.dapr.event.sent", "source": "todo", "expiration": "2020-01-01T00:00:00Z",
                         "data": serde_json::from_str::<Value>(&event("late", 1)).unwrap()});
    kafka.produce(&one, "late", expired.to_string().as_bytes(), &[]).await;

    let letters = kafka.wait_for_records(&dead, 2, LONG).await;
    let find = |key: &str| letters.iter().find(|record| record.key_text() == key).unwrap();
    assert_eq!(find("ada").value.as_deref(), Some(event("ada", 1).as_bytes()));
    for (header, expected) in [
        ("x-dlq-reason", "permanent"),
        ("x-dlq-error", "the app answered 422"),
        ("x-dlq-source-topic", &one),
        ("x-dlq-handler", "app"),
        ("tenant", "t1"),
    ] {
        assert_eq!(find("ada").header(header), Some(expected), "{header}");
    }
    assert_eq!((find("bob").header("x-dlq-reason"), find("bob").value.as_deref()), (Some("undecodable"), Some(&b"no event"[..])));
    // The dead-letter topic's own subscriber refuses too: its letters do not go round to where they came from.
    let last = kafka.wait_for_records(&dlq, 3, LONG).await;
    let sources: BTreeMap<&str, &str> =
        last.iter().map(|record| (record.key_text(), record.header("x-dlq-source-topic").unwrap())).collect();
    assert_eq!(sources, BTreeMap::from([("ada", dead.as_str()), ("bob", &dead), ("eve", &other)]));
    assert_eq!(kafka.read_all(&one).await.len(), 3);
    worker.wait_for_metric("worker_events_settled_total", &[("outcome", "expired")], LONG, |sum| sum == 1.0).await;
    assert!(deliveries(&app, "/one").iter().all(|one| one.headers["__key"] != "late"), "expired: the app is not called");
    assert_eq!(worker.terminate(LONG).await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn at_sighup_a_new_topic_is_read_and_nothing_in_flight_is_lost_or_repeated() {
    let stack = stack_or_skip!(Stack::shared());
    let (kafka, name) = (stack.kafka(), unique("reload"));
    let [first, second] = ["first", "second"].map(|part| format!("{name}-{part}"));
    for topic in [&first, &second] {
        kafka.create_topic(topic, 3, &[]).await;
    }
    let subscription = |topic: &str, route: &str| json!({"pubsubname": "kafka-pubsub", "topic": topic, "route": route});
    let subscriptions = Arc::new(Mutex::new(json!([subscription(&first, "/first")])));
    let app = subscriber(&subscriptions, |_| Answer::status(200).after(Duration::from_millis(5))).await;
    let mut worker = Launch::role("consumer", &stack, &name, &toml(&app, "")).start_ready().await;
    let users: Vec<String> = (0..20).map(|n| format!("user-{n}")).collect();
    let round = |from: usize| {
        users.iter().flat_map(move |user| (from..from + 10).map(move |task| (user.clone(), event(user, task)))).collect::<Vec<_>>()
    };
    kafka.produce_all(&first, round(0)).await;
    kafka.produce_all(&second, round(0)).await;
    *subscriptions.lock().unwrap() = json!([subscription(&first, "/moved"), subscription(&second, "/second")]);
    worker.signal("HUP");
    kafka.wait_until_committed(&name, &second, LONG).await;
    kafka.produce_all(&first, round(10)).await;
    kafka.wait_until_committed(&name, &first, LONG).await;
    let of_first = deliveries(&app, "/first").len() + deliveries(&app, "/moved").len();
    assert_eq!((of_first, deliveries(&app, "/second").len()), (400, 200), "each once");
    assert!(deliveries(&app, "/moved").len() >= 200, "the new path holds for the topic that stayed");
    assert_eq!(worker.terminate(LONG).await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn opaque_values_reach_an_app_that_asks_for_them_and_rules_route_the_rest() {
    let stack = stack_or_skip!(Stack::shared());
    let (kafka, name) = (stack.kafka(), unique("raw"));
    let [raw, ruled] = ["raw", "ruled"].map(|part| format!("{name}-{part}"));
    for topic in [&raw, &ruled] {
        kafka.create_topic(topic, 1, &[]).await;
    }
    let subscriptions = Arc::new(Mutex::new(json!([
        {"pubsubname": "kafka-pubsub", "topic": raw, "route": "/raw", "metadata": {"rawPayload": "true"}},
        {"pubsubname": "kafka-pubsub", "topic": ruled, "routes": {"default": "/rest", "rules": [
            {"match": "event.data.task_id == 1", "path": "/first"}]}},
    ])));
    let app = subscriber(&subscriptions, |_| Answer::status(200)).await;
    let worker = Launch::role("consumer", &stack, &name, &toml(&app, "")).start_ready().await;
    kafka.produce_raw(&raw, Some(b"device-7"), Some(&[0xde, 0xad]), &[]).await;
    kafka.produce_raw(&raw, None, Some(b"keyless"), &[]).await;
    for task in [1, 2] {
        kafka.produce(&ruled, "ada", event("ada", task).as_bytes(), &[]).await;
    }
    worker.wait_for_metric("worker_events_settled_total", &[("outcome", "done")], LONG, |sum| sum == 4.0).await;
    let mut bodies: Vec<String> =
        deliveries(&app, "/raw").iter().map(|one| one.json()["data_base64"].as_str().unwrap().to_owned()).collect();
    bodies.sort();
    assert_eq!(bodies, ["3q0=", "a2V5bGVzcw=="]);
    assert_eq!((deliveries(&app, "/first").len(), deliveries(&app, "/rest").len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn in_batches_each_users_events_stay_in_order_and_only_what_failed_comes_again() {
    let stack = stack_or_skip!(Stack::shared());
    let (kafka, topic) = (stack.kafka(), unique("bulk"));
    kafka.create_topic(&topic, 3, &[]).await;
    let bulk = json!({"enabled": true, "maxMessagesCount": 50, "maxAwaitDurationMs": 100});
    let subscriptions =
        Arc::new(Mutex::new(json!([{"pubsubname": "kafka-pubsub", "topic": topic, "route": "/bulk", "bulkSubscribe": bulk}])));
    // Of each event's first run, every seventh comes again.
    let failed = Mutex::new(std::collections::BTreeSet::new());
    let app = subscriber(&subscriptions, move |delivery| {
        let body = delivery.json();
        let statuses: Vec<Value> = body["entries"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| {
                let id = entry["event"]["id"].as_str().unwrap().to_owned();
                let fails = id.len() % 7 == 0 && failed.lock().unwrap().insert(id);
                json!({"entryId": entry["entryId"], "status": if fails { "RETRY" } else { "SUCCESS" }})
            })
            .collect();
        Answer::json(&json!({"statuses": statuses}).to_string())
    })
    .await;
    let toml = toml(&app, "").replace("delays = []", "delays = [\"50ms\", \"50ms\"]");
    let worker = Launch::role("consumer", &stack, &topic, &toml).start_ready().await;
    let users: Vec<String> = (0..30).map(|n| format!("user-{n}{}", "x".repeat(n % 7))).collect();
    let events = (0..10).flat_map(|task| users.iter().map(move |user| (user.clone(), event(user, task))));
    kafka.produce_all(&topic, events).await;
    worker.wait_for_metric("worker_events_settled_total", &[("outcome", "done")], LONG, |sum| sum == 300.0).await;

    let batches: Vec<Value> = deliveries(&app, "/bulk").iter().map(|one| one.json()).collect();
    assert!(batches.iter().any(|batch| batch["entries"].as_array().unwrap().len() > 5), "users share requests");
    let mut done: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    let mut runs: BTreeMap<String, usize> = BTreeMap::new();
    for entry in batches.iter().flat_map(|batch| batch["entries"].as_array().unwrap()) {
        let event = &entry["event"]["data"];
        let (id, user) = (entry["event"]["id"].as_str().unwrap(), event["user_id"].as_str().unwrap());
        let run = runs.entry(id.to_owned()).or_default();
        *run += 1;
        if *run == if id.len() % 7 == 0 { 2 } else { 1 } {
            done.entry(user.to_owned()).or_default().push(event["task_id"].as_i64().unwrap());
        }
    }
    assert!(runs.iter().all(|(id, runs)| *runs == if id.len() % 7 == 0 { 2 } else { 1 }), "{runs:?}");
    assert!(runs.values().any(|runs| *runs == 2), "nothing was retried");
    assert!(done.values().all(|tasks| *tasks == (0..10).collect::<Vec<_>>()), "{done:?}");
}

/// An app that comes from a sidecar has events of its own, which no catalogue knows.
#[tokio::test(flavor = "multi_thread")]
async fn types_that_the_catalogue_lacks_reach_the_app_unchecked_where_they_are_to_be_delivered() {
    let stack = stack_or_skip!(Stack::shared());
    let (kafka, name) = (stack.kafka(), unique("unknown"));
    let [topic, dlq] = ["orders", "dlq"].map(|part| format!("{name}-{part}"));
    for topic in [&topic, &dlq] {
        kafka.create_topic(topic, 1, &[]).await;
    }
    let subscriptions = Arc::new(Mutex::new(json!([
        {"pubsubname": "kafka-pubsub", "topic": topic, "routes": {"default": "/orders", "rules": [{"match": "event.type == \"order.placed\"", "path": "/placed"}]}},
    ])));
    let app = subscriber(&subscriptions, |delivery| Answer::status(if delivery.json()["data"]["total"] == 13 { 503 } else { 200 })).await;
    let settings = format!(
        "[catalog]\nunknown_type = \"deliver\"\n[dlq]\ntopic = \"{dlq}\"\nbreaker_ratio = 1.0\n[retry.default]\ndelays = [\"10ms\", \"10ms\"]\n\
         [[handlers]]\nname = \"app\"\nkind = \"http\"\ndiscover = \"{}\"\n",
        app.url("")
    );
    let mut worker = Launch::role("consumer", &stack, &name, &settings).start_ready().await;
    let wrapped = |id: &str, data: Value| json!({"specversion": "1.0", "id": id, "type": "com.dapr.event.sent", "source": "shop", "datacontenttype": "application/json", "data": data});
    let of = |total: u32| json!({"user_id": "ada", "total": total, "items": ["unchecked", 1]});
    // In a CloudEvent that says nothing but that a sidecar sent it, under a name of its own, and with nobody's name on it.
    kafka.produce(&topic, "ada", wrapped("1", of(5)).to_string().as_bytes(), &[]).await;
    let own = json!({"event_id": "2", "event_type": "order.placed", "user_id": "ada", "data": {"total": 500}});
    kafka.produce(&topic, "ada", own.to_string().as_bytes(), &[]).await;
    kafka.produce(&topic, "ada", wrapped("3", of(13)).to_string().as_bytes(), &[]).await;
    kafka.produce(&topic, "x", wrapped("4", json!({"total": 7})).to_string().as_bytes(), &[]).await;

    let letters = kafka.wait_for_records(&dlq, 2, LONG).await;
    let reason =
        |id: &str| letters.iter().find(|record| record.header("x-dlq-event-id") == Some(id)).unwrap().header("x-dlq-reason").unwrap();
    assert_eq!((reason("3"), reason("4")), ("exhausted", "missing_user_id"));
    let ids = |path: &str| deliveries(&app, path).iter().map(|one| one.headers["idempotency-key"].clone()).collect::<Vec<_>>();
    assert_eq!(ids("/orders"), ["1", "3", "3", "3"], "the default schedule: two delays, three runs");
    assert_eq!(ids("/placed"), ["2"]);
    assert_eq!(deliveries(&app, "/orders")[0].json(), wrapped("1", of(5)), "as it came");
    let settled = |outcome: &'static str| [("event_type", "unknown"), ("outcome", outcome)];
    worker.wait_for_metric("worker_events_settled_total", &settled("done"), LONG, |sum| sum == 2.0).await;
    worker.wait_for_metric("worker_events_settled_total", &settled("dead"), LONG, |sum| sum == 2.0).await;
    let text = worker.get("/metrics").await.unwrap().1;
    assert!(!text.contains("order.placed") && !text.contains("com.dapr"), "labels are of a closed set");
    assert_eq!(worker.terminate(LONG).await, Some(0));
}
