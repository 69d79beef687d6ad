//! Kafka killed under a stream of publishes in Dapr's way: a yes is in the log, and everything else was told.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::{
    stack_or_skip,
    support::{
        eventually, python,
        stack::Stack,
        unique,
        worker::{Launch, Worker},
    },
};

const LONG: Duration = Duration::from_secs(120);

/// A program that publishes, and what it was told.
struct Stream {
    child: Child,
    told: tempfile::NamedTempFile,
}

impl Stream {
    fn start(python: &Path, topic: &str, producer: &Worker) -> Self {
        let told = tempfile::NamedTempFile::new().unwrap();
        let url = producer.publish_url("");
        let mut command = Command::new(python);
        command.args(["-B", "httpx_stream.py"]).current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/apps"));
        command.env("DAPR_HTTP_PORT", url.rsplit(':').next().unwrap()).env("TOPIC", topic);
        let child = command.stdin(Stdio::piped()).stdout(told.reopen().unwrap()).spawn().unwrap();
        Self { child, told }
    }

    /// The status of each event that was answered, by its id.
    fn told(&self) -> BTreeMap<String, u16> {
        let text = std::io::read_to_string(File::open(self.told.path()).unwrap()).unwrap();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| line.split_once(' ').unwrap()).map(|(id, status)| (id.to_owned(), status.parse().unwrap())).collect()
    }

    /// Waits until so many more events were answered so.
    async fn wait_for(&self, what: &str, count: usize, told: impl Fn(u16) -> bool) {
        let so_far = || self.told().into_values().filter(|status| told(*status)).count();
        let before = so_far();
        eventually(what, LONG, async || (so_far() >= before + count).then_some(())).await;
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_stream_of_publishes_that_kafka_dies_under_every_yes_is_in_the_log_and_the_rest_was_refused() {
    let stack = stack_or_skip!(Stack::private(&["kafka", "redis"]));
    let python = stack_or_skip!(python::venv(&["httpx==0.28.1"]));
    let (kafka, topic) = (stack.kafka(), unique("stream"));
    kafka.create_topic(&topic, 3, &[]).await;
    let mut producer = Launch::role("producer", &stack, "stream", "").arg("--serve").start_ready().await;
    let mut stream = Stream::start(&python, &topic, &producer);
    let (yes, no) = (|status: u16| status == 204, |status: u16| status != 204);
    stream.wait_for("a stream", 100, yes).await;
    for _ in 0..2 {
        stack.kill("kafka");
        stream.wait_for("refusals while Kafka is dead", 20, no).await;
        stack.start("kafka");
        stream.wait_for("a stream again", 100, yes).await;
    }
    // Under the last ones, too.
    stack.kill("kafka");
    drop(stream.child.stdin.take());
    let child = &mut stream.child;
    let ended = eventually("the stream ends", LONG, || std::future::ready(child.try_wait().unwrap())).await;
    assert!(ended.success(), "every publish was answered");
    stack.start("kafka");
    producer.ready(LONG).await;

    let told = stream.told();
    let others: BTreeSet<u16> = told.values().copied().filter(|status| no(*status)).collect();
    assert!(!others.is_empty() && others.iter().all(|status| *status == 429 || (500..600).contains(status)), "{others:?}");
    let mut stored: BTreeMap<String, usize> = BTreeMap::new();
    for record in kafka.read_all(&topic).await {
        *stored.entry(record.json()["data"]["event_id"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    let lost: Vec<_> = told.iter().filter(|(id, status)| yes(**status) && !stored.contains_key(*id)).collect();
    assert!(lost.is_empty(), "told yes, not in the log: {lost:?}");
    let twice: Vec<_> = stored.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "one publish, two records: {twice:?}");
    assert_eq!(producer.terminate(LONG).await, Some(0));
}
