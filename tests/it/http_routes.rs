//! The `http` handler with an app that tells its routes: rules, dead-letter topics, opaque values, batches, headers, changes.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    routing::{get, post},
};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};
use worker::{
    config::Config,
    event::{
        Catalog, Decoder, Event,
        record::{Record, RecordParts, TopicPartition},
    },
    handler::Run,
    handlers::{self, Handlers},
    health::Health,
    outcome::{Failure, Handled, HandlerResult},
    telemetry::Metrics,
};

use crate::support::{
    Served,
    app::{App, Got, reply},
    config, serve,
};

fn flat(user: &str, event_type: &str) -> Value {
    json!({"event_id": format!("e-{user}"), "event_type": event_type, "user_id": user, "task_id": 7, "data": {"title": "Call"}})
}

fn decoded(value: &[u8], key: Option<&str>, headers: &[(&str, &[u8])]) -> Arc<Event> {
    let parts = RecordParts {
        offset: 42,
        timestamp: Some(1_767_088_800_000),
        key: key.map(|key| key.as_bytes().to_vec()),
        value: Some(value.to_vec()),
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), Some(value.to_vec()))).collect(),
    };
    let record = Record::copy_of(&TopicPartition::new("t", 3), &parts);
    let decoder = Decoder::new(Arc::new(Catalog::embedded().unwrap()), true).with_opaque(BTreeSet::from(["t".into()])).unwrap();
    Arc::new(decoder.decode(record).unwrap())
}

fn event(user: &str, event_type: &str) -> Arc<Event> {
    decoded(flat(user, event_type).to_string().as_bytes(), Some(user), &[])
}

/// An app that tells `subscriptions`, and the handlers for it.
async fn subscribed(subscriptions: &Value, keys: &str) -> (App, Handlers) {
    let app = App::start().await;
    app.reply([reply(200, &subscriptions.to_string())]);
    let handlers = build(&with_handler(&app, keys)).await;
    (app, handlers)
}

fn with_handler(app: &App, keys: &str) -> Config {
    config(&[&format!("handlers=[{{name = \"app\", kind = \"http\", discover = {:?}, {keys}}}]", app.served.url(""))])
}

async fn build(config: &Config) -> Handlers {
    handlers::build(config, &Catalog::embedded().unwrap(), &Health::new(), &Metrics::new("consumer")).await.unwrap()
}

async fn run(handlers: &Handlers, event: Arc<Event>) -> HandlerResult {
    let run = Run { event, attempt: 1, epoch: 1_700_000_000_123, cancelled: Arc::default() };
    handlers.registry().bindings()[0].handler.clone().handle_boxed(run).await
}

fn posts(app: &App) -> Vec<Got> {
    app.got().into_iter().filter(|got| got.path != "/dapr/subscribe").collect()
}

fn is_permanent(result: &HandlerResult) -> bool {
    matches!(result, Err(Failure::Permanent { .. }))
}

#[tokio::test]
async fn rules_choose_the_path_by_the_cloudevent_whatever_shape_was_stored() {
    let rules = json!([{"match": "event.type == 'task.created'", "path": "/created"},
                       {"match": "event.data.data.title == 'Call' && event.data.task_id == 7", "path": "/call"}]);
    let (app, handlers) = subscribed(&json!([{"pubsubname": "p", "topic": "t", "routes": {"rules": rules, "default": "/rest"}}]), "").await;
    run(&handlers, event("u", "task.created")).await.unwrap();
    run(&handlers, event("u", "task.deleted")).await.unwrap();
    let inside = json!({"specversion": "1.0", "type": "com.dapr.event.sent", "source": "s", "id": "1",
                        "data": {"event_type": "task.deleted", "user_id": "u", "task_id": 8, "data": {"title": "Call"}}});
    run(&handlers, decoded(inside.to_string().as_bytes(), Some("u"), &[])).await.unwrap();
    let paths: Vec<_> = posts(&app).iter().map(|got| got.path.clone()).collect();
    assert_eq!(paths, ["/created", "/call", "/rest"]);
}

