//! The main job: generated events of many users through the producer and two consumers, judged at the end; undisturbed, and with Kafka, Redis or a consumer killed in the middle.
//!
//! 20 000 events, fewer where something is killed, or as many as `WORKER_E2E_EVENTS` says.

use std::{
    collections::HashMap,
    io::Write,
    process::Stdio,
    time::{Duration, Instant},
};

use crate::{
    stack_or_skip,
    support::{
        eventually,
        job::{Books, Job, Plan},
        worker::Worker,
    },
};

const LONG: Duration = Duration::from_secs(60);
/// How long a killed part is away.
const OUTAGE: Duration = Duration::from_secs(20);

fn events(few: usize) -> usize {
    std::env::var("WORKER_E2E_EVENTS").ok().and_then(|count| count.parse().ok()).unwrap_or(few)
}

/// Generous: a debug build, two processors, other tests beside.
fn time_for(events: usize) -> Duration {
    LONG + Duration::from_millis(events as u64 * 5)
}

async fn two_consumers(job: &Job) -> Vec<Worker> {
    vec![job.consumer().start_ready().await, job.consumer().start_ready().await]
}

/// Writes lines to a process' standard input; the pipe stays open.
fn feed(mut stdin: std::process::ChildStdin, lines: Vec<String>) -> tokio::task::JoinHandle<std::process::ChildStdin> {
    tokio::task::spawn_blocking(move || {
        for line in lines {
            writeln!(stdin, "{line}").unwrap();
        }
        stdin
    })
}

/// The producer refused what it had to, told each line, and published the rest.
async fn judge_producer(job: &Job, producer: &mut Worker, within: Duration) {
    let status = producer.ended(within).await;
    let log = producer.log();
    assert_eq!(status.code(), Some(1), "lines were refused: {log}");
    for (line, reason) in &job.plan.refused {
        assert!(log.contains(&format!("line {line}: {reason}: ")), "line {line}, {reason}: {log}");
    }
    let summary = format!("{} read, {} published, {} rejected in", job.plan.lines.len(), job.plan.written(), job.plan.refused.len());
    assert!(log.contains(&summary), "{summary}: {log}");
}

