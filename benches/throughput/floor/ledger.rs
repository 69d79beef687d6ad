//! Hand-over to a task per partition, and a ledger in Redis: per batch two SMISMEMBER before and one SADD after. With the typed parse, or
//! with the worker's decoder; by plain commands, or by the worker's store, under leases.

use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use tokio::{sync::mpsc, task::JoinSet};
use worker::{
    config::{Config, Sources},
    engine::{
        member::member_of,
        ports::{Acquired, Check, DedupeStore, Lease, Member},
    },
    event::{
        Catalog, Decoder,
        record::{self, RawRecord, TopicPartition},
    },
    telemetry::Metrics,
};

use super::{
    batch::{READ, Reader, Record},
    envelope::Envelope,
};
use crate::{
    meter::Meter,
    stack::{PARTITIONS, Stack, unique},
};

/// Batches that wait for a task.
const INBOX: usize = 16;

/// What an event is read with.
#[derive(Clone)]
pub enum Parse {
    /// [`Envelope`].
    Typed,
    /// The worker's decoder and its catalogue: any shape, validated, with the identity that the worker's ledger has.
    Worker(Decoder),
}

impl Parse {
    /// With the worker's decoder.
    ///
    /// # Errors
    /// Where the embedded catalogue cannot be read.
    pub fn worker() -> anyhow::Result<Self> {
        Ok(Self::Worker(Decoder::new(Arc::new(Catalog::embedded()?), true)))
    }

    fn member(&self, record: &Record, partition: &TopicPartition) -> Option<Member> {
        match self {
            Self::Typed => {
                let copy: Box<[u8]> = record.value().into();
                Some(Member { id: id_of(&Envelope::read(&copy)?)?, user: 0 })
            }
            Self::Worker(decoder) => {
                let event = decoder.decode(record::Record::copy_of(partition, record)).ok()?;
                Some(member_of(&event, 0))
            }
        }
    }
}

/// What the ledger is kept with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Plain commands on a connection and two sets of each partition's own.
    Commands,
    /// The worker's store: one for all, each partition under a lease.
    Store,
}

/// Without headers: the stream's events have none.
impl RawRecord for Record {
    fn offset(&self) -> i64 {
        Self::offset(self)
    }

    fn timestamp(&self) -> Option<i64> {
        None
    }

    fn key(&self) -> Option<&[u8]> {
        Some(Self::key(self))
    }

    fn value(&self) -> Option<&[u8]> {
        Some(Self::value(self))
    }

    fn headers(&self, _: &mut dyn FnMut(&str, Option<&[u8]>)) {}
}

/// Reads, hands over whole batches, parses and keeps the ledger.
///
/// # Errors
/// Where Kafka or Redis refuses.
pub fn ledger(stack: &Stack, topic: &str, parse: &Parse, keep: Keep, meter: &Arc<Meter>) -> anyhow::Result<()> {
    let reader = Reader::start(stack, topic)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let prefix = unique("ledger");
    let client = redis::Client::open(stack.redis.as_str())?;
    runtime.block_on(async {
        let store = match keep {
            Keep::Commands => None,
            Keep::Store => Some(store(stack, &prefix).await?),
        };
        let mut tasks = JoinSet::new();
        let mut inboxes = Vec::new();
        for partition in 0..PARTITIONS {
            let (sender, inbox) = mpsc::channel::<Vec<Record>>(INBOX);
            inboxes.push(sender);
            let id = TopicPartition::new(topic, partition);
            let book = match &store {
                None => Book::Own(Ledger::new(client.get_multiplexed_async_connection().await?, &format!("{prefix}:{partition}"))),
                Some(store) => Book::leased(store, &id).await?,
            };
            tasks.spawn(work(inbox, book, parse.clone(), id, Arc::clone(meter)));
        }
        let polling = tokio::task::spawn_blocking(move || distribute(&reader, &inboxes));
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }
        polling.await?;
        anyhow::Ok(())
    })
}

/// Sorts what is read by partition, one send each, until nobody listens.
fn distribute(reader: &Reader, inboxes: &[mpsc::Sender<Vec<Record>>]) {
    let mut batch = Vec::with_capacity(READ);
    let partition = |record: &Record| usize::try_from(record.partition()).unwrap_or_default();
    loop {
        let groups = reader.read_groups(&mut batch, inboxes.len(), partition);
        for (inbox, group) in inboxes.iter().zip(groups) {
            if !group.is_empty() && inbox.blocking_send(group).is_err() {
                return;
            }
        }
        if inboxes.iter().all(mpsc::Sender::is_closed) {
            return;
        }
    }
}

