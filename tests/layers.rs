//! The map holds: a module uses only those above it in `lib.rs`'s list, and each client library is named in its own folder alone.
//!
//! Read from the source's tokens, so that a path in a comment or a string counts for nothing and one in a `use` tree is seen whole.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{collections::BTreeMap, fs, path::Path};

/// The libraries that only one module may name.
const ADAPTERS: [(&str, &str); 3] = [("rdkafka", "kafka"), ("rdkafka_sys", "kafka"), ("redis", "store")];

/// What `lib.rs` declares: its modules in order, and which of them each re-exported name comes from.
struct Map {
    modules: Vec<String>,
    reexports: BTreeMap<String, String>,
}

/// One source file.
struct Source {
    /// Path below `src`, with `/`.
    file: String,
    text: String,
}

impl Source {
    fn new(file: &str, text: &str) -> Self {
        Self { file: file.to_owned(), text: text.to_owned() }
    }

    /// The top-level module it belongs to; `None` for `lib.rs` and `main.rs`, which may use everything.
    fn module(&self) -> Option<&str> {
        let module = self.file.split('/').next().unwrap().trim_end_matches(".rs");
        Some(module).filter(|module| !["lib", "main"].contains(module))
    }

    /// How many `super::` lead from the file's own items to the crate's root.
    fn depth(&self) -> usize {
        self.file.trim_end_matches("/mod.rs").split('/').count()
    }
}

impl Map {
    fn read(lib: &str) -> Self {
        let paths = paths(lib);
        let modules: Vec<_> = paths.iter().filter(|path| path.kind == Kind::Mod).map(|path| path.segments[0].clone()).collect();
        let reexports = paths
            .iter()
            .filter(|path| path.kind == Kind::Use)
            .map(|path| path.segments.iter().skip_while(|segment| ["crate", "self"].contains(&segment.as_str())).collect::<Vec<_>>())
            .filter(|path| path.first().is_some_and(|first| modules.contains(first)))
            .map(|path| ((*path.last().unwrap()).clone(), path[0].clone()))
            .collect();
        Self { modules, reexports }
    }

    /// Every use of a lower module, and every client library out of its place.
    fn violations(&self, source: &Source) -> Vec<String> {
        let Some(module) = source.module() else { return Vec::new() };
        let Some(own) = self.modules.iter().position(|known| known == module) else {
            return vec![format!("src/{}: module {module} is not declared in lib.rs", source.file)];
        };
        let paths = paths(&source.text);
        let mut found = Vec::new();
        for path in &paths {
            let supers = path.segments.iter().take_while(|segment| *segment == "super").count();
            let from_root = match path.segments[0].as_str() {
                "crate" => path.segments.get(1),
                "super" if supers >= source.depth() => path.segments.get(supers),
                _ => None,
            };
            let target = from_root.map(|name| self.reexports.get(name).unwrap_or(name));
            if let Some(below) = target.and_then(|target| self.modules.iter().position(|known| known == target)).filter(|at| *at > own) {
                let below = &self.modules[below];
                found.push(format!("src/{}:{}: `{module}` stands above `{below}` in lib.rs and may not use it", source.file, path.line));
            }
            for (library, home) in ADAPTERS {
                let local = paths.iter().any(|other| {
                    other.kind != Kind::Plain && other.segments.len() > usize::from(other.kind == Kind::Use) && other.binds == library
                });
                if path.kind != Kind::Mod && path.segments[0] == library && module != home && !local {
                    found.push(format!("src/{}:{}: only `{home}` may name {library}", source.file, path.line));
                }
            }
        }
        found
    }
}

// === Paths in source text ===

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `mod name;`
    Mod,
    /// A leaf of a `use` tree, written out whole.
    Use,
    /// Anywhere else: `crate::store::X`, `redis::cmd`.
    Plain,
}

#[derive(Debug)]
struct PathUse {
    kind: Kind,
    segments: Vec<String>,
    /// The name that it brings into the file.
    binds: String,
    line: usize,
}

