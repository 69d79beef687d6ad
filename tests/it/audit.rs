//! The audit journal on a real disk, what verification says of it, and the `audit` handler with a topic.

use std::{collections::BTreeSet, fs, path::Path, process::Command, sync::Arc};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use tempfile::TempDir;
use worker::{
    audit::{
        chain::{Body, Chain, Record, digest},
        journal::{Journal, JournalOptions, files},
        verify::{Report, TopicWalk, verify_dir},
    },
    engine::ports::PublishError,
    outcome::{Failure, Handled},
};

use crate::support::{job::Job, publisher::FakePublisher};

fn noon() -> DateTime<Utc> {
    "2026-03-28T12:00:00Z".parse().unwrap()
}

fn open(dir: &Path, max_size: u64) -> Journal {
    Journal::open(JournalOptions { dir: dir.to_owned(), chain: "host".to_owned(), max_size }, noon()).unwrap()
}

fn event(id: usize) -> Body {
    Body::Event(json!({ "id": format!("e{id}") }))
}

fn append(journal: &mut Journal, ids: std::ops::Range<usize>) {
    journal.append(noon(), &ids.map(event).collect::<Vec<_>>()).unwrap();
}

fn verify(dir: &Path) -> Report {
    let mut reports = verify_dir(dir, false).unwrap();
    assert_eq!(reports.len(), 1, "{reports:?}");
    reports.remove(0)
}

/// Every file of the chain, in order.
fn names(dir: &Path) -> Vec<String> {
    files(dir).unwrap().iter().map(worker::audit::journal::FileName::text).collect()
}

fn lines(dir: &Path, name: &str) -> Vec<String> {
    fs::read_to_string(dir.join(name)).unwrap().lines().map(str::to_owned).collect()
}

fn write(dir: &Path, name: &str, lines: &[String]) {
    fs::write(dir.join(name), lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
}

/// Four files of one chain: three that were full, and a day's.
fn chain() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path(), 1500);
    for id in 0..17 {
        append(&mut journal, id..id + 1);
    }
    let tomorrow = noon() + TimeDelta::days(1);
    journal.append(tomorrow, &[event(17), event(18)]).unwrap();
    dir
}

#[test]
fn a_chain_goes_through_files_of_a_size_and_of_a_day_and_is_whole() {
    let dir = chain();
    let names = names(dir.path());
    assert_eq!(names.first().unwrap(), "host.2026-03-28.000001.ndjson");
    assert_eq!(names.last().unwrap(), &format!("host.2026-03-29.{:06}.ndjson", names.len()));
    assert!(
        names.len() >= 4 && names[..names.len() - 1].iter().all(|name| fs::metadata(dir.path().join(name)).unwrap().len() < 2000),
        "{names:?}"
    );
    let report = verify(dir.path());
    assert_eq!((report.broken, report.events, report.files, report.notes), (None, 19, names.len(), vec![]));
    assert_eq!(report.records, 19 + names.len() as u64, "each file begins with a record of its own");
}

#[test]
fn a_writer_that_starts_again_goes_on_with_its_chain() {
    let dir = tempfile::tempdir().unwrap();
    for start in 0..5 {
        append(&mut open(dir.path(), 1 << 20), start * 3..start * 3 + 3);
    }
    let report = verify(dir.path());
    assert_eq!((report.broken, report.events, report.files), (None, 15, 1));
}

#[test]
fn two_writers_of_one_folder_have_a_chain_each() {
    let dir = tempfile::tempdir().unwrap();
    let (mut one, mut two) = (open(dir.path(), 1 << 20), open(dir.path(), 1 << 20));
    append(&mut one, 0..3);
    append(&mut two, 3..5);
    assert_eq!((&*one.chain().name, &*two.chain().name), ("host", "host-2"));
    let reports = verify_dir(dir.path(), false).unwrap();
    let seen: Vec<_> = reports.iter().map(|report| (report.chain.as_str(), report.events, report.broken.is_none())).collect();
    assert_eq!(seen, [("host", 3, true), ("host-2", 2, true)]);
    drop(one);
    assert_eq!(&*open(dir.path(), 1 << 20).chain().name, "host", "the first that nobody writes to");
}

