//! The loader from the outside: files, environment and flags in, values or a report out.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod env;
mod layers;
mod rejected;

use std::io::Write;

use tempfile::NamedTempFile;

use super::{Config, ConfigErrors, Loaded, Role, Sources};

/// A load under construction.
#[derive(Default)]
struct Load {
    sources: Sources,
    files: Vec<NamedTempFile>,
}

/// A load of the defaults.
fn load() -> Load {
    Load::default()
}

impl Load {
    fn file(mut self, text: &str) -> Self {
        let mut file = tempfile::Builder::new().prefix("worker-").suffix(".toml").tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        self.sources.files.push(file.path().to_owned());
        self.files.push(file);
        self
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.sources.env.push((name.to_owned(), value.to_owned()));
        self
    }

    fn set(mut self, set: &str) -> Self {
        self.sources.sets.push(set.to_owned());
        self
    }

    fn property(mut self, property: &str) -> Self {
        self.sources.properties.push(property.to_owned());
        self
    }

    fn role(mut self, role: Role) -> Self {
        self.sources.role = Some(role);
        self
    }

    fn run(&self) -> Result<Loaded, ConfigErrors> {
        Config::load(&self.sources)
    }

    fn ok(&self) -> Loaded {
        self.run().unwrap_or_else(|report| panic!("{report}"))
    }

    /// The report, with the first file called `F`.
    fn report(&self) -> String {
        let report = match self.run() {
            Err(report) => report.to_string(),
            Ok(_) => panic!("accepted"),
        };
        self.named(&report)
    }

    fn named(&self, text: &str) -> String {
        self.files.first().map_or_else(|| text.to_owned(), |file| text.replace(&file.path().display().to_string(), "F"))
    }

    fn warnings(&self) -> Vec<String> {
        self.ok().warnings.iter().map(|warning| self.named(&warning.to_string())).collect()
    }
}
