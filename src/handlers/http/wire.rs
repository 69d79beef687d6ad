//! HTTP/1.1 to one app without TLS: a connection belongs to the run that uses it, which drives it itself. No other task stands between a run
//! and its socket, and a run that is dropped takes its connection along.

use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Request, Response,
    body::{Body, Incoming},
    client::conn::http1::{Connection, SendRequest, handshake},
    http::response::Parts,
};
use hyper_util::rt::TokioIo;
use reqwest::Url;
use tokio::{net::TcpStream, task::unconstrained, time::Instant};

use super::client::{CONNECT, IDLE, innermost};

/// A request with its whole body.
pub(super) type Post = Request<Full<Bytes>>;

/// An app's answer.
pub(super) struct Answer {
    /// Status and headers.
    pub(super) head: Parts,
    /// The body; `None` where it is overlong.
    pub(super) body: Result<Option<Vec<u8>>, WireError>,
}

/// Why there is no answer. Its text is one line and names no URL, which may carry a secret.
#[derive(Debug)]
pub(super) enum WireError {
    /// No connection.
    Connect(io::Error),
    /// It broke before all of the answer was there.
    Broken(hyper::Error),
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => write!(f, "cannot connect: {error}"),
            Self::Broken(error) => write!(f, "the connection broke: {}", innermost(error)),
        }
    }
}

/// The connections to one app.
pub(super) struct Wire {
    host: String,
    port: u16,
    kept: Arc<Mutex<Kept>>,
}

/// Connections that nobody uses, the longest unused first.
#[derive(Default)]
struct Kept {
    links: VecDeque<Box<Link>>,
    /// A task closes those that stay unused.
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

    /// Sends a request, over a kept connection where there is one, and reads the answer, of whose body at most `limit` bytes.
    ///
    /// # Errors
    /// Where the app is away, or breaks off before the answer's head is there: what it did is unknown then.
    pub(super) async fn send(&self, mut post: Post, limit: usize) -> Result<Answer, WireError> {
        loop {
            let kept = self.take();
            let new = kept.is_none();
            let mut link = match kept {
                Some(link) => link,
                // Rarely: its state would make that of every request larger.
                None => Box::new(Box::pin(Link::open(&self.host, self.port)).await?),
            };
            let response = match link.send(post).await {
                Ok(response) => response,
                // The app had closed it before anything was sent: not this request's end.
                Err((Some(unsent), _)) if !new => {
                    post = unsent;
                    continue;
                }
                Err((_, error)) => return Err(WireError::Broken(error)),
            };
            let (head, body) = response.into_parts();
            let body = link.read(body, limit).await.map_err(WireError::Broken);
            if matches!(body, Ok(Some(_))) && link.is_ready() {
                self.keep(link);
            }
            return Ok(Answer { head, body });
        }
    }

    /// The connection that was used last, of those that are still good.
    fn take(&self) -> Option<Box<Link>> {
        loop {
            let mut link = lock(&self.kept).links.pop_back()?;
            if link.used.elapsed() < IDLE && link.is_ready() {
                return Some(link);
            }
        }
    }

    fn keep(&self, mut link: Box<Link>) {
        link.used = Instant::now();
        let mut kept = lock(&self.kept);
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
    requests: SendRequest<Full<Bytes>>,
    /// `None`: at its end.
    connection: Option<Connection<TokioIo<TcpStream>, Full<Bytes>>>,
    used: Instant,
}

impl Link {
    async fn open(host: &str, port: u16) -> Result<Self, WireError> {
        let late = |_| Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {}", humantime::format_duration(CONNECT))));
        let stream =
            tokio::time::timeout(CONNECT, TcpStream::connect((host, port))).await.unwrap_or_else(late).map_err(WireError::Connect)?;
        // Whether the system minds is its own business.
        let _refused = stream.set_nodelay(true);
        let (requests, connection) = handshake(TokioIo::new(stream)).await.map_err(WireError::Broken)?;
        Ok(Self { requests, connection: Some(connection), used: Instant::now() })
    }

    /// Reads and writes what can be now.
    fn drive(&mut self, context: &mut Context<'_>) {
        if self.connection.as_mut().is_some_and(|connection| Pin::new(connection).poll(context).is_ready()) {
            self.connection = None;
        }
    }

    /// Whether it takes a request now.
    fn is_ready(&mut self) -> bool {
        // However much its task has done in this turn: else the app's end of it goes unseen.
        let mut look = std::pin::pin!(unconstrained(poll_fn(|context| {
            self.drive(context);
            Poll::Ready(())
        })));
        let _ready = look.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        self.connection.is_some() && self.requests.is_ready()
    }

    /// The answer's head; else the error, with the request where nothing of it was sent.
    async fn send(&mut self, post: Post) -> Result<Response<Incoming>, (Option<Post>, hyper::Error)> {
        let mut answer = std::pin::pin!(self.requests.try_send_request(post));
        poll_fn(|context| {
            self.drive(context);
            answer.as_mut().poll(context)
        })
        .await
        .map_err(|mut error| (error.take_message(), error.into_error()))
    }

    /// The body's bytes; `None` where there are more of them than `limit`.
    async fn read(&mut self, mut body: Incoming, limit: usize) -> Result<Option<Vec<u8>>, hyper::Error> {
        let mut read = Vec::new();
        while !body.is_end_stream() {
            let frame = poll_fn(|context| {
                self.drive(context);
                Pin::new(&mut body).poll_frame(context)
            });
            let Some(frame) = frame.await else { break };
            if let Ok(data) = frame?.into_data() {
                if read.len() + data.len() > limit {
                    return Ok(None);
                }
                read.extend_from_slice(&data);
            }
        }
        Ok(Some(read))
    }
}
