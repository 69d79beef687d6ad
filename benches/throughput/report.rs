//! Medians, and each row's share of its floor, as a table or as JSON.

use std::collections::BTreeMap;

use clap::ValueEnum;
use serde::Serialize;

use crate::{meter::Measured, rows::Row};

/// How a report is printed.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// One document.
    Json,
}

/// One row's result.
#[derive(Debug, Serialize)]
struct Line {
    row: String,
    events_per_second: f64,
    own_us: f64,
    broker_us: Option<f64>,
    redis_us: Option<f64>,
    others: f64,
    peak_rss_mib: f64,
    /// Against which row.
    floor: Option<String>,
    /// Events per second as a share of the floor's, repetition by repetition; the median.
    of_floor: Option<f64>,
    /// The same of all CPU spent per event, floor by row: what is left of it where the machine is busy with others.
    of_floor_cpu: Option<f64>,
    goal: Option<f64>,
    runs: Vec<Measured>,
}

/// Everything that was found.
#[derive(Debug, Serialize)]
pub struct Report {
    events: u64,
    cpus: usize,
    load: Vec<f64>,
    /// Of the source measured.
    revision: &'static str,
    lines: Vec<Line>,
}

impl Report {
    /// Sums up. With `base`, each row stands a second time, told against itself in the other build.
    pub fn new(rows: &[Row], base: bool, mut found: BTreeMap<String, Vec<Measured>>, load: Vec<f64>, events: u64) -> Self {
        let mut lines = Vec::new();
        for row in rows {
            let name = row.name();
            let floor = if base { Some(format!("base/{name}")) } else { row.floor().map(Row::name) };
            let floor = floor.filter(|floor| found.contains_key(floor));
            let below = floor.as_ref().and_then(|floor| found.get(floor));
            let share = |of: fn(&Measured, &Measured) -> f64| {
                let runs = found.get(&name)?.iter().zip(below?);
                Some(median(runs.map(|(run, floor)| of(run, floor))))
            };
            let (of_floor, of_floor_cpu) =
                (share(|run, floor| run.rate() / floor.rate()), share(|run, floor| all_cpu(floor) / all_cpu(run)));
            let goal = row.goal().filter(|_| !base);
            lines.push((name, floor, of_floor, of_floor_cpu, goal));
        }
        let lines = lines.into_iter().map(|(row, floor, of_floor, of_floor_cpu, goal)| {
            let runs = found.remove(&row).unwrap_or_default();
            Line {
                events_per_second: median(runs.iter().map(Measured::rate)),
                own_us: median(runs.iter().map(|run| run.own_us)),
                broker_us: known(runs.iter().map(|run| run.broker_us)),
                redis_us: known(runs.iter().map(|run| run.redis_us)),
                others: median(runs.iter().map(|run| run.others)),
                peak_rss_mib: median(runs.iter().map(|run| mib(run.peak_rss))),
                row,
                floor,
                of_floor,
                of_floor_cpu,
                goal,
                runs,
            }
        });
        let lines = lines.collect();
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        Self { events, cpus, load, revision: worker::REVISION, lines }
    }

    /// One JSON document.
    ///
    /// # Errors
    /// Never: there is nothing in it that JSON does not know.
    pub fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self)
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut table = worker::cli::table([
            "row",
            "events/s",
            "self us",
            "broker us",
            "redis us",
            "others",
            "RSS MiB",
            "floor",
            "of its rate",
            "of its CPU",
            "goal",
        ]);
        let micros = |value: Option<f64>| value.map_or_else(String::new, |value| format!("{value:.2}"));
        for line in &self.lines {
            table.add_row([
                line.row.clone(),
                format!("{:.0}", line.events_per_second),
                micros(Some(line.own_us)),
                micros(line.broker_us),
                micros(line.redis_us),
                format!("{:.2}", line.others),
                format!("{:.0}", line.peak_rss_mib),
                line.floor.clone().unwrap_or_default(),
                micros(line.of_floor),
                micros(line.of_floor_cpu),
                micros(line.goal),
            ]);
        }
        let load: Vec<String> = self.load.iter().map(|load| format!("{load:.1}")).collect();
        format!(
            "{table}\n{} events of 400 B; medians; load {} on {} CPUs; others: CPUs busy with something else",
            self.events,
            load.join(" "),
            self.cpus
        )
    }
}

/// CPU per event of everybody involved.
fn all_cpu(run: &Measured) -> f64 {
    run.own_us + run.broker_us.unwrap_or_default() + run.redis_us.unwrap_or_default()
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

fn known(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let values: Vec<f64> = values.flatten().collect();
    (!values.is_empty()).then(|| median(values.into_iter()))
}

#[expect(clippy::cast_precision_loss, reason = "bytes of memory")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
