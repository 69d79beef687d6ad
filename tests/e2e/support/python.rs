//! Python for tests: an interpreter with the packages that a test names.

use std::{path::PathBuf, process::Command};

use super::packages::{folder, run};

/// The `python` of a virtual environment with these packages from PyPI (`["fastapi==0.135.1", "uvicorn"]`, as pip writes them). Programs
/// among them are started as modules: `-m uvicorn`. `None`, with a printed reason, where they cannot be had; a panic with `CI=true`.
pub fn venv(packages: &[&str]) -> Option<PathBuf> {
    let made = folder("python", packages, |folder| {
        run(Command::new("python3").args(["-m", "venv"]).arg(folder))?;
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
        run(Command::new(folder.join("bin/python")).args(pip).args(packages))
    })?;
    Some(made.join("bin/python"))
}