/// One way to tamper with a chain, and what verification calls it and where.
type Tampering = (&'static str, fn(&Path, &[String]), &'static str, &'static str);

const TAMPERINGS: &[Tampering] = &[
    (
        "a byte is changed",
        |dir, names| edit(dir, &names[1], |lines| lines[2] = lines[2].replace("\"e", "\"f")),
        "changed",
        "000002.ndjson:3",
    ),
    ("a line is cut short", |dir, names| edit(dir, &names[1], |lines| lines[2].truncate(40)), "changed", "000002.ndjson:3"),
    (
        "the last line is changed",
        |dir, names| edit(dir, &names[0], |lines| lines.last_mut().unwrap().push(' ')),
        "changed",
        "000001.ndjson:",
    ),
    ("a line is removed", |dir, names| edit(dir, &names[1], |lines| drop(lines.remove(1))), "removed", "000002.ndjson:2"),
    ("several lines are removed", |dir, names| edit(dir, &names[0], |lines| drop(lines.drain(1..3))), "removed", "000001.ndjson:2"),
    ("a file's first line is removed", |dir, names| edit(dir, &names[2], |lines| drop(lines.remove(0))), "removed", "000003.ndjson:1"),
    ("a file's last line is removed", |dir, names| edit(dir, &names[1], |lines| drop(lines.pop())), "removed", "000003.ndjson:1"),
    ("two lines change places", |dir, names| edit(dir, &names[1], |lines| lines.swap(1, 2)), "reordered", "000002.ndjson:2"),
    ("a line stands twice", |dir, names| edit(dir, &names[1], |lines| lines.insert(2, lines[1].clone())), "reordered", "000002.ndjson:3"),
    ("a record is made anew", |dir, names| edit(dir, &names[1], |lines| lines[1] = forged(&lines[0])), "replaced", "000002.ndjson:3"),
    (
        "the last record is made anew",
        |dir, names| edit(dir, names.last().unwrap(), |lines| lines[2] = forged(&lines[1])),
        "replaced",
        "host.head",
    ),
    ("a file is removed", |dir, names| fs::remove_file(dir.join(&names[1])).unwrap(), "missing_file", "000003.ndjson"),
    ("the first file is removed", |dir, names| fs::remove_file(dir.join(&names[0])).unwrap(), "missing_file", "000002.ndjson"),
    ("the last file is removed", |dir, names| fs::remove_file(dir.join(names.last().unwrap())).unwrap(), "removed", "host.head"),
    ("the last lines are removed", |dir, names| edit(dir, names.last().unwrap(), |lines| lines.truncate(1)), "removed", "host.head"),
    ("every file is removed", |dir, names| names.iter().for_each(|name| fs::remove_file(dir.join(name)).unwrap()), "removed", "host.head"),
    ("the head is removed", |dir, _| fs::remove_file(dir.join("host.head")).unwrap(), "missing_head", "host.head"),
    (
        "a file is put in the place of another",
        |dir, names| assert!(fs::copy(dir.join(&names[0]), dir.join(&names[1])).is_ok()),
        "reordered",
        "000002.ndjson:1",
    ),
    (
        "another chain's file is put in its place",
        |dir, names| fs::write(dir.join(&names[0]), foreign()).unwrap(),
        "foreign",
        "000001.ndjson:1",
    ),
];

fn edit(dir: &Path, name: &str, change: fn(&mut Vec<String>)) {
    let mut found = lines(dir, name);
    change(&mut found);
    write(dir, name, &found);
}

/// Another record behind that one, its hash as it must be.
fn forged(before: &str) -> String {
    Record::read(before.as_bytes()).unwrap().chain().append(noon(), &event(666)).trim_end().to_owned()
}

fn foreign() -> String {
    Chain::new("elsewhere").append(noon(), &Body::Open(json!({ "version": 1, "file": 1, "after": null })))
}

#[test]
fn whatever_is_done_to_a_chain_is_named() {
    for (what, tamper, kind, at) in TAMPERINGS {
        let dir = chain();
        tamper(dir.path(), &names(dir.path()));
        let found = verify(dir.path()).broken.unwrap_or_else(|| panic!("{what}: not found"));
        assert_eq!(found.kind, *kind, "{what}: {found:?}");
        assert!(found.at.contains(at), "{what}: {found:?}");
        let output = Command::new(env!("CARGO_BIN_EXE_worker")).args(["audit", "verify"]).arg(dir.path()).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(1), "{what}");
        assert!(text.contains(&format!("{kind}: {}: {}", found.at, found.what)), "{what}: {text}");
    }
}

