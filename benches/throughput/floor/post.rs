//! Hand-over to lanes by key, each with a connection of its own, the typed parse, and POSTs to an app; with or without a ledger and the
//! contract of a bulk subscription.

use std::{
    borrow::Cow,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, client::conn::http1::SendRequest, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::{net::TcpStream, sync::mpsc, task::JoinSet};

use super::{
    batch::{READ, Reader, Record},
    envelope::Envelope,
    ledger::{Ledger, id_of},
};
use crate::{
    meter::Meter,
    stack::{Stack, unique},
};

/// How the floor posts.
pub struct Posts {
    /// The app's port.
    pub port: u16,
    /// Lanes, and connections.
    pub lanes: usize,
    /// Events of one POST at most.
    pub events: usize,
    /// What is posted, and what besides.
    pub form: Form,
}

/// What a POST says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One stored value.
    Value,
    /// A list of stored values.
    List,
    /// A batch as a bulk subscription's: a CloudEvent around each value, metadata, a verdict for each entry; and a ledger: per POST two
    /// SMISMEMBER before and one SADD after. What the worker has to do as well, by any means.
    Batch,
}

/// Reads, hands over and posts until the meter has counted its last event, which the app does.
///
/// # Errors
/// Where Kafka or the app refuses.
pub fn post(stack: &Stack, topic: &str, posts: &Posts, meter: &Arc<Meter>) -> anyhow::Result<()> {
    let reader = Reader::start(stack, topic)?;
    let prefix = unique("ledger");
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let redis = match posts.form {
            Form::Batch => Some(redis::Client::open(stack.redis.as_str())?.get_multiplexed_async_connection().await?),
            Form::Value | Form::List => None,
        };
        let mut lanes = JoinSet::new();
        let mut inboxes = Vec::new();
        for lane in 0..posts.lanes {
            let (sender, inbox) = mpsc::unbounded_channel();
            inboxes.push(sender);
            // Few sets, each large, as the worker's.
            let ledger = redis.clone().map(|redis| Ledger::new(redis, &format!("{prefix}:{}", lane % 4)));
            lanes.spawn(work(inbox, connect(posts.port).await?, posts.events, posts.form, ledger));
        }
        std::thread::spawn(move || distribute(&reader, &inboxes));
        tokio::select! {
            () = meter.done() => Ok(()),
            Some(ended) = lanes.join_next() => ended?,
        }
    })
}

/// Sorts what is read by lane, one send each, until nobody listens.
fn distribute(reader: &Reader, inboxes: &[mpsc::UnboundedSender<Vec<Record>>]) {
    let mut batch = Vec::with_capacity(READ);
    let lane = |record: &Record| {
        let mut hasher = DefaultHasher::new();
        record.key().hash(&mut hasher);
        usize::try_from(hasher.finish() % inboxes.len() as u64).unwrap_or_default()
    };
    loop {
        let groups = reader.read_groups(&mut batch, inboxes.len(), lane);
        for (inbox, group) in inboxes.iter().zip(groups) {
            if !group.is_empty() && inbox.send(group).is_err() {
                return;
            }
        }
    }
}

async fn connect(port: u16) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    let (requests, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(requests)
}

/// Posts what comes, in order.
async fn work(
    mut inbox: mpsc::UnboundedReceiver<Vec<Record>>,
    mut requests: SendRequest<Full<Bytes>>,
    most: usize,
    form: Form,
    mut ledger: Option<Ledger>,
) -> anyhow::Result<()> {
    let mut waiting = std::collections::VecDeque::new();
    loop {
        while waiting.len() < most {
            match inbox.try_recv() {
                Ok(more) => waiting.extend(more),
                Err(_) if waiting.is_empty() => waiting.extend(inbox.recv().await.unwrap_or_default()),
                Err(_) => break,
            }
        }
        let records: Vec<Record> = waiting.drain(..most.min(waiting.len())).collect();
        let events: Vec<Envelope<'_>> = records.iter().filter_map(|record| Envelope::read(record.value())).collect();
        let fresh = match &mut ledger {
            Some(ledger) => ledger.fresh(&events.iter().filter_map(id_of).collect::<Vec<_>>()).await?,
            None => Vec::new(),
        };
        let (path, body) = match form {
            Form::Value => ("/event", records.first().map(|record| Bytes::copy_from_slice(record.value())).unwrap_or_default()),
            Form::List => ("/events", list(&records)),
            Form::Batch => ("/events", batch(&records, &events)),
        };
        let request =
            Request::post(path).header(header::HOST, "127.0.0.1").header(header::CONTENT_TYPE, "application/json").body(Full::new(body))?;
        requests.ready().await?;
        let answer = requests.send_request(request).await?;
        anyhow::ensure!(answer.status().is_success(), "the app answered {}", answer.status());
        let answer = answer.into_body().collect().await?.to_bytes();
        if let Some(ledger) = &mut ledger {
            let verdicts: Verdicts<'_> = serde_json::from_slice(&answer)?;
            anyhow::ensure!(verdicts.statuses.iter().filter(|verdict| verdict.status == "SUCCESS").count() == records.len(), "refused");
            ledger.note(&fresh).await?;
        }
    }
}

#[derive(Deserialize)]
struct Verdicts<'a> {
    #[serde(borrow)]
    statuses: Vec<Verdict<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "an entry's id is parsed only to be parsed")]
struct Verdict<'a> {
    #[serde(borrow)]
    entry_id: Cow<'a, str>,
    #[serde(borrow)]
    status: Cow<'a, str>,
}

fn list(records: &[Record]) -> Bytes {
    let mut body = vec![b'['];
    for (index, record) in records.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(record.value());
    }
    body.push(b']');
    body.into()
}

/// No text in these needs an escape.
fn batch(records: &[Record], events: &[Envelope<'_>]) -> Bytes {
    let mut body = Vec::with_capacity(records.len() * 1024);
    body.extend_from_slice(
        br#"{"id":"1","type":"com.dapr.event.sent.bulk","topic":"t","pubsubname":"p","metadata":{"pubsubName":"p"},"entries":["#,
    );
    let mut digits = itoa::Buffer::new();
    for (index, (record, event)) in records.iter().zip(events).enumerate() {
        let mut put = |parts: &[&[u8]]| parts.iter().for_each(|part| body.extend_from_slice(part));
        put(&[if index > 0 { b"," } else { b"" }, br#"{"entryId":""#, digits.format(index).as_bytes()]);
        put(&[br#"","event":{"specversion":"1.0","id":""#, event.event_id.as_bytes(), br#"","type":""#, event.event_type.as_bytes()]);
        put(&[br#"","source":""#, event.source.as_deref().unwrap_or_default().as_bytes()]);
        put(&[br#"","time":""#, event.timestamp.as_deref().unwrap_or_default().as_bytes()]);
        put(&[br#"","datacontenttype":"application/json","data":"#, record.value(), br#"},"metadata":{"__topic":"t","__partition":""#]);
        put(&[digits.format(record.partition()).as_bytes(), br#"","__offset":""#]);
        put(&[digits.format(record.offset()).as_bytes(), br#"","__key":""#, record.key()]);
        put(&[br#"","pubsubname":"p"},"contentType":"application/cloudevents+json"}"#]);
    }
    body.extend_from_slice(b"]}");
    body.into()
}
