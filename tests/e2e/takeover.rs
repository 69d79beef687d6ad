//! What another member takes over, and what becomes of its old owner: killed, asleep past its session, or started again under the same
//! `group.instance.id`; by the classic protocol and by KIP-848.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::{Duration, Instant},
};

use crate::{
    stack_or_skip,
    support::{
        app::{Answer, App, Delivery},
        eventually,
        kafka::{Committed, Kafka},
        stack::Stack,
        unique,
        worker::{Launch, Worker},
    },
};

const LONG: Duration = Duration::from_secs(90);
const PARTITIONS: i32 = 4;
const USERS: usize = 16;
/// The session's length is the broker's there.
const NEXT_GENERATION: &str = "\"group.protocol\" = \"consumer\"\n";
const CLASSIC: &str = "\"session.timeout.ms\" = \"6000\"\n";

/// A topic, a group, and an app that tells its callers apart by their paths.
struct Field {
    stack: Stack,
    kafka: Kafka,
    app: App,
    topic: String,
    group: String,
    properties: &'static str,
}

/// One run, as the app saw it.
#[derive(Debug, Clone)]
struct Run {
    by: String,
    n: usize,
    epoch: u64,
    at: Instant,
}

impl Field {
    async fn start(properties: &'static str, script: impl Fn(&Delivery) -> Answer + Send + Sync + 'static) -> Option<Self> {
        let stack = Stack::shared()?;
        let (kafka, topic, group) = (stack.kafka(), unique("takeover"), unique("group"));
        kafka.create_topic(&topic, PARTITIONS, &[]).await;
        kafka.create_topic(&dlq(&topic), 1, &[]).await;
        Some(Self { stack, kafka, app: App::start(script).await, topic, group, properties })
    }

    /// A consumer whose runs arrive under `/name`.
    fn consumer(&self, name: &str, more: &str) -> Launch {
        let (topic, properties, url, dlq) = (&self.topic, self.properties, self.app.url(&format!("/{name}")), dlq(&self.topic));
        Launch::role(
            "consumer",
            &self.stack,
            &self.group,
            &format!(
                "[kafka]\ntopics = [\"{topic}\"]\n[kafka.consumer]\n{properties}{more}[dlq]\ntopic = \"{dlq}\"\n\
                 [[handlers]]\nname = \"app\"\nkind = \"http\"\nurl = \"{url}\"\n"
            ),
        )
    }

    /// Two that are ready and have half of the partitions each.
    async fn pair(&self, more: impl Fn(&str) -> String) -> [Worker; 2] {
        let first = self.consumer("a", &more("a")).start_ready().await;
        let second = self.consumer("b", &more("b")).start_ready().await;
        for worker in [&first, &second] {
            owns(worker, PARTITIONS / 2).await;
        }
        [first, second]
    }

    /// Writes the events of these numbers.
    async fn produce(&self, numbers: impl IntoIterator<Item = usize>) {
        self.kafka.produce_all(&self.topic, numbers.into_iter().map(|n| (user(n), event(n)))).await;
    }

    /// Waits until each of these was run at least once.
    async fn handled(&self, numbers: impl IntoIterator<Item = usize> + Clone) {
        eventually("every event to be run", LONG, async || {
            let seen: HashSet<_> = self.runs().into_iter().map(|run| run.n).collect();
            numbers.clone().into_iter().all(|n| seen.contains(&n)).then_some(())
        })
        .await;
    }

    fn runs(&self) -> Vec<Run> {
        let of = |delivery: Delivery| Run {
            by: delivery.path.trim_start_matches('/').to_owned(),
            n: delivery.json()["data"]["data"]["n"].as_u64().unwrap() as usize,
            epoch: delivery.headers["x-worker-epoch"].parse().unwrap(),
            at: delivery.at,
        };
        self.app.deliveries().into_iter().map(of).collect()
    }

    /// Each user's events ran in order; answers those that ran more than once.
    fn repeated(&self) -> HashMap<usize, usize> {
        let (mut counts, mut last) = (HashMap::<usize, usize>::new(), HashMap::new());
        for run in self.runs() {
            let before = last.insert(user(run.n), run.n).unwrap_or_default();
            assert!(before <= run.n, "{} of {} ran after {before}", run.n, user(run.n));
            *counts.entry(run.n).or_default() += 1;
        }
        counts.retain(|_, count| *count > 1);
        counts
    }

    fn committed(&self) -> BTreeMap<i32, Committed> {
        self.kafka.committed(&self.group, &self.topic)
    }

