//! `[[handlers]]`.

use std::time::Duration;

use super::{Report, notify};
use crate::{
    calendar,
    config::{
        Config, Role,
        condition::Condition,
        handlers::{HandlerConfig, HandlerKind, HttpBody, RepeatFrom, RouteConfig},
        secret::Secret,
        security::RULES,
        text,
        units::show,
    },
};

/// Longest run: beyond it a drain, a lease and a person's patience have ended long ago.
pub(super) const LONGEST_RUN: Duration = Duration::from_secs(3600);

/// Least `keep` of analytics.
const MONTH: Duration = Duration::from_secs(30 * 24 * 3600);

/// Least `max_size` of audit files.
const SMALLEST_FILE: u64 = 1024;

pub(super) const WEB: &[&str] = &["http", "https"];

/// What a consumer without handlers is told to add.
const LINES_TO_ADD: &str = "a consumer needs at least one handler; add to a file given with -c:
[[handlers]]
name = \"todo-api\"
kind = \"http\"
url = \"http://localhost:8000/events\"";

pub(super) fn check(config: &Config, role: Option<Role>, report: &mut Report<'_>) {
    if config.handlers.is_empty() && matches!(role, Some(Role::Consumer | Role::Standalone)) {
        report.problem("handlers", LINES_TO_ADD);
    }
    report.unique(config.handlers.iter().map(|handler| handler.name.as_str()), |index| format!("handlers[{index}].name"));
    for (index, handler) in config.handlers.iter().enumerate() {
        check_handler(handler, &format!("handlers[{index}]"), config, report);
    }
}

fn check_handler(handler: &HandlerConfig, path: &str, config: &Config, report: &mut Report<'_>) {
    check_name(&handler.name, path, report);
    check_events(handler, &format!("{path}.events"), report);
    if handler.timeout.is_zero() || handler.timeout > LONGEST_RUN {
        report.problem(&format!("{path}.timeout"), format!("{} is not between 1ms and 1h", show(handler.timeout)));
    }
    if handler.concurrency.is_some_and(|runs| runs > config.engine.concurrency) {
        let most = config.engine.concurrency;
        report.warning(&format!("{path}.concurrency"), format!("more than engine.concurrency ({most}), which stays the limit"));
    }
    match handler.kind {
        HandlerKind::Http => check_http(handler, path, config, report),
        _ => check_not_http(handler, path, report),
    }
    check_forward(handler, path, config, report);
    check_recurrence(handler, path, report);
    check_reminder(handler, path, config, report);
    notify::check(handler, path, report);
    check_points(handler, path, report);
    check_audit(handler, path, config, report);
    check_analytics(handler, path, report);
    check_security(handler, path, report);
}

fn check_events(handler: &HandlerConfig, key: &str, report: &mut Report<'_>) {
    let events = handler.events();
    if events.is_empty() {
        let without = if handler.kind.reacts_to() == ["*"] { "every type" } else { "those that the kind is for" };
        report.problem(key, format!("matches no type, so the handler would never run; leave the key out for {without}"));
    }
    for (index, pattern) in events.iter().enumerate() {
        report.expect(key, text::pattern(pattern));
        if events[..index].contains(pattern) {
            report.warning(key, format!("`{pattern}` stands there twice"));
        }
        let covers = |own: &&str| pattern.strip_suffix('*').map_or(pattern == own, |start| own.starts_with(start));
        if let Some(own) = handler.kind.causes().filter(covers) {
            report.problem(key, format!("`{pattern}` covers {own}, which the handler publishes itself: it would go round in circles"));
        }
    }
}

pub(super) fn check_name(name: &str, path: &str, report: &mut Report<'_>) {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    // A missing name has its own problem, and a stand-in with spaces.
    if name.is_empty() || name.len() > 64 || !name.chars().all(legal) && !name.contains(" without ") {
        report.problem(&format!("{path}.name"), format!("`{name}` is no name: 1 to 64 letters, digits, `.`, `_` and `-`"));
    }
}

