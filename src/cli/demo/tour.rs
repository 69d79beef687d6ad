//! The tour itself: real parts put together as the standalone role does it, and the acts in order.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use tokio::sync::mpsc;

use super::{
    FASTER,
    app::{App, Moods},
    figures::{Audited, Caused, DeadLetter, Failing, Figures, Others},
    jobs,
    observed::Observed,
    place::Place,
    stage::Stage,
    story::{Mark, Story},
    stream::{Sent, Stream},
};
use crate::{
    config::{Config, Role},
    engine::{PREFIX, ports::LogReader},
    event::{
        Catalog,
        record::{Record, TopicPartition},
    },
    handler::Binding,
    handlers::stats::Stats,
    health::Health,
    kafka::{client::Clients, reader::KafkaReader, topics::TopicAdmin},
    publish::Publishing,
    retry::Schedules,
    roles::{Options, brokers::Brokers, consumer::Consumer},
    shutdown::Shutdown,
    telemetry::Metrics,
};

/// Whose event fails twice.
const FAILING: &str = "user-7";
/// The event that fails twice: the schedule with the longest delays.
const FAILS_TWICE: &str = "task.completed";
/// Whose event never succeeds.
const UNLUCKY: &str = "eve";
const EXHAUSTED: &str = "task.updated";
/// Everybody else; some share user-7's partition of task-events, which the figures count.
const OTHERS: [&str; 12] = ["ada", "ben", "chen", "dora", "emil", "fay", "gus", "hal", "ines", "jon", "kim", "lena"];
/// Between two events of the others while user-7's is retrying.
const PACE: Duration = Duration::from_millis(60);
/// Between two events of the first act: readable, not slow.
const READABLE: Duration = Duration::from_millis(40);
/// Due times are whole milliseconds.
const CLOCK_STEP: Duration = Duration::from_millis(2);
/// Runs that may wait to be told.
const INBOX: usize = 1024;

/// Assembles everything, tells the tour, drains, and reads back what is left; `None`: ended by a signal.
pub(super) async fn tour(
    config: Config,
    catalog: Arc<Catalog>,
    story: Story,
    place: &Place,
    shutdown: &Shutdown,
) -> anyhow::Result<Option<Figures>> {
    let (runs, seen) = mpsc::channel(INBOX);
    let moods = Moods::default();
    let app = App { moods: moods.clone(), runs };
    let options = Options { bindings: vec![Binding::new("app", &["*"], app)], ..Options::default() };
    let metrics = Metrics::new(Role::Standalone.name());
    let consumer = Consumer::new(config, Arc::clone(&catalog), options).sharing(Health::new(), metrics.clone(), Stats::default());
    let Some(handlers) = consumer.wanted(shutdown).await? else { return Ok(None) };
    let (_, topics) = consumer.reading(&handlers);
    let brokers = Brokers::connect(consumer.config(), &catalog, &topics)?;
    let publishing = Publishing::new(brokers.config(), Arc::clone(&catalog), brokers.publisher(), metrics.clone());
    let mut stream = Stream::new(catalog, publishing, brokers.publisher(), moods);
    let schedules = Schedules::new(&brokers.config().retry);
    let mut stage = Stage::new(story, Observed::new(metrics), schedules, seen);

    let work = consumer.work(&brokers, handlers, shutdown);
    tokio::pin!(work);
    let parts = tokio::select! {
        biased;
        () = shutdown.draining() => {
            work.await?;
            return Ok(None);
        }
        parts = tell(&mut stage, &mut stream, brokers.config(), place) => parts?,
        ended = &mut work => match ended {
            Ok(()) => bail!("the consumer ended before the tour"),
            Err(error) => return Err(error.into()),
        },
    };
    shutdown.drain();
    work.await?;
    figures(&mut stage, &stream, parts, &brokers, place).await.map(Some)
}

/// What only the acts know.
struct Parts {
    failing: Sent,
    later: Vec<Sent>,
    meanwhile: Vec<Sent>,
    exhausted: Sent,
    caused: Caused,
}

async fn tell(stage: &mut Stage, stream: &mut Stream, config: &Config, place: &Place) -> anyhow::Result<Parts> {
    introduce(stage, config);
    let first = catalogue(stage, stream).await?;
    duplicate(stage, stream, &first).await?;
    let (failing, later, meanwhile) = retry(stage, stream).await?;
    let caused = jobs::day(stage, stream, &place.mailbox).await?;
    let exhausted = exhaust(stage, stream).await?;
    Ok(Parts { failing, later, meanwhile, exhausted, caused })
}

