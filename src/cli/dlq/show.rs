//! `worker dlq show`: one dead letter whole, with its earlier and later passes through the DLQ.

use std::fmt::Write as _;

use clap::ValueEnum;
use serde_json::{Map, Value, json};

use super::{Desk, Exit, Globals, Which, out};
use crate::dlq::{
    Letter,
    show::{readable, stamp},
};

/// Passes of one event that are looked at: a redrive is refused long before.
const MOST_PASSES: usize = 100;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The event's id, or the letter's place: PARTITION:OFFSET, as `dlq ls` shows it
    #[arg(value_name = "ID")]
    id: String,
    /// Of this topic instead of dlq.topic
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// One JSON document
    Json,
}

/// Runs it: exit 1 where there is no such letter.
///
/// # Errors
/// Where the DLQ cannot be read, or does not have it.
pub async fn run(args: Args, globals: &Globals) -> anyhow::Result<Exit> {
    let mut which = Which { topic: args.topic, ..Which::default() };
    let desk = Desk::open(globals, &which).await?;
    let mut place = None;
    if is_place(&args.id) {
        let found = find(&desk, &which, |letter| letter.position() == args.id, 1).await?.pop();
        let found = found.ok_or_else(|| anyhow::anyhow!("{} has no record at {}", desk.topic, args.id))?;
        which.ids = vec![found.event_id.clone()];
        place = Some(found);
    } else {
        which.ids = vec![args.id.clone()];
    }
    let mut passes = find(&desk, &which, |_| true, MOST_PASSES).await?;
    passes.sort_by_key(|letter| (letter.failed_at, letter.redrives));
    let Some(letter) = place.or_else(|| passes.last().cloned()) else {
        anyhow::bail!("{} has no dead letter with the event id {}; `worker dlq ls` lists them", desk.topic, args.id);
    };
    let history: Vec<Value> = passes.iter().map(pass).collect();
    let mut shown = readable(&letter);
    shown.insert("history".to_owned(), history.into());
    match args.output {
        Format::Json => out(&(serde_json::to_string_pretty(&shown)? + "\n"))?,
        Format::Text => out(&text(&letter, &shown))?,
    }
    Ok(Exit::Ok)
}

fn is_place(id: &str) -> bool {
    id.split_once(':').is_some_and(|(partition, offset)| partition.parse::<i32>().is_ok() && offset.parse::<i64>().is_ok())
}

async fn find(desk: &Desk, which: &Which, meant: impl Fn(&Letter) -> bool, most: usize) -> anyhow::Result<Vec<Letter>> {
    let mut reading = desk.read(which, false).await?;
    let mut found = Vec::new();
    while found.len() < most {
        let Some(letter) = reading.next().await? else { break };
        if meant(&letter) {
            found.push(letter);
        }
    }
    reading.bar.finish_and_clear();
    Ok(found)
}

/// One time that the event came to the DLQ.
fn pass(letter: &Letter) -> Value {
    json!({
        "at": letter.position(),
        "failed_at": letter.failed_at.map(stamp),
        "reason": letter.reason,
        "redrives": letter.redrives,
        "attempts": letter.attempts,
        "error": letter.error,
    })
}

fn text(letter: &Letter, shown: &Map<String, Value>) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:<15} {}", super::or_dash(value, 2000));
    };
    line("letter", &format!("{}:{}", letter.record.topic(), letter.position()));
    line("event", &letter.event_id);
    line("type", &letter.event_type);
    line("user", &letter.user_id);
    line("reason", &letter.reason);
    line("error", &letter.error);
    line("handlers", &letter.handlers.join(", "));
    line("attempts", &letter.attempts.map(|n| n.to_string()).unwrap_or_default());
    line("schedule", letter.header("schedule").unwrap_or_default());
    line("first failed", &letter.first_failed_at.map(stamp).unwrap_or_default());
    line("failed", &letter.failed_at.map(stamp).unwrap_or_default());
    line("redrives", &letter.redrives.to_string());
    let source = letter.source.as_ref().map(|at| format!("{}:{}@{}", at.topic, at.partition, at.offset));
    line("source", &source.unwrap_or_default());
    line("group", letter.header("consumer-group").unwrap_or_default());
    line("worker", letter.header("worker").unwrap_or_default());
    text += "\nheaders\n";
    for header in shown.get("headers").and_then(Value::as_array).into_iter().flatten() {
        let value = header.get("value").or_else(|| header.get("value_base64")).and_then(Value::as_str).unwrap_or_default();
        let _ =
            writeln!(text, "  {} = {}", super::one_line(header["name"].as_str().unwrap_or_default(), 200), super::one_line(value, 2000));
    }
    text += "\nvalue\n";
    text += &match (shown.get("event"), shown.get("value"), shown.get("value_base64")) {
        (Some(event), ..) => serde_json::to_string_pretty(event).unwrap_or_default(),
        (_, Some(Value::String(value)), _) if value.is_empty() && letter.is_stub() => {
            format!("(not here: {} bytes, at the source)", letter.header("original-size").unwrap_or("?"))
        }
        // Control characters could repaint the terminal; line ends may stay.
        (_, Some(Value::String(value)), _) => value.lines().map(|line| super::one_line(line, usize::MAX) + "\n").collect(),
        (_, _, Some(Value::String(value))) => format!("(base64) {value}"),
        _ => "(none: a tombstone)".to_owned(),
    };
    let passes = shown.get("history").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let _ = writeln!(text, "\n\nhistory ({} in this topic)", passes.len());
    for pass in passes {
        let word = |name: &str| pass[name].as_str().unwrap_or("-").to_owned();
        let _ = writeln!(
            text,
            "  {}  {}  redrives {}  {}  {}",
            word("failed_at"),
            word("at"),
            pass["redrives"],
            super::one_line(&word("reason"), 20),
            super::or_dash(&word("error"), 120)
        );
    }
    text
}