fn check_http(handler: &HandlerConfig, path: &str, config: &Config, report: &mut Report<'_>) {
    match (&handler.url, &handler.discover) {
        (None, None) => report.problem(&format!("{path}.kind"), "an http handler needs url, or discover for an app with Dapr's routes"),
        (Some(_), Some(_)) => report.problem(&format!("{path}.discover"), "goes instead of url, not with it; keep one"),
        (Some(url), None) => drop(report.expect(&format!("{path}.url"), text::url(url, WEB))),
        (None, Some(app)) => drop(report.expect(&format!("{path}.discover"), text::url(app, WEB))),
    }
    if handler.discover.is_none() {
        let given = [("api_token", !handler.api_token.is_empty()), ("routes", !handler.routes.is_empty())];
        for (key, _) in given.iter().filter(|(_, given)| *given) {
            report.problem(&format!("{path}.{key}"), "is a key of discover alone");
        }
    }
    if handler.discover_every.is_zero() {
        report.problem(&format!("{path}.discover_every"), "must be above zero");
    }
    for (index, route) in handler.routes.iter().enumerate() {
        check_route(route, &format!("{path}.routes[{index}]"), config, report);
    }
    report.unique(handler.routes.iter().map(|route| route.topic.as_str()), |index| format!("{path}.routes[{index}].topic"));
    if handler.strict_dapr && handler.body == HttpBody::Event {
        report.warning(&format!("{path}.body"), "strict_dapr sends the stored bytes, as Dapr does, whatever body says");
    }
}

fn check_route(route: &RouteConfig, path: &str, config: &Config, report: &mut Report<'_>) {
    // A missing topic has its own problem, and a stand-in with spaces.
    if !route.topic.contains(" without ") {
        report.expect(&format!("{path}.topic"), text::topic(&route.topic));
    }
    if route.topic == config.dlq.topic {
        report.problem(&format!("{path}.topic"), format!("`{}` is dlq.topic: what fails there would go round in circles", route.topic));
    }
    if route.path.is_none() && route.rules.is_empty() {
        report.problem(&format!("{path}.topic"), "the route leads nowhere: give it a path, or rules");
    }
    if let Some(dead) = &route.dead_letter_topic {
        let key = format!("{path}.dead_letter_topic");
        report.expect(&key, text::topic(dead));
        if *dead == route.topic {
            report.problem(&key, "is the route's own topic: what fails would go round in circles");
        }
    }
    for (index, rule) in route.rules.iter().enumerate() {
        report.expect(&format!("{path}.rules[{index}].match"), Condition::compile(&rule.condition).map(drop));
    }
}

fn check_recurrence(handler: &HandlerConfig, path: &str, report: &mut Report<'_>) {
    if handler.kind == HandlerKind::Recurrence {
        let only = handler.kind.reacts_to().join(" ");
        if handler.events() != handler.kind.reacts_to() {
            report.problem(&format!("{path}.events"), format!("a recurrence handler reacts to {only} alone; leave the key out"));
        }
    } else if handler.repeat_from != RepeatFrom::default() {
        report.problem(&format!("{path}.repeat_from"), "is a key of kind = \"recurrence\" alone");
    }
    match handler.kind {
        HandlerKind::Recurrence | HandlerKind::Points | HandlerKind::Analytics => {
            report.expect(&format!("{path}.timezone"), calendar::zone(&handler.timezone));
        }
        _ if handler.timezone != "UTC" => {
            report.problem(&format!("{path}.timezone"), "is a key of kind = \"recurrence\", \"points\" and \"analytics\" alone");
        }
        _ => {}
    }
}

fn check_audit(handler: &HandlerConfig, path: &str, config: &Config, report: &mut Report<'_>) {
    let Some(audit) = &handler.audit else { return };
    let path = format!("{path}.audit");
    if handler.kind != HandlerKind::Audit {
        return report.problem(&path, "is a table of kind = \"audit\" alone");
    }
    if audit.dir.as_ref().is_some_and(|dir| dir.as_os_str().is_empty()) {
        report.problem(&format!("{path}.dir"), "is empty; leave the key out for the folder `audit`");
    }
    if audit.max_size < SMALLEST_FILE {
        report.problem(&format!("{path}.max_size"), "is less than 1KiB, which no two records fit into");
    }
    if let Some(topic) = &audit.topic {
        let key = format!("{path}.topic");
        report.expect(&key, text::topic(topic));
        if *topic == config.dlq.topic {
            report.problem(&key, format!("`{topic}` is dlq.topic: dead letters alone belong there"));
        }
        if config.kafka.topics.as_ref().is_some_and(|topics| topics.contains(topic)) {
            report.problem(&key, format!("`{topic}` is among kafka.topics: its records are no events, and would be dead letters"));
        }
    }
}

fn check_analytics(handler: &HandlerConfig, path: &str, report: &mut Report<'_>) {
    let Some(analytics) = &handler.analytics else { return };
    let path = format!("{path}.analytics");
    if handler.kind != HandlerKind::Analytics {
        return report.problem(&path, "is a table of kind = \"analytics\" alone");
    }
    if analytics.keep < MONTH {
        report.problem(&format!("{path}.keep"), format!("{} is less than the 30d of monthly active users", show(analytics.keep)));
    }
    if analytics.late > analytics.keep {
        report.problem(&format!("{path}.late"), "is longer than keep, after which there is no day to add to");
    }
}