/// Every path of two segments or more, every `use` and every `mod`.
fn paths(text: &str) -> Vec<PathUse> {
    let tokens = tokens(text);
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let (token, line) = (&tokens[at].0, tokens[at].1);
        let sign = |back: usize| at.checked_sub(back).map_or("", |at| tokens[at].0.as_str());
        let after_path = sign(1) == "." || (sign(1) == ":" && sign(2) == ":" && (is_name(sign(3)) || sign(3) == ">"));
        if token == "use" && tokens.get(at + 1).is_some_and(|next| next.0 != "<") {
            at = use_tree(&tokens, at + 1, &[], &mut found);
        } else if token == "mod" && tokens.get(at + 1).is_some_and(|next| is_name(&next.0)) {
            let name = tokens[at + 1].0.clone();
            found.push(PathUse { kind: Kind::Mod, segments: vec![name.clone()], binds: name, line });
            at += 2;
        } else if is_name(token) && !after_path {
            let (segments, next) = segments(&tokens, at);
            if segments.len() > 1 {
                found.push(PathUse { kind: Kind::Plain, binds: String::new(), segments, line });
            }
            at = next;
        } else {
            at += 1;
        }
    }
    found
}

/// `a::b::c` from `at` on, and where it ends: behind the last `::` where a group or a star follows.
fn segments(tokens: &[(String, usize)], mut at: usize) -> (Vec<String>, usize) {
    let mut segments = Vec::new();
    while tokens.get(at).is_some_and(|token| is_name(&token.0)) {
        segments.push(tokens[at].0.clone());
        at += 1;
        if tokens.get(at).is_none_or(|token| token.0 != ":") || tokens.get(at + 1).is_none_or(|token| token.0 != ":") {
            break;
        }
        at += 2;
    }
    (segments, at)
}

/// One branch of a `use` tree under `prefix`; answers where it ends.
fn use_tree(tokens: &[(String, usize)], at: usize, prefix: &[String], found: &mut Vec<PathUse>) -> usize {
    let line = tokens.get(at).map_or(0, |token| token.1);
    let leading = tokens[at..].iter().take_while(|token| token.0 == ":").count();
    let (own, mut at) = segments(tokens, at + leading);
    let path = [prefix, &own].concat();
    match tokens.get(at).map(|token| token.0.as_str()) {
        Some("{") => {
            at += 1;
            while tokens.get(at).is_some_and(|token| token.0 != "}") {
                at = use_tree(tokens, at, &path, found);
                at += usize::from(tokens.get(at).is_some_and(|token| token.0 == ","));
            }
            return at + 1;
        }
        Some("as") => found.push(PathUse { kind: Kind::Use, binds: tokens[at + 1].0.clone(), segments: path, line }),
        _ if !path.is_empty() => found.push(PathUse { kind: Kind::Use, binds: path.last().unwrap().clone(), segments: path, line }),
        _ => {}
    }
    while tokens.get(at).is_some_and(|token| ![",", "}", ";"].contains(&token.0.as_str())) {
        at += 1;
    }
    at
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Names and single signs with their lines; comments, strings, characters and numbers are left out.
fn tokens(text: &str) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    let (mut rest, mut line) = (text, 1);
    while let Some(first) = rest.chars().next() {
        let name = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let raw = rest.strip_prefix('b').unwrap_or(rest).strip_prefix('r').map(|text| text.len() - text.trim_start_matches('#').len());
        let raw = raw.filter(|hashes| rest.trim_start_matches('b')[1 + hashes..].starts_with('"'));
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(hashes) = raw {
            let open = rest.find('"').unwrap() + 1;
            let close = format!("\"{}", "#".repeat(hashes));
            rest[open..].find(&close).map_or(rest.len(), |end| open + end + close.len())
        } else if first == '"' {
            quoted(rest, '"')
        } else if first == '\'' {
            // 'a' and '\n' are characters, 'a alone is a lifetime.
            let character = rest[1..].starts_with('\\') || rest[1..].chars().nth(1) == Some('\'');
            if character { quoted(rest, '\'') } else { 1 }
        } else if name > 0 {
            if is_name(rest) {
                found.push((rest[..name].to_owned(), line));
            }
            name
        } else {
            if !first.is_whitespace() {
                found.push((first.to_string(), line));
            }
            first.len_utf8()
        };
        line += rest[..length].matches('\n').count();
        rest = &rest[length..];
    }
    found
}

/// Length of a quoted literal with its quotes.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

// === This crate ===

fn sources(folder: &Path, below: &str, found: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let name = format!("{below}{}", entry.file_name().to_str().unwrap());
        if entry.path().is_dir() {
            sources(&entry.path(), &format!("{name}/"), found);
        } else if name.ends_with(".rs") {
            found.push(Source { text: fs::read_to_string(entry.path()).unwrap(), file: name });
        }
    }
}

fn read(folder: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    if folder.is_dir() {
        sources(&folder, "", &mut found);
    }
    found
}

