//! What is asked for, and what is answered.

use worker::{
    codegen::{Language, generate},
    event::Catalog,
};

use crate::{ALL, catalogs, made};

const LANGUAGES: [Language; 4] = [Language::Pydantic, Language::TypeScript, Language::Rust, Language::JsonSchema];

fn asked(domain: &str, events: &[&str]) -> Result<String, String> {
    let events: Vec<_> = events.iter().map(|event| (*event).to_owned()).collect();
    generate(&Catalog::embedded().unwrap(), domain, &events, Language::Pydantic, ALL)
        .map(|made| made.text)
        .map_err(|error| error.to_string())
}

#[test]
fn events_are_named_by_action_type_or_alias_and_come_in_the_order_asked_for() {
    let order = |text: &str| -> Vec<usize> {
        ["class TaskCreatedPayload", "class TaskDeletedPayload"].iter().filter_map(|class| text.find(class)).collect()
    };
    let both = asked("tasks", &["created", "task.deleted", "created"]).unwrap();
    assert!(order(&both).is_sorted() && order(&both).len() == 2 && !both.contains("TaskUpdatedPayload"));
    assert!(!order(&asked("tasks", &["deleted", "created"]).unwrap()).is_sorted());
    assert!(asked("reminders", &["reminder.triggered"]).unwrap().contains("class ReminderDuePayload"));
    assert!(asked("users", &["logged_in", "security.alert"]).unwrap().contains("SECURITY_ALERT = \"security.alert\""));
    assert_eq!(asked("tasks", &[]), asked("tasks", &["completed", "created", "deleted", "updated"]), "all of them, by name");
}

#[test]
fn what_the_catalogue_has_not_is_refused_with_what_it_has() {
    let domains = "dlq, notifications, points, recurring, reminders, schedules, tasks, users";
    assert_eq!(asked("task", &[]), Err(format!("no domain `task`; the catalogue has {domains}")));
    let events = "no event `made` in the domain tasks; it has completed, created, deleted, updated";
    assert_eq!(asked("tasks", &["made"]), Err(events.to_owned()));
}

#[test]
fn the_same_catalogue_gives_the_same_text() {
    for language in LANGUAGES {
        for (first, second) in made(language, ALL).into_iter().zip(made(language, ALL)) {
            assert_eq!(first.text, second.text, "{}", first.name);
            assert!(first.text.ends_with('\n') && !first.text.contains("{{"), "{}", first.name);
        }
    }
}

#[test]
fn what_models_cannot_check_is_named() {
    for language in LANGUAGES {
        for made in made(language, ALL) {
            let expected: &[&str] = match made.name.as_str() {
                "keywords_orders" if language == Language::Rust => {
                    &["order.placed: data.slug: pattern", "order.placed: data.level: enum", "order.placed: data.site: format"]
                }
                "keywords_orders" => &["order.placed: data.level: enum", "order.placed: data.site: format"],
                _ => &[],
            };
            assert_eq!(made.unchecked, expected, "{}", made.name);
        }
    }
    assert_eq!(catalogs().len(), 3);
}
