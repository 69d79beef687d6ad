//! Runs the rows in turns, each in a process of its own, and gathers what they found.

use std::{collections::BTreeMap, io::Write as _, path::PathBuf, process::Command};

use anyhow::Context as _;

use crate::{
    meter::Measured,
    report::{self, Report},
    rows::Row,
    stack::Stack,
    usage,
};

/// What to measure.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Events of the stream
    #[arg(long, default_value_t = 500_000)]
    pub events: u64,
    /// Repetitions; medians are told
    #[arg(long, default_value_t = 5)]
    reps: usize,
    /// Which rows; default: all
    #[arg(long, value_delimiter = ',', value_enum)]
    rows: Vec<Row>,
    /// Another build of this program, to take turns with: `make bench-compare`
    #[arg(long, value_name = "PROGRAM")]
    base: Option<PathBuf>,
    /// Also write the result there, as JSON
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// `table` or `json` on stdout
    #[arg(short = 'o', value_name = "FORMAT", default_value = "table")]
    format: report::Format,
}

/// Measures, prints, writes.
///
/// # Errors
/// Where a row cannot be measured: half a comparison is none.
pub fn run(options: &Options, stack: &Stack) -> anyhow::Result<()> {
    stack.filled_topic(options.events)?;
    let rows = wanted(&options.rows);
    let own = std::env::current_exe()?;
    let mut builds = vec![("", own)];
    builds.extend(options.base.iter().map(|base| ("base/", base.clone())));
    let mut found: BTreeMap<String, Vec<Measured>> = BTreeMap::new();
    let mut loads = Vec::new();
    for repetition in 1..=options.reps {
        loads.push(usage::load());
        for row in &rows {
            for (prefix, program) in &builds {
                eprintln!("{repetition}/{}  {prefix}{}", options.reps, row.name());
                let measured = child(program, *row, options.events).with_context(|| format!("row {prefix}{}", row.name()))?;
                clean(stack)?;
                found.entry(format!("{prefix}{}", row.name())).or_default().push(measured);
            }
        }
    }
    let report = Report::new(&rows, options.base.is_some(), found, loads, options.events);
    if let Some(path) = &options.out {
        std::fs::write(path, report.json()? + "\n").with_context(|| path.display().to_string())?;
    }
    let text = match options.format {
        report::Format::Table => report.table(),
        report::Format::Json => report.json()?,
    };
    writeln!(std::io::stdout(), "{text}")?;
    Ok(())
}

/// The rows asked for and the floors that they are told against, in order.
fn wanted(asked: &[Row]) -> Vec<Row> {
    use clap::ValueEnum as _;
    let all = Row::value_variants();
    let needed = |row: Row| asked.is_empty() || asked.contains(&row) || asked.iter().any(|asked| asked.floor() == Some(row));
    all.iter().copied().filter(|row| needed(*row)).collect()
}

fn child(program: &PathBuf, row: Row, events: u64) -> anyhow::Result<Measured> {
    let output = Command::new(program)
        .args(["--child", &row.name(), "--events", &events.to_string()])
        .env("RUST_LOG", std::env::var("RUST_LOG").unwrap_or_else(|_| "error".to_owned()))
        .stderr(std::process::Stdio::inherit())
        .output()?;
    anyhow::ensure!(output.status.success(), "ended with {}", output.status);
    let text = String::from_utf8(output.stdout)?;
    let line = text.lines().last().context("said nothing")?;
    Ok(serde_json::from_str(line)?)
}

/// Each row starts on an empty Redis: it is the stack's own.
fn clean(stack: &Stack) -> anyhow::Result<()> {
    let mut redis = redis::Client::open(stack.redis.as_str())?.get_connection()?;
    redis::cmd("FLUSHALL").exec(&mut redis)?;
    Ok(())
}
