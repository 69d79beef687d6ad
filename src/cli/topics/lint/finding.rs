//! What was found, for people and for programs.

use std::io::{self, IsTerminal};

use comfy_table::{Cell, Color};
use serde::Serialize;
use serde_json::json;

use crate::cli;

/// How bad it is, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// Something will not work.
    Error,
    /// Something can go wrong.
    Warning,
    /// Good to know.
    Note,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) level: Level,
    /// Stable name of the rule.
    pub(super) rule: &'static str,
    /// Which topic, type or key.
    pub(super) subject: String,
    pub(super) message: String,
    pub(super) fix: String,
    /// In which profiles.
    pub(super) profiles: Vec<String>,
}

/// Everything found, each once however many profiles share it.
#[derive(Debug, Default)]
pub(super) struct Findings {
    found: Vec<Finding>,
    profile: String,
}

impl Findings {
    /// What follows is about this profile.
    pub(super) fn of_profile(&mut self, profile: &str) {
        profile.clone_into(&mut self.profile);
    }

    pub(super) fn error(&mut self, rule: &'static str, subject: &str, message: impl Into<String>, fix: impl Into<String>) {
        self.put(Level::Error, rule, subject, message.into(), fix.into());
    }

    pub(super) fn warning(&mut self, rule: &'static str, subject: &str, message: impl Into<String>, fix: impl Into<String>) {
        self.put(Level::Warning, rule, subject, message.into(), fix.into());
    }

    pub(super) fn note(&mut self, rule: &'static str, subject: &str, message: impl Into<String>, fix: impl Into<String>) {
        self.put(Level::Note, rule, subject, message.into(), fix.into());
    }

    fn put(&mut self, level: Level, rule: &'static str, subject: &str, message: String, fix: String) {
        let same = |one: &&mut Finding| (one.level, one.rule, &*one.subject, &one.message) == (level, rule, subject, &message);
        match self.found.iter_mut().find(same) {
            Some(known) if known.profiles.contains(&self.profile) => {}
            Some(known) => known.profiles.push(self.profile.clone()),
            None => {
                let profiles = vec![self.profile.clone()];
                self.found.push(Finding { level, rule, subject: subject.to_owned(), message, fix, profiles });
            }
        }
    }

    /// Worst first.
    pub(super) fn all(&self) -> impl Iterator<Item = &Finding> {
        let of = |level| self.found.iter().filter(move |one| one.level == level);
        [Level::Error, Level::Warning, Level::Note].into_iter().flat_map(of)
    }

    /// How many are at least so bad.
    pub(super) fn count(&self, least: Level) -> usize {
        self.found.iter().filter(|one| one.level <= least).count()
    }

    /// A table on a terminal, else one line each: `warning  retention user-events: ..`.
    pub(super) fn table(&self) -> String {
        let count = |level| self.found.iter().filter(|one| one.level == level).count();
        let end = format!("errors {}, warnings {}, notes {}\n", count(Level::Error), count(Level::Warning), count(Level::Note));
        if !io::stdout().is_terminal() {
            let line = |one: &Finding| {
                format!(
                    "{:<7}  {} {}: {}; {} ({})\n",
                    one.level.word().0,
                    one.rule,
                    one.subject,
                    one.message,
                    one.fix,
                    one.profiles.join(", ")
                )
            };
            return self.all().map(line).collect::<String>() + &end;
        }
        let mut table = cli::table(["", "rule", "about", "found", "fix", "profiles"]);
        for one in self.all() {
            let (word, colour) = one.level.word();
            table.add_row([
                cli::cell(word, colour),
                Cell::new(one.rule),
                Cell::new(&one.subject),
                Cell::new(&one.message),
                Cell::new(&one.fix),
                Cell::new(one.profiles.join("\n")),
            ]);
        }
        if self.found.is_empty() { end } else { format!("{table}\n{end}") }
    }

    /// One document: `ok` and `findings`.
    pub(super) fn json(&self, ok: bool) -> anyhow::Result<String> {
        Ok(serde_json::to_string_pretty(&json!({ "ok": ok, "findings": self.all().collect::<Vec<_>>() }))? + "\n")
    }
}

impl Level {
    fn word(self) -> (&'static str, Color) {
        match self {
            Self::Error => ("error", Color::Red),
            Self::Warning => ("warning", Color::Yellow),
            Self::Note => ("note", Color::Cyan),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_several_profiles_share_is_told_once_and_the_worst_comes_first() {
        let mut findings = Findings::default();
        for profile in ["local", "production"] {
            findings.of_profile(profile);
            findings.note("a", "t", "n", "f");
            findings.error("b", "t", format!("in {profile}"), "f");
        }
        let all: Vec<_> = findings.all().map(|one| (one.level, one.profiles.join(","))).collect();
        let of = |level, profiles: &str| (level, profiles.to_owned());
        assert_eq!(all, [of(Level::Error, "local"), of(Level::Error, "production"), of(Level::Note, "local,production")]);
        assert_eq!((findings.count(Level::Error), findings.count(Level::Note)), (2, 3));
        assert!(findings.table().ends_with("errors 2, warnings 0, notes 1\n"));
    }
}