#[test]
fn a_whole_chain_is_told_as_a_table_and_as_json() {
    let dir = chain();
    let run =
        |args: &[&str]| Command::new(env!("CARGO_BIN_EXE_worker")).args(["audit", "verify"]).arg(dir.path()).args(args).output().unwrap();
    let table = run(&[]);
    let text = String::from_utf8(table.stdout).unwrap();
    assert!(table.status.success() && text.contains("host") && text.contains("whole"), "{text}");
    let told: Value = serde_json::from_slice(&run(&["-o", "json"]).stdout).unwrap();
    assert_eq!((&told["whole"], &told["chains"][0]["events"]), (&true.into(), &19.into()));
    fs::remove_file(dir.path().join(&names(dir.path())[0])).unwrap();
    assert!(run(&["--archived"]).status.success(), "older files may be put elsewhere, where that is said");
    assert_eq!(run(&[]).status.code(), Some(1));
    let nothing = Command::new(env!("CARGO_BIN_EXE_worker")).args(["audit", "verify", "no/such/folder"]).output().unwrap();
    assert_eq!(nothing.status.code(), Some(2));
}

#[test]
fn a_line_that_a_crash_left_half_written_is_closed_by_the_next_start_and_said() {
    for cut in [1, 30, 200] {
        let dir = tempfile::tempdir().unwrap();
        append(&mut open(dir.path(), 1 << 20), 0..3);
        let path = dir.path().join(&names(dir.path())[0]);
        let (whole, torn) = (fs::read(&path).unwrap(), &next_line(dir.path())[..cut]);
        fs::write(&path, [&whole, torn.as_bytes()].concat()).unwrap();
        let report = verify(dir.path());
        assert_eq!((report.broken, report.events, report.notes.len()), (None, 3, 1), "{:?}", report.notes);
        append(&mut open(dir.path(), 1 << 20), 3..5);
        let report = verify(dir.path());
        assert_eq!((report.broken, report.events), (None, 5));
        assert!(report.notes[0].contains(&format!("a half-written line of {} bytes", torn.len())), "{:?}", report.notes);
    }
}

/// What the record after the last one would be, with its newline.
fn next_line(dir: &Path) -> String {
    let last = lines(dir, names(dir).last().unwrap()).pop().unwrap();
    Record::read(last.as_bytes()).unwrap().chain().append(noon(), &event(99))
}

#[test]
fn a_record_that_a_crash_left_without_its_newline_counts() {
    let dir = tempfile::tempdir().unwrap();
    append(&mut open(dir.path(), 1 << 20), 0..3);
    let path = dir.path().join(&names(dir.path())[0]);
    fs::write(&path, fs::read_to_string(&path).unwrap() + next_line(dir.path()).trim_end()).unwrap();
    append(&mut open(dir.path(), 1 << 20), 3..5);
    let report = verify(dir.path());
    assert_eq!((report.broken, report.events, report.notes), (None, 6, vec![]));
}

#[test]
fn a_file_that_a_crash_left_without_a_record_is_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    append(&mut open(dir.path(), 1 << 20), 0..3);
    for text in ["", "{\"seq\":5,"] {
        fs::write(dir.path().join("host.2026-03-28.000002.ndjson"), text).unwrap();
        append(&mut open(dir.path(), 1 << 20), 3..4);
        assert_eq!(verify(dir.path()).broken, None);
    }
}

#[test]
fn a_writer_does_not_cover_up_what_was_removed_while_it_was_away() {
    let dir = tempfile::tempdir().unwrap();
    append(&mut open(dir.path(), 1 << 20), 0..5);
    edit(dir.path(), &names(dir.path())[0], |lines| lines.truncate(3));
    append(&mut open(dir.path(), 1 << 20), 5..8);
    let found = verify(dir.path()).broken.unwrap();
    assert_eq!((found.kind, found.what.as_str()), ("removed", "records 4 to 6 are missing"));
}

fn deleted(id: &str) -> Value {
    json!({ "event_id": id, "event_type": "task.deleted", "user_id": "ada", "task_id": 7, "timestamp": "2026-03-28T12:00:00Z", "data": { "reason": "expired" } })
}

