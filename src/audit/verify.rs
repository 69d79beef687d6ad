//! Whether every record of a chain is there, unchanged and in its place. The first that is not is named.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, BufRead, BufReader},
    path::Path,
};

use serde::Serialize;

use super::{
    chain::{Body, Chain, NOTHING, Record},
    journal::{FileName, Head, files},
};

/// What is wrong with a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Break {
    /// Which kind: changed, removed, reordered, replaced, foreign, missing_file, missing_head, unreadable.
    pub kind: &'static str,
    /// `file:line`, or `topic:partition@offset`.
    pub at: String,
    /// What exactly.
    pub what: String,
}

/// What is known of a chain once all of it was read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Its name.
    pub chain: String,
    /// Files that it stands in; of a topic, 0.
    pub files: usize,
    /// Records that are whole and in their place.
    pub records: u64,
    /// Events among them.
    pub events: u64,
    /// When the first and the last of them were written.
    pub first: Option<String>,
    /// As `first`.
    pub last: Option<String>,
    /// What is no fault: half-written lines, records that were never answered.
    pub notes: Vec<String>,
    /// The first break; `None`: the chain is whole.
    pub broken: Option<Break>,
}

/// One chain as it is walked, record by record.
#[derive(Debug)]
pub struct Walk {
    /// What was found so far.
    pub report: Report,
    /// The record before; `None`: the walk began in the middle, and takes whatever comes first.
    last: Option<Chain>,
}

impl Walk {
    /// Walks a chain from its first record; with `archived` from wherever it begins here.
    pub fn new(chain: &str, archived: bool) -> Self {
        let last = (!archived).then(|| Chain::new(chain));
        Self { report: Report { chain: chain.to_owned(), ..Report::default() }, last }
    }

    /// The number of the next record.
    pub fn next_seq(&self) -> u64 {
        self.last.as_ref().map_or(0, |last| last.seq + 1)
    }

    /// Whether a break was found: nothing behind it can be told.
    pub fn is_broken(&self) -> bool {
        self.report.broken.is_some()
    }

    /// Notes the first break.
    pub fn broken(&mut self, kind: &'static str, at: impl Into<String>, what: impl Into<String>) {
        if self.report.broken.is_none() {
            self.report.broken = Some(Break { kind, at: at.into(), what: what.into() });
        }
    }

    /// Takes the next record. `later`: numbers of records that follow in the same file, asked where one is not in its place.
    pub fn take(&mut self, record: Record, at: impl Into<String>, later: impl FnOnce() -> BTreeSet<u64>) {
        if self.is_broken() {
            return;
        }
        let at = at.into();
        if *record.chain != *self.report.chain {
            return self.broken("foreign", at, format!("record {} is of chain {}", record.seq, record.chain));
        }
        if let Some(last) = &self.last {
            let expected = last.seq + 1;
            match record.seq {
                seq if seq == expected && record.prev == last.hash => {}
                seq if seq == expected => {
                    let what = format!("record {} follows another record {} than the one that stands here", seq, last.seq);
                    return self.broken("replaced", at, what);
                }
                seq if seq < expected => return self.broken("reordered", at, format!("record {seq} stands behind record {}", last.seq)),
                seq if later().contains(&expected) => {
                    return self.broken("reordered", at, format!("record {seq} stands before record {expected}"));
                }
                seq => return self.broken("removed", at, missing(expected, seq - 1)),
            }
        } else if record.seq == 1 && record.prev != NOTHING {
            return self.broken("replaced", at, "record 1 follows another record");
        }
        self.report.records += 1;
        self.report.events += u64::from(matches!(record.body, Body::Event(_)));
        self.report.first.get_or_insert_with(|| record.at.clone());
        self.last = Some(record.chain());
        self.report.last = Some(record.at);
    }

    /// Holds the end against what is known of it from elsewhere.
    pub fn end(&mut self, known: &Head, at: impl Into<String>) {
        if self.is_broken() {
            return;
        }
        match &self.last {
            Some(last) if last.seq > known.seq => {}
            Some(last) if last.seq == known.seq && last.hash == known.hash => {}
            Some(last) if last.seq == known.seq => self.broken("replaced", at, format!("the last record, {}, is another one", last.seq)),
            Some(last) => {
                let what = missing(last.seq + 1, known.seq);
                self.broken("removed", at, format!("{what}, at the end"));
            }
            None => self.broken("removed", at, missing(1, known.seq)),
        }
    }
}

fn missing(first: u64, last: u64) -> String {
    if first == last { format!("record {first} is missing") } else { format!("records {first} to {last} are missing") }
}

/// Checks every chain of a folder. With `archived`, older files, and heads, may have been put elsewhere.
///
/// # Errors
/// Where the folder cannot be read.
pub fn verify_dir(dir: &Path, archived: bool) -> io::Result<Vec<Report>> {
    // Before the files: a writer that goes on meanwhile makes them longer than that, never shorter.
    let mut heads = BTreeMap::new();
    for entry in std::fs::read_dir(dir)? {
        if let Some(chain) = entry?.file_name().to_str().and_then(|name| name.strip_suffix(".head")) {
            heads.insert(chain.to_owned(), Head::of(dir, chain)?);
        }
    }
    let mut chains: BTreeMap<String, Vec<FileName>> = heads.keys().map(|chain| (chain.clone(), Vec::new())).collect();
    for name in files(dir)? {
        chains.entry(name.chain.clone()).or_default().push(name);
    }
    let reports = chains.into_iter().map(|(chain, names)| {
        let mut walk = Walk::new(&chain, archived);
        walk.report.files = names.len();
        walk_files(&mut walk, dir, &names, archived);
        match heads.get(&chain) {
            Some(Some(head)) => walk.end(head, format!("{chain}.head")),
            // Locked, and nothing written yet.
            Some(None) if names.is_empty() => {}
            _ if archived => {}
            _ => walk.broken("missing_head", format!("{chain}.head"), "the head is missing: a removal at the end would not show"),
        }
        walk.report
    });
    Ok(reports.collect())
}

