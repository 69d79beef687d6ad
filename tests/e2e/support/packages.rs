//! Packages of other languages that tests need, fetched once and kept outside the clone.
//!
//! `$XDG_CACHE_HOME/worker-tests/<language>-<hash of the packages>`, complete or not there at all. Another test crate takes these files
//! in with `#[path]`.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
};

/// The folder of these packages: as it was left by an earlier test, or made by `install` now. `None`, with a printed reason, where the
/// language or a package cannot be had; a panic with `CI=true`.
pub fn folder(language: &str, packages: &[&str], install: impl FnOnce(&Path) -> Result<(), String>) -> Option<PathBuf> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let cache = cache();
    let mut key = DefaultHasher::new();
    packages.hash(&mut key);
    let folder = cache.join(format!("{language}-{:016x}", key.finish()));
    if folder.is_dir() {
        return Some(folder);
    }
    let work = cache.join(format!("{language}-{}.part", uuid::Uuid::new_v4().simple()));
    std::fs::create_dir_all(&work).unwrap();
    let stack = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stack");
    if let Err(reason) = run(Command::new(stack).args(["tool", language])).and_then(|()| install(&work)) {
        let _ = std::fs::remove_dir_all(&work);
        let named: Vec<&str> = packages.iter().copied().filter(|package| !package.contains('\n')).collect();
        let reason = format!("{language} with {}: {reason}", named.join(", "));
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{reason}");
        eprintln!("skipped: {reason}");
        return None;
    }
    // Another process may have been faster: then its folder is the one.
    if std::fs::rename(&work, &folder).is_err() {
        let _ = std::fs::remove_dir_all(&work);
    }
    Some(folder)
}

/// Where tests keep what is costly to make: outside the clone, the same for every clone.
pub fn cache() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/tmp".into())).join(".cache");
    std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from).join("worker-tests")
}

/// Runs a command to its end; the error is what it said.
pub fn run(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}\n{}{}", output.status, String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}
