//! One finding, and all of them for people and for programs.

use std::io::{self, IsTerminal};

use comfy_table::{Cell, Color};
use serde::Serialize;
use serde_json::json;

use crate::cli;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// As it should be.
    Ok,
    /// It works, but somebody should look.
    Warn,
    /// A worker would not do its job.
    Fail,
}

/// What was found about one part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) level: Level,
    pub(super) part: String,
    pub(super) found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fix: Option<String>,
}

impl Finding {
    pub(super) fn ok(part: impl Into<String>, found: impl Into<String>) -> Self {
        Self { level: Level::Ok, part: part.into(), found: found.into(), fix: None }
    }

    pub(super) fn warn(part: impl Into<String>, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { level: Level::Warn, part: part.into(), found: found.into(), fix: Some(fix.into()) }
    }

    pub(super) fn fail(part: impl Into<String>, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { level: Level::Fail, part: part.into(), found: found.into(), fix: Some(fix.into()) }
    }
}

impl Level {
    fn word(self) -> (&'static str, Color) {
        match self {
            Self::Ok => ("ok", Color::Green),
            Self::Warn => ("warn", Color::Yellow),
            Self::Fail => ("FAIL", Color::Red),
        }
    }
}

/// A table on a terminal, else one line each: `ok  kafka: ..`.
pub(super) fn table(findings: &[Finding]) -> String {
    let count = |level| findings.iter().filter(|found| found.level == level).count();
    let end = format!("{} ok, {} to look at, {} failed\n", count(Level::Ok), count(Level::Warn), count(Level::Fail));
    if !io::stdout().is_terminal() {
        let line = |found: &Finding| {
            let fix = found.fix.as_ref().map(|fix| format!("; fix: {fix}")).unwrap_or_default();
            format!("{:<4}  {}: {}{fix}\n", found.level.word().0, found.part, found.found)
        };
        return findings.iter().map(line).collect::<String>() + &end;
    }
    let mut table = cli::table(["", "part", "found", "fix"]);
    for found in findings {
        let (word, colour) = found.level.word();
        table.add_row([
            cli::cell(word, colour),
            Cell::new(&found.part),
            Cell::new(&found.found),
            Cell::new(found.fix.as_deref().unwrap_or_default()),
        ]);
    }
    format!("{table}\n{end}")
}

/// One document: `ok` and `findings`.
pub(super) fn json(findings: &[Finding]) -> anyhow::Result<String> {
    let ok = findings.iter().all(|found| found.level != Level::Fail);
    Ok(serde_json::to_string_pretty(&json!({ "ok": ok, "findings": findings }))? + "\n")
}
