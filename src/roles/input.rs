//! Where the producer role reads from, and a stream of lines of bounded length.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::FileTypeExt,
    },
    path::Path,
};

use tokio::sync::mpsc;

use super::Input;
use crate::publish::MAX_EVENT;

/// Lines handed over at once.
const CHUNK_LINES: usize = 256;
/// Bytes handed over at once, about.
const CHUNK_BYTES: usize = 256 * 1024;
/// Chunks between the reading thread and the publisher.
const CHUNKS: usize = 4;

/// What the producer role reads, if anything, by the flags and by what `stdin` is; `None`: it is the long-running service. Unasked, only a regular file or
/// a pipe is read: pods and service managers give `/dev/null` or a socket, and a person at a terminal expects the service.
///
/// # Errors
/// Where the system does not tell what `stdin` is.
pub fn choose(asked: Option<Input>, serve: bool, stdin: &impl AsFd) -> io::Result<Option<Input>> {
    match asked {
        Some(input) => Ok(Some(input)),
        None if !serve && is_file_or_pipe(stdin)? => Ok(Some(Input::Stdin)),
        None => Ok(None),
    }
}

fn is_file_or_pipe(fd: &impl AsFd) -> io::Result<bool> {
    // A closed stdin (`<&-`) is no input either.
    let Ok(fd) = fd.as_fd().try_clone_to_owned() else { return Ok(false) };
    let kind = as_file(fd).metadata()?.file_type();
    Ok(kind.is_file() || kind.is_fifo())
}

/// `File` asks `fstat`, which std offers for nothing else.
fn as_file(fd: OwnedFd) -> File {
    File::from(fd)
}

/// An opened input.
pub struct Opened {
    reader: Box<dyn Read + Send>,
    /// Bytes to come, where it is a regular file.
    pub size: Option<u64>,
}

impl Opened {
    /// Opens a file.
    ///
    /// # Errors
    /// Where it cannot be opened.
    pub fn file(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let about = file.metadata()?;
        let size = about.is_file().then_some(about.len());
        Ok(Self { reader: Box::new(file), size })
    }

    /// Takes standard input.
    ///
    /// # Errors
    /// Where it is closed.
    pub fn stdin() -> io::Result<Self> {
        let file = as_file(io::stdin().as_fd().try_clone_to_owned()?);
        let about = file.metadata()?;
        let size = about.is_file().then_some(about.len());
        Ok(Self { reader: Box::new(file), size })
    }

    /// Any reader, of unknown size.
    pub fn from_reader(reader: impl Read + Send + 'static) -> Self {
        Self { reader: Box::new(reader), size: None }
    }

    /// Reads lines on a thread of its own: a read from a pipe can block for ever, and only the end of the process ends it then. The thread ends at the
    /// input's end, or when the receiver is dropped and the next chunk is full.
    ///
    /// # Errors
    /// Where no thread can be had.
    pub fn lines(self) -> io::Result<mpsc::Receiver<io::Result<Vec<Line>>>> {
        let (send, receive) = mpsc::channel(CHUNKS);
        let mut lines = Lines { reader: BufReader::with_capacity(64 * 1024, self.reader), number: 0 };
        std::thread::Builder::new().name("input".to_owned()).spawn(move || {
            loop {
                let chunk = lines.chunk();
                let last = !matches!(&chunk, Ok(lines) if !lines.is_empty());
                if matches!(&chunk, Ok(lines) if lines.is_empty()) || send.blocking_send(chunk).is_err() || last {
                    return;
                }
            }
        })?;
        Ok(receive)
    }
}

/// One line that is not blank.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    /// From 1, blank lines counted.
    pub number: u64,
    /// Bytes read up to and with this line's end, for the progress.
    pub read: u64,
    /// Without its end; `Err`: the length of a line that is longer than [`MAX_EVENT`] and was not kept.
    pub content: Result<Vec<u8>, u64>,
}

struct Lines<R> {
    reader: BufReader<R>,
    number: u64,
}

impl<R: Read> Lines<R> {
    /// Lines up to one chunk's size; none at the end. Gives what it has as soon as the reader would have to wait, so that a slow pipe is not held back.
    fn chunk(&mut self) -> io::Result<Vec<Line>> {
        let mut lines = Vec::new();
        let mut bytes = 0;
        while lines.len() < CHUNK_LINES && bytes < CHUNK_BYTES {
            if !lines.is_empty() && self.reader.buffer().is_empty() {
                break;
            }
            let Some(line) = self.line()? else { break };
            bytes += line.content.as_ref().map_or(0, Vec::len);
            lines.push(line);
        }
        Ok(lines)
    }