fn check_security(handler: &HandlerConfig, path: &str, report: &mut Report<'_>) {
    if handler.kind == HandlerKind::Security && handler.events() != handler.kind.reacts_to() {
        report.problem(&format!("{path}.events"), "a security handler reacts to user.logged_in alone; leave the key out");
    }
    let key = handler.security.as_ref().map(|security| &security.key);
    if handler.kind == HandlerKind::Security && key.is_none_or(Secret::is_empty) {
        let why = "without it, whoever knows app_id can find out which address a hash in an alert is of; give it a secret";
        report.warning(&format!("{path}.security.key"), why);
    }
    let Some(security) = &handler.security else { return };
    let path = format!("{path}.security");
    if handler.kind != HandlerKind::Security {
        return report.problem(&path, "is a table of kind = \"security\" alone");
    }
    if security.rules.is_empty() {
        report.problem(&format!("{path}.rules"), "has no rule, so nothing would be suspicious; leave the key out for all of them");
    }
    for rule in security.rules.iter().filter(|rule| !RULES.contains(&rule.as_str())) {
        report.problem(&format!("{path}.rules"), format!("`{rule}` is none of {}", RULES.join(", ")));
    }
    for (key, duration) in [("window", security.window), ("remember", security.remember)] {
        if duration.is_zero() {
            report.problem(&format!("{path}.{key}"), "must be above zero");
        }
    }
}

fn check_points(handler: &HandlerConfig, path: &str, report: &mut Report<'_>) {
    let Some(points) = &handler.points else { return };
    let path = format!("{path}.points");
    if handler.kind != HandlerKind::Points {
        return report.problem(&path, "is a table of kind = \"points\" alone");
    }
    if points.points == 0 && points.rules.is_empty() && points.streak_bonus == 0 {
        report.problem(&path, "awards nothing: give it points, a streak_bonus, or rules");
    }
    for (index, rule) in points.rules.iter().enumerate() {
        let path = format!("{path}.rules[{index}]");
        report.expect(&format!("{path}.match"), Condition::compile(&rule.condition).map(drop));
        if rule.reason.is_empty() {
            report.problem(&format!("{path}.reason"), "is empty; a word such as high_priority tells users what the points are for");
        }
    }
}

fn check_reminder(handler: &HandlerConfig, path: &str, config: &Config, report: &mut Report<'_>) {
    if handler.kind != HandlerKind::Reminder {
        if handler.reminder.is_some() {
            report.problem(&format!("{path}.reminder"), "is a table of kind = \"reminder\" alone");
        }
        return;
    }
    let first = config.handlers.iter().find(|handler| handler.kind == HandlerKind::Reminder);
    if let Some(first) = first.filter(|first| !std::ptr::eq(*first, handler)) {
        report.problem(&format!("{path}.kind"), format!("`{}` is the reminder handler already, and a group has one", first.name));
    }
    if handler.events.is_some() {
        report.problem(&format!("{path}.events"), "a reminder handler knows its own types; leave the key out");
    }
    if handler.reminder.as_ref().is_some_and(|reminder| reminder.remember.is_zero()) {
        report.problem(&format!("{path}.reminder.remember"), "must be above zero");
    }
    if config.store.allow_eviction {
        report.warning("store.allow_eviction", "a full Redis may throw away reminders that nobody has been reminded of yet");
    }
}

fn check_forward(handler: &HandlerConfig, path: &str, config: &Config, report: &mut Report<'_>) {
    let key = format!("{path}.to");
    match (&handler.to, handler.kind) {
        (None, HandlerKind::Forward) => report.problem(&format!("{path}.kind"), "a forward handler needs to, the topic that gets a copy"),
        (None, _) => {}
        (Some(to), HandlerKind::Forward) if *to == config.dlq.topic => {
            report.problem(&key, format!("`{to}` is dlq.topic: dead letters alone belong there"));
        }
        (Some(to), HandlerKind::Forward) => drop(report.expect(&key, text::topic(to))),
        (Some(_), _) => report.problem(&key, "is a key of kind = \"forward\" alone"),
    }
}

fn check_not_http(handler: &HandlerConfig, path: &str, report: &mut Report<'_>) {
    let given = [
        ("url", handler.url.is_some()),
        ("discover", handler.discover.is_some()),
        ("api_token", !handler.api_token.is_empty()),
        ("routes", !handler.routes.is_empty()),
        ("strict_dapr", handler.strict_dapr),
        ("body", handler.body != HttpBody::default()),
    ];
    for (key, _) in given.iter().filter(|(_, given)| *given) {
        report.problem(&format!("{path}.{key}"), "is a key of kind = \"http\" alone");
    }
}
