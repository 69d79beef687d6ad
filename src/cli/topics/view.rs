//! A plan, and what became of it, for people and for programs.

use comfy_table::{Cell, Color};
use serde_json::{Map, Value, json};

use super::plan::{Difference, Plan, Risk, Topic, Way, What};
use crate::cli;

/// Where the plan is about.
pub(super) struct Place<'a> {
    pub(super) brokers: &'a str,
    pub(super) profile: &'a str,
}

/// The plan before anything is done.
pub(super) fn table(plan: &Plan, place: &Place<'_>, allowed: &[Risk]) -> String {
    let mut table = cli::table(["topic", "what", "now", "declared", "state"]);
    for topic in &plan.topics {
        if topic.differences.is_empty() {
            let state = if topic.wanted.is_none() { "gone" } else { "as it should be" };
            table.add_row([Cell::new(&topic.name), Cell::new(""), Cell::new(""), Cell::new(""), cli::cell(state, Color::Green)]);
        }
        for found in &topic.differences {
            let (word, colour) = state(found, allowed);
            let declared = found.wanted.replace(", ", "\n");
            table.add_row([
                Cell::new(&topic.name),
                Cell::new(found.setting()),
                Cell::new(&found.found),
                Cell::new(declared),
                cli::cell(&word, colour),
            ]);
        }
    }
    format!("brokers {}, profile {}\n{table}\n{}", place.brokers, place.profile, notes(plan, allowed))
}

/// What the table has no room for.
fn notes(plan: &Plan, allowed: &[Risk]) -> String {
    let mut text = String::new();
    for topic in &plan.topics {
        if let Some(hidden) = &topic.hidden {
            text += &format!("{}: its settings are hidden and were not compared: {hidden}\n", topic.name);
        }
        for found in &topic.differences {
            match &found.way {
                Way::Stuck(why) => {
                    text += &format!("{}: {} is {}, not {}: {why}\n", topic.name, found.setting(), found.found, found.wanted)
                }
                Way::Risky(risk) if !allowed.contains(risk) => {
                    text += &format!("{}: held back, {}; --allow {} does it\n", topic.name, cost(*risk), risk.name());
                }
                Way::Risky(risk) => text += &format!("{}: {}\n", topic.name, cost(*risk)),
                Way::Safe => {}
            }
        }
    }
    text
}

fn cost(risk: Risk) -> &'static str {
    match risk {
        Risk::AddPartitions => {
            "keys move to other partitions: a user's older events may still wait in one while newer ones run in another, so let the group \
             reach the topic's end first"
        }
        Risk::LoseRecords => "Kafka deletes records sooner than it does now",
        Risk::Delete => "it is deleted with all its records",
    }
}

/// How many changes are to be made, for the end of a plan.
pub(super) fn pending(plan: &Plan) -> String {
    let (pending, stuck) = (plan.pending(), stuck(plan));
    let safe = plan.differences().filter(|found| found.is_pending() && found.is_allowed(&[])).count();
    match (pending, safe) {
        (0, _) => format!("Nothing to do{stuck}.\n"),
        (1, 1) => format!("1 change to make: worker topics apply{stuck}.\n"),
        _ => format!("{safe} changes to make{}: worker topics apply{stuck}.\n", held(pending - safe)),
    }
}

fn held(count: usize) -> String {
    if count > 0 { format!(", {count} held back") } else { String::new() }
}

fn stuck(plan: &Plan) -> String {
    match plan.stuck() {
        0 => String::new(),
        1 => "; 1 difference is not this command's to mend".to_owned(),
        count => format!("; {count} differences are not this command's to mend"),
    }
}

