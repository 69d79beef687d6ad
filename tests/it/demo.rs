//! `worker demo`: the tour as a user runs it.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

/// A deadline, not a measurement: the tour takes a third of it.
const DEADLINE: Duration = Duration::from_secs(20);

fn demo(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_worker"));
    command.arg("demo").args(args).env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn the_tour_ends_well_within_its_deadline_and_every_figure_is_as_it_must_be() {
    let began = Instant::now();
    let output = demo(&["-o", "json"]).output().unwrap();
    let took = began.elapsed();
    let story = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{story}\n{}", String::from_utf8_lossy(&output.stdout));
    assert!(took < DEADLINE, "{took:?}");
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    let figures = &summary["figures"];
    assert_eq!(summary["ok"], true);
    let types = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/topics/events")).unwrap().count();
    assert_eq!((&figures["types_handled"], &figures["types"]), (&json!(types), &json!(types)));
    assert_eq!((&figures["duplicates_recognised"], &figures["retries"], &figures["out_of_order"]), (&json!(1), &json!(7), &json!(0)));
    assert_eq!(figures["handled"], figures["to_handle"]);
    let caused = figures["caused"]["seen"].as_object().unwrap();
    assert!(caused.len() == 7 && caused.values().all(|count| count == 1), "{caused:?}");
    assert_eq!(figures["caused"]["mails"], json!([{ "to": "mia@example.com", "subject": "Reminder: Water the plants" }]));
    let audited = &figures["audited"];
    assert!(audited["records"] == audited["deleted"] && audited["deleted"].as_u64() > Some(1), "{audited}");
    let letters = figures["dead_letters"].as_array().unwrap();
    let of = |index: usize| (letters[index]["reason"].as_str().unwrap(), letters[index]["retries"].as_u64().unwrap());
    assert_eq!((letters.len(), of(0), of(1)), (2, ("exhausted", 5), ("undecodable", 0)));
    assert_eq!((&figures["failing"]["user"], &figures["failing"]["runs"]), (&json!("user-7"), &json!(3)));
    let (delayed, retrying) = (&figures["others"]["delayed_at_most_ms"], &figures["failing"]["retrying_ms"]);
    assert!(delayed.as_u64().unwrap() < retrying.as_u64().unwrap() / 2, "{delayed} {retrying}");
    assert!(story.contains("task.completed waits 300ms, 3s, 18s, not 30s, 5m, 30m"), "{story}");
    assert!(!story.contains('\x1b') && !story.contains('\r'), "no codes where there is no terminal");
}

#[test]
fn an_interrupt_ends_the_tour() {
    let mut child = demo(&[]).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("handled") {
        line.clear();
        assert_ne!(stdout.read_line(&mut line).unwrap(), 0, "the tour ended before it began");
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!rest.contains("must be"), "no summary of half a tour: {rest}");
}

#[test]
fn a_configuration_is_refused_since_the_tour_has_its_own() {
    let output = demo(&["--set", "kafka.brokers=localhost:9092"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("--role standalone"));
}
