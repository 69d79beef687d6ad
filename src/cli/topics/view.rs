//! A plan, and what became of it, for people and for programs.

use comfy_table::{Cell, Color};
use serde_json::{Value, json};

use super::plan::{Plan, State, Wanted};
use crate::cli;

/// Kafka's answer for each topic that was to be created.
type Results = [(String, Result<(), String>)];

/// The plan; with `results`, what was done.
pub(super) fn table(plan: &Plan, results: Option<&Vec<(String, Result<(), String>)>>, brokers: &str, profile: &str) -> String {
    let mut table = cli::table(["topic", "partitions", "replication", "settings", "state"]);
    for (wanted, state) in &plan.topics {
        let (word, colour) = state_of(wanted, state, results.map(Vec::as_slice));
        let settings: Vec<_> = wanted.spec.config.iter().map(|(key, value)| format!("{key}={value}")).collect();
        table.add_row([
            Cell::new(&wanted.spec.name),
            Cell::new(number(wanted.spec.partitions)),
            Cell::new(number(wanted.spec.replication)),
            Cell::new(settings.join("\n")),
            cli::cell(word, colour),
        ]);
    }
    let mut text = format!("brokers {brokers}, profile {profile}\n{table}\n");
    for (wanted, state) in &plan.topics {
        let State::Drift(differences) = state else { continue };
        for found in differences {
            text += &format!(
                "{}: {} is {}, not {}; left as it is: {}\n",
                wanted.spec.name, found.setting, found.found, found.wanted, found.hint
            );
        }
    }
    text + &summary(plan, results.map(Vec::as_slice))
}

fn summary(plan: &Plan, results: Option<&Results>) -> String {
    let drift = match plan.drifted() {
        0 => String::new(),
        count => format!("; {count} differ and are left as they are"),
    };
    match results {
        None => match plan.missing().count() {
            0 => format!("Nothing to create{drift}.\n"),
            count => format!("{count} to create: worker topics apply{drift}.\n"),
        },
        Some(results) => {
            let made = results.iter().filter(|(_, result)| result.is_ok()).count();
            let mut text = format!("{made} created, {} refused{drift}.\n", results.len() - made);
            for (_, error) in results.iter().filter_map(|(topic, result)| Some((topic, result.as_ref().err()?))) {
                text += &format!("refused: {error}\n");
            }
            text
        }
    }
}

fn state_of(wanted: &Wanted, state: &State, results: Option<&Results>) -> (&'static str, Color) {
    let answer = results.and_then(|results| results.iter().find(|(topic, _)| *topic == wanted.spec.name));
    match (state, answer) {
        (State::Same, _) => ("as it should be", Color::Green),
        (State::Drift(_), _) => ("differs", Color::Yellow),
        (State::Missing, None) => ("to be created", Color::Cyan),
        (State::Missing, Some((_, Ok(())))) => ("created", Color::Green),
        (State::Missing, Some((_, Err(_)))) => ("refused", Color::Red),
    }
}

fn number(number: i32) -> String {
    if number < 0 { "broker's default".to_owned() } else { number.to_string() }
}

/// As [`table`], as one document: `brokers`, `profile`, `pending` and `topics`.
pub(super) fn json(
    plan: &Plan,
    results: Option<&Vec<(String, Result<(), String>)>>,
    brokers: &str,
    profile: &str,
) -> anyhow::Result<String> {
    let topics = plan.topics.iter().map(|(wanted, state)| topic(wanted, state, results.map(Vec::as_slice)));
    let failed = results.map_or(plan.missing().count(), |results| results.iter().filter(|(_, result)| result.is_err()).count());
    let document = json!({ "brokers": brokers, "profile": profile, "pending": failed, "topics": topics.collect::<Vec<_>>() });
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

fn topic(wanted: &Wanted, state: &State, results: Option<&Results>) -> Value {
    let answer = results.and_then(|results| results.iter().find(|(topic, _)| *topic == wanted.spec.name));
    let action = match (state, answer) {
        (State::Same, _) => "none",
        (State::Drift(_), _) => "drift",
        (State::Missing, None) => "create",
        (State::Missing, Some((_, Ok(())))) => "created",
        (State::Missing, Some((_, Err(_)))) => "refused",
    };
    let spec = &wanted.spec;
    let mut topic = json!({
        "name": spec.name, "action": action, "because": wanted.because,
        "partitions": (spec.partitions >= 0).then_some(spec.partitions), "replication": (spec.replication >= 0).then_some(spec.replication),
        "config": spec.config,
    });
    if let State::Drift(differences) = state {
        topic["differences"] = json!(differences);
    }
    if let Some((_, Err(error))) = answer {
        topic["error"] = json!(error);
    }
    topic
}
