//! HTTP/1.1 to one app without TLS: a connection belongs to the run that uses it, which writes and reads it itself. No other task stands
//! between a run and its socket, and a run that is dropped takes its connection along.
//!
//! A request is bytes from the start, and of an answer only what decides is taken: a general client's maps, channels and states are half of
//! what a request costs besides the system's part. The rules are RFC 9112's; answers are taken apart in `reply`.

use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    io::{self, IoSlice, Write as _},
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use reqwest::Url;
use tokio::{
    io::{AsyncReadExt as _, AsyncWrite as _},
    net::TcpStream,
    time::Instant,
};

use super::{
    client::{CONNECT, IDLE},
    reply::{Malformed, Reply},
    request::{Head, Request},
};

/// Room of a request or an answer that is kept for the next one, at most.
const ROOM: usize = 256 * 1024;
/// Requests whose room is kept, at most.
const ROOMS: usize = 256;

/// A request as it goes: all headers but the body's length, and the body.
pub(super) struct Unsent {
    pub(super) head: Vec<u8>,
    pub(super) body: Vec<u8>,
}

/// An app's answer, as far as it matters.
pub(super) struct Answer {
    /// The HTTP status.
    pub(super) status: u16,
    /// The header `Retry-After`, where it is text.
    pub(super) retry_after: Option<String>,
    /// The body, where it came whole: `None` where it is overlong.
    pub(super) body: Result<Option<Vec<u8>>, String>,
}

/// Why there is no answer. Its text is one line and names no URL, which may carry a secret.
#[derive(Debug)]
pub(super) enum WireError {
    /// No connection.
    Connect(io::Error),
    /// It broke before all of the answer was there.
    Broken(io::Error),
    /// What came is no answer.
    Malformed(Malformed),
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => write!(f, "cannot connect: {error}"),
            Self::Broken(error) => write!(f, "the connection broke: {error}"),
            Self::Malformed(error) => write!(f, "the connection broke: {error}"),
        }
    }
}

/// The connections to one app.
pub(super) struct Wire {
    host: String,
    port: u16,
    kept: Arc<Mutex<Kept>>,
}

/// What nobody uses.
#[derive(Default)]
struct Kept {
    /// The longest unused first.
    links: VecDeque<Link>,
    /// Of requests that are through.
    rooms: Vec<Unsent>,
    /// A task closes connections that stay unused.
    watched: bool,
}

impl Wire {
    /// To the app at that URL; `None` where it is spoken to in another way: with TLS, or as some user. Connects when there is something to send.
    pub(super) fn to(app: &Url) -> Option<Self> {
        if app.scheme() != "http" || !app.username().is_empty() || app.password().is_some() {
            return None;
        }
        let host = app.host_str()?.trim_start_matches('[').trim_end_matches(']').to_owned();
        Some(Self { host, port: app.port_or_known_default()?, kept: Arc::default() })
    }

    /// A request that begins so.
    pub(super) fn request(&self, opening: &str) -> Request {
        let room = lock(&self.kept).rooms.pop();
        let Unsent { mut head, mut body } =
            room.unwrap_or_else(|| Unsent { head: Vec::with_capacity(512), body: Vec::with_capacity(1024) });
        head.clear();
        body.clear();
        head.extend_from_slice(opening.as_bytes());
        Request { head: Head::Text(head), body }
    }

    /// Sends a request, over a kept connection where there is one, and reads the answer, of whose body at most `limit` bytes.
    ///
    /// # Errors
    /// Where the app is away, or breaks off before the answer's head is there: what it did is unknown then.
    pub(super) async fn send(&self, mut request: Unsent, limit: usize) -> Result<Answer, WireError> {
        // Nothing is written to where it does not belong, and room can be had.
        let _written = write!(request.head, "content-length: {}\r\n\r\n", request.body.len());
        let (link, answer) = loop {
            let kept = self.take();
            let new = kept.is_none();
            let mut link = match kept {
                Some(link) => link,
                // Rarely: its state would make that of every request larger.
                None => Box::pin(Link::open(&self.host, self.port)).await?,
            };
            match link.exchange(&request, limit).await {
                // The app had closed it before anything was sent: not this request's end.
                Err(Broken { untouched: true, .. }) if !new => {}
                Err(Broken { error, .. }) => return Err(error),
                Ok(answer) => break (link, answer),
            }
        };
        self.keep(link, request);
        Ok(answer)
    }

