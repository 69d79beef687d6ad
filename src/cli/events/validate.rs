//! `worker events validate`: which events of a file the catalogue would take, and why not the others.

use std::{
    collections::BTreeMap,
    io::{IsTerminal, Read},
    path::PathBuf,
};

use anyhow::Context;
use chrono::Utc;
use comfy_table::{Table, presets};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    cli::{Exit, Format, GREEN, Globals, RED, out, paint},
    event::{
        Catalog,
        prepare::{Options, prepare},
    },
    roles,
};

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Files to check; - or none is stdin
    #[arg(value_name = "FILE")]
    inputs: Vec<PathBuf>,
    /// How to print the result
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

/// One refused event.
#[derive(Debug, Serialize)]
struct Refused {
    file: String,
    line: usize,
    code: &'static str,
    reason: String,
}

/// What was found in all files.
#[derive(Debug, Default, Serialize)]
struct Found {
    valid: BTreeMap<String, usize>,
    refused: Vec<Refused>,
}

/// Runs it: exit 1 where any event is refused.
///
/// # Errors
/// Where a file cannot be read.
pub fn run(args: &Args, globals: &Globals) -> anyhow::Result<Exit> {
    let catalog = roles::catalog(&globals.load_and_warn(None)?)?;
    let mut found = Found::default();
    let stdin = [PathBuf::from("-")];
    for path in if args.inputs.is_empty() { &stdin } else { args.inputs.as_slice() } {
        let name = path.display().to_string();
        let text = if name == "-" {
            let mut text = Vec::new();
            std::io::stdin().read_to_end(&mut text).map(|_| text)
        } else {
            std::fs::read(path)
        };
        check(&catalog, &name, &text.with_context(|| format!("cannot read {name}"))?, &mut found);
    }
    let shown = match args.output {
        Format::Json => serde_json::to_string_pretty(&found)? + "\n",
        Format::Table => table(&found),
    };
    out(&shown)?;
    Ok(if found.refused.is_empty() { Exit::Ok } else { Exit::Error })
}

fn check(catalog: &Catalog, file: &str, text: &[u8], found: &mut Found) {
    let options = Options { topic: None, validate: true, user_optional: false, now: Utc::now(), source: "validate" };
    for (line, event) in split(text) {
        match prepare(catalog, event, &options) {
            Ok(prepared) => *found.valid.entry(prepared.event_type.to_string()).or_default() += 1,
            Err(error) => found.refused.push(Refused { file: file.to_owned(), line, code: error.code(), reason: error.message }),
        }
    }
}

/// The events of a text with the lines that they begin on: one object, an array, or one object per line.
fn split(text: &[u8]) -> Vec<(usize, &[u8])> {
    let line_of = |part: &str| 1 + text[..part.as_ptr().addr() - text.as_ptr().addr()].iter().filter(|byte| **byte == b'\n').count();
    if let Ok(array) = serde_json::from_slice::<Vec<&RawValue>>(text) {
        return array.into_iter().map(|event| (line_of(event.get()), event.get().as_bytes())).collect();
    }
    if let Ok(one) = serde_json::from_slice::<&RawValue>(text) {
        return vec![(line_of(one.get()), one.get().as_bytes())];
    }
    let lines = text.split(|byte| *byte == b'\n').enumerate();
    lines.filter(|(_, line)| !line.trim_ascii().is_empty()).map(|(index, line)| (index + 1, line)).collect()
}

fn table(found: &Found) -> String {
    let colour = std::io::stdout().is_terminal();
    let mut text = String::new();
    for refused in &found.refused {
        text += &format!("{}:{}: {} {}\n", refused.file, refused.line, paint(colour, RED, refused.code), refused.reason);
    }
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header(["type", "valid"]);
    for (event_type, count) in &found.valid {
        table.add_row([event_type.clone(), count.to_string()]);
    }
    let valid: usize = found.valid.values().sum();
    let verdict = format!("{valid} valid, {} refused", found.refused.len());
    let verdict = paint(colour, if found.refused.is_empty() { GREEN } else { RED }, &verdict);
    if valid > 0 { format!("{text}{table}\n{verdict}\n") } else { format!("{text}{verdict}\n") }
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn one_object_an_array_and_one_per_line_are_told_apart_and_know_their_lines() {
        let lines = |text: &str| split(text.as_bytes()).into_iter().map(|(line, _)| line).collect::<Vec<_>>();
        assert_eq!(lines("{\n\"a\":1\n}\n"), [1]);
        assert_eq!(lines("[\n{},\n\n{}]"), [2, 4]);
        assert_eq!(lines("{}\n\n{bad\n{}"), [1, 3, 4]);
        assert_eq!(lines(" \n"), Vec::<usize>::new());
    }
}