fn introduce(stage: &mut Stage, config: &Config) {
    stage.story.title("worker demo: the real engine on a Kafka broker and a store inside this process");
    let shortened = Schedules::new(&config.retry);
    let words = |delays: Vec<Duration>| {
        let words: Vec<_> = delays.into_iter().map(|delay| humantime::format_duration(delay).to_string()).collect();
        words.join(", ")
    };
    let delays = shortened.schedule_for(FAILS_TWICE).delays().to_vec();
    let real = delays.iter().map(|delay| *delay * FASTER).collect();
    stage.story.note(&format!(
        "Retry schedules are shortened {FASTER} times for the tour: {FAILS_TWICE} waits {}, not {}.",
        words(delays),
        words(real)
    ));
}

/// One event of each type; answers one that is about a task.
async fn catalogue(stage: &mut Stage, stream: &mut Stream) -> anyhow::Result<Sent> {
    stage.story.act(1, "One event of every type in the catalogue, from several users");
    let mut first = None;
    for (event_type, user) in stream.types().iter().zip(OTHERS.iter().cycle()) {
        let sent = stream.publish(event_type, user, 0).await?;
        let id = sent.id.clone();
        stage.until(&format!("{event_type} of {user}"), |seen| seen.effect(&id).is_some()).await?;
        stage.watch(READABLE).await?;
        if &**event_type == "task.created" {
            first = Some(sent);
        }
    }
    first.context("the catalogue lacks task.created")
}

async fn duplicate(stage: &mut Stage, stream: &mut Stream, first: &Sent) -> anyhow::Result<()> {
    stage.story.act(2, "The same event again, as a producer sends it that never got its answer");
    let sent = stream.repeat(first).await?;
    stage.until("the duplicate", |seen| seen.settled("duplicate") == 1).await?;
    stage.story.event(
        Mark::Duplicate,
        std::time::Instant::now(),
        &sent.user,
        &sent.event_type,
        "recognised by its event_id, not handled again",
    );
    Ok(())
}

/// user-7's event fails twice; two later ones wait behind it; the others go on.
async fn retry(stage: &mut Stage, stream: &mut Stream) -> anyhow::Result<(Sent, Vec<Sent>, Vec<Sent>)> {
    stage.story.act(3, &format!("{FAILING}'s event fails twice: {FAILING} waits, nobody else does"));
    stage.follow(Some(FAILING));
    let failing = stream.publish(FAILS_TWICE, FAILING, 2).await?;
    let later = vec![stream.publish("task.updated", FAILING, 0).await?, stream.publish("task.deleted", FAILING, 0).await?];
    let id = failing.id.clone();
    stage.until("the first failure", |seen| seen.runs_of(&id).next().is_some()).await?;
    let mut meanwhile = Vec::new();
    for user in OTHERS.iter().cycle() {
        if stage.observed.effect(&id).is_some() {
            break;
        }
        if meanwhile.len() > 2000 {
            bail!("{FAILING}'s event was not handled");
        }
        meanwhile.push(stream.publish("task.created", user, 0).await?);
        stage.watch(PACE).await?;
        let others = others(&stage.observed, &meanwhile, &failing);
        stage.story.now(&format!(
            "meanwhile: {} events of {} others, each at its handler within {} ms",
            others.events, others.users, others.delayed_at_most_ms
        ));
    }
    let wait_for: Vec<_> = later.iter().chain(&meanwhile).map(|sent| sent.id.clone()).collect();
    stage.until("everything behind it", |seen| wait_for.iter().all(|id| seen.effect(id).is_some())).await?;
    let others = others(&stage.observed, &meanwhile, &failing);
    stage.story.note(&format!(
        "Meanwhile {} events of {} other users were published, {} of them to {FAILING}'s own partition: each was at its handler within {} ms.",
        others.events, others.users, others.on_its_partition, others.delayed_at_most_ms
    ));
    stage.follow(None);
    Ok((failing, later, meanwhile))
}

