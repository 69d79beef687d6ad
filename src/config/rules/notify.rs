//! `[handlers.notify]`.

use std::time::Duration;

use super::Report;
use crate::{
    calendar::{self, quiet::Quiet},
    config::{
        handlers::{HandlerConfig, HandlerKind},
        notify::NotifyConfig,
        text,
        units::show,
    },
};

/// Longest wait for others.
const LONGEST_DIGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// What a `notify` handler publishes itself.
const RESULTS: [&str; 6] =
    ["notification.due", "notification.delivered", "notification.failed", "notification.bounced", "reminder.sent", "reminder.failed"];

pub(super) fn check(handler: &HandlerConfig, path: &str, report: &mut Report<'_>) {
    match (&handler.notify, handler.kind) {
        (None, HandlerKind::Notify) => {
            report.problem(&format!("{path}.kind"), "a notify handler needs [handlers.notify] below it, with smtp and from, or webhook");
        }
        (None, _) => {}
        (Some(notify), HandlerKind::Notify) => {
            check_events(handler, path, report);
            check_notify(notify, &format!("{path}.notify"), report);
        }
        (Some(_), _) => report.problem(&format!("{path}.notify"), "is a table of kind = \"notify\" alone"),
    }
}

/// A handler that reacts to what it publishes would tell users of each telling.
fn check_events(handler: &HandlerConfig, path: &str, report: &mut Report<'_>) {
    for pattern in handler.events() {
        let covers = |own: &str| pattern == own || pattern.strip_suffix('*').is_some_and(|start| own.starts_with(start));
        if let Some(own) = RESULTS.into_iter().find(|own| covers(own)) {
            report.problem(
                &format!("{path}.events"),
                format!("`{pattern}` covers {own}, which this kind publishes: it would tell users of itself without end"),
            );
        }
    }
}

fn check_notify(notify: &NotifyConfig, path: &str, report: &mut Report<'_>) {
    match (&notify.smtp, notify.is_webhook()) {
        (None, false) => report.problem(path, "needs smtp and from, or webhook"),
        (Some(_), true) => report
            .problem(&format!("{path}.webhook"), "goes instead of smtp, not with it; keep one, and make a second handler for the other"),
        (Some(url), false) => check_smtp(url, notify, path, report),
        // Never the text itself in an error: such URLs are secrets.
        (None, true) if text::url(notify.webhook.expose(), super::handlers::WEB).is_err() => {
            report.problem(&format!("{path}.webhook"), "is no URL; write it like \"https://host/path\"");
        }
        (None, true) => {}
    }
    if notify.smtp.is_none() && notify.from.is_some() {
        report.problem(&format!("{path}.from"), "is a key of smtp alone");
    }
    if !notify.is_webhook() && !notify.webhook_secret.is_empty() {
        report.problem(&format!("{path}.webhook_secret"), "is a key of webhook alone");
    }
    if notify.webhook_secret.is_empty() && !notify.webhook_old_secret.is_empty() {
        report.problem(&format!("{path}.webhook_old_secret"), "goes beside webhook_secret, the one that stays");
    }
    if let Some(directory) = &notify.directory {
        let key = format!("{path}.directory");
        match directory.contains("{user_id}") {
            true => drop(report.expect(&key, text::url(&directory.replace("{user_id}", "u"), super::handlers::WEB))),
            false => report.problem(&key, "needs {user_id} where the user's id belongs, like \"http://users:8000/users/{user_id}\""),
        }
    }
    report.expect(&format!("{path}.timezone"), calendar::zone(&notify.timezone));
    if notify.rate > 0 && notify.rate_window.is_zero() {
        report.problem(&format!("{path}.rate_window"), "must be above zero");
    }
    if notify.digest > LONGEST_DIGEST {
        report.problem(
            &format!("{path}.digest"),
            format!("{} is more than 7d, the time that is kept free for what waits", show(notify.digest)),
        );
    }
    if let Some(quiet) = &notify.quiet {
        report.expect(&format!("{path}.quiet"), quiet.parse::<Quiet>());
    }
    for pattern in &notify.urgent {
        report.expect(&format!("{path}.urgent"), text::pattern(pattern));
    }
}

fn check_smtp(url: &str, notify: &NotifyConfig, path: &str, report: &mut Report<'_>) {
    let key = format!("{path}.smtp");
    if report.expect(&key, text::url(url, &["smtp", "smtps"])).is_some() {
        let tls = url.split_once('?').map(|(_, query)| query);
        if tls.is_some_and(|tls| !["tls=none", "tls=opportunistic", "tls=required"].contains(&tls)) {
            report.problem(&key, "after the `?` only tls=required, tls=opportunistic or tls=none can stand");
        } else if tls == Some("tls=none") && url.contains('@') {
            report.warning(&key, "with tls=none the password goes over the network for everybody to read");
        }
    }
    match &notify.from {
        None => report.problem(&key, "needs from beside it, the sender, like \"Todo <todo@example.com>\""),
        Some(from) if !from.contains('@') || from.chars().any(char::is_control) => {
            report.problem(
                &format!("{path}.from"),
                format!("`{}` is no address; write it like \"Todo <todo@example.com>\"", from.escape_debug()),
            );
        }
        Some(_) => {}
    }
}
