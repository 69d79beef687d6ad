//! Names of types and values, from the catalogue's.

use std::{collections::BTreeSet, sync::Arc};

use crate::event::EventType;

/// The first word of a domain's types: `task` of `tasks`; the domain's own name where no type begins with either.
pub(super) fn prefix<'a>(domain: &'a str, kinds: &'a [Arc<EventType>]) -> &'a str {
    let first = kinds.iter().map(|kind| kind.name.split('.').next().unwrap_or_default());
    let singular = domain.strip_suffix('s');
    first.into_iter().find(|word| *word == domain || Some(*word) == singular).unwrap_or(domain)
}

/// `created` of `task.created`; the whole name where the type begins with another word.
pub(super) fn action<'a>(prefix: &str, name: &'a str) -> &'a str {
    name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.')).unwrap_or(name)
}

/// `TaskCreated` of `task.created` or `task_created`.
pub(super) fn pascal(name: &str) -> String {
    let words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let mut made = String::new();
    for word in words {
        let (first, rest) = word.split_at(1);
        made.push_str(&first.to_ascii_uppercase());
        // SHOUTED words are words too.
        made.push_str(&if rest.bytes().any(|byte| byte.is_ascii_lowercase()) { rest.to_owned() } else { rest.to_ascii_lowercase() });
    }
    if made.starts_with(|c: char| c.is_ascii_digit()) { format!("V{made}") } else { or_empty(made) }
}

/// `LOGGED_IN` of `logged_in` or `logged.in`.
pub(super) fn shouted(name: &str) -> String {
    let made: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect();
    let made = made.trim_matches('_');
    if made.starts_with(|c: char| c.is_ascii_digit()) { format!("V{made}") } else { or_empty(made.to_owned()) }
}

fn or_empty(name: String) -> String {
    if name.is_empty() { "Empty".to_owned() } else { name }
}

/// The name of what a field holds: `TaskPriority` of `priority`, `ReminderType` of `reminder_type`.
pub(super) fn of_field(module: &str, field: &str) -> String {
    let name = pascal(field);
    if name.starts_with(module) { name } else { format!("{module}{name}") }
}

/// Gives each of several values a name of its own, in order.
pub(super) fn distinct<'a>(values: impl IntoIterator<Item = &'a str>, name: impl Fn(&str) -> String) -> Vec<String> {
    let mut taken = BTreeSet::new();
    values.into_iter().map(|value| unused(&mut taken, name(value))).collect()
}

/// The name, or with the first number that makes it one that nobody has; and takes it.
pub(super) fn unused(taken: &mut BTreeSet<String>, name: String) -> String {
    let free = (1..).map(|number| if number == 1 { name.clone() } else { format!("{name}{number}") }).find(|name| !taken.contains(name));
    let free = free.unwrap_or(name);
    taken.insert(free.clone());
    free
}

#[cfg(test)]
mod tests {
    use super::{distinct, of_field, pascal, shouted};

    #[test]
    fn names_are_those_that_a_person_would_give() {
        assert_eq!(
            ["task.created", "user.logged_in", "HIGH", "dueSoon", "2fa"].map(pascal),
            ["TaskCreated", "UserLoggedIn", "High", "DueSoon", "V2fa"]
        );
        assert_eq!(["logged_in", "security.alert", "due-soon", ""].map(shouted), ["LOGGED_IN", "SECURITY_ALERT", "DUE_SOON", "Empty"]);
        assert_eq!(
            (of_field("Task", "priority").as_str(), of_field("Reminder", "reminder_type").as_str()),
            ("TaskPriority", "ReminderType")
        );
        assert_eq!(distinct(["high", "HIGH", "low"], shouted), ["HIGH", "HIGH2", "LOW"]);
    }
}
