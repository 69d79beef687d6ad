//! Runs the rows in turns, each in a process of its own, and gathers what they found.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use crate::{
    meter::Measured,
    report::{self, Report},
    row::Row,
    rows,
    stack::Stack,
    usage,
};

/// What to measure.
#[derive(clap::Args)]
pub struct Options {
    /// Events of the stream
    #[arg(long, default_value_t = 500_000)]
    pub events: u64,
    /// Repetitions; medians are told
    #[arg(long, default_value_t = 5)]
    reps: usize,
    /// Which rows, and with each the floor that it is told against; default: all
    #[arg(long, value_delimiter = ',', value_parser = rows::named)]
    rows: Vec<&'static Row>,
    /// How needs grow with users, partitions and blocked users, instead: `make capacity`
    #[arg(long, conflicts_with = "rows")]
    capacity: bool,
    /// The worker's program, for rows that start one; default: the one built with this
    #[arg(long, value_name = "PROGRAM", default_value = env!("CARGO_BIN_EXE_worker"), hide_default_value = true)]
    pub binary: PathBuf,
    /// Another build of this program, to take turns with: `make bench-compare`
    #[arg(long, value_name = "PROGRAM", requires = "base_binary")]
    base: Option<PathBuf>,
    /// The worker's program of that build
    #[arg(long, value_name = "PROGRAM")]
    base_binary: Option<PathBuf>,
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
/// Where a row cannot be measured, once the others are told.
pub fn run(options: &Options, stack: &Stack) -> anyhow::Result<()> {
    let rows = if options.capacity { rows::capacity().collect() } else { wanted(&options.rows) };
    for row in rows.iter().filter(|row| row.part.is_some()) {
        stack.filled_topic(row.events(options.events))?;
    }
    let own = std::env::current_exe()?;
    let mut builds = vec![("", own, &options.binary)];
    builds.extend(options.base.iter().zip(&options.base_binary).map(|(base, binary)| ("base/", base.clone(), binary)));
    let mut found: BTreeMap<String, Vec<Measured>> = BTreeMap::new();
    let (mut failed, mut loads) = (BTreeSet::new(), Vec::new());
    for repetition in 1..=options.reps {
        loads.push(usage::load());
        for row in &rows {
            for (prefix, program, binary) in &builds {
                let name = format!("{prefix}{}", row.name);
                // Not again: runs are paired by repetition, and a row that is stuck takes minutes.
                if failed.contains(&name) {
                    continue;
                }
                eprintln!("{repetition}/{}  {name}", options.reps);
                match child(program, binary, row, options.events) {
                    Ok(measured) => found.entry(name).or_default().push(measured),
                    Err(error) => {
                        eprintln!("row {name}: {error:#}");
                        failed.insert(name);
                    }
                }
                clean(stack)?;
            }
        }
    }
    let report = Report::new(&rows, options.base.is_some(), &found, loads, options.events);
    if let Some(path) = &options.out {
        std::fs::write(path, report.json()? + "\n").with_context(|| path.display().to_string())?;
    }
    let text = match options.format {
        report::Format::Table => report.table(),
        report::Format::Json => report.json()?,
    };
    writeln!(std::io::stdout(), "{text}")?;
    anyhow::ensure!(failed.is_empty(), "not measured each time: {failed:?}");
    Ok(())
}

/// The rows asked for and the floors that they are told against, in order.
fn wanted(asked: &[&Row]) -> Vec<&'static Row> {
    let needed = |row: &Row| asked.is_empty() || asked.iter().any(|asked| asked.name == row.name || asked.floor == Some(row.name));
    let more = asked.iter().filter_map(|asked| rows::capacity().find(|row| row.name == asked.name));
    rows::speed().filter(|row| needed(row)).chain(more).collect()
}

fn child(program: &Path, binary: &Path, row: &Row, events: u64) -> anyhow::Result<Measured> {
    let output = Command::new(program)
        .args(["--child", row.name, "--events", &events.to_string(), "--binary"])
        .arg(binary)
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
