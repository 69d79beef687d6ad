//! Reads the topic into the feed, in every replica for itself, outside of any group.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::{sleep, timeout};

use super::feed::{Feed, Update};
use crate::{
    event::{Decoder, record::Record},
    health::Reporter,
    kafka::{
        KafkaError,
        client::Clients,
        scan::{Scan, Selection, Start},
    },
};

/// Between two attempts to read a topic that cannot be read.
const PAUSE: Duration = Duration::from_secs(1);
/// A topic that says nothing for this long has been read: its last offsets can be ones that no reader sees.
const SILENCE: Duration = Duration::from_secs(3);

/// Reads `topic` into `feed`, beginning `history` ago, for ever. What breaks is tried again; clients come again meanwhile.
pub async fn follow(
    clients: &Clients,
    topic: &str,
    history: Duration,
    decoder: &Decoder,
    feed: &Feed,
    part: &Reporter,
) -> std::convert::Infallible {
    loop {
        if let Err(error) = read(clients, topic, history, decoder, feed, part).await {
            part.fail(format!("{topic} is not read: {error}"));
        }
        sleep(PAUSE).await;
    }
}

async fn read(
    clients: &Clients,
    topic: &str,
    history: Duration,
    decoder: &Decoder,
    feed: &Feed,
    part: &Reporter,
) -> Result<(), KafkaError> {
    let since = chrono::Utc::now() - history;
    let selection =
        Selection { topics: vec![topic.to_owned()], start: Start::Since(since.timestamp_millis()), follow: true, ..Selection::default() };
    let mut scan = Scan::start(clients, selection).await?;
    let mut behind = scan.spans().clone();
    feed.begin(behind.iter().map(|(partition, (from, _))| (partition.partition, *from)).collect());
    behind.retain(|_, (from, end)| from < end);
    let mut is_ready = false;
    loop {
        if behind.is_empty() && !is_ready {
            is_ready = true;
            feed.ready();
            part.ok();
        }
        let record = match timeout(SILENCE, scan.next()).await {
            Ok(record) => record?,
            Err(_) => {
                behind.clear();
                continue;
            }
        };
        let Some(record) = record else { return Ok(()) };
        let (partition, offset) = (record.partition().clone(), record.offset());
        if behind.get(&partition).is_some_and(|(_, end)| offset + 1 >= *end) {
            behind.remove(&partition);
        }
        feed.push(partition.partition, offset, update(decoder, record));
    }
}

/// The event for its own user; `None`: it is no event.
fn update(decoder: &Decoder, record: Record) -> Option<(Arc<str>, Update)> {
    let (partition, offset) = (record.partition().partition, record.offset());
    let event = match decoder.decode(record) {
        Ok(event) => event,
        Err(rejected) => {
            tracing::debug!(
                kafka.partition = partition,
                kafka.offset = offset,
                reason = rejected.reason.code(),
                "a record that is no event is not told to clients"
            );
            return None;
        }
    };
    let data = one_line(event.to_published());
    Some((event.user_id().into(), Update { partition, offset, event_type: Arc::clone(event.event_type()), data }))
}

/// JSON has line breaks between its tokens only, where they say nothing.
fn one_line(json: Bytes) -> Bytes {
    match json.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
        true => json.iter().copied().filter(|byte| !matches!(byte, b'\n' | b'\r')).collect::<Vec<u8>>().into(),
        false => json,
    }
}
