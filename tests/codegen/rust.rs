//! Rust: a small crate with the generated modules, in the dependencies that the worker has itself, and rustfmt's word on each file.

use std::{fs, path::Path, process::Command};

use worker::codegen::Language;

use crate::{
    ALL, combinations, made, manifest,
    packages::{cache, run},
};

const MANIFEST: &str = r#"
[package]
name = "models"
version = "0.0.0"
edition = "2021"

[dependencies]
chrono = { version = "0.4", default-features = false, features = ["clock", "std"] }
regex = { version = "1.13", default-features = false, features = ["std", "unicode"] }
serde = { version = "1.0", features = ["derive"] }
serde_json = "1.0"
uuid = { version = "1.18", features = ["serde", "v4"] }

[profile.dev]
debug = false

[workspace]
"#;

/// Writes a crate and asks cargo; its dependencies stay compiled outside the clone.
fn cargo(dir: &Path, modules: &[String], command: &[&str]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::write(dir.join("Cargo.toml"), MANIFEST).unwrap();
    fs::copy(root.join("Cargo.lock"), dir.join("Cargo.lock")).unwrap();
    let lib: String = modules.iter().map(|name| format!("pub mod {name};\n")).collect();
    fs::write(dir.join("src/lib.rs"), format!("#![deny(warnings)]\n{lib}")).unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(command).args(["--quiet", "--offline"]).current_dir(dir).env("CARGO_TARGET_DIR", cache().join("rust"));
    for name in ["RUSTFLAGS", "CARGO_MAKEFLAGS", "MAKEFLAGS", "RUSTC_WORKSPACE_WRAPPER"] {
        cargo.env_remove(name);
    }
    run(&mut cargo).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn rust_models_accept_each_example_and_reject_each_counterexample() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("src")).unwrap();
    fs::create_dir_all(dir.path().join("tests")).unwrap();
    fs::write(dir.path().join("catalogue.json"), manifest().to_string()).unwrap();
    fs::write(dir.path().join("tests/models.rs"), include_str!("models_test.rs")).unwrap();
    let mut modules = Vec::new();
    for made in made(Language::Rust, ALL) {
        fs::write(dir.path().join(format!("src/{}.rs", made.name)), made.text).unwrap();
        modules.push(made.name);
    }
    cargo(dir.path(), &modules, &["test"]);
}

#[test]
fn rust_files_are_formatted_and_without_warnings_with_every_option() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("src")).unwrap();
    let mut modules = Vec::new();
    for (index, options) in combinations().enumerate() {
        for made in made(Language::Rust, options) {
            let name = format!("{}_{index}", made.name);
            fs::write(dir.path().join(format!("src/{name}.rs")), made.text).unwrap();
            modules.push(name);
        }
    }
    for edition in ["2021", "2024"] {
        let mut rustfmt = Command::new("rustfmt");
        rustfmt.args(["--check", "--edition", edition]).args(modules.iter().map(|name| format!("src/{name}.rs")));
        run(rustfmt.current_dir(dir.path())).unwrap_or_else(|error| panic!("{error}"));
    }
    cargo(dir.path(), &modules, &["check"]);
}
