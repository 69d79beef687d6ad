//! Taking over the consumer group of a sidecar: an old member that reads one record after another, with the range assignor and plain
//! commits, stops; the worker starts under the same group id.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::mpsc::TryRecvError,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
};

use crate::{
    stack_or_skip,
    support::{
        app::{Answer, App},
        eventually,
        stack::Stack,
        unique,
        worker::Launch,
    },
};

const LONG: Duration = Duration::from_secs(60);
const PARTITIONS: i32 = 4;

/// What the sidecar's client does with a key: FNV-1a of 32 bits, its remainder with a sign, its absolute value.
fn sidecars_partition(key: &str, partitions: i32) -> i32 {
    let hash = key.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    (hash.cast_signed() % partitions).abs()
}

/// A member as the sidecar's client is one.
fn old_member(stack: &Stack, group: &str, topic: &str) -> BaseConsumer {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", stack.brokers())
        .set("broker.address.family", "v4")
        .set("group.id", group)
        .set("partition.assignment.strategy", "range")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("heartbeat.interval.ms", "500")
        .create()
        .unwrap();
    consumer.subscribe(&[topic]).unwrap();
    consumer
}

/// Reads until it has `count` records; answers their (partition, offset).
fn read(consumer: &BaseConsumer, count: usize) -> Vec<(i32, i64)> {
    let (mut read, end) = (Vec::new(), Instant::now() + LONG);
    while read.len() < count {
        assert!(Instant::now() < end, "{} of {count} records", read.len());
        if let Some(message) = consumer.poll(Duration::from_millis(100)) {
            let message = message.unwrap();
            read.push((message.partition(), message.offset()));
        }
    }
    read
}

async fn fill(stack: &Stack, topic: &str, users: usize, events: usize) {
    let event = |n: usize| {
        let user = format!("user-{}", n % users);
        let value = format!("{{\"event_id\":\"{topic}-{n}\",\"event_type\":\"task.completed\",\"user_id\":\"{user}\",\"task_id\":{n}}}");
        (user, value)
    };
    stack.kafka().produce_all(topic, (0..events).map(event)).await;
}

fn toml(topic: &str, app: &App, more: &str) -> String {
    format!(
        "[kafka]\ntopics = [\"{topic}\"]\npartitioner = \"fnv1a_random\"\n{more}[[handlers]]\nname = \"app\"\nkind = \"http\"\nurl = \"{}\"\n",
        app.url("/in")
    )
}

/// The position of each delivery, in order of arrival.
fn positions(app: &App) -> Vec<(i32, i64)> {
    let number = |text: &str| text.parse::<i64>().unwrap();
    let place = |headers: &BTreeMap<String, String>| (number(&headers["__partition"]) as i32, number(&headers["__offset"]));
    app.deliveries().iter().map(|delivery| place(&delivery.headers)).collect()
}

