//! An HTTP/1.1 answer, taken apart as it comes (RFC 9112, 6). Pure.

use std::mem::take;

use super::wire::Answer;

/// Longest head of an answer.
const LONGEST_HEAD: usize = 64 * 1024;
/// Most headers of an answer.
const HEADERS: usize = 100;
/// What is read at once, at least.
const READ: usize = 1024;

/// Why something is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    /// Neither HTTP/1.1 nor HTTP/1.0.
    #[error("the answer is no HTTP/1.1: {0}")]
    Head(httparse::Error),
    /// A head that does not end.
    #[error("the answer's head is longer than 64 KiB")]
    LongHead,
    /// A body of which nobody can say where it ends.
    #[error("the answer does not say how long it is")]
    Length,
}

/// Where an answer's body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Body {
    /// So many bytes are still to come.
    Sized(usize),
    /// A chunk's size is next.
    Size,
    /// So many bytes of a chunk are still to come, the line break after them included.
    Chunk(usize),
    /// The lines after the last chunk, up to an empty one.
    Trailer,
    /// With the connection.
    Closed,
    /// Here.
    Ended,
}

#[derive(Debug)]
struct Head {
    status: u16,
    retry_after: Option<String>,
    /// Another request may follow.
    keeps_alive: bool,
    body: Body,
}

/// An answer in the making.
#[derive(Debug, Default)]
pub(super) struct Reply {
    /// What came and was not taken apart yet.
    came: Vec<u8>,
    head: Option<Head>,
    content: Vec<u8>,
    overlong: bool,
    /// The connection may be used again.
    reusable: bool,
}

impl Reply {
    /// Begins the next one, in the same room where that is not above `most` bytes.
    pub(super) fn clear(&mut self, most: usize) {
        self.came.clear();
        if self.came.capacity() > most {
            self.came = Vec::new();
        }
        *self = Self { came: take(&mut self.came), ..Self::default() };
    }

    /// Where what comes next is put.
    pub(super) fn room(&mut self) -> &mut Vec<u8> {
        self.came.reserve(READ);
        &mut self.came
    }

    /// Whether the connection can be used for another request, once this answer is taken.
    pub(super) fn keeps_alive(&self) -> bool {
        self.reusable
    }

    /// Whether status and headers have come.
    pub(super) fn has_head(&self) -> bool {
        self.head.is_some()
    }

    /// Takes apart what came: `count` bytes more, none at the connection's end. Answers whether the answer is whole, or longer than `limit`.
    pub(super) fn took(&mut self, count: usize, limit: usize) -> Result<bool, Malformed> {
        let mut at = 0;
        while self.head.is_none() {
            match head(&self.came[at..])? {
                None if self.came.len() - at > LONGEST_HEAD => return Err(Malformed::LongHead),
                None => {
                    self.came.drain(..at);
                    return Ok(false);
                }
                Some((length, head)) => {
                    at += length;
                    // Interim answers announce another one (RFC 9110, 15.2).
                    if head.status >= 200 || head.status == 101 {
                        self.head = Some(head);
                    }
                }
            }
        }
        let Some(head) = &mut self.head else { return Ok(false) };
        loop {
            let rest = &self.came[at..];
            match head.body {
                Body::Sized(0) => head.body = Body::Ended,
                Body::Ended => break,
                Body::Closed if count == 0 => head.body = Body::Ended,
                Body::Chunk(0) => head.body = Body::Size,
                _ if rest.is_empty() => break,
                Body::Sized(left) => {
                    let taken = left.min(rest.len());
                    self.content.extend_from_slice(&rest[..taken]);
                    head.body = Body::Sized(left - taken);
                    at += taken;
                }
                Body::Closed => {
                    self.content.extend_from_slice(rest);
                    at = self.came.len();
                }
                // Without a digit it would read as the last chunk.
                Body::Size if !rest[0].is_ascii_hexdigit() => return Err(Malformed::Length),
                Body::Size => match httparse::parse_chunk_size(rest).map_err(|_| Malformed::Length)? {
                    httparse::Status::Partial if rest.len() > LONGEST_HEAD => return Err(Malformed::LongHead),
                    httparse::Status::Partial => break,
                    httparse::Status::Complete((length, 0)) => {
                        at += length;
                        head.body = Body::Trailer;
                    }
                    httparse::Status::Complete((length, size)) => {
                        at += length;
                        let size = usize::try_from(size).ok().and_then(|size| size.checked_add(CRLF.len())).ok_or(Malformed::Length)?;
                        head.body = Body::Chunk(size);
                    }
                },
                Body::Chunk(left) => {
                    let taken = left.min(rest.len());
                    let content = taken.min(left.saturating_sub(CRLF.len()));
                    let ending = &CRLF[CRLF.len() - (left - content).min(CRLF.len())..];
                    if !ending.starts_with(&rest[content..taken]) {
                        return Err(Malformed::Length);
                    }
                    self.content.extend_from_slice(&rest[..content]);
                    head.body = Body::Chunk(left - taken);
                    at += taken;
                }
                Body::Trailer => match rest.iter().position(|byte| *byte == b'\n') {
                    None if rest.len() > LONGEST_HEAD => return Err(Malformed::LongHead),
                    None => break,
                    Some(end) => {
                        if matches!(&rest[..end], b"" | b"\r") {
                            head.body = Body::Ended;
                        }
                        at += end + 1;
                    }
                },
            }
            if self.content.len() > limit {
                self.overlong = true;
                break;
            }
        }
        self.came.drain(..at);
        let ended = head.body == Body::Ended;
        // What follows an answer that nobody asked for cannot be told from the next one.
        self.reusable = ended && head.keeps_alive && self.came.is_empty() && count > 0;
        Ok(ended || self.overlong)
    }

