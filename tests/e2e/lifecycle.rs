//! How a role starts, says how it is, and ends: signals, exit codes, readiness, brokers and topics that are not there.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
};

use crate::{
    stack_or_skip,
    support::{
        app::{Answer, App},
        eventually, eventually_every, free_address, rss_kib,
        stack::Stack,
        unique,
        worker::{Launch, Worker},
    },
};

const LONG: Duration = Duration::from_secs(60);
const LOG_HANDLER: &str = "[[handlers]]\nname = \"log\"\nkind = \"log\"\n";
const EVENT: &str = "{\"event_id\":\"1\",\"event_type\":\"task.completed\",\"user_id\":\"user-1\",\"task_id\":1}";

/// A consumer whose app has one event in its hands and answers it after `delay`.
struct Busy {
    stack: Stack,
    app: App,
    topic: String,
    group: String,
    worker: Worker,
}

impl Busy {
    async fn start(delay: Duration, drain_timeout: &str) -> Option<Self> {
        let stack = Stack::shared()?;
        let (kafka, topic, group) = (stack.kafka(), unique("lifecycle"), unique("group"));
        kafka.create_topic(&topic, 1, &[]).await;
        let app = App::start(move |_| Answer::status(200).after(delay)).await;
        let toml = format!(
            "[kafka]\ntopics = [\"{topic}\"]\n[engine]\ndrain_timeout = \"{drain_timeout}\"\n[[handlers]]\nname = \"app\"\nkind = \"http\"\nurl = \"{}\"\n",
            app.url("/")
        );
        let worker = Launch::role("consumer", &stack, &group, &toml).start_ready().await;
        kafka.produce(&topic, "user-1", EVENT.as_bytes(), &[]).await;
        app.wait_for(1, LONG).await;
        Some(Self { stack, app, topic, group, worker })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_the_run_in_flight_end_commits_it_and_exits_0() {
    let mut busy = stack_or_skip!(Busy::start(Duration::from_secs(3), "25s").await);
    busy.worker.signal("TERM");
    // From the signal to the end: not ready, and live.
    let (_, page) = eventually("not ready", LONG, async || busy.worker.get("/readyz").await.filter(|(status, _)| *status == 503)).await;
    assert!(page.contains("draining"), "{page}");
    assert_eq!(busy.worker.get("/livez").await.map(|(status, _)| status), Some(200));
    assert_eq!(busy.worker.ended(LONG).await.code(), Some(0));
    assert_eq!(busy.stack.kafka().committed(&busy.group, &busy.topic)[&0].offset, 1);
    assert_eq!(busy.app.deliveries().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_past_the_drain_timeout_is_left_behind_and_the_exit_code_is_4() {
    let mut busy = stack_or_skip!(Busy::start(Duration::from_secs(3600), "1s").await);
    assert_eq!(busy.worker.terminate(Duration::from_secs(20)).await, Some(4));
    assert!(busy.worker.log().contains("drain_timeout"), "{}", busy.worker.log());
    assert_eq!(busy.stack.kafka().committed(&busy.group, &busy.topic)[&0].offset, 0, "not settled, so not passed");
}

/// F48: a group in which members come and go all the time, so that one rebalance follows another.
#[tokio::test(flavor = "multi_thread")]
async fn sigterm_in_a_storm_of_rebalances_ends_the_worker_in_time() {
    const EVENTS: usize = 1_000;
    let stack = stack_or_skip!(Stack::shared());
    let (kafka, topic, group) = (stack.kafka(), unique("storm"), unique("group"));
    kafka.create_topic(&topic, 6, &[]).await;
    let app = App::start(|_| Answer::status(200).after(Duration::from_millis(50))).await;
    let toml = format!(
        "[kafka]\ntopics = [\"{topic}\"]\n[engine]\ndrain_timeout = \"10s\"\n[[handlers]]\nname = \"app\"\nkind = \"http\"\nurl = \"{}\"\n",
        app.url("/")
    );
    let mut worker = Launch::role("consumer", &stack, &group, &toml).start_ready().await;
    let (going, joined) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let members: Vec<_> = (0..3)
        .map(|n| {
            let (going, joined) = (Arc::clone(&going), Arc::clone(&joined));
            let (brokers, group, topic) = (stack.brokers().to_owned(), group.clone(), topic.clone());
            std::thread::spawn(move || come_and_go(&going, &joined, &brokers, &group, &topic, n))
        })
        .collect();
    let event = |n: usize| (format!("user-{n}"), EVENT.replace("\"1\"", &format!("\"{n}\"")).replace("user-1", &format!("user-{n}")));
    kafka.produce_all(&topic, (0..EVENTS).map(event)).await;
    eventually("a storm", LONG, async || (joined.load(Ordering::Relaxed) >= 12).then_some(())).await;
    let begun = Instant::now();
    let code = worker.terminate(Duration::from_secs(30)).await;
    let took = begun.elapsed();
    going.store(false, Ordering::Relaxed);
    // The coordinator answers no commit while it waits for members that have gone: then what was not committed comes again.
    assert!(matches!(code, Some(0 | 4)), "{code:?}: {}", worker.log());
    assert!(took < Duration::from_secs(20), "drain_timeout is 10 s: {took:?}");
    members.into_iter().for_each(|member| member.join().unwrap());
    let _next = Launch::role("consumer", &stack, &group, &toml).start();
    eventually_every(Duration::from_millis(200), "every event, by whoever is there", 2 * LONG, async || {
        let users: BTreeSet<_> = app.deliveries().iter().map(|delivery| delivery.json()["data"]["user_id"].to_string()).collect();
        (users.len() == EVENTS).then_some(())
    })
    .await;
}

/// Joins the group, takes what it is given for a moment, and leaves, again and again.
fn come_and_go(going: &AtomicBool, joined: &AtomicUsize, brokers: &str, group: &str, topic: &str, n: u64) {
    let mut rng = fastrand::Rng::with_seed(n);
    while going.load(Ordering::Relaxed) {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("group.id", group)
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", "6000")
            .set("max.poll.interval.ms", "6000")
            .set("enable.auto.commit", "false")
            .create()
            .unwrap();
        consumer.subscribe(&[topic]).unwrap();
        joined.fetch_add(1, Ordering::Relaxed);
        let until = Instant::now() + Duration::from_millis(rng.u64(300..1500));
        while Instant::now() < until {
            // What it reads it leaves to whoever comes after it.
            let _read = consumer.poll(Duration::from_millis(50));
        }
    }
}

/// F91: what the client holds beside the engine is bounded as well: where nothing of a long log can be handled, the process stays small.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_handled_does_not_grow_the_process_beyond_its_budget() {
    const BUDGET_MIB: u64 = 32;
    /// The client's queues: a quarter more. Beside them the process itself, and what the allocator keeps: of the 240 MiB that wait, little.
    const MOST_MIB: u64 = BUDGET_MIB + BUDGET_MIB / 4 + 120;
    let stack = stack_or_skip!(Stack::shared());
    let (kafka, topic, group) = (stack.kafka(), unique("large"), unique("group"));
    kafka.create_topic(&topic, 6, &[]).await;
    let app = App::start(|_| Answer::status(503)).await;
    let toml = format!(
        "[kafka]\ntopics = [\"{topic}\"]\n[engine]\nmemory = \"{BUDGET_MIB}MiB\"\n[retry.default]\ndelays = [\"1h\"]\n\
         [[handlers]]\nname = \"app\"\nkind = \"http\"\nurl = \"{}\"\n",
        app.url("/")
    );
    // 240 MiB, a user each: nothing can be kept as a stub.
    let padding = "x".repeat(60_000);
    let event = |n: usize| {
        let value = format!(
            "{{\"event_id\":\"{n}\",\"event_type\":\"task.completed\",\"user_id\":\"user-{n}\",\"task_id\":1,\"data\":{{\"note\":\"{padding}\"}}}}"
        );
        (format!("user-{n}"), value)
    };
    for from in (0..4_000).step_by(500) {
        kafka.produce_all(&topic, (from..from + 500).map(event)).await;
    }
    let mut worker = Launch::role("consumer", &stack, &group, &toml).start_ready().await;
    let full = (BUDGET_MIB << 20) as f64 * 0.7;
    worker.wait_for_metric("worker_held_bytes", &[], LONG, |held| held > full).await;
    let mut most = 0;
    let until = Instant::now() + Duration::from_secs(10);
    while Instant::now() < until {
        most = most.max(rss_kib(worker.pid()) / 1024);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("{most} MiB resident, of {MOST_MIB}");
    assert!(most <= MOST_MIB, "{most} MiB resident");
    assert!(worker.metrics().await.sum("worker_held_bytes", &[]) <= (BUDGET_MIB << 20) as f64);
    assert_eq!(worker.terminate(LONG).await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_sigint_ends_at_once_with_130() {
    let mut busy = stack_or_skip!(Busy::start(Duration::from_secs(3600), "4m").await);
    busy.worker.signal("INT");
    eventually("draining", LONG, async || busy.worker.get("/readyz").await.filter(|(status, _)| *status == 503)).await;
    busy.worker.signal("INT");
    assert_eq!(busy.worker.ended(Duration::from_secs(20)).await.code(), Some(130));
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_are_away_at_start_are_named_and_waited_for() {
    let stack = stack_or_skip!(Stack::shared());
    let nowhere = free_address();
    for (role, args) in [("consumer", vec![]), ("producer", vec!["--serve"]), ("standalone", vec![])] {
        let launch = Launch::role(role, &stack, &unique("start"), if role == "producer" { "" } else { LOG_HANDLER });
        let launch = args.into_iter().fold(launch, Launch::arg).env("WORKER_KAFKA__BROKERS", &nowhere);
        let mut worker = launch.start();
        let (_, page) = eventually(&format!("{role}: /readyz names the brokers"), LONG, async || {
            worker.get("/readyz").await.filter(|(status, page)| *status == 503 && page.contains(&nowhere))
        })
        .await;
        assert!(page.contains("\"brokers\""), "{role}: {page}");
        assert_eq!(worker.get("/livez").await.map(|(status, _)| status), Some(200), "{role}");
        eventually(&format!("{role}: the log names the brokers"), LONG, async || {
            worker.log().lines().any(|line| line.contains("kafka does not answer") && line.contains(&nowhere)).then_some(())
        })
        .await;
        assert_eq!(worker.terminate(LONG).await, Some(0), "{role}: {}", worker.log());
        let lines = worker.log().lines().count();
        assert!(lines < 60, "{role} says the same over and over, {lines} lines: {}", worker.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_gives_up_on_brokers_that_do_not_answer_in_time() {
    let stack = stack_or_skip!(Stack::shared());
    let nowhere = free_address();
    for (role, args) in [("consumer", vec![]), ("producer", vec!["--serve"]), ("producer", vec!["--input", "-"]), ("standalone", vec![])] {
        let launch = Launch::role(role, &stack, &unique("start"), if role == "producer" { "" } else { LOG_HANDLER });
        let launch = args.iter().fold(launch, |launch, arg| launch.arg(arg)).arg("--exit-if-unreachable").arg("2s");
        let mut worker = launch.env("WORKER_KAFKA__BROKERS", &nowhere).start();
        assert_eq!(worker.ended(Duration::from_secs(20)).await.code(), Some(1), "{role} {args:?}: {}", worker.log());
        assert!(worker.log().contains(&format!("no Kafka broker answers at {nowhere}")), "{role} {args:?}: {}", worker.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_does_not_exist_is_named_with_the_command_that_creates_it_and_waited_for() {
    let stack = stack_or_skip!(Stack::shared());
    let (kafka, topic, group) = (stack.kafka(), unique("missing"), unique("group"));
    let toml = format!("[kafka]\ntopics = [\"{topic}\"]\n{LOG_HANDLER}");
    let mut worker = Launch::role("consumer", &stack, &group, &toml).start();
    let (_, page) = eventually("/readyz names the topic", LONG, async || {
        worker.get("/readyz").await.filter(|(status, page)| *status == 503 && page.contains(&topic))
    })
    .await;
    assert!(page.contains("worker topics apply"), "{page}");
    eventually("the log says so", LONG, async || {
        let log = worker.log();
        (log.contains(&topic) && log.contains("worker topics apply")).then_some(())
    })
    .await;
    kafka.create_topic(&topic, 1, &[]).await;
    worker.ready(LONG).await;
    kafka.produce(&topic, "user-1", EVENT.as_bytes(), &[]).await;
    worker.wait_for_metric("worker_events_settled_total", &[("outcome", "done")], LONG, |sum| sum == 1.0).await;

    let absent = unique("missing");
    let input = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(input.path(), EVENT).unwrap();
    let producer =
        Launch::role("producer", &stack, &group, "").arg("--topic").arg(&absent).arg("--input").arg(input.path().to_str().unwrap());
    let mut producer = producer.start();
    assert_eq!(producer.ended(LONG).await.code(), Some(1));
    let log = producer.log();
    assert!(log.contains(&absent) && log.contains("worker topics apply"), "{log}");
}

/// The producer's side: a store has no part in it; Kafka has.
#[tokio::test(flavor = "multi_thread")]
async fn a_producer_without_kafka_is_not_ready_and_never_says_yes() {
    let stack = stack_or_skip!(Stack::private(&["kafka"]));
    let (kafka, topic) = (stack.kafka(), unique("outage"));
    kafka.create_topic(&topic, 1, &[]).await;
    let toml = "[kafka.producer]\n\"delivery.timeout.ms\" = \"3000\"\n";
    let launch = Launch::bare("producer", toml).env("WORKER_KAFKA__BROKERS", stack.brokers()).arg("--serve");
    let mut worker = launch.start_ready().await;
    let client = reqwest::Client::new();
    let url = worker.publish_url(&format!("/events?topic={topic}"));
    let publish = async || client.post(&url).body(EVENT).send().await.unwrap().status().as_u16();
    assert_eq!(publish().await, 202);

    stack.kill("kafka");
    eventually("/readyz names the brokers", Duration::from_secs(10), async || {
        worker.get("/readyz").await.filter(|(status, page)| *status == 503 && page.contains("\"brokers\""))
    })
    .await;
    assert_eq!(worker.get("/livez").await.map(|(status, _)| status), Some(200));
    assert_eq!(publish().await, 503);
    stack.start("kafka");
    worker.ready(LONG).await;
    assert_eq!(publish().await, 202);
    assert_eq!(worker.terminate(LONG).await, Some(0));
}

/// Not dead but mute, as after a network's silent loss: found out in the same time; and a store that is away at start is waited for.
#[tokio::test(flavor = "multi_thread")]
async fn readiness_follows_a_store_and_brokers_that_fall_silent() {
    let stack = stack_or_skip!(Stack::private(&["kafka", "redis"]));
    let (kafka, topic) = (stack.kafka(), unique("silent"));
    kafka.create_topic(&topic, 1, &[]).await;
    stack.stop("redis");
    let toml = format!("[kafka]\ntopics = [\"{topic}\"]\n{LOG_HANDLER}");
    let mut worker = Launch::role("consumer", &stack, &unique("group"), &toml).start();
    let names = async |worker: &Worker, part: &str, within: u64| {
        eventually(&format!("/readyz names {part}"), Duration::from_secs(within), async || {
            worker.get("/readyz").await.filter(|(status, page)| *status == 503 && page.contains(&format!("\"failing\":[\"{part}\"")))
        })
        .await;
        assert_eq!(worker.get("/livez").await.map(|(status, _)| status), Some(200));
    };
    names(&worker, "store", 30).await;
    stack.cont("redis");
    worker.ready(LONG).await;
    kafka.produce(&topic, "user-1", EVENT.as_bytes(), &[]).await;
    worker.wait_for_metric("worker_events_settled_total", &[("outcome", "done")], LONG, |sum| sum == 1.0).await;

    stack.stop("redis");
    // Found out within 3 s; one more for a machine that is busy with other tests.
    names(&worker, "store", 4).await;
    stack.cont("redis");
    worker.ready(LONG).await;
    stack.stop("kafka");
    names(&worker, "brokers", 10).await;
    stack.cont("kafka");
    worker.ready(LONG).await;
    assert_eq!(worker.terminate(LONG).await, Some(0));
}

/// One line per topic, naming it and the way out.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_keeps_longer_than_duplicates_are_recognised_is_said_at_start() {
    let stack = stack_or_skip!(Stack::shared());
    let (kafka, name) = (stack.kafka(), unique("keeps"));
    let [short, long, ever] = ["short", "long", "ever"].map(|part| format!("{name}-{part}"));
    for (topic, ms) in [(&short, "691200000"), (&long, "691200001"), (&ever, "-1")] {
        kafka.create_topic(topic, 1, &[("retention.ms", ms)]).await;
    }
    let toml = format!("[kafka]\ntopics = [\"{short}\", \"{long}\", \"{ever}\"]\n{LOG_HANDLER}");
    let mut worker = Launch::role("consumer", &stack, &name, &toml).start_ready().await;
    eventually("both are said", LONG, async || (worker.log().matches("keeps records").count() == 2).then_some(())).await;
    assert_eq!(worker.terminate(LONG).await, Some(0));
    let log = worker.log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("keeps records")).collect();
    let of = |topic: &str| lines.iter().find(|line| line.contains(topic)).unwrap_or_else(|| panic!("{topic}\n{log}"));
    assert!(of(&ever).contains("for ever") && of(&long).contains("raise store.retention"), "{log}");
    assert!(lines.len() == 2 && !lines.iter().any(|line| line.contains(&short)), "{log}");
}