/// An event that uses up its schedule, and a value that is no event.
async fn exhaust(stage: &mut Stage, stream: &mut Stream) -> anyhow::Result<Sent> {
    stage.story.act(5, "An event that never succeeds, and a value that is no event: to the DLQ, with the reason");
    let exhausted = stream.publish(EXHAUSTED, UNLUCKY, u32::MAX).await?;
    stage.until("the exhausted event", |seen| seen.settled("dead") == 1).await?;
    stage.story.event(Mark::Dead, std::time::Instant::now(), UNLUCKY, EXHAUSTED, "to the DLQ: its schedule is used up");
    stream.malformed("ben").await?;
    stage.until("the malformed value", |seen| seen.settled("dead") == 2).await?;
    stage.story.event(Mark::Dead, std::time::Instant::now(), "ben", "?", "to the DLQ: cut off in the middle, no event can be read");
    // Counted once more after everything has settled: nothing may come late.
    let published = stream.sent.len() as u64;
    let caused = stage.observed.effects().keys().filter(|id| !stream.has_sent(id)).count() as u64;
    stage.until("the last event", |seen| seen.settled_in_all() >= published + caused).await?;
    Ok(exhausted)
}

/// How the others fared while `failing` was retrying.
fn others(seen: &Observed, meanwhile: &[Sent], failing: &Sent) -> Others {
    let ends = seen.effect(&failing.id).map(|ran| ran.at);
    let during: Vec<_> = meanwhile.iter().filter(|sent| ends.is_none_or(|end| sent.at < end)).collect();
    let delay = |sent: &&&Sent| seen.effect(&sent.id).map(|ran| ran.at.saturating_duration_since(sent.at));
    let handled: Vec<_> = during.iter().filter_map(|sent| Some((*sent, delay(&sent)?))).collect();
    Others {
        users: handled.iter().map(|(sent, _)| sent.user.as_str()).collect::<BTreeSet<_>>().len(),
        events: handled.len(),
        on_its_partition: handled.iter().filter(|(sent, _)| sent.partition() == failing.partition()).count(),
        delayed_at_most_ms: handled.iter().map(|(_, delay)| millis(*delay)).max().unwrap_or_default(),
    }
}

fn failing(seen: &Observed, parts: &Parts, config: &Config) -> anyhow::Result<Failing> {
    let sent = &parts.failing;
    let runs: Vec<_> = seen.runs_of(&sent.id).collect();
    let (Some(first), Some(effect)) = (runs.first(), seen.effect(&sent.id)) else { bail!("{FAILING}'s event was not handled") };
    let schedules = Schedules::new(&config.retry);
    let delays = schedules.schedule_for(&sent.event_type).delays();
    let gaps = runs.windows(2).map(|pair| pair[1].at.saturating_duration_since(pair[0].at));
    let behind = |later: &&Sent| seen.effect(&later.id).is_some_and(|ran| ran.at >= effect.at);
    Ok(Failing {
        user: sent.user.clone(),
        event_type: sent.event_type.clone(),
        runs: runs.len(),
        retrying_ms: millis(effect.at.saturating_duration_since(first.at)),
        on_schedule: gaps.zip(delays).all(|(gap, delay)| gap + CLOCK_STEP >= delay.mul_f64(0.9)),
        waited_behind: parts.later.iter().filter(behind).count(),
        later: parts.later.len(),
    })
}

async fn figures(stage: &mut Stage, stream: &Stream, parts: Parts, brokers: &Brokers, place: &Place) -> anyhow::Result<Figures> {
    let config = brokers.config();
    let schedules = Schedules::new(&config.retry);
    let exhausted_after = schedules.schedule_for(&parts.exhausted.event_type).delays().len();
    let letters = dead_letters(brokers.clients(), &config.dlq.topic, &stream.sent).await.context("reading the DLQ back")?;
    show(&mut stage.story, &letters, &config.dlq.topic);
    let audited = place.audited(stream.sent.iter().filter(|sent| sent.event_type == jobs::AUDITED).count())?;
    show_audit(&mut stage.story, &audited);
    let uncommitted = uncommitted(brokers.clients(), &stream.sent).await.context("reading the commits back")?;
    let seen = &stage.observed;
    let wanted: BTreeSet<_> = stream.sent.iter().map(|sent| &*sent.id).filter(|id| !id.is_empty() && *id != parts.exhausted.id).collect();
    let effects = seen.effects();
    let types: BTreeSet<_> = seen.runs.iter().filter(|ran| !ran.failed).map(|ran| &*ran.event_type).collect();
    Ok(Figures {
        published: stream.sent.len(),
        types: stream.types().len(),
        types_handled: types.len(),
        to_handle: wanted.len(),
        handled: effects.keys().filter(|id| wanted.contains(*id)).count(),
        handled_again: effects.values().sum::<usize>() - effects.len(),
        out_of_order: seen.out_of_order(),
        duplicates: 1,
        duplicates_recognised: seen.settled("duplicate"),
        retries_due: 2 + exhausted_after as u64,
        retries: seen.retries(),
        exhausted_after: u32::try_from(exhausted_after).unwrap_or(u32::MAX),
        dead_letters: letters,
        failing: failing(seen, &parts, config)?,
        others: others(seen, &parts.meanwhile, &parts.failing),
        caused: parts.caused,
        audited,
        unaccounted: seen.unaccounted(),
        uncommitted,
        schedules_divided_by: FASTER,
        seconds: stage.story.began().elapsed().as_secs_f64(),
    })
}

