//! Generated models, run by the languages they are for: Python with Pydantic, TypeScript with tsc and node, Rust as a part of this program.
//!
//! The languages' tests are beside this file; this one generates the models of the shipped catalogue and of the fixtures, and tells the
//! tests in `catalogue.json` what the catalogue says of each type.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "../e2e/support/node.rs"]
mod node;
#[path = "../e2e/support/packages.rs"]
mod packages;
#[path = "../e2e/support/python.rs"]
mod python;

mod choices;
mod json_schema;
mod pydantic;
mod rust;
mod typescript;

use std::{collections::BTreeSet, path::Path};

use serde_json::{Value, json};
use worker::{
    codegen::{Language, Options, generate},
    event::{Catalog, EventType, upcast::upcast},
};

const ALL: Options = Options { metadata: true, validation: true, versioning: true };

/// A generated file of one domain of one catalogue.
struct Made {
    /// Name without extension: the domain; for a fixture with its folder before it.
    name: String,
    text: String,
    unchecked: Vec<String>,
}

fn fixture(name: &str) -> Catalog {
    Catalog::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)).unwrap()
}

/// The shipped catalogue; one whose type has a history; one that uses every keyword that models know.
fn catalogs() -> [(&'static str, Catalog); 3] {
    [("", Catalog::embedded().unwrap()), ("historic_", fixture("catalog")), ("keywords_", fixture("keywords"))]
}

/// Every domain of every catalogue.
fn made(language: Language, options: Options) -> Vec<Made> {
    let mut all = Vec::new();
    for (prefix, catalog) in catalogs() {
        let domains: BTreeSet<_> = catalog.types().map(|kind| kind.domain.clone()).collect();
        for domain in domains {
            let made = generate(&catalog, &domain, &[], language, options).unwrap();
            all.push(Made { name: format!("{prefix}{domain}"), text: made.text, unchecked: made.unchecked });
        }
    }
    all
}

/// What the tests of the languages have to know of every type.
fn manifest() -> Value {
    let mut types = Vec::new();
    for (prefix, catalog) in catalogs() {
        types.extend(catalog.types().map(|kind| described(prefix, kind)));
    }
    types[0]["times"] = serde_json::from_str(include_str!("../fixtures/times.json")).unwrap();
    types.into()
}

fn described(prefix: &str, kind: &EventType) -> Value {
    let words =
        |name: &str| -> String { name.split(['.', '_']).map(|word| format!("{}{}", word[..1].to_ascii_uppercase(), &word[1..])).collect() };
    let first = kind.name.split('.').next().unwrap();
    let own = kind.domain == first || kind.domain.strip_suffix('s') == Some(first);
    let event = if own { words(first) } else { words(kind.domain.trim_end_matches('s')) };
    let past = kind.past.iter().map(|past| {
        json!({ "version": past.version.to_string(), "example": past.example, "current": upcast(&past.example, kind.upcast_from(past.version)) })
    });
    let counterexamples = kind.counterexamples.iter().map(|one| json!({ "why": one.why, "data": one.data }));
    json!({
        "type": &*kind.name, "module": format!("{prefix}{}", kind.domain), "event": format!("{event}Event"),
        "payload": format!("{}Payload", words(&kind.name)), "version": kind.version.to_string(), "aliases": kind.aliases,
        "example": kind.example, "counterexamples": counterexamples.collect::<Vec<_>>(), "filled": kind.fill, "past": past.collect::<Vec<_>>(),
    })
}

/// Every combination of the three options.
fn combinations() -> impl Iterator<Item = Options> {
    (0..8).map(|bits| Options { metadata: bits & 1 != 0, validation: bits & 2 != 0, versioning: bits & 4 != 0 })
}
