//! A consumer as a careful user writes it with the client's own async API: typed parse, MGET before, SET with a TTL after, offsets stored
//! when done. No order during retries, no schedules, no dead letters, no metrics: what is compared is the cost alone.

use std::sync::Arc;

use futures_util::StreamExt as _;
use rdkafka::{
    Message as _,
    consumer::{Consumer, StreamConsumer},
};

use crate::{
    floor::Envelope,
    meter::Meter,
    stack::{Stack, unique},
};

/// Events of one exchange with Redis.
const CHUNK: usize = 500;
/// Eight days, as the worker remembers.
const REMEMBER: u64 = 8 * 24 * 3600;

/// Reads the topic through a group, in chunks.
///
/// # Errors
/// Where Kafka or Redis refuses.
pub fn consume(stack: &Stack, topic: &str, meter: &Arc<Meter>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let _context = runtime.enter();
    let consumer: StreamConsumer = stack
        .client()
        .set("group.id", unique("plain"))
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.offset.store", "false")
        .create()?;
    consumer.subscribe(&[topic])?;
    let prefix = unique("plain");
    runtime.block_on(async {
        let mut redis = redis::Client::open(stack.redis.as_str())?.get_multiplexed_async_connection().await?;
        let mut chunks = consumer.stream().ready_chunks(CHUNK);
        while let Some(chunk) = chunks.next().await {
            let messages = chunk.into_iter().collect::<Result<Vec<_>, _>>()?;
            let events: Vec<Envelope<'_>> = messages.iter().filter_map(|message| Envelope::read(message.payload()?)).collect();
            let mut ask = redis::cmd("MGET");
            for event in &events {
                ask.arg(format!("{prefix}:{}", event.event_id));
            }
            let known: Vec<Option<u8>> = ask.query_async(&mut redis).await?;
            let mut note = redis::pipe();
            for (event, _) in events.iter().zip(&known).filter(|(_, known)| known.is_none()) {
                std::hint::black_box(event);
                note.cmd("SET").arg(format!("{prefix}:{}", event.event_id)).arg(1).arg("EX").arg(REMEMBER).ignore();
            }
            let () = note.query_async(&mut redis).await?;
            for message in &messages {
                consumer.store_offset_from_message(message)?;
            }
            if meter.add(messages.len() as u64) {
                break;
            }
        }
        anyhow::Ok(())
    })
}