    /// The next line that is not blank.
    fn line(&mut self) -> io::Result<Option<Line>> {
        let mut read = 0;
        loop {
            let mut content = Vec::new();
            let length = self.raw(&mut content)?;
            if length == 0 {
                return Ok(None);
            }
            self.number += 1;
            read += length;
            if length > content.len() as u64 {
                return Ok(Some(Line { number: self.number, read, content: Err(length) }));
            }
            let text = match self.number {
                1 => content.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&content),
                _ => &content,
            };
            let text = text.trim_ascii();
            if !text.is_empty() {
                return Ok(Some(Line { number: self.number, read, content: Ok(text.to_vec()) }));
            }
        }
    }

    /// Reads up to and with the next line end; keeps no more than [`MAX_EVENT`] and a line end of it. The length read; 0 at the end.
    fn raw(&mut self, content: &mut Vec<u8>) -> io::Result<u64> {
        let mut length = 0;
        loop {
            let buffer = match self.reader.fill_buf() {
                Ok(buffer) => buffer,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let end = buffer.iter().position(|&byte| byte == b'\n');
            let taken = end.map_or(buffer.len(), |end| end + 1);
            let room = (MAX_EVENT + 2).saturating_sub(content.len());
            content.extend_from_slice(&buffer[..taken.min(room)]);
            length += taken as u64;
            self.reader.consume(taken);
            if end.is_some() || taken == 0 {
                return Ok(length);
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::{io::Cursor, os::unix::net::UnixStream};

    use super::*;

    fn lines(text: &[u8]) -> Vec<(u64, Result<String, u64>)> {
        let mut lines = Lines { reader: BufReader::with_capacity(7, Cursor::new(text.to_vec())), number: 0 };
        let mut all = Vec::new();
        loop {
            let chunk = lines.chunk().unwrap();
            if chunk.is_empty() {
                return all;
            }
            all.extend(chunk.into_iter().map(|line| (line.number, line.content.map(|bytes| String::from_utf8(bytes).unwrap()))));
        }
    }

    #[test]
    fn blank_lines_are_skipped_and_counted_and_the_last_line_needs_no_end() {
        let found = lines(b"\xEF\xBB\xBF{\"a\":1}\r\n\n   \n{\"b\":2}\n{\"c\":3}");
        assert_eq!(found, [(1, Ok("{\"a\":1}".to_owned())), (4, Ok("{\"b\":2}".to_owned())), (5, Ok("{\"c\":3}".to_owned()))]);
        assert_eq!(lines(b""), []);
        assert_eq!(lines(b"\n\n"), []);
    }

    #[test]
    fn a_line_beyond_the_limit_is_reported_and_not_kept_and_the_next_one_is_read() {
        let mut text = vec![b'x'; MAX_EVENT + 10];
        text.extend_from_slice(b"\n{}\n");
        assert_eq!(lines(&text), [(1, Err(MAX_EVENT as u64 + 11)), (2, Ok("{}".to_owned()))]);
        let longest = vec![b'x'; MAX_EVENT];
        assert_eq!(lines(&longest), [(1, Ok("x".repeat(MAX_EVENT)))]);
    }

    #[test]
    fn stdin_is_read_only_where_it_is_a_file_or_a_pipe() {
        let (pipe, _writer) = io::pipe().unwrap();
        let (socket, _peer) = UnixStream::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        let null = File::open("/dev/null").unwrap();
        fn choices(stdin: &impl AsFd) -> (Option<Input>, Option<Input>) {
            (choose(None, false, stdin).unwrap(), choose(None, true, stdin).unwrap())
        }
        assert_eq!(choices(&pipe), (Some(Input::Stdin), None));
        assert_eq!(choices(&file), (Some(Input::Stdin), None));
        assert_eq!(choices(&null), (None, None));
        assert_eq!(choices(&socket), (None, None));
    }

    #[test]
    fn a_named_input_is_read_whatever_stdin_is() {
        let null = File::open("/dev/null").unwrap();
        for asked in [Input::Stdin, Input::File("a.ndjson".into())] {
            assert_eq!(choose(Some(asked.clone()), false, &null).unwrap(), Some(asked));
        }
    }
}
