//! `[[handlers]]`.

use std::time::Duration;

use super::{Report, notify};
use crate::{
    calendar,
    config::{
        Config, Role,
        condition::Condition,
        handlers::{HandlerConfig, HandlerKind, HttpBody, RepeatFrom, RouteConfig},
        text,
        units::show,
    },
};

/// Longest run: beyond it a drain, a lease and a person's patience have ended long ago.
pub(super) const LONGEST_RUN: Duration = Duration::from_secs(3600);

pub(super) const WEB: &[&str] = &["http", "https"];

/// The only type that a `recurrence` handler reacts to.
const RECURS: &str = "task.completed";

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
    if handler.events.is_empty() {
        report.problem(&format!("{path}.events"), "matches no type, so the handler would never run; leave the key out for every type");
    }
    for (index, pattern) in handler.events.iter().enumerate() {
        report.expect(&format!("{path}.events"), text::pattern(pattern));
        if handler.events[..index].contains(pattern) {
            report.warning(&format!("{path}.events"), format!("`{pattern}` stands there twice"));
        }
    }
    if handler.timeout.is_zero() || handler.timeout > LONGEST_RUN {
        report.problem(&format!("{path}.timeout"), format!("{} is not between 1ms and 1h", show(handler.timeout)));
    }
    if handler.concurrency.is_some_and(|runs| runs > config.engine.concurrency) {
        let most = config.engine.concurrency;
        report.warning(&format!("{path}.concurrency"), format!("more than engine.concurrency ({most}), which stays the limit"));
    }
    match handler.kind {
        HandlerKind::Http => check_http(handler, path, config, report),
        HandlerKind::Log | HandlerKind::Forward | HandlerKind::Recurrence | HandlerKind::Reminder | HandlerKind::Notify => {
            check_not_http(handler, path, report);
        }
    }
    check_forward(handler, path, config, report);
    check_recurrence(handler, path, report);
    check_reminder(handler, path, config, report);
    notify::check(handler, path, report);
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
        if !["*", RECURS].contains(&handler.events.join(" ").as_str()) {
            report.problem(&format!("{path}.events"), format!("a recurrence handler reacts to {RECURS} alone; leave the key out"));
        }
        report.expect(&format!("{path}.timezone"), calendar::zone(&handler.timezone));
        return;
    }
    let given = [("timezone", handler.timezone != "UTC"), ("repeat_from", handler.repeat_from != RepeatFrom::default())];
    for (key, _) in given.iter().filter(|(_, given)| *given) {
        report.problem(&format!("{path}.{key}"), "is a key of kind = \"recurrence\" alone");
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
    if handler.events != ["*"] {
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