#[tokio::test]
async fn an_event_that_no_rule_takes_is_dropped_or_goes_to_the_dead_letter_topic() {
    let routes = json!({"rules": [{"match": "event.type == 'task.created'", "path": "/created"}]});
    let (app, handlers) = subscribed(&json!([{"pubsubname": "p", "topic": "t", "routes": routes}]), "").await;
    assert!(matches!(run(&handlers, event("u", "task.deleted")).await, Ok(Handled::Dropped(_))));
    let with_topic = json!([{"pubsubname": "p", "topic": "t", "routes": routes, "deadLetterTopic": "t-dead"}]);
    let (_other, handlers) = subscribed(&with_topic, "").await;
    assert!(is_permanent(&run(&handlers, event("u", "task.deleted")).await));
    assert_eq!(handlers.registry().bindings()[0].handler.dead_letter_topic("t").as_deref(), Some("t-dead"));
    assert_eq!(handlers.registry().bindings()[0].handler.dead_letter_topic("u"), None);
    assert_eq!(posts(&app).len(), 0);
}

#[tokio::test]
async fn a_rule_that_cannot_be_told_is_a_permanent_failure_that_names_the_field() {
    let routes = json!({"rules": [{"match": "event.data.kind == 'a'", "path": "/a"}], "default": "/rest"});
    let (app, handlers) = subscribed(&json!([{"pubsubname": "p", "topic": "t", "routes": routes}]), "").await;
    let failure = run(&handlers, event("u", "task.deleted")).await.unwrap_err();
    assert!(matches!(&failure, Failure::Permanent { error } if error.contains("`kind`")), "{failure:?}");
    assert_eq!(posts(&app).len(), 0);
}

#[tokio::test]
async fn a_delivery_tells_where_the_record_stands_and_passes_its_headers_on() {
    let (app, handlers) = subscribed(&json!([{"pubsubname": "kafka-pubsub", "topic": "t", "route": "/in"}]), "api_token = \"t0ken\"").await;
    let value = flat("u", "task.deleted").to_string();
    let headers: [(&str, &[u8]); 10] = [
        ("Tenant", b"t1"),
        ("note", "na\u{ef}ve\n".as_bytes()),
        ("binary", &[0, 255]),
        ("token-bin", b"x"),
        ("content-type", b"text/plain"),
        ("Transfer-Encoding", b"chunked"),
        ("host", b"elsewhere"),
        ("__offset", b"7"),
        ("dapr-api-token", b"forged"),
        ("x-worker-attempt", b"99"),
    ];
    run(&handlers, decoded(value.as_bytes(), Some("u \u{fc}"), &headers)).await.unwrap();
    let question = &app.got()[0];
    assert_eq!((question.header("dapr-api-token"), question.header("dapr-app-id")), (Some("t0ken"), Some("todo-worker")));
    let got = posts(&app).remove(0);
    for (name, expected) in [
        ("content-type", Some("application/cloudevents+json")),
        ("pubsubname", Some("kafka-pubsub")),
        ("__topic", Some("t")),
        ("__partition", Some("3")),
        ("__offset", Some("42")),
        ("__timestamp", Some("1767088800000")),
        ("__key", Some("u%20%C3%BC")),
        ("tenant", Some("t1")),
        ("note", Some("na%C3%AFve%0A")),
        ("binary", Some("%00%FF")),
        ("token-bin", None),
        ("transfer-encoding", None),
        ("dapr-api-token", Some("t0ken")),
        ("x-worker-attempt", Some("1")),
        ("idempotency-key", Some("e-u")),
    ] {
        assert_eq!(got.header(name), expected, "{name}");
    }
    assert_ne!(got.header("host"), Some("elsewhere"));
}

#[tokio::test]
async fn headers_that_no_server_takes_are_left_out_and_the_event_is_delivered() {
    let (app, handlers) = subscribed(&json!([{"pubsubname": "p", "topic": "t", "route": "/in"}]), "").await;
    let (long, many) = (vec![b'x'; 5000], vec![b'y'; 3000]);
    let headers: [(&str, &[u8]); 5] = [("long", &long), ("a", &many), ("b", &many), ("c", &many), ("d", b"small")];
    run(&handlers, decoded(flat("u", "task.deleted").to_string().as_bytes(), Some("u"), &headers)).await.unwrap();
    let got = posts(&app).remove(0);
    let found: Vec<_> = ["long", "a", "b", "c", "d"].into_iter().filter(|name| got.header(name).is_some()).collect();
    assert_eq!(found, ["a", "b", "d"]);
}

