//! Python: pytest on a real interpreter, and the formatter's word that the files can be checked in.

use std::{fs, process::Command};

use worker::codegen::Language;

use crate::{ALL, combinations, made, manifest, packages::run, python};

const PACKAGES: [&str; 3] = ["pydantic==2.14.3", "pytest==9.2.0", "ruff==0.17.5"];

#[test]
fn pydantic_models_accept_each_example_and_reject_each_counterexample() {
    let Some(python) = python::venv(&PACKAGES) else { return };
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("catalogue.json"), manifest().to_string()).unwrap();
    for made in made(Language::Pydantic, ALL) {
        fs::write(dir.path().join(format!("{}.py", made.name)), made.text).unwrap();
    }
    let tests = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/codegen/test_models.py");
    let mut pytest = Command::new(python);
    pytest.args(["-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", tests]).env("MODELS", dir.path()).current_dir(dir.path());
    run(&mut pytest).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn python_files_are_formatted_have_no_unused_names_and_can_be_imported_with_every_option() {
    let Some(python) = python::venv(&PACKAGES) else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut imports = String::new();
    for (index, options) in combinations().enumerate() {
        for made in made(Language::Pydantic, options) {
            let name = format!("{}_{index}", made.name);
            fs::write(dir.path().join(format!("{name}.py")), made.text).unwrap();
            imports += &format!("import {name}\n");
        }
    }
    let ruff = |args: &[&str]| run(Command::new(&python).args(["-m", "ruff"]).args(args).arg(".").current_dir(dir.path()));
    ruff(&["format", "--diff", "--isolated", "--no-cache"]).unwrap_or_else(|error| panic!("{error}"));
    ruff(&["check", "--isolated", "--no-cache", "--select", "E4,E7,E9,F,I"]).unwrap_or_else(|error| panic!("{error}"));
    let import = Command::new(&python).args(["-B", "-W", "error", "-c", &imports]).current_dir(dir.path()).output().unwrap();
    assert!(import.status.success(), "{}", String::from_utf8_lossy(&import.stderr));
}
