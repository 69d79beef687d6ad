//! Request bodies: bounded in length, in the time they may take, and in what all of them hold together.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Bytes, HttpBody},
    extract::Request,
    http::StatusCode,
};
use bytes::BytesMut;
use futures_util::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Longest body that is read.
pub const MAX_BODY: usize = 4 << 20;
/// Longest wait for a body to arrive whole.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bodies held at once, in KiB; beyond it callers are told to come back.
const ROOM_KIB: usize = 64 << 10;

/// The memory for request bodies. Cheap to share; every listener that reads bodies has the same.
#[derive(Debug, Clone)]
pub struct Bodies(Arc<Semaphore>);

impl Default for Bodies {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(ROOM_KIB)))
    }
}

/// A body and its share of the memory, given back when dropped.
#[derive(Debug)]
pub struct Body {
    /// The whole body.
    pub bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

/// Why a body was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Too much is held already.
    #[error("too many requests are under way")]
    Busy,
    /// Longer than allowed.
    #[error("the body is longer than 4 MiB")]
    TooLong,
    /// The caller went away, or sent no valid HTTP.
    #[error("the body broke off")]
    BrokeOff,
    /// It did not arrive in time.
    #[error("the body did not arrive within 30 s")]
    Slow,
}

impl BodyError {
    /// The answer's status.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Busy => StatusCode::TOO_MANY_REQUESTS,
            Self::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BrokeOff => StatusCode::BAD_REQUEST,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
        }
    }
}

impl Bodies {
    /// Reads a body of at most `limit` bytes.
    ///
    /// # Errors
    /// Where it is too long, too slow, incomplete, or there is no memory for it now.
    pub async fn read(&self, request: Request, limit: usize) -> Result<Body, BodyError> {
        tokio::time::timeout(PATIENCE, self.collect(request.into_body(), limit)).await.unwrap_or(Err(BodyError::Slow))
    }

    async fn collect(&self, body: axum::body::Body, limit: usize) -> Result<Body, BodyError> {
        let announced = body.size_hint().lower();
        if announced > limit as u64 {
            return Err(BodyError::TooLong);
        }
        let mut room = self.room(usize::try_from(announced).unwrap_or(limit) / 1024 + 1)?;
        let mut chunks = body.into_data_stream();
        let mut whole = BytesMut::new();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|_| BodyError::BrokeOff)?;
            let length = whole.len() + chunk.len();
            if length > limit {
                return Err(BodyError::TooLong);
            }
            // Of a body that does not say how long it is, room is taken as it comes.
            let missing = (length / 1024 + 1).saturating_sub(room.num_permits());
            if missing > 0 {
                room.merge(self.room(missing)?);
            }
            whole.extend_from_slice(&chunk);
        }
        Ok(Body { bytes: whole.freeze(), _room: room })
    }

    fn room(&self, kib: usize) -> Result<OwnedSemaphorePermit, BodyError> {
        let kib = u32::try_from(kib).map_err(|_| BodyError::TooLong)?;
        Arc::clone(&self.0).try_acquire_many_owned(kib).map_err(|_| BodyError::Busy)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use futures_util::stream;

    use super::*;

    fn chunks(count: usize, length: usize) -> Request {
        let chunks = (0..count).map(move |_| Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; length])));
        Request::new(axum::body::Body::from_stream(stream::iter(chunks)))
    }

    #[tokio::test]
    async fn a_body_of_unknown_length_is_read_whole_and_no_further_than_the_limit() {
        let bodies = Bodies::default();
        assert_eq!(bodies.read(chunks(10, 1000), 10_000).await.unwrap().bytes.len(), 10_000);
        assert_eq!(bodies.read(chunks(10, 1001), 10_000).await.unwrap_err(), BodyError::TooLong);
        assert_eq!(bodies.read(Request::new(vec![b'x'; 10_001].into()), 10_000).await.unwrap_err(), BodyError::TooLong);
    }

    #[tokio::test]
    async fn all_bodies_together_are_bounded_and_give_their_room_back() {
        let bodies = Bodies::default();
        let mut held = Vec::new();
        // 15 bodies of 4 MiB and what they round up to; the sixteenth finds the rest too small.
        while held.len() < 15 {
            held.push(bodies.read(chunks(4, 1 << 20), MAX_BODY).await.unwrap());
        }
        assert_eq!(bodies.read(chunks(4, 1 << 20), MAX_BODY).await.unwrap_err(), BodyError::Busy);
        held.clear();
        assert_eq!(bodies.0.available_permits(), ROOM_KIB);
        assert!(bodies.read(chunks(4, 1 << 20), MAX_BODY).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_ends_is_given_up() {
        let endless = stream::pending::<Result<Bytes, std::io::Error>>();
        let request = Request::new(axum::body::Body::from_stream(endless));
        assert_eq!(Bodies::default().read(request, MAX_BODY).await.unwrap_err(), BodyError::Slow);
    }
}
