//! The table at the end.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    crew::Watched,
    facts::Facts,
    oracle::Judgement,
    plan::{Plan, WORKERS},
};

/// Plain text, a line per figure.
pub fn table(
    plan: &Plan,
    facts: &Facts,
    judgement: &Judgement,
    watched: &Watched,
    events: u64,
    refused: usize,
    healed: Duration,
) -> String {
    let mut lines = Vec::new();
    let mut row = |name: &str, value: String| lines.push(format!("{name:<44} {value}"));
    row("seed, length", format!("{}, {:?}, {:?}", plan.seed, plan.length, plan.mood));
    let mut faults = BTreeMap::<_, usize>::new();
    for incident in &facts.incidents {
        *faults.entry(incident.fault.kind()).or_default() += 1;
    }
    row("faults", facts.incidents.len().to_string());
    for (kind, count) in faults {
        row(&format!("  {kind}"), count.to_string());
    }
    row("processes", format!("{} consumers at a time, {} in all", WORKERS, facts.lives.len()));
    row("events sent", events.to_string());
    row("  accepted with 202", facts.accepted.len().to_string());
    row("  requests refused or unanswered", refused.to_string());
    row("records in the log", facts.sources.len().to_string());
    row("  different events", judgement.events.to_string());
    row("  copies of an event", judgement.copies.to_string());
    row("  written by others, not valid", judgement.poison.to_string());
    row("runs of handlers", judgement.runs.to_string());
    row("events handled", judgement.done.to_string());
    row("dead", judgement.dead.values().sum::<usize>().to_string());
    for (reason, count) in &judgement.dead {
        row(&format!("  {reason}"), count.to_string());
    }
    row("lost", judgement.lost.len().to_string());
    row("out of order", judgement.out_of_order.len().to_string());
    row("users moved by an added partition", judgement.moved_users.to_string());
    row("effects repeated", judgement.repeated.values().sum::<usize>().to_string());
    for (cause, count) in &judgement.repeated {
        row(&format!("  {cause}"), count.to_string());
    }
    row("letters repeated", judgement.repeated_letters.values().sum::<usize>().to_string());
    for (cause, count) in &judgement.repeated_letters {
        row(&format!("  {cause}"), count.to_string());
    }
    row("runs begun late, by a woken process", judgement.late_starts.to_string());
    row("failures beyond a schedule, each by a crash", judgement.extra_runs.to_string());
    row("scrapes, conservation errors", format!("{}, {}", watched.scrapes, watched.conservation_errors.len()));
    row("most held by one consumer", format!("{} events, {} MiB resident", watched.held_events, watched.rss_kib / 1024));
    row("all committed after the last fault", format!("{:.1} s", healed.as_secs_f64()));
    row("longest time in which nothing ran", format!("{:.1} s", facts.longest_silence() as f64 / 1e6));
    row("promises broken", judgement.violations().count().to_string());
    lines.join("\n")
}
