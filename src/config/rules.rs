//! Checks across keys: what each value alone cannot show.

mod engine;
mod handlers;
mod kafka;
mod listen;
mod notify;
mod schedules;
mod store;
mod sync;

use super::{Config, Origins, Problem, Role};

/// Checks a configuration whose values are each of their kind; adds to the problems and the warnings.
pub fn check(config: &Config, origins: &Origins, role: Option<Role>, problems: &mut Vec<Problem>, warnings: &mut Vec<Problem>) {
    let mut report = Report { origins, problems, warnings };
    kafka::check(config, role, &mut report);
    store::check(config, role, &mut report);
    engine::check(config, &mut report);
    handlers::check(config, role, &mut report);
    schedules::check(config, &mut report);
    listen::check(config, role, &mut report);
    sync::check(config, &mut report);
}

/// Where the checks write to.
struct Report<'a> {
    origins: &'a Origins,
    problems: &'a mut Vec<Problem>,
    warnings: &'a mut Vec<Problem>,
}

impl Report<'_> {
    /// The value at that path cannot be used.
    fn problem(&mut self, key: &str, why: impl AsRef<str>) {
        self.problems.push(Problem::new(self.origins.get(key), format!("`{key}`: {}", why.as_ref())));
    }

    /// The value at that path can be used and is probably not meant.
    fn warning(&mut self, key: &str, why: impl AsRef<str>) {
        self.warnings.push(Problem::new(self.origins.get(key), format!("`{key}`: {}", why.as_ref())));
    }

    /// A problem where the check failed.
    fn expect<T>(&mut self, key: &str, checked: Result<T, String>) -> Option<T> {
        checked.map_err(|why| self.problem(key, why)).ok()
    }

    /// Names that occur twice; `at` gives the path of each.
    fn unique<'n>(&mut self, names: impl Iterator<Item = &'n str>, at: impl Fn(usize) -> String) {
        let names: Vec<&str> = names.collect();
        for (index, name) in names.iter().enumerate() {
            if let Some(first) = names[..index].iter().position(|earlier| earlier == name) {
                let first = at(first);
                let origin = self.origins.get(&first);
                self.problem(&at(index), format!("`{name}` is taken by `{first}` ({origin}); names must be unique"));
            }
        }
    }
}
