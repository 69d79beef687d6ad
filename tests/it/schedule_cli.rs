//! `worker schedule ls|next`: what a person is told of `[[schedules]]` before they fire.

use std::process::{Command, Output};

use serde_json::{Value, json};

const SCHEDULES: &str = "[[schedules]]\nname = \"nightly\"\ncron = \"30 2 * * *\"\ntimezone = \"Europe/Berlin\"\n\
                         [[schedules]]\nname = \"hourly\"\ncron = \"@hourly\"\nhttp = \"http://app/hourly\"\n";

fn schedule(args: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("worker.toml");
    std::fs::write(&config, SCHEDULES).unwrap();
    Command::new(env!("CARGO_BIN_EXE_worker")).arg("schedule").args(args).arg("-c").arg(&config).env_clear().output().unwrap()
}

fn document(args: &[&str]) -> Value {
    let output = schedule(args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn every_schedule_is_listed_with_what_it_fires_and_when_next() {
    let listed = document(&["ls", "-o", "json"]);
    let of = |index: usize| ["schedule", "timezone", "event", "http"].map(|key| listed[index][key].clone());
    assert_eq!(of(0), [json!("nightly"), json!("Europe/Berlin"), json!("schedule.ticked"), Value::Null]);
    assert_eq!(of(1), [json!("hourly"), json!("UTC"), Value::Null, json!("http://app/hourly")]);
    assert!(listed[1]["next"].as_str().unwrap().ends_with(":00:00Z"), "{listed}");
}

#[test]
fn the_next_ticks_are_told_by_the_clock_where_they_fire_also_when_it_changes() {
    let ticks = |args: &[&str]| {
        let told = document(&[args, &["-o", "json"]].concat());
        told.as_array().unwrap().iter().map(|tick| tick["local"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let spring = ["Sat 2026-03-28 02:30:00 CET", "Sun 2026-03-29 03:00:00 CEST", "Mon 2026-03-30 02:30:00 CEST"];
    assert_eq!(ticks(&["next", "nightly", "-n", "3", "--from", "2026-03-27T12:00:00Z"]), spring, "the hour that is skipped");
    let entry = ["next", "--cron", "30 2 * * *", "--timezone", "Europe/Berlin", "-n", "2", "--from", "2026-10-24T12:00:00Z"];
    assert_eq!(ticks(&entry), ["Sun 2026-10-25 02:30:00 CEST", "Mon 2026-10-26 02:30:00 CET"], "the hour that comes twice");
    assert_eq!(
        ticks(&["next", "-n", "4", "--from", "2026-01-10T23:30:00Z"])[2..],
        ["Sun 2026-01-11 02:30:00 CET", "Sun 2026-01-11 02:00:00 UTC"]
    );
}

#[test]
fn a_schedule_that_there_is_not_and_an_entry_that_is_none_are_told() {
    for (args, words) in [
        (["next", "weekly"].as_slice(), "there is no schedule `weekly`; there is nightly, hourly"),
        (&["next", "--cron", "99 * * * *"], "`99 * * * *` is no cron entry"),
    ] {
        let output = schedule(args);
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stderr).contains(words), "{output:?}");
    }
}
