//! A group shared with, taken over from and given back to the library that a sidecar's Kafka component is built on.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command},
    time::Duration,
};

use crate::{
    stack_or_skip,
    support::{
        app::{Answer, App},
        eventually, go,
        stack::Stack,
        unique,
        worker::Launch,
    },
};

const LONG: Duration = Duration::from_secs(90);
const PARTITIONS: i32 = 4;

fn sarama() -> Option<PathBuf> {
    go::program("sarama", &["github.com/IBM/sarama@v1.61.1"])
}

/// A member of the group, and what it said.
struct Member {
    child: Child,
    said: tempfile::NamedTempFile,
}

impl Member {
    fn start(program: &Path, stack: &Stack, group: &str, topic: &str, strategy: &str) -> Self {
        let said = tempfile::NamedTempFile::new().unwrap();
        let mut command = Command::new(program);
        command.args(["consume", stack.brokers(), group, topic, strategy]).stdout(said.reopen().unwrap());
        Self { child: command.spawn().unwrap(), said }
    }

    /// The numbers of each line that begins so.
    fn lines(&self, what: &str) -> Vec<Vec<i64>> {
        let text = std::io::read_to_string(File::open(self.said.path()).unwrap()).unwrap();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let numbers = |line: &str| Some(line.strip_prefix(what)?.split_whitespace().map(|number| number.parse().unwrap()).collect());
        whole.lines().filter_map(numbers).collect()
    }

    async fn assigned(&self, count: i32) {
        let what = format!("{count} partitions for sarama");
        eventually(&what, LONG, async || (self.lines("assigned").last()? == &[i64::from(count)]).then_some(())).await;
    }

    async fn has_read(&self, count: usize) -> Vec<(i32, i64)> {
        let read = || self.lines("read").iter().map(|line| (line[0] as i32, line[1])).collect::<Vec<_>>();
        eventually("records read by sarama", LONG, async || Some(read()).filter(|read| read.len() >= count)).await
    }

    /// SIGTERM, and left.
    fn leave(mut self) {
        let done = Command::new("sh").args(["-c", &format!("kill -TERM {}", self.child.id())]).status().unwrap();
        assert!(done.success());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Writes events as a sidecar does; answers where each user's went.
fn produce(program: &Path, stack: &Stack, topic: &str, events: usize, users: usize) -> BTreeMap<String, i32> {
    let (events, users) = (events.to_string(), users.to_string());
    let output = Command::new(program).args(["produce", stack.brokers(), topic, &events, &users]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            (words[2].to_owned(), words[1].parse().unwrap())
        })
        .collect()
}

fn toml(topic: &str, app: &App, more: &str) -> String {
    format!(
        "[kafka]\ntopics = [\"{topic}\"]\npartitioner = \"fnv1a_random\"\n{more}[[handlers]]\nname = \"app\"\nkind = \"http\"\nurl = \"{}\"\n",
        app.url("/in")
    )
}

fn given(app: &App) -> Vec<(i32, i64)> {
    let number = |delivery: &crate::support::app::Delivery, name: &str| delivery.headers[name].parse::<i64>().unwrap();
    app.deliveries().iter().map(|delivery| (number(delivery, "__partition") as i32, number(delivery, "__offset"))).collect()
}

/// Killed between two of its commits, as sidecars die.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_sarama_member_is_followed_from_its_last_commit_on_the_same_partitions() {
    let stack = stack_or_skip!(Stack::shared());
    let program = stack_or_skip!(sarama());
    let (kafka, topic, group) = (stack.kafka(), unique("sarama"), unique("group"));
    kafka.create_topic(&topic, PARTITIONS, &[]).await;
    let places = produce(&program, &stack, &topic, 800, 40);
    let mut old = Member::start(&program, &stack, &group, &topic, "range");
    // Long enough for a commit of its own, which it does each second.
    old.has_read(100).await;
    eventually("a commit by sarama", LONG, async || (!kafka.committed(&group, &topic).is_empty()).then_some(())).await;
    old.child.kill().unwrap();
    old.child.wait().unwrap();
    let committed: BTreeMap<i32, i64> =
        kafka.committed(&group, &topic).into_iter().map(|(partition, commit)| (partition, commit.offset)).collect();

    let app = App::start(|_| Answer::status(200)).await;
    // It is let in when the dead member's session has ended.
    let mut worker = Launch::role("consumer", &stack, &group, &toml(&topic, &app, "")).start();
    worker.ready(LONG).await;
    kafka.wait_until_committed(&group, &topic, LONG).await;
    let records = kafka.read_all(&topic).await;
    let from = |partition: i32| committed.get(&partition).copied().unwrap_or_default();
    let owed: BTreeSet<(i32, i64)> =
        records.iter().map(|record| (record.partition, record.offset)).filter(|(partition, offset)| *offset >= from(*partition)).collect();
    let given = given(&app);
    assert_eq!(given.iter().copied().collect::<BTreeSet<_>>(), owed, "nothing lost, and nothing that sarama had committed");
    assert_eq!(given.len(), owed.len(), "nothing twice");

