//! One record as a row or as a line of JSON.

use std::io::{self, IsTerminal};

use serde_json::{Map, Value, value::RawValue};

use super::pick::Decoded;
use crate::{
    cli::{
        BOLD, DIM, RED,
        columns::{one_line, or_dash},
        paint,
    },
    dlq::show::put_bytes,
    event::{record::Record, time},
};

/// Prints what was decoded, one at a time.
pub(super) trait Show {
    /// What stands before the first.
    fn header(&self) -> String;
    /// One record, with its line's end.
    fn one(&mut self, decoded: &Decoded) -> anyhow::Result<String>;
}

/// Columns that only grow: rows are printed as they come, so that nobody knows the widest.
pub(super) struct Rows {
    widths: [usize; 5],
    /// Of the terminal; `None`: it is none, so that lines have no colour and are not cut.
    width: Option<usize>,
}

const HEADER: [&str; 5] = ["TIME", "AT", "TYPE", "USER", "ID"];

impl Rows {
    pub(super) fn new() -> Self {
        let width = || terminal_size::terminal_size().map_or(200, |(width, _)| usize::from(width.0));
        Self { widths: [24, 20, 16, 12, 36], width: io::stdout().is_terminal().then(width) }
    }

    /// `colours` of the columns; the last text takes what is left of the line, in `last`.
    fn row(&mut self, cells: [String; 5], colours: [&str; 5], text: &str, last: &str) -> String {
        let mut line = String::new();
        let mut used = 0;
        for ((cell, widest), colour) in cells.iter().zip(&mut self.widths).zip(colours) {
            let length = cell.chars().count();
            *widest = length.max(*widest);
            line += &self.width.map_or_else(|| cell.clone(), |_| if colour.is_empty() { cell.clone() } else { paint(true, colour, cell) });
            line += &" ".repeat(*widest - length + 2);
            used += *widest + 2;
        }
        match self.width {
            Some(width) => line += &paint(!last.is_empty(), last, &one_line(text, width.saturating_sub(used).max(40))),
            None => line += &one_line(text, usize::MAX),
        }
        format!("{}\n", line.trim_end())
    }
}

impl Show for Rows {
    fn header(&self) -> String {
        let cells: String = HEADER.iter().zip(self.widths).map(|(cell, width)| format!("{cell:<width$}  ")).collect();
        format!("{cells}DATA\n")
    }

    fn one(&mut self, decoded: &Decoded) -> anyhow::Result<String> {
        let at = |record: &Record| one_line(&format!("{}@{}", record.partition(), record.offset()), 80);
        Ok(match decoded {
            Ok(event) => {
                let cells = [
                    time::format(event.time()),
                    at(event.record()),
                    event.event_type().to_string(),
                    or_dash(event.user_id(), 40),
                    or_dash(event.id(), 40),
                ];
                self.row(cells, [DIM, DIM, BOLD, "", DIM], &event.data().to_string(), "")
            }
            Err(rejected) => {
                let cells = [
                    time::format(time::of_record(rejected.record.timestamp())),
                    at(&rejected.record),
                    or_dash(rejected.event_type.as_deref().unwrap_or_default(), 40),
                    or_dash(rejected.user_id.as_deref().unwrap_or_default(), 40),
                    or_dash(&rejected.id, 40),
                ];
                let text = format!("{}: {}", rejected.reason.code(), rejected.error);
                self.row(cells, [DIM, DIM, RED, "", DIM], &text, RED)
            }
        })
    }
}

/// One JSON object per line: where the record stands, and the event in its canonical shape; or why it is none, and its bytes.
pub(super) struct Lines;

impl Show for Lines {
    fn header(&self) -> String {
        String::new()
    }

