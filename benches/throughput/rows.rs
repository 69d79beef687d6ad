//! Every row, one kind per file.

mod capacity;
mod consume;
mod deliver;
mod failing;
mod idle;
mod memory;
mod publish;
mod rescan;
mod size;
mod start;
mod takeover;

use std::{process::Command, time::Duration};

use crate::row::{Bench, Row};

/// No row takes longer: one that does is stuck.
const LONGEST: Duration = Duration::from_secs(180);

/// Those that are told against a floor or a goal, in the order in which they are measured and shown.
pub fn speed() -> impl Iterator<Item = &'static Row> {
    let kinds: [&[Row]; 10] = [
        consume::ROWS,
        deliver::ROWS,
        publish::ROWS,
        idle::ROWS,
        failing::ROWS,
        rescan::ROWS,
        memory::ROWS,
        start::ROWS,
        takeover::ROWS,
        size::ROWS,
    ];
    kinds.into_iter().flatten()
}

/// Those that a capacity model is made from.
pub fn capacity() -> impl Iterator<Item = &'static Row> {
    [capacity::users::ROWS, capacity::partitions::ROWS, capacity::blocked::ROWS].into_iter().flatten()
}

/// The row of a name.
///
/// # Errors
/// Where there is none.
pub fn named(name: &str) -> Result<&'static Row, String> {
    speed().chain(capacity()).find(|row| row.name == name).ok_or_else(|| "no such row; --help lists them".to_owned())
}

/// What each row is, for `--help`.
pub fn help() -> String {
    let mut help = "Rows (each told against the floor in brackets; all of them five times take about 25 minutes):\n".to_owned();
    help.extend(speed().map(line));
    help += "\nWith --capacity instead, once about 5 minutes:\n";
    help.extend(capacity().map(line));
    help
}

fn line(row: &Row) -> String {
    let floor = row.floor.map(|floor| format!(" [{floor}]")).unwrap_or_default();
    format!("  {:<19} {}{floor}\n", row.name, row.about)
}

/// Measures one row in this process and prints the result as one line of JSON.
///
/// # Errors
/// Where the row cannot be run.
pub fn measure(row: &Row, bench: &Bench) -> anyhow::Result<()> {
    let name = row.name;
    std::thread::spawn(move || {
        std::thread::sleep(LONGEST);
        eprintln!("row {name} did not end within {LONGEST:?}");
        // What it has started would outlive it.
        let _gone = Command::new("pkill").args(["-KILL", "-P", &std::process::id().to_string()]).status();
        std::process::exit(1);
    });
    let measured = (row.measure)(bench)?;
    println!("{}", serde_json::to_string(&measured)?);
    Ok(())
}