#[test]
fn every_module_uses_only_those_above_it() {
    let sources = read("src");
    let map = Map::read(&sources.iter().find(|source| source.file == "lib.rs").unwrap().text);
    assert!(map.modules.len() > 10, "lib.rs was not understood: {:?}", map.modules);
    let violations: Vec<_> = sources.iter().flat_map(|source| map.violations(source)).collect();
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}

#[test]
fn every_dependency_is_used() {
    let manifest: toml::Table = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).unwrap().parse().unwrap();
    let ignored = manifest["package"].get("metadata").and_then(|metadata| metadata.get("cargo-machete")?.get("ignored")?.as_array());
    let ignored: Vec<_> = ignored.into_iter().flatten().filter_map(toml::Value::as_str).collect();
    let product = read("src");
    let tests: Vec<_> = ["src", "tests", "benches", "examples"].into_iter().flat_map(read).collect();
    for (table, sources) in [("dependencies", &product), ("dev-dependencies", &tests)] {
        for name in manifest[table].as_table().unwrap().keys().filter(|name| !ignored.contains(&name.as_str())) {
            let name = name.replace('-', "_");
            let used = sources.iter().flat_map(|source| tokens(&source.text)).any(|(token, _)| token == name);
            assert!(used, "{name} of [{table}] is named nowhere: remove it from Cargo.toml");
        }
    }
}

// === The check itself ===

fn checked(file: &str, text: &str) -> Vec<String> {
    let lib =
        "/// Doc.\npub mod config;\npub mod engine;\nmod kafka;\npub mod store;\npub use store::memory::MemoryStore;\npub const A: u8 = 1;";
    Map::read(lib).violations(&Source::new(file, text))
}

#[test]
fn a_lower_module_is_found_in_every_way_of_naming_it() {
    for text in [
        "use crate::store::Redis;",
        "use crate::{config::Config, store};",
        "pub use crate::{\n config::{self, Config},\n store::{memory::MemoryStore as M},\n};",
        "fn f() { let x = crate::store::new(); }",
        "use crate::MemoryStore;",
        "use super::store;",
        "use crate::store::*;",
    ] {
        let found = checked("engine.rs", text);
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert!(found[0].contains("`engine` stands above `store`"), "{found:?}");
    }
    assert_eq!(checked("engine/lane.rs", "use super::super::store;").len(), 1);
    assert_eq!(
        checked("engine/lane.rs", "\n\n fn f(c: crate::kafka::C) {}"),
        ["src/engine/lane.rs:3: `engine` stands above `kafka` in lib.rs and may not use it"]
    );
}

#[test]
fn what_is_above_or_no_path_at_all_is_no_violation() {
    for text in [
        "use crate::{config::Config, engine::Lane, A};",
        "// use crate::store::Redis;",
        "/* crate::store */ /// crate::store\nfn f() {}",
        "const S: &str = \"crate::store::X\"; const R: &str = r#\"crate::store \"quoted\" redis::cmd\"#;",
        "fn f<'a>(c: char) -> bool { c == '\\'' || c == '\"' }",
        "use super::lane; mod tests { use super::*; }",
    ] {
        assert_eq!(checked("engine.rs", text), [""; 0], "{text}");
    }
    assert_eq!(checked("engine/lane.rs", "use super::store;"), [""; 0], "a submodule of engine's own");
    assert_eq!(checked("main.rs", "use worker::{store, redis::X};"), [""; 0]);
}

#[test]
fn a_client_library_is_found_outside_of_its_module() {
    for text in
        ["use redis::Client;", "fn f() { redis::cmd(\"GET\"); }", "use ::redis as r;", "use redis;", "fn f() -> Vec<::redis::Value> {}"]
    {
        assert_eq!(checked("engine.rs", text).len(), 1, "{text}");
        assert_eq!(checked("store/redis.rs", text), [""; 0], "{text}");
    }
    assert_eq!(checked("store.rs", "use rdkafka::{Message, Offset};").len(), 2);
    assert_eq!(checked("store.rs", "use rdkafka_sys as ffi;").len(), 1);
    assert_eq!(checked("config.rs", "pub mod redis; struct C { store: redis::StoreConfig }"), [""; 0], "a module of that name");
    assert_eq!(
        checked("engine.rs", "use crate::config::redis; fn f(c: redis::StoreConfig) {}"),
        [""; 0],
        "a module of that name, imported"
    );
}

#[test]
fn an_undeclared_module_is_found() {
    assert_eq!(checked("stray.rs", ""), ["src/stray.rs: module stray is not declared in lib.rs"]);
}