#[tokio::test]
async fn a_record_says_what_happened_to_whom_and_where_it_stood() {
    let dir = tempfile::tempdir().unwrap();
    let audit = |more: &str| format!(r#"{{name = "audit", kind = "audit", audit = {{dir = {:?}{more}}}}}"#, dir.path());
    let job = Job::new(&audit("")).await;
    assert_eq!(job.handle(&deleted("d1")).await, Ok(Handled::Done));
    let name = names(dir.path()).remove(0);
    let record = Record::read(lines(dir.path(), &name)[1].as_bytes()).unwrap();
    let Body::Event(body) = record.body else { panic!("{record:?}") };
    let source = json!({ "topic": "task-events", "partition": 3, "offset": 42 });
    assert_eq!(
        body,
        json!({
            "id": "d1", "type": "task.deleted", "user_id": "ada", "time": "2026-03-28T12:00:00Z", "source": source, "handler": "audit",
            "content": {
                "event_id": "d1", "event_type": "task.deleted", "event_version": "1.0", "timestamp": "2026-03-28T12:00:00Z", "source": "unknown",
                "data": { "reason": "expired", "task_id": 7, "user_id": "ada", "deleted_at": "2026-03-28T12:00:00Z" },
            },
        })
    );
    drop(job);
    let job = Job::new(&audit(r#", content = "digest""#)).await;
    job.handle(&deleted("d2")).await.unwrap();
    let chains = verify_dir(dir.path(), false).unwrap();
    assert_eq!(chains.iter().map(|chain| chain.events).sum::<u64>(), 2);
    let texts: String = names(dir.path()).iter().flat_map(|name| lines(dir.path(), name)).collect();
    assert!(texts.contains(&digest(deleted("d2").to_string().as_bytes())) && !texts.contains("\"event_id\":\"d2\""), "{texts}");
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_a_transient_failure() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let job = Job::new(&format!(r#"{{name = "audit", kind = "audit", audit = {{dir = {:?}}}}}"#, file.path().join("below"))).await;
    let failed = job.handle(&deleted("d1")).await.unwrap_err();
    assert!(matches!(failed, Failure::Transient { .. }), "{failed:?}");
}

fn walk(publisher: &FakePublisher, arrived: impl Fn(usize) -> bool) -> Vec<Report> {
    let mut walk = TopicWalk::new(false);
    for (at, message) in publisher.queued().iter().enumerate().filter(|(at, _)| arrived(*at)) {
        walk.take(
            std::str::from_utf8(message.key.as_deref().unwrap()).unwrap(),
            message.value.as_deref().unwrap(),
            &format!("audit-log:0@{at}"),
        );
    }
    walk.reports()
}

#[tokio::test]
async fn a_chain_in_a_topic_has_one_key_and_a_record_that_fails_begins_another_one() {
    let job = Job::new(r#"{name = "audit", kind = "audit", audit = {topic = "audit-log"}}"#).await;
    job.handle(&deleted("d1")).await.unwrap();
    job.handle(&deleted("d2")).await.unwrap();
    let away = || Some(PublishError::Unreachable("away".to_owned()));
    job.publisher.answer([away()]);
    assert!(matches!(job.handle(&deleted("d3")).await, Err(Failure::Transient { .. })));
    // Nothing of the second chain is acknowledged either.
    job.publisher.answer([away(), None]);
    assert!(matches!(job.handle(&deleted("d3")).await, Err(Failure::Transient { .. })));
    job.handle(&deleted("d3")).await.unwrap();
    job.handle(&deleted("d4")).await.unwrap();
    let sent = job.publisher.queued();
    let keys: Vec<_> = sent.iter().map(|message| message.key.clone().unwrap()).collect();
    assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), 3, "{keys:?}");
    assert!(sent.iter().all(|message| &*message.topic == "audit-log"));
    // The topic holds what failed, or not: it is whole either way. What was acknowledged cannot be missing.
    for lost in [&[][..], &[3], &[4], &[3, 4], &[4, 5], &[3, 4, 5]] {
        let reports = walk(&job.publisher, |at| !lost.contains(&at));
        assert!(reports.iter().all(|report| report.broken.is_none()), "{lost:?}: {reports:?}");
    }
    for at in [0, 1, 2, 6, 7] {
        let reports = walk(&job.publisher, |seen| seen != at);
        assert!(reports.iter().any(|report| report.broken.is_some()), "{at}: {reports:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_wait_together_are_written_together_in_one_chain() {
    let dir = tempfile::tempdir().unwrap();
    let job = Arc::new(
        Job::new(&format!(r#"{{name = "audit", kind = "audit", audit = {{dir = {:?}, topic = "audit-log"}}}}"#, dir.path())).await,
    );
    let runs = (0..200).map(|n| {
        let job = Arc::clone(&job);
        tokio::spawn(async move { job.handle(&deleted(&format!("d{n}"))).await })
    });
    for run in futures_util::future::join_all(runs).await {
        assert_eq!(run.unwrap(), Ok(Handled::Done));
    }
    let report = verify(dir.path());
    assert_eq!((report.broken, report.events), (None, 200));
    let reports = walk(&job.publisher, |_| true);
    assert_eq!((reports.len(), reports[0].events, &reports[0].broken), (1, 200, &None));
}
