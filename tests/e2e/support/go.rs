//! Go for tests: a program of `tests/e2e/apps`, built once with the modules that a test names.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use super::packages::{folder, run};

/// The built program of that name (`sarama` of `sarama.go`), with these modules (`["github.com/IBM/sarama@v1.61.1"]`, as go writes them).
/// `None`, with a printed reason, where Go or a module cannot be had; a panic with `CI=true`.
pub fn program(name: &str, modules: &[&str]) -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/apps").join(name).with_extension("go");
    let text = std::fs::read_to_string(&source).unwrap();
    // Another text is another program.
    let key: Vec<&str> = modules.iter().copied().chain([text.as_str()]).collect();
    let made = folder("go", &key, |folder| {
        let go = |args: &[&str]| run(Command::new("go").args(args).current_dir(folder));
        std::fs::write(folder.join("main.go"), &text).map_err(|error| error.to_string())?;
        go(&["mod", "init", name])?;
        go(&[&["get"], modules].concat())?;
        go(&["build", "-o", name, "."])
    })?;
    Some(made.join(name))
}