    // And whoever publishes, a user's events stay on its partition.
    let producer =
        Launch::role("producer", &stack, "sarama", "[kafka]\npartitioner = \"fnv1a_random\"\n").arg("--serve").start_ready().await;
    let http = reqwest::Client::new();
    for user in places.keys() {
        let event = format!("{{\"event_id\":\"w-{user}\",\"event_type\":\"task.completed\",\"user_id\":\"{user}\",\"task_id\":1}}");
        let url = producer.publish_url(&format!("/v1.0/publish/kafka-pubsub/{topic}"));
        let answer = http.post(url).header("content-type", "application/json").body(event).send().await.unwrap();
        assert_eq!(answer.status(), 204);
    }
    for record in kafka.read_all(&topic).await {
        assert_eq!(Some(&record.partition), places.get(record.key_text()), "{}", record.key_text());
    }
    assert_eq!(places.len(), 40);
    assert_eq!(worker.terminate(LONG).await, Some(0));
}

/// Whichever of the two leads the group: the first member does.
#[tokio::test(flavor = "multi_thread")]
async fn sarama_and_the_worker_share_a_group_by_range_and_by_roundrobin() {
    let stack = stack_or_skip!(Stack::shared());
    let program = stack_or_skip!(sarama());
    for strategy in ["range", "roundrobin"] {
        let (kafka, topic, group) = (stack.kafka(), unique(strategy), unique("group"));
        kafka.create_topic(&topic, PARTITIONS, &[]).await;
        let app = App::start(|_| Answer::status(200)).await;
        let assignor = format!("[kafka.consumer]\n\"partition.assignment.strategy\" = \"{strategy}\"\n");

        let old = Member::start(&program, &stack, &group, &topic, strategy);
        old.assigned(PARTITIONS).await;
        let mut worker = Launch::role("consumer", &stack, &group, &toml(&topic, &app, &assignor)).start_ready().await;
        let assigned =
            async |count: i32| worker.wait_for_metric("worker_assigned_partitions", &[], LONG, |sum| sum == f64::from(count)).await;
        assigned(2).await;
        old.assigned(2).await;
        old.leave();
        assigned(PARTITIONS).await;

        let again = Member::start(&program, &stack, &group, &topic, strategy);
        again.assigned(2).await;
        assigned(2).await;
        produce(&program, &stack, &topic, 200, 40);
        kafka.wait_until_committed(&group, &topic, LONG).await;
        let theirs = again.has_read(1).await;
        let both: BTreeSet<_> = given(&app).into_iter().chain(theirs.iter().copied()).collect();
        assert_eq!((both.len(), given(&app).len() + theirs.len()), (200, 200), "each record at one of the two, {strategy}");
        again.leave();
        assert_eq!(worker.terminate(LONG).await, Some(0));
    }
}

/// What the worker keeps beside its offsets is nothing to sarama.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_given_back_to_sarama_where_the_worker_had_committed() {
    let stack = stack_or_skip!(Stack::shared());
    let program = stack_or_skip!(sarama());
    let (kafka, topic, group) = (stack.kafka(), unique("back"), unique("group"));
    kafka.create_topic(&topic, PARTITIONS, &[]).await;
    produce(&program, &stack, &topic, 200, 40);
    // One user's events fail, so that a map of what is settled beyond them is committed too.
    let app = App::start(|delivery| Answer::status(if delivery.headers["__key"] == "user-7" { 503 } else { 200 })).await;
    let mut worker = Launch::role("consumer", &stack, &group, &toml(&topic, &app, "")).start_ready().await;
    worker.wait_for_metric("worker_events_settled_total", &[("outcome", "done")], LONG, |sum| sum == 195.0).await;
    assert_eq!(worker.terminate(LONG).await, Some(0));
    let committed = kafka.committed(&group, &topic);
    assert!(committed.values().any(|commit| !commit.metadata.is_empty()));

    let from = |partition: i32| committed.get(&partition).map_or(0, |commit| commit.offset);
    let owed: BTreeSet<(i32, i64)> = kafka
        .read_all(&topic)
        .await
        .iter()
        .map(|record| (record.partition, record.offset))
        .filter(|(partition, offset)| *offset >= from(*partition))
        .collect();
    assert!(!owed.is_empty() && owed.len() < 200);
    let old = Member::start(&program, &stack, &group, &topic, "range");
    assert_eq!(old.has_read(owed.len()).await.into_iter().collect::<BTreeSet<_>>(), owed);
    kafka.wait_until_committed(&group, &topic, LONG).await;
    old.leave();
}
