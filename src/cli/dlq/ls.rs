//! `worker dlq ls`: one line per dead letter.

use super::{Columns, Desk, Exit, Format, Globals, Listing, Objects, one_line, or_dash};
use crate::dlq::{
    Letter,
    show::{stamp, summary},
};

/// Runs it.
///
/// # Errors
/// Where the DLQ cannot be read.
pub(super) async fn run(args: Listing, globals: &Globals) -> anyhow::Result<Exit> {
    let desk = Desk::open(globals, &args.which).await?;
    let mut reading = desk.read(&args.which, true).await?;
    if args.output == Format::Table {
        let mut columns =
            Columns::new(["AT", "FAILED", "TYPE", "REASON", "USER", "HANDLER", "ATTEMPTS", "REDRIVES", "SOURCE", "EVENT ID", "ERROR"]);
        while let Some(letter) = reading.next().await? {
            columns.put(row(&letter))?;
        }
        columns.flush()?;
        return Ok(Exit::Ok);
    }
    let mut objects = Objects::new(args.output);
    while let Some(letter) = reading.next().await? {
        objects.put(&summary(&letter))?;
    }
    objects.end()?;
    Ok(Exit::Ok)
}

fn row(letter: &Letter) -> [String; 11] {
    [
        letter.position(),
        letter.failed_at.map_or_else(|| "-".to_owned(), stamp),
        one_line(&letter.event_type, 40),
        one_line(&letter.reason, 20),
        or_dash(&letter.user_id, 36),
        or_dash(&letter.handlers.join(","), 40),
        letter.attempts.map_or_else(|| "-".to_owned(), |attempts| attempts.to_string()),
        letter.redrives.to_string(),
        letter.source.as_ref().map_or_else(|| "-".to_owned(), |at| format!("{}:{}@{}", one_line(&at.topic, 60), at.partition, at.offset)),
        or_dash(&letter.event_id, 40),
        or_dash(&letter.error, 80),
    ]
}