    /// The answer that came whole. `sent`: so did the request; else nobody knows what the app takes the rest of it for.
    pub(super) fn take(&mut self, sent: bool) -> Answer {
        self.reusable &= sent && !self.overlong;
        let body = if self.overlong { None } else { Some(take(&mut self.content)) };
        self.answer(Ok(body))
    }

    /// The answer whose body broke off.
    pub(super) fn broken(&mut self, why: &str) -> Answer {
        self.reusable = false;
        self.answer(Err(why.to_owned()))
    }

    fn answer(&mut self, body: Result<Option<Vec<u8>>, String>) -> Answer {
        let head = self.head.take();
        Answer { status: head.as_ref().map_or(0, |head| head.status), retry_after: head.and_then(|head| head.retry_after), body }
    }
}

/// The line break after a chunk.
const CRLF: &[u8] = b"\r\n";

/// The head that these bytes begin with, and its length; `None`: it has not come to its end.
fn head(bytes: &[u8]) -> Result<Option<(usize, Head)>, Malformed> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(length) = response.parse(bytes).map_err(Malformed::Head)? else { return Ok(None) };
    let status = response.code.filter(|status| *status >= 100).ok_or(Malformed::Head(httparse::Error::Status))?;
    // Nobody asked for another protocol (101).
    let mut keeps_alive = response.version == Some(1) && status != 101;
    let (mut sized, mut coded, mut retry_after, mut closes) = (None, None, None, false);
    for header in response.headers.iter() {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        if is("content-length") {
            let length = length_of(header.value).filter(|length| sized.is_none_or(|known| known == *length));
            sized = Some(length.ok_or(Malformed::Length)?);
        } else if is("transfer-encoding") {
            // The last one counts (RFC 9112, 6.3): after any other coding the body ends with the connection.
            coded = tokens(header.value).last().map(|coding| coding.eq_ignore_ascii_case(b"chunked"));
        } else if is("connection") {
            for option in tokens(header.value) {
                keeps_alive |= option.eq_ignore_ascii_case(b"keep-alive") && status != 101;
                closes |= option.eq_ignore_ascii_case(b"close");
            }
        } else if is("retry-after") {
            retry_after = std::str::from_utf8(header.value).ok().map(str::to_owned);
        }
    }
    let body = match (status, coded, sized) {
        (100..200 | 204 | 304, ..) => Body::Ended,
        (_, Some(true), _) => Body::Size,
        (_, None, Some(length)) => Body::Sized(length),
        _ => Body::Closed,
    };
    Ok(Some((length, Head { status, retry_after, keeps_alive: keeps_alive && !closes, body })))
}

/// A length: digits, or the same ones again (RFC 9110, 8.6).
fn length_of(value: &[u8]) -> Option<usize> {
    let mut all = tokens(value).map(|digits| {
        let only = digits.iter().all(u8::is_ascii_digit);
        std::str::from_utf8(digits).ok().filter(|_| only)?.parse().ok()
    });
    let first = all.next()??;
    all.all(|other| other == Some(first)).then_some(first)
}

