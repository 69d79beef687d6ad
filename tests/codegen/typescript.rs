//! TypeScript: tsc in its strictest mode, the helpers on node, and the formatter's word that the files can be checked in.

use std::{fs, path::Path, process::Command};

use worker::codegen::{Language, Options};

use crate::{ALL, combinations, made, manifest, node, packages::run};

const PACKAGES: [&str; 2] = ["typescript@7.0.2", "prettier@3.10.1"];
const STRICT: [&str; 14] = [
    "--strict",
    "--noUncheckedIndexedAccess",
    "--exactOptionalPropertyTypes",
    "--noPropertyAccessFromIndexSignature",
    "--noUnusedLocals",
    "--noUnusedParameters",
    "--noImplicitReturns",
    "--noFallthroughCasesInSwitch",
    "--target",
    "es2022",
    "--module",
    "nodenext",
    "--lib",
    "es2022,dom",
];

fn write(dir: &Path, options: Options, suffix: &str) {
    for made in made(Language::TypeScript, options) {
        fs::write(dir.join(format!("{}{suffix}.ts", made.name)), made.text).unwrap();
    }
}

fn files(dir: &Path) -> Vec<String> {
    fs::read_dir(dir).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).filter(|name| name.ends_with(".ts")).collect()
}

#[test]
fn typescript_models_accept_each_example_and_reject_each_counterexample() {
    let Some(node) = node::packages(&PACKAGES) else { return };
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("catalogue.json"), manifest().to_string()).unwrap();
    fs::write(dir.path().join("package.json"), r#"{"type":"module"}"#).unwrap();
    write(dir.path(), ALL, "");
    let mut tsc = Command::new(node.join("node_modules/.bin/tsc"));
    run(tsc.args(STRICT).args(["--outDir", "made"]).args(files(dir.path())).current_dir(dir.path()))
        .unwrap_or_else(|error| panic!("{error}"));
    let tests = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/codegen/models.test.mjs");
    run(Command::new("node").args(["--test", tests]).current_dir(dir.path())).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn typescript_files_are_formatted_and_strict_with_every_option() {
    let Some(node) = node::packages(&PACKAGES) else { return };
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("package.json"), r#"{"type":"module"}"#).unwrap();
    for (index, options) in combinations().enumerate() {
        write(dir.path(), options, &format!("_{index}"));
    }
    let tool = |name: &str, args: &[&str]| {
        run(Command::new(node.join("node_modules/.bin").join(name)).args(args).args(files(dir.path())).current_dir(dir.path()))
    };
    tool("prettier", &["--check", "--no-config"]).unwrap_or_else(|error| panic!("{error}"));
    tool("tsc", &[&STRICT[..], &["--noEmit"]].concat()).unwrap_or_else(|error| panic!("{error}"));
}
