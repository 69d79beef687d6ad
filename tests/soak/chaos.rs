//! Carries a plan out, and notes what was done from when to when.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::task::JoinSet;

use crate::{
    app::now,
    crew::{Crew, LONG},
    plan::{Fault, Link, Plan, WORKERS},
    support::{
        eventually,
        kafka::{Kafka, Record},
    },
};

/// Partitions of the DLQ.
pub const DLQ_PARTITIONS: i32 = 3;

/// A fault that took place.
#[derive(Debug, Clone, Copy)]
pub struct Incident {
    pub fault: Fault,
    /// Microseconds since 1970.
    pub from: u64,
    pub to: u64,
}

/// What was done, and the letters of DLQs that are gone.
#[derive(Default)]
pub struct History {
    pub incidents: Mutex<Vec<Incident>>,
    pub letters: Mutex<Vec<Record>>,
    /// Held while somebody needs the broker to be there, or kills it.
    broker: tokio::sync::Mutex<()>,
}

/// Carries the whole plan out; returns when the last fault has ended.
pub async fn unleash(crew: &Arc<Crew>, history: &Arc<History>, plan: &Plan) {
    let begun = tokio::time::Instant::now();
    let mut faults = JoinSet::new();
    for &(at, fault) in &plan.faults {
        tokio::time::sleep_until(begun + at).await;
        let (crew, history) = (Arc::clone(crew), Arc::clone(history));
        faults.spawn(async move {
            let from = now();
            inflict(&crew, &history, fault).await;
            history.incidents.lock().unwrap().push(Incident { fault, from, to: now() });
        });
    }
    tokio::time::sleep_until(begun + plan.length).await;
    faults.join_all().await;
    history.incidents.lock().unwrap().sort_by_key(|incident| incident.from);
}

async fn inflict(crew: &Arc<Crew>, history: &History, fault: Fault) {
    match fault {
        Fault::Kill(place, away) => crew.kill(place, away).await,
        Fault::Freeze(place, stopped) => crew.freeze(place, stopped).await,
        Fault::Roll(place) => crew.roll(place, true).await,
        Fault::KillProducer => crew.kill(WORKERS, Duration::ZERO).await,
        Fault::RestartRedis(away) => restart(crew, "redis", away).await,
        Fault::RestartBroker(away) => {
            let _alone = history.broker.lock().await;
            restart(crew, "kafka", away).await;
        }
        Fault::Flush => flush(crew).await,
        Fault::Grow(topic) => {
            let _alone = history.broker.lock().await;
            eventually("a partition more", LONG, async || crew.stack.kafka().add_partition(topic).await).await;
        }
        Fault::RecreateDlq(away) => {
            let _alone = history.broker.lock().await;
            recreate_dlq(crew, history, away).await;
        }
        Fault::Reset(place, link) => crew.line(place, link).reset(),
        Fault::Strand(place, link) => crew.line(place, link).strand(),
        Fault::Cut(place, link, length) => {
            let _held = crew.line(place, link).hold();
            tokio::time::sleep(length).await;
        }
        Fault::Slow(place, link, delay, length) => {
            let line = crew.line(place, link);
            line.set_delay(delay);
            tokio::time::sleep(length).await;
            line.set_delay(Duration::ZERO);
        }
    }
}

async fn restart(crew: &Arc<Crew>, part: &'static str, away: Duration) {
    let of = Arc::clone(crew);
    tokio::task::spawn_blocking(move || of.stack.kill(part)).await.unwrap();
    tokio::time::sleep(away).await;
    let of = Arc::clone(crew);
    tokio::task::spawn_blocking(move || of.stack.start(part)).await.unwrap();
}

async fn flush(crew: &Crew) {
    let client = redis::Client::open(crew.stack.redis()).unwrap();
    eventually("FLUSHALL", LONG, async || {
        let mut connection = client.get_multiplexed_async_connection().await.ok()?;
        redis::cmd("FLUSHALL").query_async::<()>(&mut connection).await.ok()
    })
    .await;
}

/// While it is read and deleted no consumer reaches Kafka: every letter that was ever acknowledged is seen.
async fn recreate_dlq(crew: &Crew, history: &History, away: Duration) {
    let kafka = crew.stack.kafka();
    {
        let _held: Vec<_> = crew.lines[..WORKERS].iter().map(|lines| lines.kafka.hold()).collect();
        // What had passed the proxies is written by then.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let letters = eventually("the DLQ's letters", LONG, async || kafka.try_read_all("dlq").await.ok()).await;
        history.letters.lock().unwrap().extend(letters);
        kafka.delete_topic("dlq").await;
    }
    tokio::time::sleep(away).await;
    make_dlq(&kafka).await;
}

/// Creates the DLQ, as soon as the brokers let go of an older one.
pub async fn make_dlq(kafka: &Kafka) {
    eventually("the DLQ", LONG, async || kafka.try_create_topic("dlq", DLQ_PARTITIONS).await.then_some(())).await;
}

/// Whether the fault takes this consumer's Redis away, or all Redises' memory.
pub fn touches_store(fault: Fault, place: usize) -> bool {
    match fault {
        Fault::RestartRedis(_) | Fault::Flush => true,
        Fault::Reset(of, Link::Redis) | Fault::Strand(of, Link::Redis) => of == place,
        Fault::Cut(of, Link::Redis, _) | Fault::Slow(of, Link::Redis, ..) => of == place,
        _ => false,
    }
}

/// Whether the fault keeps this consumer from Kafka.
pub fn touches_kafka(fault: Fault, place: usize) -> bool {
    match fault {
        Fault::RestartBroker(_) | Fault::RecreateDlq(_) => true,
        Fault::Reset(of, Link::Kafka) | Fault::Strand(of, Link::Kafka) => of == place,
        Fault::Cut(of, Link::Kafka, _) | Fault::Slow(of, Link::Kafka, ..) => of == place,
        _ => false,
    }
}