/// The worker's store as it comes, with keys of its own.
async fn store(stack: &Stack, group: &str) -> anyhow::Result<Arc<dyn DedupeStore>> {
    let sets = vec![format!("store.url=\"{}\"", stack.redis)];
    let config = Config::load(&Sources { sets, ..Sources::default() })?.config;
    Ok(worker::store::connect(&config.store, group, &Metrics::new("consumer")).await?)
}

/// A partition's ledger.
enum Book {
    Own(Ledger),
    Leased(Arc<dyn DedupeStore>, Lease),
}

impl Book {
    async fn leased(store: &Arc<dyn DedupeStore>, partition: &TopicPartition) -> anyhow::Result<Self> {
        match store.acquire(partition, &Arc::from("floor"), 0).await? {
            Acquired::Granted { lease, .. } => Ok(Self::Leased(Arc::clone(store), lease)),
            Acquired::Held(_) => anyhow::bail!("somebody else has {partition}"),
        }
    }
}

/// Sets of ids, this time's and the last one's.
pub(super) struct Ledger {
    redis: MultiplexedConnection,
    current: String,
    previous: String,
}

impl Ledger {
    /// One whose sets are named so.
    pub(super) fn new(redis: MultiplexedConnection, key: &str) -> Self {
        Self { redis, current: format!("{key}:1"), previous: format!("{key}:0") }
    }

    /// Those that are in neither set.
    pub(super) async fn fresh(&mut self, ids: &[[u8; 16]]) -> anyhow::Result<Vec<[u8; 16]>> {
        let mut ask = redis::pipe();
        for set in [&self.current, &self.previous] {
            let command = ask.cmd("SMISMEMBER").arg(set);
            ids.iter().for_each(|id| {
                command.arg(id);
            });
        }
        let known: (Vec<u8>, Vec<u8>) = ask.query_async(&mut self.redis).await?;
        let fresh = ids.iter().zip(known.0.iter().zip(&known.1)).filter(|(_, (now, before))| **now + **before == 0);
        Ok(fresh.map(|(id, _)| *id).collect())
    }

    /// Adds them.
    pub(super) async fn note(&mut self, ids: &[[u8; 16]]) -> anyhow::Result<()> {
        let mut note = redis::cmd("SADD");
        note.arg(&self.current);
        ids.iter().for_each(|id| {
            note.arg(id);
        });
        let _added: u64 = note.query_async(&mut self.redis).await?;
        Ok(())
    }
}

/// An event's id as the ledger keeps it.
pub(super) fn id_of(event: &Envelope<'_>) -> Option<[u8; 16]> {
    Some(event.event_id.parse::<uuid::Uuid>().ok()?.into_bytes())
}

async fn work(
    mut inbox: mpsc::Receiver<Vec<Record>>,
    mut book: Book,
    parse: Parse,
    partition: TopicPartition,
    meter: Arc<Meter>,
) -> anyhow::Result<()> {
    loop {
        let batch = tokio::select! {
            batch = inbox.recv() => batch,
            () = meter.done() => None,
        };
        let Some(batch) = batch else {
            // The others are told as well.
            meter.wake();
            return Ok(());
        };
        let members = batch.iter().filter_map(|record| parse.member(record, &partition));
        match &mut book {
            Book::Own(ledger) => {
                let ids: Vec<[u8; 16]> = members.map(|member| member.id).collect();
                let fresh = ledger.fresh(&ids).await?;
                ledger.note(&fresh).await?;
            }
            Book::Leased(store, lease) => {
                let members: Vec<Member> = members.collect();
                let known = store.check(lease, Check { members: members.clone(), ..Check::default() }).await?;
                let fresh = members.into_iter().zip(known).filter(|(_, known)| !known).map(|(member, _)| member).collect();
                store.finish(lease, fresh).await?;
            }
        }
        let read = batch.len() as u64;
        drop(batch);
        if meter.add(read) {
            meter.wake();
            return Ok(());
        }
    }
}
