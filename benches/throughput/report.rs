//! Medians, each row's share of its floor, and what it was to reach, as tables or as JSON.

use std::collections::BTreeMap;

use clap::ValueEnum;
use serde::Serialize;

use crate::{
    meter::{Measured, mib},
    row::{Goal, Row},
};

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
    row: &'static str,
    events_per_second: f64,
    own_us: f64,
    broker_us: Option<f64>,
    redis_us: Option<f64>,
    app_us: Option<f64>,
    others: f64,
    peak_rss_mib: f64,
    figures: BTreeMap<String, f64>,
    /// Against which row.
    floor: Option<String>,
    /// Events per second as a share of the floor's, repetition by repetition; the median.
    of_floor: Option<f64>,
    /// The same of all CPU spent per event, floor by row: what is left of it where the machine is busy with others.
    of_floor_cpu: Option<f64>,
    goals: Vec<Reached>,
    runs: Vec<Measured>,
}

/// What a row was to reach, and what it did: the median of what each repetition reached.
#[derive(Debug, Serialize)]
struct Reached {
    what: String,
    reached: f64,
    at_least: Option<f64>,
    at_most: Option<f64>,
    met: bool,
}

impl Reached {
    fn new(goal: Goal, runs: &[Measured], floor: Option<&[Measured]>) -> Option<Self> {
        let floors = floor.into_iter().flatten().map(Some).chain(std::iter::repeat(None));
        let reached = known(runs.iter().zip(floors).map(|(run, floor)| goal.reached(run, floor)))?;
        let (bound, lower) = goal.bound();
        let (at_least, at_most) = if lower { (Some(bound), None) } else { (None, Some(bound)) };
        Some(Self { what: goal.what(), reached, at_least, at_most, met: if lower { reached >= bound } else { reached <= bound } })
    }
}

impl Line {
    /// `floor`: its name and what it found.
    fn new(row: &Row, runs: &[Measured], floor: Option<(String, &[Measured])>, goals: &[Goal]) -> Self {
        let below = floor.as_ref().map(|(_, runs)| *runs);
        let share = |of: fn(&Measured, &Measured) -> f64| {
            let pairs = runs.iter().zip(below?).filter(|(run, floor)| run.events > 0 && floor.events > 0);
            known(pairs.map(|(run, floor)| Some(of(run, floor))))
        };
        let median_of = |of: fn(&Measured) -> f64| median(runs.iter().map(of));
        let names = runs.iter().flat_map(|run| run.figures.keys());
        let figure = |name: &String| Some((name.clone(), known(runs.iter().map(|run| run.figures.get(name).copied()))?));
        Self {
            row: row.name,
            events_per_second: median_of(Measured::rate),
            own_us: median_of(|run| run.own_us),
            broker_us: known(runs.iter().map(|run| run.broker_us)),
            redis_us: known(runs.iter().map(|run| run.redis_us)),
            app_us: known(runs.iter().map(|run| run.app_us)),
            others: median_of(|run| run.others),
            peak_rss_mib: median_of(|run| mib(run.peak_rss)),
            figures: names.filter_map(figure).collect(),
            of_floor: share(|run, floor| run.rate() / floor.rate()),
            of_floor_cpu: share(|run, floor| floor.all_cpu() / run.all_cpu()),
            goals: goals.iter().filter_map(|goal| Reached::new(*goal, runs, below)).collect(),
            floor: floor.map(|(name, _)| name),
            runs: runs.to_vec(),
        }
    }

    fn cells(&self) -> [String; 12] {
        let many = self.runs.iter().any(|run| run.events > 0);
        let only = |text: String| if many { text } else { String::new() };
        let figures: Vec<String> = self.figures.iter().map(|(name, value)| format!("{name} {}", short(*value))).collect();
        [
            self.row.to_owned(),
            only(format!("{:.0}", self.events_per_second)),
            only(format!("{:.2}", self.own_us)),
            cell(self.broker_us),
            cell(self.redis_us),
            cell(self.app_us),
            only(format!("{:.2}", self.others)),
            if self.peak_rss_mib > 0.0 { format!("{:.0}", self.peak_rss_mib) } else { String::new() },
            figures.join(", "),
            self.floor.clone().unwrap_or_default(),
            cell(self.of_floor),
            cell(self.of_floor_cpu),
        ]
    }
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
    /// Sums up. With `base`, each row is told against itself in the other build.
    pub fn new(rows: &[&Row], base: bool, found: &BTreeMap<String, Vec<Measured>>, load: Vec<f64>, events: u64) -> Self {
        let line = |row: &&Row| {
            let floor = if base { Some(format!("base/{}", row.name)) } else { row.floor.map(str::to_owned) };
            let floor = floor.and_then(|floor| found.get(&floor).map(|runs| (floor, runs.as_slice())));
            let runs = found.get(row.name).map(Vec::as_slice).unwrap_or_default();
            Line::new(row, runs, floor, if base { &[] } else { row.goals })
        };
        let lines = rows.iter().map(line).collect();
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
            "app us",
            "others",
            "peak MiB",
            "besides",
            "floor",
            "of its rate",
            "of its CPU",
        ]);
        for line in &self.lines {
            table.add_row(line.cells());
        }
        let mut goals = worker::cli::table(["row", "goal", "", "reached", ""]);
        for (line, goal) in self.lines.iter().flat_map(|line| line.goals.iter().map(move |goal| (line, goal))) {
            let bound = goal.at_least.map(|bound| format!("at least {}", short(bound)));
            let bound = bound.or(goal.at_most.map(|bound| format!("at most {}", short(bound))));
            goals.add_row([
                line.row,
                &goal.what,
                &bound.unwrap_or_default(),
                &short(goal.reached),
                if goal.met { "met" } else { "missed" },
            ]);
        }
        let load: Vec<String> = self.load.iter().map(|load| format!("{load:.1}")).collect();
        format!(
            "{table}\n{goals}\n{} events of 400 B; medians; us: CPU per event; load {} on {} CPUs; others: CPUs busy with something else",
            self.events,
            load.join(" "),
            self.cpus
        )
    }
}

fn cell(value: Option<f64>) -> String {
    value.map_or_else(String::new, |value| format!("{value:.2}"))
}

/// Two decimals where they matter.
fn short(value: f64) -> String {
    if value.abs() < 1000.0 { format!("{value:.2}") } else { format!("{value:.0}") }
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