    async fn committed_to_the_end(&self) {
        self.kafka.wait_until_committed(&self.group, &self.topic, LONG).await;
    }
}

fn dlq(topic: &str) -> String {
    format!("{topic}-dlq")
}

fn user(n: usize) -> String {
    format!("user-{}", n % USERS)
}

fn event(n: usize) -> String {
    format!(
        "{{\"event_id\":\"event-{n}\",\"event_type\":\"task.completed\",\"event_version\":\"1.0\",\"timestamp\":\"2026-01-01T00:00:00Z\",\
         \"source\":\"t\",\"data\":{{\"task_id\":{n},\"user_id\":\"{}\",\"n\":{n}}}}}",
        user(n)
    )
}

fn number(delivery: &Delivery) -> usize {
    delivery.json()["data"]["data"]["n"].as_u64().unwrap() as usize
}

async fn owns(worker: &Worker, partitions: i32) {
    worker.wait_for_metric("worker_assigned_partitions", &[], LONG, |sum| sum == f64::from(partitions)).await;
}

async fn well_ended(workers: impl IntoIterator<Item = Worker>) {
    for mut worker in workers {
        let metrics = worker.metrics().await;
        assert_eq!(metrics.sum("worker_conservation_error", &[]), 0.0);
        assert_eq!(worker.terminate(LONG).await, Some(0));
    }
}