#[tokio::test]
async fn an_opaque_value_is_sent_as_base64_with_the_same_id_on_every_run() {
    let subscription = json!([{"pubsubname": "p", "topic": "t", "route": "/in", "metadata": {"rawPayload": "true"}}]);
    let (app, handlers) = subscribed(&subscription, "").await;
    assert_eq!(handlers.raw_topics(), BTreeSet::from(["t".into()]));
    let opaque = decoded(&[0xde, 0xad, 0xbe, 0xef], Some("device-7"), &[]);
    assert_eq!((&**opaque.event_type(), opaque.user_id()), ("raw", "device-7"));
    for _ in 0..2 {
        run(&handlers, Arc::clone(&opaque)).await.unwrap();
    }
    run(&handlers, event("u", "task.deleted")).await.unwrap();
    let bodies: Vec<_> = posts(&app).iter().map(Got::json).collect();
    assert_eq!(
        (&bodies[0]["data_base64"], &bodies[0]["datacontenttype"], &bodies[0]["type"]),
        (&json!("3q2+7w=="), &json!("application/octet-stream"), &json!("com.dapr.event.sent"))
    );
    assert_eq!((&bodies[0]["specversion"], &bodies[0]["topic"], &bodies[0]["pubsubname"]), (&json!("1.0"), &json!("t"), &json!("p")));
    assert_eq!(bodies[0]["id"], bodies[1]["id"], "an app that dedupes by id knows the second run");
    assert_eq!(bodies[2]["id"], "e-u", "what is an event keeps its own id");
    assert!(bodies[2]["data_base64"].is_string() && bodies[2].get("data").is_none());
}

fn bulk(more: &str) -> Value {
    let bulk: Value = serde_json::from_str(&format!("{{\"enabled\": true{more}}}")).unwrap();
    json!([{"pubsubname": "p", "topic": "t", "route": "/bulk", "bulkSubscribe": bulk}])
}

