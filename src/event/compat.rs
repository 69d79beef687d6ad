//! Whether changed schemas still fit what is out there: events of older versions, and readers of older versions.
//!
//! A reader fits a writer where every `data` that the writer may send is valid to the reader. A producer is taken to write the fields that
//! its version declares, whatever else its schema lets pass: else no optional field could ever be added. "Compatible" is never said of
//! what was not checked; a break may be said of two schemas that a closer look would find to fit.

mod after;
mod contain;
mod writer;
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests;

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde_json::Value;

use super::{
    catalog::{EventType, Version},
    upcast::Step,
};

/// Which way a change has to fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode {
    /// Readers of the new version take events of the old one.
    pub backward: bool,
    /// Readers of the old version take events of the new one.
    pub forward: bool,
    /// The old one: all past versions, not only the latest.
    pub transitive: bool,
}

/// What was found between two versions of a type.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// The type.
    #[serde(rename = "type")]
    pub event_type: Arc<str>,
    /// Who writes: its version.
    pub written: String,
    /// Who reads: its version.
    pub read: String,
    /// `backward`: a new reader of old events; `forward`: an old reader of new ones.
    pub direction: &'static str,
    /// `data.title`.
    pub path: String,
    /// What the writer may send and the reader refuses; or the keyword that was not checked.
    pub problem: String,
    /// Whether this is known to break, or was not checked.
    pub checked: bool,
}

/// One side of a comparison.
#[derive(Debug, Clone)]
pub struct Side {
    /// Which version.
    pub version: Version,
    /// Its complete schema; `None`: the catalogue did not keep it.
    pub schema: Option<Value>,
}

/// A break between two schemas, or what was not compared.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Gap {
    path: String,
    problem: String,
    checked: bool,
}

/// Compares the types of two states of a catalogue; nothing found: compatible.
///
/// A type that is gone is a break of `backward`, since its events still arrive; a new one is none.
pub fn check(old: &[Arc<EventType>], new: &[Arc<EventType>], mode: Mode) -> Vec<Finding> {
    let by_name: BTreeMap<&str, &Arc<EventType>> =
        new.iter().flat_map(|kind| kind.aliases.iter().map(String::as_str).chain([&*kind.name]).map(move |name| (name, kind))).collect();
    let mut found = Vec::new();
    for before in old {
        let Some(after) = by_name.get(&*before.name) else {
            if mode.backward {
                found.push(Finding {
                    event_type: Arc::clone(&before.name),
                    written: before.version.to_string(),
                    read: "none".to_owned(),
                    direction: "backward",
                    path: String::new(),
                    problem: "the type is gone: keep it, or give its name to another as an alias".to_owned(),
                    checked: true,
                });
            }
            continue;
        };
        for side in sides(before, after, mode.transitive) {
            compare(&side, after, mode, &mut found);
        }
    }
    found
}

/// The old versions that count: the latest, and with `transitive` all that either state has kept. Each version once; the old state's word
/// on it is the one that producers have heard.
fn sides(before: &EventType, after: &EventType, transitive: bool) -> Vec<Side> {
    let mut sides = vec![Side { version: before.version, schema: Some(before.schema.json().clone()) }];
    if transitive {
        for past in before.past.iter().chain(&after.past) {
            let schema = past.schema.as_ref().map(|schema| schema.json().clone());
            match sides.iter_mut().find(|side| side.version == past.version) {
                Some(side) => side.schema = side.schema.take().or(schema),
                None => sides.push(Side { version: past.version, schema }),
            }
        }
    }
    sides.sort_by_key(|side| side.version);
    sides
}

fn compare(side: &Side, after: &EventType, mode: Mode, found: &mut Vec<Finding>) {
    let current = after.schema.json();
    let mut note = |direction, written: Version, read: Version, gaps: Vec<Gap>| {
        found.extend(gaps.into_iter().map(|Gap { path, problem, checked }| Finding {
            event_type: Arc::clone(&after.name),
            written: written.to_string(),
            read: read.to_string(),
            direction,
            path,
            problem,
            checked,
        }));
    };
    let Some(schema) = &side.schema else {
        let gap = Gap { path: "data".to_owned(), problem: "no schema is kept of this version".to_owned(), checked: false };
        return note(if mode.backward { "backward" } else { "forward" }, side.version, after.version, vec![gap]);
    };
    if contain::is_same(schema, current) {
        return;
    }
    if mode.backward {
        // A reader of the new version has the steps that bring old data to it.
        let steps: Vec<&Step> = if side.version < after.version { after.upcast_from(side.version).collect() } else { Vec::new() };
        let written = after::steps(schema, &steps);
        note("backward", side.version, after.version, contain::gaps(&written, current));
    }
    if mode.forward {
        note("forward", after.version, side.version, contain::gaps(current, schema));
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.backward, self.forward) {
            (true, true) => "FULL",
            (_, false) => "BACKWARD",
            (false, true) => "FORWARD",
        })?;
        f.write_str(if self.transitive { "_TRANSITIVE" } else { "" })
    }
}
