//! Hand-over to a task per partition, and a ledger in Redis: per batch two SMISMEMBER before and one SADD after.

use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use tokio::{sync::mpsc, task::JoinSet};

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

/// Reads, hands over whole batches, parses and keeps the ledger.
///
/// # Errors
/// Where Kafka or Redis refuses.
pub fn ledger(stack: &Stack, topic: &str, meter: &Arc<Meter>) -> anyhow::Result<()> {
    let reader = Reader::start(stack, topic)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let prefix = unique("ledger");
    let client = redis::Client::open(stack.redis.as_str())?;
    runtime.block_on(async {
        let mut tasks = JoinSet::new();
        let mut inboxes = Vec::new();
        for partition in 0..PARTITIONS {
            let (sender, inbox) = mpsc::channel::<Vec<Record>>(INBOX);
            inboxes.push(sender);
            let connection = client.get_multiplexed_async_connection().await?;
            tasks.spawn(work(inbox, connection, format!("{prefix}:{partition}"), Arc::clone(meter)));
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

async fn work(
    mut inbox: mpsc::Receiver<Vec<Record>>,
    mut redis: MultiplexedConnection,
    key: String,
    meter: Arc<Meter>,
) -> anyhow::Result<()> {
    let (current, previous) = (format!("{key}:1"), format!("{key}:0"));
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
        let ids: Vec<[u8; 16]> = batch
            .iter()
            .filter_map(|record| {
                let copy: Box<[u8]> = record.value().into();
                Some(Envelope::read(&copy)?.event_id.parse::<uuid::Uuid>().ok()?.into_bytes())
            })
            .collect();
        let mut ask = redis::pipe();
        for set in [&current, &previous] {
            let command = ask.cmd("SMISMEMBER").arg(set);
            ids.iter().for_each(|id| {
                command.arg(id);
            });
        }
        let known: (Vec<u8>, Vec<u8>) = ask.query_async(&mut redis).await?;
        let fresh = ids.iter().zip(known.0.iter().zip(&known.1)).filter(|(_, (now, before))| **now + **before == 0).map(|(id, _)| id);
        let mut note = redis::cmd("SADD");
        note.arg(&current);
        fresh.for_each(|id| {
            note.arg(id);
        });
        let _added: u64 = note.query_async(&mut redis).await?;
        let read = batch.len() as u64;
        drop(batch);
        if meter.add(read) {
            meter.wake();
            return Ok(());
        }
    }
}