/// Nothing failed that had not to: each event once per handler, in order, the DLQ exact, the books balanced, a clean end.
async fn judge_all(job: &Job, consumers: &mut [Worker]) {
    let extra = job.judge_effects();
    assert!(extra.events.is_empty(), "handled more often than had to be: {extra:?}");
    assert_eq!(job.judge_dead_letters().await, 0, "each dead letter once");
    for consumer in &mut *consumers {
        assert_eq!(consumer.terminate(LONG).await, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_is_handled_once_per_handler_and_in_its_users_order() {
    let events = events(20_000);
    let job = stack_or_skip!(Job::start(Plan::new(events, 1000.min(events / 20))).await);
    let input = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(input.path(), job.plan.lines.join("\n")).unwrap();
    job.poison().await;
    let mut consumers = two_consumers(&job).await;

    let begun = Instant::now();
    let mut producer = job.producer().stdin(std::fs::File::open(input.path()).unwrap()).start();
    judge_producer(&job, &mut producer, time_for(events)).await;
    let published = begun.elapsed();
    job.finished(time_for(events)).await;
    eprintln!(
        "{events} events, {} requests to the app: published in {published:.1?}, handled and committed in {:.1?}",
        job.app.count(),
        begun.elapsed()
    );

    let dead = job.plan.dead().count();
    let books = Books { done: events - dead, duplicate: job.plan.copies(), dead: dead + job.plan.poison.len() };
    assert_eq!(job.judge_books(&consumers).await, books);
    let shown = job.stack.kafka_tool(&[
        "ConsoleConsumer",
        "--topic",
        "dlq",
        "--from-beginning",
        "--timeout-ms",
        "20000",
        "--max-messages",
        &books.dead.to_string(),
        "--formatter-property",
        "print.headers=true",
    ]);
    for reason in ["permanent", "exhausted", "undecodable", "missing_user_id", "unknown_type", "schema"] {
        assert!(shown.contains(&format!("x-dlq-reason:{reason}")), "{reason} in what the console consumer shows: {shown}");
    }
    judge_all(&job, &mut consumers).await;
}

/// What a deploy does: each consumer in turn is told to end and replaced, while events flow.
#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_changes_nothing() {
    let events = events(6_000);
    let job = stack_or_skip!(Job::start(Plan::new(events, 1000.min(events / 20))).await);
    job.poison().await;
    let mut consumers = two_consumers(&job).await;
    let mut producer = job.producer().stdin(Stdio::piped()).start();
    let (mut stdin, lines) = (producer.take_stdin(), &job.plan.lines);
    let parts: Vec<_> = lines.chunks(lines.len().div_ceil(3)).map(<[String]>::to_vec).collect();
    for (n, part) in parts.into_iter().enumerate() {
        let before = job.app.count();
        stdin = feed(stdin, part).await.unwrap();
        job.reached(before + events / 30, LONG).await;
        if n < consumers.len() {
            assert_eq!(consumers[n].terminate(LONG).await, Some(0));
            consumers[n] = job.consumer().start_ready().await;
        }
    }
    drop(stdin);
    judge_producer(&job, &mut producer, time_for(events)).await;
    job.finished(time_for(events)).await;
    job.judge_books(&consumers).await;
    judge_all(&job, &mut consumers).await;
}

/// The part is killed while the producer writes and the consumers work, and is back after [`OUTAGE`].
async fn nothing_changes_when_it_is_killed(part: &'static str, name: &str, unready_within: Duration) {
    let events = events(6_000);
    let job = stack_or_skip!(Job::start(Plan::new(events, 1000.min(events / 20))).await);
    job.poison().await;
    let mut consumers = two_consumers(&job).await;
    let mut producer = job.producer().stdin(Stdio::piped()).start();
    let half = job.plan.lines.len() / 2;
    let stdin = producer.take_stdin();
    let stdin = feed(stdin, job.plan.lines[..half].to_vec()).await.unwrap();
    job.reached(events / 8, LONG).await;

    let killed = Instant::now();
    job.stack.kill(part);
    let before = job.app.count();
    let rest = feed(stdin, job.plan.lines[half..].to_vec());
    for consumer in &consumers {
        let (_, page) = eventually("/readyz names the part", unready_within, async || {
            consumer.get("/readyz").await.filter(|(status, page)| *status == 503 && page.contains(name))
        })
        .await;
        assert!(page.contains("failing"), "{page}");
        assert_eq!(consumer.get("/livez").await.map(|(status, _)| status), Some(200));
    }
    eprintln!("{part} killed after {before} requests; not ready {:.1?} later", killed.elapsed());
    tokio::time::sleep(OUTAGE.saturating_sub(killed.elapsed())).await;
    job.stack.start(part);
    for consumer in &mut consumers {
        consumer.ready(LONG).await;
    }

    drop(rest.await.unwrap());
    judge_producer(&job, &mut producer, time_for(events)).await;
    job.finished(time_for(events)).await;
    eprintln!(
        "{events} events: all handled {:.1?} after {part} was killed, {:.1?} after it was back",
        killed.elapsed(),
        killed.elapsed() - OUTAGE
    );
    job.judge_books(&consumers).await;
    judge_all(&job, &mut consumers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_kafka_for_20_s_changes_nothing() {
    nothing_changes_when_it_is_killed("kafka", "brokers", Duration::from_secs(10)).await;
}

/// With `appendfsync everysec`, Redis' default and compose's: the workers live, and what a restarted Redis forgot stands in their
/// trackers and in the commit maps.
#[tokio::test(flavor = "multi_thread")]
async fn killing_redis_for_20_s_changes_nothing() {
    nothing_changes_when_it_is_killed("redis", "store", Duration::from_secs(3)).await;
}

/// F90: nothing lost, order kept; a second run only of what was in the dead process' hands.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_consumer_loses_nothing_and_repeats_only_what_it_was_working_on() {
    let events = events(6_000);
    let job = stack_or_skip!(Job::start(Plan::new(events, 1000.min(events / 20))).await);
    job.poison().await;
    let mut consumers = two_consumers(&job).await;
    let input = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(input.path(), job.plan.lines.join("\n")).unwrap();
    let mut producer = job.producer().stdin(std::fs::File::open(input.path()).unwrap()).start();
    job.reached(events / 4, LONG).await;

    consumers.remove(0).kill();
    let killed_at = job.app.count();
    consumers.push(job.consumer().start_ready().await);
    judge_producer(&job, &mut producer, time_for(events)).await;
    job.finished(time_for(events)).await;

    let extra = job.judge_effects();
    let runs = job.app.runs();
    eprintln!("{events} events, killed after {killed_at} requests: {} events ran again, {} runs too many", extra.events.len(), extra.runs);
    let mut lanes = HashMap::new();
    for &(handler, n) in &extra.events {
        let mine = || runs.iter().enumerate().filter(|(_, run)| (run.handler, run.n) == (handler, n)).map(|(at, _)| at);
        // What the dead process had sent before it died; at most engine.concurrency requests were still on their way.
        assert!(mine().next().unwrap() <= killed_at + 64, "{handler}: event {n} first ran after the kill, and then again");
        // Of each lane one event at most was in work: its runs had not ended, or their end was not written down.
        let event = &job.plan.events[n];
        assert_eq!(*lanes.entry((event.topic, &event.user)).or_insert(n), n, "two events of one lane ran again");
    }
    assert_eq!(extra.runs, extra.events.len(), "once more, not twice: {extra:?}");
    // A letter that was written, and its acknowledgement not: written again. One per lane at most, as above.
    let letters = job.judge_dead_letters().await;
    eprintln!("{letters} dead letters stand there twice");
    assert!(letters <= 64);
    job.judge_books(&consumers).await;
    for consumer in &mut consumers {
        assert_eq!(consumer.terminate(LONG).await, Some(0));
    }
}
