//! `bindings.cron`: schedules that POST to the app.

use super::{Facts, Translation, component::Component};

/// Translates each binding.
pub(super) fn translate(components: &[Component<'_>], facts: &Facts, out: &mut Translation) {
    for component in components {
        let label = component.label();
        let Some((item, schedule)) = component.get("schedule").zip(component.text("schedule")) else {
            out.decide(&label, "has no schedule");
            continue;
        };
        let from = component.from(item);
        let Some(app) = &facts.app_url else {
            out.decide(&label, "posts to the app, whose address is not in these files: give --app-url");
            continue;
        };
        let (zone, cron) = zone(schedule);
        let index = out.root.len(&["schedules"]).to_string();
        let at = |key: &'static str| ["schedules".to_owned(), index.clone(), key.to_owned()];
        let mut set = |key: &'static str, value: &str, from: &str| {
            let path = at(key);
            out.set(&path.each_ref().map(String::as_str), value, from);
        };
        set("name", component.name(), &label);
        set("cron", cron, &from);
        set("http", app, &label);
        if let Some((item, route)) = component.get("route").zip(component.text("route")) {
            set("route", &format!("/{}", route.trim_start_matches('/')), &component.from(item));
        }
        match zone {
            Some(zone) => set("timezone", zone, &from),
            None if !cron.starts_with("@every") => {
                out.decide(&from, "names no time zone: Dapr takes its process' own, the worker UTC; set timezone where that differs");
            }
            None => {}
        }
        for other in component.items().iter().filter(|item| !["schedule", "route"].iter().any(|name| item.name.eq_ignore_ascii_case(name)))
        {
            out.ignore(&component.from(other), "a schedule always posts to the app");
        }
    }
}

/// `TZ=Europe/Berlin 0 9 * * *` taken apart.
fn zone(schedule: &str) -> (Option<&str>, &str) {
    let named = schedule.strip_prefix("CRON_TZ=").or_else(|| schedule.strip_prefix("TZ="));
    match named.and_then(|rest| rest.split_once(char::is_whitespace)) {
        Some((zone, cron)) => (Some(zone), cron.trim()),
        None => (None, schedule),
    }
}
