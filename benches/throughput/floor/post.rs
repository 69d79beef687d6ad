//! Hand-over to lanes by key, each with a connection of its own, the typed parse, and POSTs to an app.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, client::conn::http1::SendRequest, header};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, sync::mpsc, task::JoinSet};

use super::{
    batch::{READ, Reader, Record},
    envelope::Envelope,
};
use crate::{meter::Meter, stack::Stack};

/// How the floor posts.
pub struct Posts {
    /// The app's port.
    pub port: u16,
    /// Lanes, and connections.
    pub lanes: usize,
    /// Events of one POST at most; more than one go as a JSON array.
    pub events: usize,
}

/// Reads, hands over and posts until the meter has counted its last event, which the app does.
///
/// # Errors
/// Where Kafka or the app refuses.
pub fn post(stack: &Stack, topic: &str, posts: &Posts, meter: &Arc<Meter>) -> anyhow::Result<()> {
    let reader = Reader::start(stack, topic)?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut lanes = JoinSet::new();
        let mut inboxes = Vec::new();
        for _ in 0..posts.lanes {
            let (sender, inbox) = mpsc::unbounded_channel();
            inboxes.push(sender);
            lanes.spawn(work(inbox, connect(posts.port).await?, posts.events));
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
async fn work(mut inbox: mpsc::UnboundedReceiver<Vec<Record>>, mut requests: SendRequest<Full<Bytes>>, most: usize) -> anyhow::Result<()> {
    let mut waiting = std::collections::VecDeque::new();
    loop {
        while waiting.len() < most {
            match inbox.try_recv() {
                Ok(more) => waiting.extend(more),
                Err(_) if waiting.is_empty() => waiting.extend(inbox.recv().await.unwrap_or_default()),
                Err(_) => break,
            }
        }
        let records = waiting.drain(..most.min(waiting.len())).inspect(|record| drop(std::hint::black_box(Envelope::read(record.value()))));
        let (path, body) = if most == 1 { ("/event", alone(records)) } else { ("/events", together(records)) };
        let request =
            Request::post(path).header(header::HOST, "127.0.0.1").header(header::CONTENT_TYPE, "application/json").body(Full::new(body))?;
        requests.ready().await?;
        let answer = requests.send_request(request).await?;
        anyhow::ensure!(answer.status().is_success(), "the app answered {}", answer.status());
        let _read = answer.into_body().collect().await?;
    }
}

fn alone(mut records: impl Iterator<Item = Record>) -> Bytes {
    records.next().map(|record| Bytes::copy_from_slice(record.value())).unwrap_or_default()
}

fn together(records: impl Iterator<Item = Record>) -> Bytes {
    let mut body = vec![b'['];
    for (index, record) in records.enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(record.value());
    }
    body.push(b']');
    body.into()
}