    fn one(&mut self, decoded: &Decoded) -> anyhow::Result<String> {
        let record = match decoded {
            Ok(event) => event.record(),
            Err(rejected) => &rejected.record,
        };
        let mut place = Map::new();
        place.insert("topic".to_owned(), record.topic().to_string().into());
        place.insert("partition".to_owned(), record.partition().partition.into());
        place.insert("offset".to_owned(), record.offset().into());
        place.insert("timestamp".to_owned(), record.timestamp().into());
        put_bytes(&mut place, "key", record.key());
        match decoded {
            Ok(event) => {
                // As text: a number that no machine type holds must come out as it went in.
                let canonical = event.to_canonical();
                let canonical: &RawValue = serde_json::from_slice(&canonical)?;
                let mut text = Value::Object(place).to_string();
                text.truncate(text.len() - 1);
                Ok(format!("{text},\"event\":{}}}\n", canonical.get()))
            }
            Err(rejected) => {
                place.insert("reason".to_owned(), rejected.reason.code().into());
                place.insert("error".to_owned(), rejected.error.as_str().into());
                place.insert("event_type".to_owned(), rejected.event_type.as_deref().into());
                place.insert("user_id".to_owned(), rejected.user_id.as_deref().into());
                put_bytes(&mut place, "value", record.value());
                Ok(Value::Object(place).to_string() + "\n")
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::event::{
        Catalog, Decoder,
        record::{RecordParts, TopicPartition},
    };

    fn decoded(value: &[u8]) -> Decoded {
        let parts = RecordParts { offset: 7, timestamp: Some(0), key: Some(b"u1".to_vec()), value: Some(value.to_vec()), headers: vec![] };
        Decoder::new(Arc::new(Catalog::embedded().unwrap()), true).decode(Record::copy_of(&TopicPartition::new("t", 3), &parts))
    }

    #[test]
    fn a_line_has_the_event_with_every_digit_of_its_numbers() {
        let line = Lines
            .one(&decoded(br#"{"event_type":"task.completed","event_id":"e","user_id":"u1","task_id":1,"n":1234567890123456789012}"#))
            .unwrap();
        let json: Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&json["topic"], &json["partition"], &json["offset"], &json["key"]), (&"t".into(), &3.into(), &7.into(), &"u1".into()));
        assert_eq!((&json["event"]["event_id"], &json["event"]["data"]["task_id"]), (&"e".into(), &1.into()));
        assert!(line.contains("1234567890123456789012") && line.ends_with("}\n"), "{line}");
    }

    #[test]
    fn what_is_no_event_is_shown_with_its_reason() {
        let json: Value = serde_json::from_str(&Lines.one(&decoded(b"\xff\xfe")).unwrap()).unwrap();
        assert_eq!((&json["reason"], &json["value_base64"]), (&"undecodable".into(), &"//4=".into()));
        let row =
            Rows { widths: [0; 5], width: None }.one(&decoded(br#"{"event_type":"task.created","user_id":"u1","task_id":1}"#)).unwrap();
        assert!(row.contains("t:3@7  task.created  u1") && row.ends_with("schema: data.title: missing (task.created 1.0)\n"), "{row}");
    }

    #[test]
    fn a_row_fits_its_terminal_and_no_payload_repaints_it() {
        let mut rows = Rows { widths: [0; 5], width: Some(150) };
        let title = "long ".repeat(60);
        let event = format!(
            r#"{{"event_type":"task.updated","event_id":"e","user_id":"u\u001b[2J","task_id":1,"data":{{"title":"{}"}}}}"#,
            &title[..199]
        );
        let row = rows.one(&decoded(event.as_bytes())).unwrap();
        assert!(!row.contains("\u{1b}[2J") && row.contains('…'), "{row}");
        let mut bare = String::new();
        let mut escaped = false;
        for c in row.trim_end().chars() {
            match (escaped, c) {
                (false, '\u{1b}') => escaped = true,
                (true, 'm') => escaped = false,
                (false, c) => bare.push(c),
                _ => {}
            }
        }
        assert!(bare.chars().count() <= 150, "{} {bare}", bare.chars().count());
    }
}