/// What was done: a line for each change, then how many.
pub(super) fn done(plan: &Plan) -> String {
    let mut text = String::new();
    for topic in &plan.topics {
        for found in &topic.differences {
            let what = match found.what {
                What::Create | What::Delete => String::new(),
                _ => format!(" {} {} -> {}", found.setting(), found.found, found.wanted),
            };
            match &found.outcome {
                None => {}
                Some(Ok(())) => text += &format!("{} {}{what}\n", past(&found.what), topic.name),
                Some(Err(error)) => text += &format!("refused {}{what}: {error}\n", topic.name),
            }
        }
    }
    let made = plan.differences().filter(|found| found.outcome == Some(Ok(()))).count();
    let refused = plan.refused();
    text + &format!("{made} done, {refused} refused{}{}.\n", held(plan.pending() - refused), stuck(plan))
}

fn past(what: &What) -> &'static str {
    match what {
        What::Create => "created",
        What::Delete => "deleted",
        _ => "changed",
    }
}

fn state(found: &Difference, allowed: &[Risk]) -> (String, Color) {
    match (&found.way, &found.what) {
        (Way::Stuck(_), _) => ("differs".to_owned(), Color::Yellow),
        (Way::Risky(risk), _) if !allowed.contains(risk) => (format!("held back\n--allow {}", risk.name()), Color::Yellow),
        (_, What::Create) => ("to be created".to_owned(), Color::Cyan),
        (_, What::Delete) => ("to be deleted".to_owned(), Color::Red),
        _ => ("to be changed".to_owned(), Color::Cyan),
    }
}

/// As one document: `brokers`, `profile`, `pending` and `topics`. `applied`: what was allowed has been tried.
pub(super) fn json(plan: &Plan, place: &Place<'_>, applied: bool) -> anyhow::Result<String> {
    let topics: Vec<_> = plan.topics.iter().map(|found| topic(found, applied)).collect();
    let document =
        json!({ "brokers": place.brokers, "profile": place.profile, "pending": plan.pending(), "drift": plan.stuck(), "topics": topics });
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

fn topic(topic: &Topic, applied: bool) -> Value {
    let actions: Vec<_> = topic.differences.iter().map(|found| action(found, applied)).collect();
    // The one that a reader must see first.
    let most = ["refused", "held", "create", "created", "delete", "deleted", "change", "changed", "drift"];
    let action = most.into_iter().find(|word| actions.contains(word)).unwrap_or("none");
    let differences: Vec<_> = topic.differences.iter().zip(&actions).map(|(found, action)| difference(found, action)).collect();
    let mut shown = json!({ "name": topic.name, "action": action });
    if let Some(wanted) = &topic.wanted {
        let spec = &wanted.spec;
        shown["because"] = wanted.because.into();
        shown["partitions"] = json!((spec.partitions >= 0).then_some(spec.partitions));
        shown["replication"] = json!((spec.replication >= 0).then_some(spec.replication));
        shown["config"] = json!(spec.config);
    } else {
        shown["because"] = "gone".into();
    }
    shown["differences"] = differences.into();
    if let Some(Err(error)) = topic.differences.iter().find_map(|found| found.outcome.as_ref().filter(|outcome| outcome.is_err())) {
        shown["error"] = error.as_str().into();
    }
    if let Some(hidden) = &topic.hidden {
        shown["hidden"] = hidden.as_str().into();
    }
    shown
}

fn difference(found: &Difference, action: &str) -> Map<String, Value> {
    let mut shown = Map::new();
    let mut put = |name: &str, value: &str| drop(shown.insert(name.to_owned(), value.into()));
    put("setting", found.setting());
    put("wanted", &found.wanted);
    put("found", &found.found);
    put("action", action);
    match &found.way {
        Way::Safe => {}
        Way::Risky(risk) => put("risk", risk.name()),
        Way::Stuck(why) => put("hint", why),
    }
    if let Some(Err(error)) = &found.outcome {
        put("error", error);
    }
    shown
}

fn action(found: &Difference, applied: bool) -> &'static str {
    match (&found.way, &found.outcome, &found.what) {
        (Way::Stuck(_), ..) => "drift",
        (_, Some(Err(_)), _) => "refused",
        (_, Some(Ok(())), what) => past(what),
        _ if applied => "held",
        (_, None, What::Create) => "create",
        (_, None, What::Delete) => "delete",
        (_, None, _) => "change",
    }
}