fn walk_files(walk: &mut Walk, dir: &Path, names: &[FileName], archived: bool) {
    let first = if archived { names.first().map_or(1, |first| first.number) } else { 1 };
    for (expected, name) in (first..).zip(names) {
        let text = name.text();
        if name.number != expected {
            let what =
                if name.number < expected { format!("file {} is there twice", name.number) } else { format!("file {expected} is missing") };
            return walk.broken("missing_file", text, what);
        }
        if let Err(error) = walk_file(walk, dir, &text) {
            walk.broken("unreadable", text, error.to_string());
        }
        if walk.is_broken() {
            return;
        }
    }
}

fn walk_file(walk: &mut Walk, dir: &Path, name: &str) -> io::Result<()> {
    let path = dir.join(name);
    let mut lines = BufReader::new(File::open(&path)?);
    let (mut line, mut number) = (Vec::new(), 0_u64);
    // A line that is no record, and is one if the next record says that it is what a writer left half-written.
    let mut odd: Option<(u64, usize)> = None;
    while !walk.is_broken() {
        line.clear();
        if lines.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        number += 1;
        let at = format!("{name}:{number}");
        let Some(text) = line.strip_suffix(b"\n") else {
            if odd.is_none() {
                walk.report.notes.push(format!("{at}: an unfinished line of {} bytes; the next start closes it", line.len()));
            }
            break;
        };
        match (Record::read(text), odd.take()) {
            (Some(record), None) => walk.take(record, at, || numbers(&path, number)),
            (Some(record), Some((_, bytes))) if record.body == Body::Resumed(serde_json::json!({ "torn_bytes": bytes })) => {
                walk.report.notes.push(format!("{name}:{}: a half-written line of {bytes} bytes, closed at the next start", number - 1));
                walk.take(record, at, BTreeSet::new);
            }
            (_, Some((line, _))) => changed(walk, name, line),
            (None, None) => odd = Some((number, text.len())),
        }
    }
    if let Some((line, _)) = odd {
        changed(walk, name, line);
    }
    Ok(())
}

fn changed(walk: &mut Walk, name: &str, line: u64) {
    let what = format!("the line is not what was written; record {} should stand here", walk.next_seq());
    walk.broken("changed", format!("{name}:{line}"), what);
}

/// The numbers of the records behind that line.
fn numbers(path: &Path, line: u64) -> BTreeSet<u64> {
    let Ok(file) = File::open(path) else { return BTreeSet::new() };
    let lines = BufReader::new(file).split(b'\n').skip(usize::try_from(line).unwrap_or(usize::MAX));
    lines.map_while(Result::ok).filter_map(|line| Some(Record::read(&line)?.seq)).collect()
}

/// Chains that share a topic's partitions.
///
/// A writer whose record was not acknowledged begins a chain anew, whose first record says up to where the one before is to be believed: what
/// that one has behind it was never answered for, and was written again.
#[derive(Default)]
pub struct TopicWalk {
    chains: BTreeMap<String, Walk>,
    /// Up to where a chain is to be believed.
    ends: BTreeMap<String, Head>,
    archived: bool,
}

impl TopicWalk {
    /// Of a topic that has dropped its oldest records, or not.
    pub fn new(archived: bool) -> Self {
        Self { archived, ..Self::default() }
    }

    /// Takes a value in its partition's order. Anything that is no record breaks the chain that its key names.
    pub fn take(&mut self, key: &str, value: &[u8], at: &str) {
        let Some(record) = Record::read(value) else {
            return self.walk(key).broken("changed", at, "no record, or not as it was written");
        };
        if let Body::Open(open) = &record.body {
            let void = open["void"].as_array().into_iter().flatten().filter_map(serde_json::Value::as_str);
            self.ends.extend(void.map(|chain| (chain.to_owned(), Head { seq: 0, hash: NOTHING.to_owned() })));
        }
        if let Body::Open(open) = &record.body
            && let (Some(chain), Some(seq), Some(hash)) =
                (open["after"]["chain"].as_str(), open["after"]["seq"].as_u64(), open["after"]["hash"].as_str())
        {
            self.ends.insert(chain.to_owned(), Head { seq, hash: hash.to_owned() });
        }
        let chain = record.chain.to_string();
        self.walk(&chain).take(record, at, BTreeSet::new);
    }

    fn walk(&mut self, chain: &str) -> &mut Walk {
        let archived = self.archived;
        self.chains.entry(chain.to_owned()).or_insert_with(|| Walk::new(chain, archived))
    }

    /// What became of each chain.
    pub fn reports(mut self) -> Vec<Report> {
        for (chain, end) in &self.ends {
            let Some(walk) = self.chains.get_mut(chain) else {
                if !self.archived && end.seq > 0 {
                    let mut walk = Walk::new(chain, false);
                    walk.end(end, "the topic");
                    self.chains.insert(chain.clone(), walk);
                }
                continue;
            };
            let reached = walk.next_seq().saturating_sub(1);
            if walk.is_broken() && reached >= end.seq {
                walk.report.broken = None;
            }
            if reached > end.seq {
                let note = format!("records behind {} were not acknowledged in time, and stand in the chain that follows", end.seq);
                walk.report.notes.push(note);
            }
            walk.end(end, "the topic");
        }
        self.chains.into_values().map(|walk| walk.report).collect()
    }
}
