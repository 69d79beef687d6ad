//! Patterns over event types.

/// Whether `pattern` (`task.created`, `task.*`, `*`) covers `event_type`. A star stands for one or more whole segments at the end.
pub fn matches(pattern: &str, event_type: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some("") => true,
        Some(prefix) => prefix.ends_with('.') && event_type.len() > prefix.len() && event_type.starts_with(prefix),
        None => pattern == event_type,
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_star_stands_for_whole_segments_only() {
        assert!(matches("*", "task.created"));
        assert!(matches("task.*", "task.created"));
        assert!(matches("task.created", "task.created"));
        assert!(!matches("task.*", "task."));
        assert!(!matches("task.*", "tasks.created"));
        assert!(!matches("tas*", "task.created"));
        assert!(!matches("task.created", "task.created.late"));
    }
}
