//! A chain in files: `<chain>.<day>.<number>.ndjson`, a new one each day and at a size, and `<chain>.head`, which says how far the chain goes.
//!
//! What [`Journal::append`] has answered is on the disk. The head is written after the records, so it never says more than there is; it
//! makes a removal at the end show, and locks the chain: of several processes in one folder each has a chain of its own.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use chrono::{DateTime, NaiveDate, Utc};
use rustix::fs::{FlockOperation, flock};
use serde_json::json;

use super::chain::{Body, Chain, Record};

/// Writers of one host in one folder, at most.
const MOST_WRITERS: u32 = 64;
/// Far longer than any line.
const LONGEST_LINE: u64 = 16 << 20;
/// Length of the head: its text, then spaces.
const HEAD: usize = 128;

/// Where a journal is written.
#[derive(Debug, Clone)]
pub struct JournalOptions {
    /// The folder, made where it is missing.
    pub dir: PathBuf,
    /// The chain's name; a second writer gets it with `-2`.
    pub chain: String,
    /// A file that is longer gets no more records, in bytes.
    pub max_size: u64,
}

/// A chain's files, and the only right to append to them.
pub struct Journal {
    options: JournalOptions,
    head: File,
    chain: Chain,
    /// Of the newest file; 0: there is none.
    number: u32,
    open: Option<Open>,
}

/// The file that is written to.
struct Open {
    file: File,
    name: String,
    day: NaiveDate,
    length: u64,
}

/// The name of a chain's file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileName {
    /// The chain.
    pub chain: String,
    /// Counts from 1.
    pub number: u32,
    /// The day of its first record.
    pub day: NaiveDate,
}

impl FileName {
    /// Reads a file's name; `None`: it is none of a chain.
    pub fn parse(name: &str) -> Option<Self> {
        let mut parts = name.strip_suffix(".ndjson")?.rsplitn(3, '.');
        let (number, day, chain) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Self { chain: chain.to_owned(), number: number.parse().ok()?, day: day.parse().ok()? })
    }

    /// The name as text.
    pub fn text(&self) -> String {
        format!("{}.{}.{:06}.ndjson", self.chain, self.day, self.number)
    }
}

/// How far a chain goes, as its head says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The last record's number.
    pub seq: u64,
    /// Its hash.
    pub hash: String,
}