    /// The connection that was used last, of those that are still good.
    fn take(&self) -> Option<Link> {
        loop {
            let link = lock(&self.kept).links.pop_back()?;
            if link.used.elapsed() < IDLE && link.is_quiet() {
                return Some(link);
            }
        }
    }

    fn keep(&self, mut link: Link, request: Unsent) {
        if !link.reply.keeps_alive() {
            return;
        }
        link.used = Instant::now();
        let mut kept = lock(&self.kept);
        if kept.rooms.len() < ROOMS && request.head.capacity() + request.body.capacity() <= ROOM {
            kept.rooms.push(request);
        }
        kept.links.push_back(link);
        if !kept.watched {
            kept.watched = true;
            let watched = Arc::downgrade(&self.kept);
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(IDLE).await;
                    let Some(kept) = watched.upgrade() else { return };
                    let mut kept = lock(&kept);
                    while kept.links.front().is_some_and(|link| link.used.elapsed() >= IDLE) {
                        kept.links.pop_front();
                    }
                    if kept.links.is_empty() {
                        kept.rooms = Vec::new();
                        kept.watched = false;
                        return;
                    }
                }
            });
        }
    }
}

fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One connection.
struct Link {
    stream: TcpStream,
    reply: Reply,
    used: Instant,
}

/// Why an exchange came to nothing.
struct Broken {
    error: WireError,
    /// Before anything of the request was sent.
    untouched: bool,
}

impl Link {
    async fn open(host: &str, port: u16) -> Result<Self, WireError> {
        let late = |_| Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {}", humantime::format_duration(CONNECT))));
        let stream =
            tokio::time::timeout(CONNECT, TcpStream::connect((host, port))).await.unwrap_or_else(late).map_err(WireError::Connect)?;
        // Whether the system minds is its own business.
        let _refused = stream.set_nodelay(true);
        Ok(Self { stream, reply: Reply::default(), used: Instant::now() })
    }

    /// Whether the app has neither closed it nor said anything that nobody asked for.
    fn is_quiet(&self) -> bool {
        matches!(self.stream.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Sends the request and reads the answer to it. An app may answer before it has read all: then the rest is not sent.
    async fn exchange(&mut self, request: &Unsent, limit: usize) -> Result<Answer, Broken> {
        self.reply.clear(ROOM);
        let mut sent = 0;
        // An app that refuses a request may close before it has taken it: what it said counts, if it said anything.
        let mut refused = None;
        let outcome = poll_fn(|context| {
            if refused.is_none()
                && let Poll::Ready(Err(error)) = self.write(request, &mut sent, context)
            {
                refused = Some(error);
            }
            self.read(limit, context)
        });
        let whole = outcome.await;
        let all = sent == request.head.len() + request.body.len();
        match whole {
            Ok(()) => Ok(self.reply.take(all)),
            Err(error) => {
                // That nothing more can be written was there first.
                let error = refused.map_or(error, WireError::Broken);
                if self.reply.has_head() { Ok(self.reply.broken(&error.to_string())) } else { Err(Broken { error, untouched: sent == 0 }) }
            }
        }
    }

    /// Sends what the system takes now, until all is sent.
    fn write(&mut self, Unsent { head, body }: &Unsent, sent: &mut usize, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while *sent < head.len() + body.len() {
            let parts = [IoSlice::new(&head[(*sent).min(head.len())..]), IoSlice::new(&body[sent.saturating_sub(head.len())..])];
            let parts = if parts[0].is_empty() { &parts[1..] } else { &parts[..] };
            match Pin::new(&mut self.stream).poll_write_vectored(context, parts) {
                Poll::Ready(Ok(count)) => *sent += count,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads what is there now, until the answer is whole.
    fn read(&mut self, limit: usize, context: &mut Context<'_>) -> Poll<Result<(), WireError>> {
        loop {
            let read = pin!(self.stream.read_buf(self.reply.room())).poll(context);
            match read {
                Poll::Ready(Ok(count)) => match self.reply.took(count, limit) {
                    Ok(true) => return Poll::Ready(Ok(())),
                    Ok(false) if count == 0 => return Poll::Ready(Err(WireError::Broken(io::ErrorKind::UnexpectedEof.into()))),
                    Ok(false) => {}
                    Err(error) => return Poll::Ready(Err(WireError::Malformed(error))),
                },
                Poll::Ready(Err(error)) => return Poll::Ready(Err(WireError::Broken(error))),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
