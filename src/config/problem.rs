//! What is wrong with a configuration: one report of every problem, each with its origin.

use std::fmt;

/// One problem or warning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where it was written: `worker.toml:12`, `env WORKER_STORE__URL`, `--set store.url`, `default`.
    pub origin: String,
    /// What is wrong and what would be right, without any secret.
    pub message: String,
}

impl Problem {
    /// A problem with its origin.
    pub fn new(origin: impl Into<String>, message: impl Into<String>) -> Self {
        Self { origin: origin.into(), message: message.into() }
    }

    /// File and line as text and number, so that line 9 comes before line 10.
    fn order(&self) -> (&str, u32, &str) {
        match self.origin.rsplit_once(':').map(|(file, line)| (file, line.parse())) {
            Some((file, Ok(line))) => (file, line, &self.message),
            _ => (&self.origin, 0, &self.message),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.origin.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.origin, self.message) }
    }
}

/// Every problem of a configuration, in the order of files and lines. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(Vec<Problem>);

impl ConfigErrors {
    /// The report of these problems, sorted; `None` where there is none.
    pub fn of(mut problems: Vec<Problem>) -> Option<Self> {
        problems.sort_by(|a, b| a.order().cmp(&b.order()));
        problems.dedup();
        (!problems.is_empty()).then_some(Self(problems))
    }

    /// For a refusal that nothing explains; no input leads here.
    pub(super) fn unexplained() -> Self {
        Self(vec![Problem::new("", "cannot be used")])
    }

    /// The problems.
    pub fn problems(&self) -> &[Problem] {
        &self.0
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.0.len() == 1 { "" } else { "s" };
        write!(f, "{} problem{plural} in the configuration", self.0.len())?;
        for problem in &self.0 {
            // Lines to add, as some problems show them, stay under their problem.
            write!(f, "\n  {}", problem.to_string().replace('\n', "\n    "))?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