impl Head {
    /// Reads the head of a chain; `None`: there is none.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn of(dir: &Path, chain: &str) -> io::Result<Option<Self>> {
        match std::fs::read(dir.join(format!("{chain}.head"))) {
            Ok(bytes) => Ok(Self::parse(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (seq, hash) = std::str::from_utf8(bytes).ok()?.trim_end().split_once(' ')?;
        Some(Self { seq: seq.parse().ok()?, hash: hash.to_owned() })
    }
}

impl Journal {
    /// Takes the first chain of that name that no other process writes to, and goes on where it ends. A line that its last writer left
    /// half-written is closed, and said.
    ///
    /// # Errors
    /// Where the folder or a file cannot be written, or every chain has its writer.
    pub fn open(options: JournalOptions, now: DateTime<Utc>) -> io::Result<Self> {
        std::fs::create_dir_all(&options.dir)?;
        for writer in 1..=MOST_WRITERS {
            let chain = if writer == 1 { options.chain.clone() } else { format!("{}-{writer}", options.chain) };
            let head =
                OpenOptions::new().read(true).write(true).create(true).truncate(false).open(options.dir.join(format!("{chain}.head")))?;
            match flock(&head, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {
                    let mut journal = Self { options, head, chain: Chain::new(chain), number: 0, open: None };
                    journal.recover(now)?;
                    return Ok(journal);
                }
                Err(rustix::io::Errno::WOULDBLOCK) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(io::Error::other(format!("{MOST_WRITERS} other processes write to {}", options.dir.display())))
    }

    /// The chain as it stands.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// Writes a record for each of these; they are on the disk when it answers.
    ///
    /// # Errors
    /// Where they could not be written: some may stand there all the same, and are written again when they come again.
    pub fn append(&mut self, now: DateTime<Utc>, bodies: &[Body]) -> io::Result<()> {
        let mut rest = bodies;
        while !rest.is_empty() {
            if self.open.as_ref().is_none_or(|open| open.day != now.date_naive() || open.length >= self.options.max_size) {
                self.begin_file(now)?;
            }
            let room = self.open.as_ref().map_or(0, |open| self.options.max_size.saturating_sub(open.length));
            let (mut chain, mut text, mut taken) = (self.chain.clone(), String::new(), 0);
            while taken < rest.len() && (text.len() as u64) < room {
                text.push_str(&chain.append(now, &rest[taken]));
                taken += 1;
            }
            self.write(&text, chain)?;
            rest = &rest[taken..];
        }
        Ok(())
    }

    /// Begins the next file with the record that says which one it follows.
    fn begin_file(&mut self, now: DateTime<Utc>) -> io::Result<()> {
        let name = FileName { chain: self.chain.name.to_string(), number: self.number + 1, day: now.date_naive() };
        let after = self.open.take().map(|open| open.name);
        let path = self.options.dir.join(name.text());
        let file = OpenOptions::new().append(true).create_new(true).open(&path)?;
        File::open(&self.options.dir)?.sync_all()?;
        self.number = name.number;
        self.open = Some(Open { file, name: name.text(), day: name.day, length: 0 });
        let mut chain = self.chain.clone();
        let line = chain.append(now, &Body::Open(json!({ "version": 1, "file": name.number, "after": after })));
        self.write(&line, chain).inspect_err(|_| {
            // Nothing whole stands in it: the next try begins it anew.
            if std::fs::remove_file(&path).is_ok() {
                (self.open, self.number) = (None, name.number - 1);
            }
        })
    }

    /// Appends text that brings the chain there. A failed write leaves nothing behind, so that what stands there goes on being whole.
    fn write(&mut self, text: &str, chain: Chain) -> io::Result<()> {
        let Some(open) = &mut self.open else { return Err(io::Error::other("no file is open")) };
        if let Err(error) = open.file.write_all(text.as_bytes()).and_then(|()| open.file.sync_data()) {
            let undone = open.file.set_len(open.length).and_then(|()| open.file.sync_data());
            return Err(undone.err().unwrap_or(error));
        }
        open.length += text.len() as u64;
        self.chain = chain;
        self.write_head()
    }

    fn write_head(&self) -> io::Result<()> {
        let text = format!("{:<width$}\n", format!("{} {}", self.chain.seq, self.chain.hash), width = HEAD - 1);
        self.head.write_all_at(text.as_bytes(), 0)
    }

    /// Finds where the chain ends.
    fn recover(&mut self, now: DateTime<Utc>) -> io::Result<()> {
        let mut names = files(&self.options.dir)?;
        names.retain(|name| name.chain == *self.chain.name);
        let mut torn = 0;
        while let Some(name) = names.pop() {
            let path = self.options.dir.join(name.text());
            let mut file = OpenOptions::new().read(true).append(true).open(&path)?;
            let Tail { record, rest, length, mut whole } = last_record(&mut file)?;
            if whole == 0 {
                // Its writer ended before its first record was whole: nothing was ever answered for it.
                std::fs::remove_file(&path)?;
                continue;
            }
            self.number = name.number;
            if let Some(record) = record {
                self.chain = record.chain();
                let next = Record::read(&rest).filter(|next| next.seq == record.seq + 1 && next.prev == record.hash);
                if let Some(next) = next {
                    // Only its newline is missing.
                    file.write_all(b"\n")?;
                    self.chain = next.chain();
                    whole = length;
                }
                torn = length - whole;
                let length = file.metadata()?.len();
                self.open = Some(Open { file, name: name.text(), day: name.day, length });
            }
            break;
        }
        let mut head = Vec::new();
        (&self.head).read_to_end(&mut head)?;
        if let Some(head) = Head::parse(&head).filter(|head| head.seq > self.chain.seq || self.open.is_none()) {
            tracing::error!(
                audit.chain = &*self.chain.name,
                audit.record = head.seq,
                "the audit files do not go as far as their head says: records were removed or lost; `worker audit verify` shows where"
            );
            // Going on behind the gap leaves it to be seen.
            self.chain = Chain { name: self.chain.name.clone(), seq: head.seq, hash: head.hash };
            self.open = None;
        } else if torn > 0 {
            tracing::warn!(audit.chain = &*self.chain.name, audit.bytes = torn, "the last audit record was half-written and is closed");
            let mut chain = self.chain.clone();
            let line = chain.append(now, &Body::Resumed(json!({ "torn_bytes": torn })));
            self.write(&format!("\n{line}"), chain)?;
        }
        Ok(())
    }
}

/// The files of every chain in a folder: by chain, then number.
///
/// # Errors
/// Where the folder cannot be read.
pub fn files(dir: &Path) -> io::Result<Vec<FileName>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        names.extend(entry?.file_name().to_str().and_then(FileName::parse));
    }
    names.sort();
    Ok(names)
}

/// How a file ends.
struct Tail {
    /// The last whole line, where it is a record.
    record: Option<Record>,
    /// What stands behind it.
    rest: Vec<u8>,
    /// The file's length.
    length: u64,
    /// How much of that is whole lines.
    whole: u64,
}

fn last_record(file: &mut File) -> io::Result<Tail> {
    let length = file.metadata()?.len();
    let from = length.saturating_sub(2 * LONGEST_LINE);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let Some(end) = bytes.iter().rposition(|byte| *byte == b'\n') else { return Ok(Tail { record: None, rest: bytes, length, whole: 0 }) };
    let start = bytes[..end].iter().rposition(|byte| *byte == b'\n').map_or(0, |before| before + 1);
    let (record, rest) = (Record::read(&bytes[start..end]), bytes[end + 1..].to_vec());
    Ok(Tail { record, rest, length, whole: from + end as u64 + 1 })
}