/// The members of a list.
fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 64;

    /// Status, body, and whether another request may follow; `None`: it is not whole.
    type Read = Option<(u16, Option<String>, bool)>;

    /// What these bytes are, coming in pieces of at most that size, and the connection's end behind them.
    fn read_by(bytes: &[u8], piece: usize, ends: bool) -> Result<Read, Malformed> {
        let mut reply = Reply::default();
        let mut whole = false;
        let mut rest = bytes;
        while !whole && !rest.is_empty() {
            let (next, later) = rest.split_at(piece.min(rest.len()));
            reply.room().extend_from_slice(next);
            whole = reply.took(next.len(), LIMIT)?;
            rest = later;
        }
        if !whole && ends {
            whole = reply.took(0, LIMIT)?;
        }
        if !whole {
            return Ok(None);
        }
        let Answer { status, body, .. } = reply.take(true);
        let body = body.unwrap().map(|body| String::from_utf8(body).unwrap());
        Ok(Some((status, body, reply.keeps_alive())))
    }

    fn read(text: &str) -> Read {
        read_by(text.as_bytes(), usize::MAX, true).unwrap()
    }

    fn done(status: u16, body: &str, again: bool) -> Read {
        Some((status, Some(body.to_owned()), again))
    }

    #[test]
    fn an_answer_ends_where_its_head_says() {
        for (text, expected) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", done(200, "ok", true)),
            ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", done(200, "", true)),
            ("HTTP/1.1 204 No Content\r\n\r\n", done(204, "", true)),
            ("HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n", done(204, "", true)),
            ("HTTP/1.1 304 Not Modified\r\n\r\n", done(304, "", true)),
            ("HTTP/1.1 200 OK\r\ncontent-length: 2, 2\r\ncontent-length: 2\r\n\r\nok", done(200, "ok", true)),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;x=y\r\nok\r\n1\r\n!\r\n0\r\n\r\n", done(200, "ok!", true)),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx-sum: 1\r\n\r\n", done(200, "", true)),
            ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\ntransfer-encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", done(200, "ok", true)),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\ncontent-length: 1\r\n\r\nall", done(200, "all", false)),
            ("HTTP/1.1 200 OK\r\n\r\nall of it", done(200, "all of it", false)),
            ("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok", done(200, "ok", false)),
            ("HTTP/1.1 200 OK\r\nconnection: keep-alive, Close\r\ncontent-length: 2\r\n\r\nok", done(200, "ok", false)),
            ("HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", done(200, "ok", false)),
            ("HTTP/1.0 200 OK\r\nconnection: Keep-Alive\r\ncontent-length: 2\r\n\r\nok", done(200, "ok", true)),
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok and more", done(200, "ok", false)),
            ("HTTP/1.1 101 Switching Protocols\r\n\r\n", done(101, "", false)),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n",
                done(202, "", true),
            ),
            // Before their end.
            ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok", None),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n", None),
            ("HTTP/1.1 200 OK\r\ncontent-", None),
            ("HTTP/1.1 100 Continue\r\n\r\n", None),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for text in [
            "SSH-2.0-OpenSSH_9.6\r\n",
            "HTTP/2 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: two\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nx\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nokay\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n\r\n5\r\nmore!\r\n0\r\n\r\n",
            "HTTP/1.1 099 Odd\r\n\r\n",
        ] {
            assert!(read_by(text.as_bytes(), usize::MAX, true).is_err(), "{text}");
        }
        let long = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(LONGEST_HEAD));
        assert_eq!(read_by(long.as_bytes(), 4096, false).unwrap_err(), Malformed::LongHead);
    }

    #[test]
    fn an_overlong_body_is_not_waited_for() {
        let text = format!("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{}", "x".repeat(LIMIT + 1));
        assert_eq!(read_by(text.as_bytes(), 7, false).unwrap(), Some((200, None, false)));
    }

    #[test]
    fn retry_after_is_told() {
        let mut reply = Reply::default();
        let text = b"HTTP/1.1 503 Busy\r\nRetry-After: 7\r\ncontent-length: 0\r\n\r\n";
        reply.room().extend_from_slice(text);
        assert!(reply.took(text.len(), LIMIT).unwrap());
        assert_eq!(reply.take(true).retry_after.as_deref(), Some("7"));
    }

    #[test]
    fn a_request_that_was_not_sent_whole_is_the_last_of_its_connection() {
        let mut reply = Reply::default();
        let text = b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n";
        reply.room().extend_from_slice(text);
        assert!(reply.took(text.len(), LIMIT).unwrap());
        assert_eq!(reply.take(false).status, 413);
        assert!(!reply.keeps_alive());
    }

    fn answer() -> impl Strategy<Value = String> {
        let content = "[a-z]{0,40}";
        let sized = content.prop_map(|body| format!("content-length: {}\r\n\r\n{body}", body.len()));
        let chunked = proptest::collection::vec("[a-z]{1,20}", 0..3).prop_map(|chunks| {
            let chunks: String = chunks.iter().map(|chunk| format!("{:x}\r\n{chunk}\r\n", chunk.len())).collect();
            format!("transfer-encoding: chunked\r\n\r\n{chunks}0\r\n\r\n")
        });
        let head =
            prop_oneof![Just("HTTP/1.1 200 OK\r\n"), Just("HTTP/1.0 500 No\r\n"), Just("HTTP/1.1 100 Go on\r\n\r\nHTTP/1.1 200 OK\r\n")];
        (head, prop_oneof![sized, chunked]).prop_map(|(head, rest)| format!("{head}{rest}"))
    }

    proptest! {
        #[test]
        fn an_answer_is_the_same_in_whatever_pieces_it_comes(text in answer(), piece in 1_usize..50) {
            let whole = read_by(text.as_bytes(), usize::MAX, false).unwrap();
            prop_assert!(whole.is_some());
            prop_assert_eq!(read_by(text.as_bytes(), piece, false).unwrap(), whole);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>, piece in 1_usize..50, head in any::<bool>()) {
            let mut all = if head { b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec() } else { Vec::new() };
            all.extend(bytes);
            let _ = read_by(&all, piece, true).is_ok();
        }
    }
}
