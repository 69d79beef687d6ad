//! Node for tests: a folder with the npm packages that a test names.

use std::{path::PathBuf, process::Command};

use super::packages::{folder, run};

/// A folder whose `node_modules` has these packages (`["typescript@7.0.2"]`, as npm writes them); their install scripts are not run.
/// `None`, with a printed reason, where they cannot be had; a panic with `CI=true`.
pub fn packages(packages: &[&str]) -> Option<PathBuf> {
    folder("node", packages, |folder| {
        let npm = ["install", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"];
        run(Command::new("npm").args(npm).arg("--prefix").arg(folder).args(packages))
    })
}