/// The old member had read 300 and committed 200 of them, some partitions not at all: the worker delivers every record from there on, each
/// once, each user's in order, and none before.
#[tokio::test(flavor = "multi_thread")]
async fn a_sidecars_group_is_taken_over_from_its_committed_offsets() {
    let stack = stack_or_skip!(Stack::shared());
    let (kafka, topic, group) = (stack.kafka(), unique("takeover"), unique("group"));
    kafka.create_topic(&topic, PARTITIONS, &[]).await;
    fill(&stack, &topic, 40, 400).await;

    let old = old_member(&stack, &group, &topic);
    let seen = tokio::task::spawn_blocking(move || {
        let seen = read(&old, 300);
        let mut commit = TopicPartitionList::new();
        let last = seen[..200].iter().filter(|(partition, _)| *partition != 3).copied().collect::<BTreeMap<i32, i64>>();
        for (partition, offset) in last {
            commit.add_partition_offset("", partition, Offset::Offset(offset + 1)).unwrap();
        }
        (old, seen, commit)
    });
    let (old, _seen, listed) = seen.await.unwrap();
    let mut commit = TopicPartitionList::new();
    for (index, element) in listed.elements().iter().enumerate() {
        commit.add_partition_offset(&topic, element.partition(), element.offset()).unwrap();
        if index == 0 {
            // What another program may have written there.
            commit.find_partition(&topic, element.partition()).unwrap().set_metadata("left by somebody else");
        }
    }
    old.commit(&commit, CommitMode::Sync).unwrap();
    drop(old);
    let committed: BTreeMap<i32, i64> =
        kafka.committed(&group, &topic).into_iter().map(|(partition, commit)| (partition, commit.offset)).collect();
    assert!(!committed.is_empty() && committed.len() < PARTITIONS as usize + 1);

    let app = App::start(|_| Answer::status(200)).await;
    let mut worker = Launch::role("consumer", &stack, &group, &toml(&topic, &app, "")).start_ready().await;
    kafka.wait_until_committed(&group, &topic, LONG).await;
    let records = kafka.read_all(&topic).await;
    let owed: BTreeSet<(i32, i64)> = records
        .iter()
        .map(|record| (record.partition, record.offset))
        .filter(|(partition, offset)| committed.get(partition).is_none_or(|committed| offset >= committed))
        .collect();
    let given = positions(&app);
    assert_eq!(given.iter().copied().collect::<BTreeSet<_>>(), owed, "nothing lost, and nothing that the old member had committed");
    assert_eq!(given.len(), owed.len(), "nothing twice");
    let user_of: BTreeMap<(i32, i64), &str> = records.iter().map(|record| ((record.partition, record.offset), record.key_text())).collect();
    let mut last: BTreeMap<&str, i64> = BTreeMap::new();
    for place in &given {
        let before = last.insert(user_of[place], place.1);
        assert!(before.is_none_or(|before| before < place.1), "{} out of order", user_of[place]);
    }
    assert_eq!(worker.terminate(LONG).await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn users_stay_on_the_partitions_where_the_sidecar_had_put_them() {
    let stack = stack_or_skip!(Stack::shared());
    let (kafka, topic) = (stack.kafka(), unique("takeover"));
    kafka.create_topic(&topic, 7, &[]).await;
    let toml = "[kafka]\npartitioner = \"fnv1a_random\"\n";
    let producer = Launch::role("producer", &stack, &unique("takeover"), toml).arg("--serve").start_ready().await;
    let users: Vec<String> = (0..60).map(|n| format!("user-{n}-ü")).collect();
    let lines: String =
        users.iter().map(|user| format!("{{\"event_type\":\"task.completed\",\"user_id\":\"{user}\",\"task_id\":1}}\n")).collect();
    let url = producer.publish_url(&format!("/events?topic={topic}"));
    let request = reqwest::Client::new().post(url).header("content-type", "application/x-ndjson").body(lines);
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 202, "{}", answer.text().await.unwrap());
    let records = kafka.read_all(&topic).await;
    assert_eq!(records.len(), users.len());
    for record in &records {
        assert_eq!(record.partition, sidecars_partition(record.key_text(), 7), "{}", record.key_text());
    }
    assert!(records.iter().map(|record| record.partition).collect::<BTreeSet<_>>().len() > 3, "a test of one partition shows nothing");
}

/// The two ways of assigning do not go together: the worker says so, waits, and takes over by itself once the old member is gone.
#[tokio::test(flavor = "multi_thread")]
async fn beside_old_members_the_worker_says_what_is_wrong_and_takes_over_when_they_have_gone() {
    let stack = stack_or_skip!(Stack::shared());
    let (kafka, topic, group) = (stack.kafka(), unique("mixed"), unique("group"));
    kafka.create_topic(&topic, PARTITIONS, &[]).await;
    fill(&stack, &topic, 10, 40).await;
    let old = old_member(&stack, &group, &topic);
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let (joined, has_joined) = tokio::sync::oneshot::channel();
    let member = tokio::task::spawn_blocking(move || {
        read(&old, 40);
        joined.send(()).unwrap();
        // A member is one as long as it polls.
        while stopped.try_recv() == Err(TryRecvError::Empty) {
            let _ = old.poll(Duration::from_millis(100));
        }
    });
    has_joined.await.unwrap();

    let app = App::start(|_| Answer::status(200)).await;
    let mut worker = Launch::role("consumer", &stack, &group, &toml(&topic, &app, "")).start();
    eventually("the log says what is wrong and what to do", LONG, async || {
        worker
            .log()
            .lines()
            .any(|line| line.contains("partition.assignment.strategy") && line.contains("range") && line.contains(&group))
            .then_some(())
    })
    .await;
    let (status, page) = worker.get("/readyz").await.unwrap();
    assert_eq!(status, 503);
    assert!(page.contains("\"group\""), "{page}");
    assert_eq!(app.deliveries().len(), 0);

    stop.send(()).unwrap();
    member.await.unwrap();
    worker.ready(LONG).await;
    app.wait_for(40, LONG).await;
    assert_eq!(worker.terminate(LONG).await, Some(0));
}

/// With the old members' own assignor the worker shares the group with them: a roll without a pause.
#[tokio::test(flavor = "multi_thread")]
async fn with_the_range_assignor_the_worker_shares_the_group_with_old_members() {
    let stack = stack_or_skip!(Stack::shared());
    let (kafka, topic, group) = (stack.kafka(), unique("mixed"), unique("group"));
    kafka.create_topic(&topic, PARTITIONS, &[]).await;
    let old = old_member(&stack, &group, &topic);
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let (joined, has_joined) = tokio::sync::oneshot::channel();
    let member = tokio::task::spawn_blocking(move || {
        let mut joined = Some(joined);
        let mut owned = 0;
        while stopped.try_recv() == Err(TryRecvError::Empty) {
            let _ = old.poll(Duration::from_millis(50));
            owned = old.assignment().unwrap().count();
            if owned == PARTITIONS as usize
                && let Some(joined) = joined.take()
            {
                joined.send(()).unwrap();
            }
        }
        owned
    });
    has_joined.await.unwrap();
    let app = App::start(|_| Answer::status(200)).await;
    let range = "[kafka.consumer]\n\"partition.assignment.strategy\" = \"range\"\n";
    let mut worker = Launch::role("consumer", &stack, &group, &toml(&topic, &app, range)).start_ready().await;
    worker.wait_for_metric("worker_assigned_partitions", &[], LONG, |sum| sum == 2.0).await;
    stop.send(()).unwrap();
    assert_eq!(member.await.unwrap(), 2, "the old member kept the other half");
    worker.wait_for_metric("worker_assigned_partitions", &[], LONG, |sum| sum == f64::from(PARTITIONS)).await;
    fill(&stack, &topic, 10, 40).await;
    app.wait_for(40, LONG).await;
    assert_eq!(worker.terminate(LONG).await, Some(0));
}

/// The way back: old members go on where the worker stopped, whatever it wrote beside its offsets.
#[tokio::test(flavor = "multi_thread")]
async fn the_group_can_be_given_back_to_old_members() {
    let stack = stack_or_skip!(Stack::shared());
    let (kafka, topic, group) = (stack.kafka(), unique("back"), unique("group"));
    kafka.create_topic(&topic, PARTITIONS, &[]).await;
    fill(&stack, &topic, 10, 40).await;
    let app = App::start(|_| Answer::status(200)).await;
    let mut worker = Launch::role("consumer", &stack, &group, &toml(&topic, &app, "")).start_ready().await;
    kafka.wait_until_committed(&group, &topic, LONG).await;
    assert_eq!(worker.terminate(LONG).await, Some(0));
    let committed: BTreeMap<i32, i64> =
        kafka.committed(&group, &topic).into_iter().map(|(partition, commit)| (partition, commit.offset)).collect();
    fill(&stack, &topic, 10, 20).await;
    let old = old_member(&stack, &group, &topic);
    let seen = tokio::task::spawn_blocking(move || read(&old, 20)).await.unwrap();
    assert!(seen.iter().all(|(partition, offset)| *offset >= committed[partition]), "{seen:?} {committed:?}");
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), 20);
}
