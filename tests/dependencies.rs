//! What the binary is made of: licences, sources and banned crates, by the rules of `.deny.toml`, with nothing but cargo.
//!
//! `cargo deny` reads the same file and looks at more (advisories, doubled versions); building it costs more than building the
//! worker, so `make check` runs it only where it is installed.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{collections::BTreeSet, fs, process::Command};

/// One crate that goes into the binary or its build.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Crate {
    name: String,
    licence: String,
    /// Where it comes from; `None`: crates.io.
    source: Option<String>,
}

/// Every crate of the normal and build graph on one target.
fn crates(target: &str) -> BTreeSet<Crate> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--edges", "normal,build", "--prefix", "none", "--format", "{p}|{l}", "--target", target])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().skip(1).filter_map(parse).collect()
}

/// A line of `cargo tree`: `name v1.0 (source)|licence (*)`.
fn parse(line: &str) -> Option<Crate> {
    let (package, licence) = line.trim_end_matches(" (*)").split_once('|')?;
    let (name, rest) = package.split_once(' ')?;
    let source = rest.split_once(" (").map(|(_, source)| source.trim_end_matches(')').to_owned());
    Some(Crate { name: name.to_owned(), licence: licence.to_owned(), source: source.filter(|source| source != "proc-macro") })
}

/// Whether an SPDX expression can be satisfied with `allowed`. The old `MIT/Apache-2.0` reads as OR.
fn allows(expression: &str, allowed: &[&str]) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut words: Vec<_> = spaced.split_whitespace().rev().collect();
    any(&mut words, allowed) && words.is_empty()
}

/// `a OR b`: every branch is read, one has to do.
fn any(words: &mut Vec<&str>, allowed: &[&str]) -> bool {
    let mut found = all(words, allowed);
    while words.pop_if(|word| *word == "OR").is_some() {
        found |= all(words, allowed);
    }
    found
}

/// `a AND b`, which binds more closely.
fn all(words: &mut Vec<&str>, allowed: &[&str]) -> bool {
    let mut found = one(words, allowed);
    while words.pop_if(|word| *word == "AND").is_some() {
        found &= one(words, allowed);
    }
    found
}

fn one(words: &mut Vec<&str>, allowed: &[&str]) -> bool {
    match words.pop() {
        Some("(") => {
            let found = any(words, allowed);
            found & words.pop_if(|word| *word == ")").is_some()
        }
        // An exception only adds rights.
        Some(licence) => {
            if words.pop_if(|word| *word == "WITH").is_some() {
                words.pop();
            }
            allowed.contains(&licence)
        }
        None => false,
    }
}

fn rules() -> toml::Table {
    fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/.deny.toml")).unwrap().parse().unwrap()
}

fn texts(list: &toml::Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|item| item.as_str().unwrap()).collect()
}

#[test]
fn every_crate_may_be_shipped_under_our_licence() {
    let rules = rules();
    let allowed = texts(&rules["licenses"]["allow"]);
    for target in texts(&rules["graph"]["targets"]) {
        let refused: Vec<_> = crates(target).into_iter().filter(|found| !allows(&found.licence, &allowed)).collect();
        assert!(refused.is_empty(), "licences that .deny.toml does not allow: {refused:#?}");
    }
}

#[test]
fn every_crate_comes_from_the_registry_and_none_is_banned() {
    let rules = rules();
    let banned: Vec<_> = rules["bans"]["deny"].as_array().unwrap().iter().map(|ban| ban["crate"].as_str().unwrap()).collect();
    for target in texts(&rules["graph"]["targets"]) {
        let crates = crates(target);
        assert!(crates.len() > 100, "cargo tree was not understood: {crates:?}");
        let foreign: Vec<_> = crates.iter().filter(|found| found.source.is_some()).collect();
        assert!(foreign.is_empty(), "not from the registry: {foreign:#?}");
        let present: Vec<_> = crates.iter().filter(|found| banned.contains(&found.name.as_str())).collect();
        assert!(present.is_empty(), "banned by .deny.toml; `cargo tree -i` says who brings them: {present:#?}");
    }
}

#[test]
fn licence_expressions_mean_what_spdx_says() {
    let allowed = ["MIT", "Apache-2.0", "ISC"];
    for good in
        ["MIT", "GPL-3.0 OR MIT", "MIT/GPL-3.0", "(GPL-3.0 OR MIT) AND ISC", "Apache-2.0 WITH LLVM-exception", "MIT AND ISC OR GPL-3.0"]
    {
        assert!(allows(good, &allowed), "{good}");
    }
    for bad in ["", "GPL-3.0", "MIT AND GPL-3.0", "GPL-3.0 OR MIT AND MPL-2.0", "(MIT", "MIT ISC", "GPL-2.0 WITH Classpath-exception-2.0"] {
        assert!(!allows(bad, &allowed), "{bad}");
    }
}

#[test]
fn a_line_of_cargo_tree_is_read_with_its_source() {
    let read = |line| parse(line).map(|found| (found.name, found.licence, found.source));
    assert_eq!(
        read("serde_derive v1.0.1 (proc-macro)|MIT OR Apache-2.0 (*)"),
        Some(("serde_derive".into(), "MIT OR Apache-2.0".into(), None))
    );
    assert_eq!(read("x v1.0.0 (https://example.org/x#1)|MIT"), Some(("x".into(), "MIT".into(), Some("https://example.org/x#1".into()))));
}
