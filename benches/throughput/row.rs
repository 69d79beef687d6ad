//! What a row is: what it measures, what it is told against, and what it is to reach.

use std::path::PathBuf;

use crate::{meter::Measured, stack::Stack};

/// One thing that is measured, in a process of its own.
pub struct Row {
    /// Its name on the command line and in the JSON.
    pub name: &'static str,
    /// What it is, for `--help`.
    pub about: &'static str,
    /// The row that it is told against: the same with less in it.
    pub floor: Option<&'static str>,
    /// What it is to reach.
    pub goals: &'static [Goal],
    /// The part of `--events` that it reads; `None`: it brings its own, or needs none.
    pub part: Option<u64>,
    /// Measures it once.
    pub measure: fn(&Bench) -> anyhow::Result<Measured>,
}

impl Row {
    /// Events of the prepared topic that it reads.
    pub fn events(&self, all: u64) -> u64 {
        self.part.map_or(0, |part| (all / part).max(1))
    }
}

/// What a row is given.
pub struct Bench {
    /// Kafka and Redis.
    pub stack: Stack,
    /// [`Row::events`].
    pub events: u64,
    /// The worker's program.
    pub binary: PathBuf,
}

impl Bench {
    /// The prepared topic, which holds `events`.
    ///
    /// # Errors
    /// Where the broker does not take them.
    pub fn topic(&self) -> anyhow::Result<String> {
        self.stack.filled_topic(self.events)
    }
}

/// What a row is to reach, and how that is told.
#[derive(Debug, Clone, Copy)]
pub enum Goal {
    /// At least this share of the floor's rate.
    Share(f64),
    /// At least this many events per second.
    Rate(f64),
    /// This figure is at most that.
    Most(&'static str, f64),
    /// This figure is at most so much above the floor's.
    Above(&'static str, f64),
    /// This figure is at most so many times the floor's.
    Times(&'static str, f64),
}

impl Goal {
    /// What is compared, in words.
    pub fn what(self) -> String {
        match self {
            Self::Share(_) => "events/s as a share of the floor's".to_owned(),
            Self::Rate(_) => "events/s".to_owned(),
            Self::Most(figure, _) => figure.to_owned(),
            Self::Above(figure, _) => format!("{figure} above the floor's"),
            Self::Times(figure, _) => format!("{figure} as a multiple of the floor's"),
        }
    }

    /// What one repetition reached; `None` where the floor is missing.
    pub fn reached(self, run: &Measured, floor: Option<&Measured>) -> Option<f64> {
        match self {
            Self::Share(_) => Some(run.rate() / floor?.rate()),
            Self::Rate(_) => Some(run.rate()),
            Self::Most(figure, _) => run.figures.get(figure).copied(),
            Self::Above(figure, _) => Some(run.figures.get(figure)? - floor?.figures.get(figure)?),
            Self::Times(figure, _) => Some(run.figures.get(figure)? / floor?.figures.get(figure)?),
        }
    }

    /// The bound, and whether it is a lower one.
    pub fn bound(self) -> (f64, bool) {
        match self {
            Self::Share(bound) | Self::Rate(bound) => (bound, true),
            Self::Most(_, bound) | Self::Above(_, bound) | Self::Times(_, bound) => (bound, false),
        }
    }
}
