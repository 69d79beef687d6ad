//! `worker dlq stats`: how many, of what, why, by whom, since when.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::{Columns, Desk, Exit, Format, Globals, Listing, Objects, one_line, or_dash, out};
use crate::dlq::{Letter, show::stamp};

/// Rows that are kept apart: types and handlers stand in headers that anybody can write.
const MOST_ROWS: usize = 10_000;

/// Runs it.
///
/// # Errors
/// Where the DLQ cannot be read.
pub(super) async fn run(args: Listing, globals: &Globals) -> anyhow::Result<Exit> {
    let desk = Desk::open(globals, &args.which).await?;
    let mut reading = desk.read(&args.which, false).await?;
    let mut stats = Stats::default();
    while let Some(letter) = reading.next().await? {
        stats.add(&letter);
    }
    print(&desk.topic, &stats, args.output)?;
    Ok(Exit::Ok)
}

/// One row.
#[derive(Debug, Default, Clone, PartialEq)]
struct Group {
    count: u64,
    /// Sent back before, and here again.
    redriven: u64,
    oldest: Option<DateTime<Utc>>,
    newest: Option<DateTime<Utc>>,
}

impl Group {
    fn add(&mut self, letter: &Letter) {
        self.count += 1;
        self.redriven += u64::from(letter.redrives > 0);
        if let Some(at) = letter.failed_at {
            self.oldest = Some(self.oldest.map_or(at, |oldest| oldest.min(at)));
            self.newest = Some(self.newest.map_or(at, |newest| newest.max(at)));
        }
    }
}

/// By type, reason and handlers.
#[derive(Debug, Default)]
struct Stats {
    groups: BTreeMap<(String, String, String), Group>,
    total: Group,
}

impl Stats {
    fn add(&mut self, letter: &Letter) {
        let mut key = (letter.event_type.clone(), letter.reason.clone(), letter.handlers.join(","));
        if self.groups.len() >= MOST_ROWS && !self.groups.contains_key(&key) {
            key = ("(others)".to_owned(), String::new(), String::new());
        }
        self.groups.entry(key).or_default().add(letter);
        self.total.add(letter);
    }

    /// Most first.
    fn rows(&self) -> Vec<(&(String, String, String), &Group)> {
        let mut rows: Vec<_> = self.groups.iter().collect();
        rows.sort_by_key(|(_, group)| std::cmp::Reverse(group.count));
        rows
    }
}

fn print(topic: &str, stats: &Stats, format: Format) -> anyhow::Result<()> {
    let figures = |group: &Group| json!({ "count": group.count, "redriven": group.redriven, "oldest": group.oldest.map(stamp), "newest": group.newest.map(stamp) });
    let object = |((event_type, reason, handler), group): &(&(String, String, String), &Group)| {
        let mut row = json!({ "event_type": event_type, "reason": reason, "handler": handler });
        if let (Value::Object(row), Value::Object(figures)) = (&mut row, figures(group)) {
            row.extend(figures);
        }
        row
    };
    match format {
        Format::Json => {
            let groups: Vec<_> = stats.rows().iter().map(object).collect();
            let mut whole = json!({ "topic": topic });
            if let (Value::Object(whole), Value::Object(figures)) = (&mut whole, figures(&stats.total)) {
                whole.extend(figures);
            }
            whole["groups"] = groups.into();
            Ok(out(&(serde_json::to_string_pretty(&whole)? + "\n"))?)
        }
        Format::Ndjson => {
            let mut objects = Objects::new(format);
            for row in stats.rows() {
                if let Value::Object(row) = object(&row) {
                    objects.put(&row)?;
                }
            }
            objects.end()
        }
        Format::Table => {
            let mut columns = Columns::new(["TYPE", "REASON", "HANDLER", "COUNT", "REDRIVEN", "OLDEST", "NEWEST"]);
            let time = |at: Option<DateTime<Utc>>| at.map_or_else(|| "-".to_owned(), stamp);
            let row = |event_type: &str, reason: &str, handler: &str, group: &Group| {
                [
                    one_line(event_type, 60),
                    one_line(reason, 20),
                    or_dash(handler, 60),
                    group.count.to_string(),
                    group.redriven.to_string(),
                    time(group.oldest),
                    time(group.newest),
                ]
            };
            for ((event_type, reason, handler), group) in stats.rows() {
                columns.put(row(event_type, reason, handler, group))?;
            }
            columns.put(row("total", "", "", &stats.total))?;
            columns.flush()
        }
    }
}