fn show(story: &mut Story, letters: &[DeadLetter], topic: &str) {
    story.act(6, &format!("The topic {topic}, read back: key and value as they were published, the story in the headers"));
    for letter in letters {
        let number = |number: Option<u32>| number.map(|number| number.to_string()).unwrap_or_default();
        story.field("key", &letter.user);
        story.field("x-dlq-reason", &letter.reason);
        story.field("x-dlq-error", &letter.error);
        story.field("x-dlq-attempts, -retry-count", &format!("{}, {}", number(letter.attempts), number(letter.retries)));
        story.field("x-dlq-source-topic, -partition, -offset", &letter.source);
        story.field("", "");
    }
}

fn show_audit(story: &mut Story, audited: &Audited) {
    story.act(7, "The audit records, checked as `worker audit verify` does it");
    story.field("chain", &audited.chains.join(", "));
    story.field("deletions on record", &format!("{} of {}", audited.records, audited.deleted));
}

/// Every record of the DLQ topic, compared with what was published at the place that it names.
async fn dead_letters(clients: &Clients, topic: &str, sent: &[Sent]) -> anyhow::Result<Vec<DeadLetter>> {
    let admin = TopicAdmin::new(clients)?;
    let described = admin.list().await?.into_iter().find(|found| found.name == topic).with_context(|| format!("no topic {topic}"))?;
    let partitions: Vec<_> = (0..i32::try_from(described.partitions)?).map(|number| TopicPartition::new(topic, number)).collect();
    let bounds = admin.log_bounds(&partitions).await?;
    let reader = KafkaReader::start(clients)?;
    let mut letters = Vec::new();
    for (partition, (low, end)) in partitions.iter().zip(bounds) {
        let offsets: Vec<_> = (low..end).collect();
        letters.extend(reader.read(partition, &offsets).await?.iter().map(|record| dead_letter(record, sent)));
    }
    letters.sort_by(|a, b| a.reason.cmp(&b.reason));
    Ok(letters)
}

fn dead_letter(record: &Record, sent: &[Sent]) -> DeadLetter {
    let header = |name: &str| {
        let value = record.header(&format!("{PREFIX}{name}")).unwrap_or_default();
        String::from_utf8_lossy(value).into_owned()
    };
    let place = (header("source-topic"), header("source-partition"), header("source-offset"));
    let original = sent.iter().find(|sent| {
        (&*sent.message.topic, sent.acked.partition.to_string(), sent.acked.offset.to_string())
            == (&*place.0, place.1.clone(), place.2.clone())
    });
    DeadLetter {
        reason: header("reason"),
        event_type: header("event-type"),
        user: String::from_utf8_lossy(record.key().unwrap_or_default()).into_owned(),
        attempts: header("attempts").parse().ok(),
        retries: header("retry-count").parse().ok(),
        error: header("error"),
        source: format!("{}/{}@{}", place.0, place.1, place.2),
        untouched: original
            .is_some_and(|sent| record.key() == sent.message.key.as_deref() && record.value() == sent.message.value.as_deref()),
    }
}

/// Records that the group has not committed, over every partition that was written to.
async fn uncommitted(clients: &Clients, sent: &[Sent]) -> anyhow::Result<i64> {
    let partitions: BTreeMap<_, _> = sent.iter().map(|sent| (sent.partition().to_string(), sent.partition())).collect();
    let partitions: Vec<_> = partitions.into_values().collect();
    let admin = TopicAdmin::new(clients)?;
    let committed = admin.committed(&partitions).await?;
    let bounds = admin.log_bounds(&partitions).await?;
    Ok(committed.iter().zip(bounds).map(|(commit, (low, end))| end - commit.as_ref().map_or(low, |commit| commit.offset)).sum())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
