//! `[[schedules]]`.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::{
    Report,
    handlers::{LONGEST_RUN, WEB, check_name},
};
use crate::{
    calendar::{self, cron::Cron, due::CatchUp},
    config::{
        Config,
        schedules::{Overlap, ScheduleConfig},
        text,
        units::show,
    },
};

/// How many ticks are looked at for the shortest time between two.
const LOOK: usize = 200;

pub(super) fn check(config: &Config, report: &mut Report<'_>) {
    report.unique(config.schedules.iter().map(|schedule| schedule.name.as_str()), |index| format!("schedules[{index}].name"));
    for (index, schedule) in config.schedules.iter().enumerate() {
        let path = format!("schedules[{index}]");
        check_name(&schedule.name, &path, report);
        check_time(schedule, &path, report);
        match schedule.event() {
            Some(event) => check_event(schedule, event, &path, report),
            None => check_http(schedule, &path, report),
        }
        if config.store.is_memory() && schedule.catch_up != CatchUp::Skip {
            report.warning(&format!("{path}.catch_up"), "store.url = \"memory\" forgets at a restart which ticks were missed");
        }
    }
}

fn check_time(schedule: &ScheduleConfig, path: &str, report: &mut Report<'_>) {
    let zone = report.expect(&format!("{path}.timezone"), calendar::zone(&schedule.timezone));
    // A missing entry has its own problem, and a stand-in.
    if schedule.cron.contains(" without ") {
        return;
    }
    let cron = Cron::parse(&schedule.cron, zone.map_or("UTC", |zone| zone.name()));
    let Some(cron) = report.expect(&format!("{path}.cron"), cron) else { return };
    let shortest = shortest_gap(&cron);
    if shortest.is_some_and(|gap| schedule.jitter >= gap) {
        let gap = shortest.map(show).unwrap_or_default();
        report.problem(&format!("{path}.jitter"), format!("{} is not below the {gap} between two ticks", show(schedule.jitter)));
    }
}

/// The shortest time between two of the ticks that come first in a year.
fn shortest_gap(cron: &Cron) -> Option<Duration> {
    let start = DateTime::<Utc>::UNIX_EPOCH + chrono::TimeDelta::days(365 * 56);
    let ticks: Vec<_> = std::iter::successors(cron.next_after(start), |tick| cron.next_after(*tick)).take(LOOK).collect();
    ticks.windows(2).filter_map(|pair| (pair[1] - pair[0]).to_std().ok()).min()
}

fn check_event(schedule: &ScheduleConfig, event: &str, path: &str, report: &mut Report<'_>) {
    report.expect(&format!("{path}.event"), text::event_type(event));
    if schedule.http.is_some() {
        report.problem(&format!("{path}.http"), "goes instead of event, not with it; keep one");
        return;
    }
    if schedule.user_id.as_ref().is_some_and(|user| user.trim().is_empty()) {
        report.problem(&format!("{path}.user_id"), "must not be empty; leave the key out for schedule:<name>");
    }
    let given = [("route", schedule.route.is_some()), ("overlap", schedule.overlap != Overlap::default())];
    for (key, _) in given.iter().filter(|(_, given)| *given) {
        report.problem(&format!("{path}.{key}"), "is a key of schedules with http alone");
    }
}

fn check_http(schedule: &ScheduleConfig, path: &str, report: &mut Report<'_>) {
    let Some(url) = &schedule.http else { return };
    report.expect(&format!("{path}.http"), text::url(url, WEB));
    if schedule.user_id.is_some() {
        report.problem(&format!("{path}.user_id"), "is a key of schedules that publish an event");
    }
    if schedule.timeout.is_zero() || schedule.timeout > LONGEST_RUN {
        report.problem(&format!("{path}.timeout"), format!("{} is not between 1ms and 1h", show(schedule.timeout)));
    }
    if schedule.catch_up == CatchUp::All && schedule.overlap == Overlap::Skip {
        report.problem(&format!("{path}.catch_up"), "\"all\" fires many ticks at once: with http it needs overlap = \"allow\"");
    }
    if let Some(route) = &schedule.route {
        let has_path = url.split_once("://").and_then(|(_, rest)| rest.split_once('/')).is_some_and(|(_, path)| !path.is_empty());
        if has_path {
            report.problem(&format!("{path}.route"), "goes with an http that has no path, the app's address; keep one of the two paths");
        }
        if !route.starts_with('/') || route.contains(|c: char| c.is_whitespace() || c.is_control()) {
            report.problem(&format!("{path}.route"), format!("`{route}` is no path; write it like \"/tick\""));
        }
    }
}