#[tokio::test]
async fn users_events_share_a_request_and_each_gets_its_own_verdict() {
    let (app, handlers) = subscribed(&bulk(r#", "maxMessagesCount": 4, "maxAwaitDurationMs": 5000"#), "").await;
    app.reply([reply(
        200,
        r#"{"statuses":[{"entryId":"0","status":"SUCCESS"},{"entryId":"1","status":"RETRY"},{"entryId":"2","status":"DROP"}]}"#,
    )]);
    let runs = ["a", "b", "c", "d"].map(|user| run(&handlers, event(user, "task.deleted")));
    let verdicts = join_all(runs).await;
    assert_eq!(verdicts[0], Ok(Handled::Done));
    assert!(matches!(&verdicts[1], Err(Failure::Transient { error, .. }) if error.contains("RETRY")));
    assert!(matches!(&verdicts[2], Ok(Handled::Dropped(_))));
    assert!(matches!(&verdicts[3], Err(Failure::Transient { error, .. }) if error.contains("does not name")));
    let got = posts(&app);
    assert_eq!(got.len(), 1, "a full batch goes at once, in one request");
    let body = got[0].json();
    assert_eq!(got[0].header("content-type"), Some("application/json"));
    assert_eq!((&body["type"], &body["topic"], &body["pubsubname"]), (&json!("com.dapr.event.sent.bulk"), &json!("t"), &json!("p")));
    let entries = body["entries"].as_array().unwrap();
    assert_eq!(entries.iter().map(|entry| entry["entryId"].as_str().unwrap()).collect::<Vec<_>>(), ["0", "1", "2", "3"]);
    assert_eq!((&entries[2]["event"]["id"], &entries[2]["contentType"]), (&json!("e-c"), &json!("application/cloudevents+json")));
    assert_eq!((&entries[2]["metadata"]["__offset"], &entries[2]["metadata"]["__key"]), (&json!("42"), &json!("c")));
}

#[tokio::test(start_paused = true)]
async fn a_lone_event_does_not_wait_for_the_whole_interval() {
    let (app, handlers) = subscribed(&bulk(r#", "maxAwaitDurationMs": 10000"#), "timeout = \"60s\"").await;
    app.reply([reply(200, r#"{"statuses":[{"entryId":"0","status":"SUCCESS"}]}"#)]);
    let started = tokio::time::Instant::now();
    assert_eq!(run(&handlers, event("a", "task.deleted")).await, Ok(Handled::Done));
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
}

/// An app that tells of each batch how many events it has, and answers when it is let.
async fn patient(most: usize) -> (Served, Handlers, mpsc::UnboundedReceiver<(usize, oneshot::Sender<()>)>) {
    let (told, requests) = mpsc::unbounded_channel();
    let subscription = bulk(&format!(r#", "maxMessagesCount": {most}, "maxAwaitDurationMs": 60000"#));
    let router = Router::new().route("/dapr/subscribe", get(async move || Json(subscription))).route(
        "/bulk",
        post(async move |Json(body): Json<Value>| {
            let entries = body["entries"].as_array().unwrap().len();
            let (release, released) = oneshot::channel();
            told.send((entries, release)).unwrap();
            released.await.unwrap();
            let done = |index: usize| json!({"entryId": index.to_string(), "status": "SUCCESS"});
            Json(json!({"statuses": (0..entries).map(done).collect::<Vec<_>>()}))
        }),
    );
    let served = serve(router).await;
    let keys = format!("handlers=[{{name = \"app\", kind = \"http\", timeout = \"1h\", discover = {:?}}}]", served.url(""));
    let handlers = build(&config(&[&keys])).await;
    (served, handlers, requests)
}

#[tokio::test(start_paused = true)]
async fn what_comes_while_a_batch_is_under_way_shares_the_next_one() {
    // Sent since nobody else was to come, and sent since it was full.
    for (most, before, after) in [(10, 1, 2), (2, 2, 1)] {
        let (_served, handlers, mut requests) = patient(most).await;
        let runs = |users: &'static [&'static str]| join_all(users.iter().map(|user| run(&handlers, event(user, "task.deleted"))));
        let first = runs(&["a"]);
        let more = async {
            // The first waits for others by now.
            tokio::task::yield_now().await;
            runs(&["b"][..before - 1]).await
        };
        let then = async {
            let (entries, release) = requests.recv().await.unwrap();
            assert_eq!(entries, before);
            let others = runs(&["c", "d"][..after]);
            tokio::pin!(others);
            assert!(futures_util::poll!(&mut others).is_pending(), "they have joined");
            tokio::task::yield_now().await;
            release.send(()).unwrap();
            let started = tokio::time::Instant::now();
            let together = async {
                let (entries, release) = requests.recv().await.unwrap();
                release.send(()).unwrap();
                (entries, started.elapsed() < Duration::from_secs(10))
            };
            tokio::join!(others, together)
        };
        let (_, _, (others, together)) = tokio::join!(first, more, then);
        assert_eq!((others, together), (vec![Ok(Handled::Done); after], (after, true)));
    }
}

#[tokio::test]
async fn a_batch_that_is_refused_as_a_whole_costs_only_the_bad_event_its_life() {
    let (app, handlers) = subscribed(&bulk(r#", "maxMessagesCount": 3"#), "").await;
    let done = r#"{"statuses":[{"entryId":"0","status":"SUCCESS"}]}"#;
    app.reply([reply(422, ""), reply(200, done), reply(422, ""), reply(200, done)]);
    let verdicts = join_all(["a", "b", "c"].map(|user| run(&handlers, event(user, "task.deleted")))).await;
    assert_eq!((&verdicts[0], &verdicts[2]), (&Ok(Handled::Done), &Ok(Handled::Done)));
    assert!(is_permanent(&verdicts[1]), "{:?}", verdicts[1]);
    let sizes: Vec<_> = posts(&app).iter().map(|got| got.json()["entries"].as_array().unwrap().len()).collect();
    assert_eq!(sizes, [3, 1, 1, 1]);
}

#[tokio::test]
async fn a_run_that_was_given_up_is_not_in_the_batch() {
    let (app, handlers) = subscribed(&bulk(r#", "maxMessagesCount": 2, "maxAwaitDurationMs": 5000"#), "").await;
    app.reply([reply(200, r#"{"statuses":[{"entryId":"0","status":"SUCCESS"}]}"#)]);
    {
        let mut given_up = Box::pin(run(&handlers, event("a", "task.deleted")));
        // Polled once, it has joined.
        assert!(futures_util::poll!(&mut given_up).is_pending());
    }
    assert_eq!(run(&handlers, event("b", "task.deleted")).await, Ok(Handled::Done));
    let body = posts(&app)[0].json();
    let ids: Vec<_> = body["entries"].as_array().unwrap().iter().map(|entry| entry["event"]["id"].clone()).collect();
    assert_eq!(ids, [json!("e-b")]);
}

#[tokio::test]
async fn opaque_values_go_into_a_batch_as_base64() {
    let mut subscription = bulk("");
    subscription[0]["metadata"] = json!({"rawPayload": "true"});
    let (app, handlers) = subscribed(&subscription, "").await;
    app.reply([reply(200, r#"{"statuses":[{"entryId":"0","status":"SUCCESS"}]}"#)]);
    run(&handlers, decoded(&[0xde, 0xad], Some("k"), &[])).await.unwrap();
    let entry = &posts(&app)[0].json()["entries"][0];
    assert_eq!((&entry["event"], &entry["contentType"]), (&json!("3q0="), &json!("application/octet-stream")));
}

#[tokio::test]
async fn declared_routes_serve_an_app_that_tells_none_and_give_way_to_what_it_tells() {
    let declared = r#"routes = [{topic = "t", path = "/declared"}, {topic = "reminders", path = "/reminders"}]"#;
    let app = App::start().await;
    app.reply([reply(404, ""), reply(404, "")]);
    let handlers = build(&with_handler(&app, declared)).await;
    assert_eq!(handlers.registry().bindings()[0].topics, ["reminders", "t"]);
    run(&handlers, event("u", "task.deleted")).await.unwrap();

    let (other, handlers) = subscribed(&json!([{"pubsubname": "p", "topic": "t", "route": "/told"}]), declared).await;
    assert_eq!(handlers.registry().bindings()[0].topics, ["reminders", "t"]);
    run(&handlers, event("u", "task.deleted")).await.unwrap();
    assert_eq!((posts(&app)[0].path.as_str(), posts(&other)[0].path.as_str()), ("/declared", "/told"));
}

/// Asks again on a wish to read again, until what is to be read changes.
#[tokio::test]
async fn an_app_is_asked_again_a_new_path_holds_at_once_and_a_new_topic_is_told() {
    let (app, handlers) = subscribed(&json!([{"pubsubname": "p", "topic": "t", "route": "/old"}]), "discover_every = \"1h\"").await;
    let (reload, reloads) = watch::channel(0);
    let changed = handlers.changed(&reloads);
    tokio::pin!(changed);
    let subscribe = |path: &str, topics: &[&str]| {
        json!(topics.iter().map(|topic| json!({"pubsubname": "p", "topic": topic, "route": path})).collect::<Vec<_>>()).to_string()
    };
    // Away, refused, then another path, then another topic.
    for (number, answer) in [reply(503, ""), reply(200, "<html>"), reply(200, &subscribe("/new", &["t"]))].into_iter().enumerate() {
        app.reply([answer]);
        reload.send(u64::try_from(number).unwrap() + 1).unwrap();
        let asked = number + 2;
        tokio::select! {
            () = &mut changed => panic!("the same topics are read"),
            () = async { while app.got().len() < asked { tokio::time::sleep(Duration::from_millis(5)).await } } => {}
        }
    }
    loop {
        app.reply([]);
        tokio::select! {
            () = &mut changed => panic!("the same topics are read"),
            result = run(&handlers, event("u", "task.deleted")) => result.unwrap(),
        };
        if posts(&app).last().unwrap().path == "/new" {
            break;
        }
    }
    assert_eq!(handlers.registry().bindings()[0].topics, ["t"]);
    app.reply([reply(200, &subscribe("/new", &["t", "u"]))]);
    reload.send(9).unwrap();
    changed.await;
    assert_eq!(handlers.registry().bindings()[0].topics, ["t", "u"]);
}

#[tokio::test]
async fn an_app_is_asked_again_at_its_interval() {
    let (app, handlers) = subscribed(&json!([]), "discover_every = \"10ms\"").await;
    assert_eq!(handlers.registry().bindings().len(), 0, "it wants nothing yet");
    app.reply([reply(503, ""), reply(200, r#"[{"topic":"t","route":"/in"}]"#)]);
    let (_reload, reloads) = watch::channel(0);
    handlers.changed(&reloads).await;
    assert_eq!(handlers.registry().bindings()[0].topics, ["t"]);
}
