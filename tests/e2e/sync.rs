//! Clients that are kept in sync: a real Kafka, the built worker, and a client that reads the stream as a browser does.

use std::{collections::BTreeMap, process::Command, time::Duration};

use serde_json::{Value, json};

use crate::{
    stack_or_skip,
    support::{eventually, free_address, kafka::Kafka, stack::Stack, unique, worker::Launch},
};

const LONG: Duration = Duration::from_secs(60);
const SECRET: &str = "a secret that both sides have got";

/// A token as another program makes it: by hand in Python, so that nothing of the worker's is in it.
fn token(user: &str, seconds: i64) -> String {
    let script = "import base64, hmac, json, sys, time; user, seconds, secret = sys.argv[1:]\n\
        part = lambda data: base64.urlsafe_b64encode(data).rstrip(b'=')\n\
        body = {'sub': user, 'exp': int(time.time()) + int(seconds)}\n\
        signed = b'.'.join(part(json.dumps(value).encode()) for value in ({'alg': 'HS256', 'typ': 'JWT'}, body))\n\
        print((signed + b'.' + part(hmac.new(secret.encode(), signed, 'sha256').digest())).decode())";
    let made = Command::new("python3").args(["-c", script, user, &seconds.to_string(), SECRET]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    String::from_utf8(made.stdout).unwrap().trim().to_owned()
}

/// An `EventSource`: its user's events since it began, its last id, whether it was told to load anew.
#[derive(Default)]
struct Source {
    last_id: String,
    events: Vec<(String, Value)>,
    resets: usize,
    text: String,
}

impl Source {
    /// Reads one connection until `enough`, or until it ends. As the standard says, an id counts also without data.
    async fn read(&mut self, address: &str, user: &str, enough: impl Fn(&Self) -> bool) {
        self.text.clear();
        let url = format!("http://{address}/sync/{user}?token={}", token(user, 600));
        let open = async || {
            let request = reqwest::Client::new().get(&url).header("last-event-id", &self.last_id).send().await.ok()?;
            (request.status() == 200).then_some(request)
        };
        let mut response = eventually("a stream", LONG, open).await;
        while !enough(self) {
            let chunk = tokio::time::timeout(LONG, response.chunk()).await.expect("a word in time");
            let Ok(Some(chunk)) = chunk else { return };
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let fields: BTreeMap<_, _> = block.lines().filter_map(|line| line.split_once(':')).collect();
                let field = |name: &str| fields.get(name).map(|value| value.trim());
                if let Some(id) = field("id") {
                    id.clone_into(&mut self.last_id);
                }
                match (field("event"), field("data")) {
                    (Some("reset"), _) => self.resets += 1,
                    (Some(kind), Some(data)) => self.events.push((kind.to_owned(), serde_json::from_str(data).unwrap())),
                    _ => {}
                }
                self.text = rest.to_owned();
            }
        }
    }

    fn tasks(&self) -> Vec<i64> {
        self.events.iter().map(|(_, event)| event["task_id"].as_i64().unwrap()).collect()
    }
}

async fn produce(kafka: &Kafka, topic: &str, user: &str, tasks: std::ops::Range<i64>) {
    for task in tasks {
        let event = json!({ "event_id": format!("{user}-{task}"), "event_type": "task.updated", "user_id": user, "task_id": task, "data": { "title": format!("{user}'s") } });
        kafka.produce(topic, user, event.to_string().as_bytes(), &[]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_gets_each_of_its_changes_once_over_restarts_and_other_replicas_and_never_anothers() {
    let stack = stack_or_skip!(Stack::shared());
    let (name, kafka) = (unique("sync"), stack.kafka());
    let [tasks, updates] = ["sync-tasks", "sync-updates"].map(unique);
    kafka.create_topic(&tasks, 3, &[]).await;
    kafka.create_topic(&updates, 3, &[]).await;
    let launch = |address: &str| {
        let toml = format!(
            "kafka.topics = [{tasks:?}]\n[sync]\nlisten = {address:?}\nsecret = {SECRET:?}\ntopic = {updates:?}\n\
             [[handlers]]\nname = \"sync\"\nkind = \"forward\"\nevents = [\"task.*\"]\nto = {updates:?}\n"
        );
        Launch::role("consumer", &stack, &name, &toml)
    };
    let [first, second] = [free_address(), free_address()];
    let mut worker = launch(&first).start_ready().await;
    let [mut ada, mut bob] = [Source::default(), Source::default()];
    let listening = |source: &Source| !source.last_id.is_empty();
    ada.read(&first, "ada", listening).await;
    bob.read(&first, "bob", listening).await;
    for user in ["ada", "bob", "cyd"] {
        produce(&kafka, &tasks, user, 0..5).await;
    }
    ada.read(&first, "ada", |source| source.events.len() >= 3).await;
    worker.wait_for_metric("worker_sync_connects_total", &[("result", "resumed")], LONG, |resumed| resumed >= 1.0).await;
    worker.kill();

    // Another replica, which was not there before, goes on where the first one was.
    produce(&kafka, &tasks, "ada", 5..8).await;
    let mut worker = launch(&second).start_ready().await;
    ada.read(&second, "ada", |source| source.events.len() >= 8).await;
    bob.read(&second, "bob", |source| source.events.len() >= 5).await;
    kafka.wait_until_committed(&name, &tasks, LONG).await;
    assert_eq!((ada.resets, bob.resets), (0, 0));
    // A crash may have copied a change twice; its id says so.
    let mut seen = ada.tasks();
    seen.dedup();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen, (0..8).collect::<Vec<_>>());
    for (source, user) in [(&ada, "ada"), (&bob, "bob")] {
        assert!(source.events.iter().all(|(kind, event)| kind == "task.updated" && event["user_id"] == user), "{:?}", source.events);
    }

    let status = async |path: &str| reqwest::get(format!("http://{second}{path}")).await.unwrap().status().as_u16();
    assert_eq!(status("/sync/ada").await, 401);
    assert_eq!(status(&format!("/sync/ada?token={}", token("ada", -1))).await, 401);
    assert_eq!(status(&format!("/sync/bob?token={}", token("ada", 60))).await, 403);
    worker.wait_for_metric("worker_sync_connections", &[], LONG, |connections| connections == 0.0).await;

    // A stream that is open does not hold the worker up.
    let mut open = Source::default();
    let reading = open.read(&second, "ada", |_| false);
    let leaving = async {
        worker.wait_for_metric("worker_sync_connections", &[], LONG, |connections| connections == 1.0).await;
        let begun = std::time::Instant::now();
        assert_eq!(worker.terminate(LONG).await, Some(0));
        begun.elapsed()
    };
    let ((), took) = tokio::join!(reading, leaving);
    assert!(took < Duration::from_secs(20), "{took:?}");
    assert!(!worker.log().contains("eyJ"), "no token in a log");
    for topic in [&tasks, &updates] {
        kafka.delete_topic(topic).await;
    }
}