/// F90: of two members one is killed while it works.
async fn a_killed_member_is_replaced(properties: &'static str) {
    let field = stack_or_skip!(Field::start(properties, |_| Answer::status(200).after(Duration::from_millis(5))).await);
    let [mut killed, survivor] = field.pair(|_| String::new()).await;
    field.produce(0..400).await;
    field.app.wait_for(100, LONG).await;
    let before = field.app.deliveries().len();
    killed.kill();
    let at = Instant::now();
    field.produce(400..600).await;
    owns(&survivor, PARTITIONS).await;
    let taken = at.elapsed();
    field.handled(0..600).await;
    eprintln!("killed after {before} runs: the rest was taken over after {taken:.1?}, all handled after {:.1?}", at.elapsed());
    field.committed_to_the_end().await;
    let repeated = field.repeated();
    assert!(repeated.values().all(|count| *count == 2) && repeated.len() <= USERS, "at most what was in its hands: {repeated:?}");
    assert_eq!(field.kafka.read_all(&dlq(&field.topic)).await, []);
    well_ended([survivor]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_member_of_a_classic_group_is_replaced_and_nothing_is_lost() {
    a_killed_member_is_replaced(CLASSIC).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_member_of_a_next_generation_group_is_replaced_and_nothing_is_lost() {
    a_killed_member_is_replaced(NEXT_GENERATION).await;
}

/// F30, F41, F80: a member sleeps past its session with an answer in its socket, and wakes when another has gone on.
async fn a_woken_zombie_does_nothing(properties: &'static str) {
    /// The sleeper is told 422, its heir 200: a letter would be the sleeper's.
    const HELD: usize = 10_000;
    let field = stack_or_skip!(
        Field::start(properties, |delivery| match (number(delivery) / HELD, delivery.path.as_str()) {
            (1, "/a") => Answer::status(422).after(Duration::from_secs(1)),
            _ => Answer::status(200),
        })
        .await
    );
    let [sleeper, heir] = field.pair(|_| String::new()).await;
    field.produce(0..USERS).await;
    field.handled(0..USERS).await;
    let theirs = field.runs().into_iter().find(|run| run.by == "a").expect("a partition with a user").n;
    let held = HELD + theirs;
    assert_eq!(user(held), user(theirs));
    field.produce([held]).await;
    field.handled([held]).await;
    sleeper.signal("STOP");
    field.produce(20_000..20_000 + 4 * USERS).await;
    field.handled(20_000..20_000 + 4 * USERS).await;
    field.committed_to_the_end().await;
    let (before, epochs) = (field.committed(), field.runs());
    let newest = epochs.iter().map(|run| run.epoch).max().unwrap();

    sleeper.signal("CONT");
    let woken = Instant::now();
    // Until it is a member again nothing of what it does may show.
    eventually("the sleeper to be a member again", LONG, async || {
        let now = field.committed();
        for (partition, commit) in &before {
            assert!(now[partition].offset >= commit.offset, "partition {partition} was committed back: {now:?}");
        }
        Some(sleeper.metrics().await.sum("worker_assigned_partitions", &[])).filter(|owned| *owned == 2.0)
    })
    .await;
    field.produce(30_000..30_000 + 4 * USERS).await;
    field.handled(30_000..30_000 + 4 * USERS).await;
    field.committed_to_the_end().await;

    let runs = field.runs();
    let late: Vec<_> = runs.iter().filter(|run| run.by == "a" && run.at > woken).collect();
    assert!(!late.is_empty(), "it works again");
    assert!(late.iter().all(|run| run.n >= 30_000 && run.epoch > newest), "{late:?}");
    assert_eq!(field.repeated(), HashMap::from([(held, 2)]), "only what it slept over ran again");
    assert_eq!(field.kafka.read_all(&dlq(&field.topic)).await, [], "its verdict was another's to give");
    let dead = sleeper.metrics().await.sum("worker_events_settled_total", &[("outcome", "dead")]);
    assert_eq!(dead, 0.0);
    well_ended([sleeper, heir]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_of_a_classic_group_that_slept_past_its_session_runs_and_writes_nothing_of_what_it_lost() {
    a_woken_zombie_does_nothing(CLASSIC).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_of_a_next_generation_group_that_slept_past_its_session_runs_and_writes_nothing_of_what_it_lost() {
    a_woken_zombie_does_nothing(NEXT_GENERATION).await;
}

/// Which partitions have runs of a consumer from `from` on.
fn users_of(field: &Field, name: &str, from: usize) -> HashSet<String> {
    field.runs().into_iter().filter(|run| run.by == name && run.n >= from).map(|run| user(run.n)).collect()
}

/// A static member that is told to end comes back to its own partitions, and the other one never hears of it.
async fn a_restarted_static_member_keeps_its_partitions(properties: &'static str) {
    let field = stack_or_skip!(Field::start(properties, |_| Answer::status(200)).await);
    let id = |name: &str| format!("\"group.instance.id\" = \"{name}\"\n");
    let [mut first, second] = field.pair(id).await;
    field.produce(0..USERS).await;
    field.handled(0..USERS).await;
    let rebalances = second.metrics().await.sum("worker_rebalances_total", &[]);

    assert_eq!(first.terminate(LONG).await, Some(0));
    let at = Instant::now();
    field.produce(100 * USERS..101 * USERS).await;
    let first = field.consumer("a", &id("a")).start_ready().await;
    owns(&first, PARTITIONS / 2).await;
    field.handled(100 * USERS..101 * USERS).await;
    eprintln!("a restarted static member works again after {:.1?}", at.elapsed());
    assert_eq!(users_of(&field, "a", 100 * USERS), users_of(&field, "a", 0), "the same partitions");
    assert_eq!(second.metrics().await.sum("worker_rebalances_total", &[]), rebalances, "the other one was left alone");
    assert!(field.repeated().is_empty());
    well_ended([first, second]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_static_member_of_a_classic_group_keeps_its_partitions() {
    a_restarted_static_member_keeps_its_partitions("\"session.timeout.ms\" = \"30000\"\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_static_member_of_a_next_generation_group_keeps_its_partitions() {
    a_restarted_static_member_keeps_its_partitions(NEXT_GENERATION).await;
}

/// The group of a killed static member knows it until its session ends. By KIP-848 its next process is refused until then, with an error
/// that is fatal to its client; by the classic protocol it is let in at once.
async fn a_killed_static_member_comes_back(properties: &'static str) {
    let field = stack_or_skip!(Field::start(properties, |_| Answer::status(200)).await);
    let id = |name: &str| format!("\"group.instance.id\" = \"{name}\"\n");
    let [mut first, second] = field.pair(id).await;
    field.produce(0..USERS).await;
    field.handled(0..USERS).await;
    field.committed_to_the_end().await;
    first.kill();
    let at = Instant::now();
    field.produce(100 * USERS..101 * USERS).await;
    let first = field.consumer("a", &id("a")).start_ready().await;
    owns(&first, PARTITIONS / 2).await;
    field.handled(100 * USERS..101 * USERS).await;
    eprintln!("a killed static member works again after {:.1?}", at.elapsed());
    let refused = first.log().contains("has not yet released this member's group.instance.id");
    assert_eq!(refused, properties == NEXT_GENERATION, "{}", first.log());
    assert!(field.repeated().is_empty());
    well_ended([first, second]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_static_member_of_a_classic_group_is_let_in_at_once() {
    a_killed_static_member_comes_back("\"session.timeout.ms\" = \"30000\"\n").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_static_member_of_a_next_generation_group_joins_again_until_it_is_released() {
    a_killed_static_member_comes_back(NEXT_GENERATION).await;
}
