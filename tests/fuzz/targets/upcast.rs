//! Any data in any version of any type: upcasting and validating never panic, and a current version has no steps to go.
//!
//! The first byte picks the type, the second its version; the rest is the data as JSON.

#![no_main]

use std::{
    path::Path,
    sync::{Arc, LazyLock},
};

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use worker::event::{Catalog, EventType, Version, upcast::upcast};

/// The shipped types, and those of the fixtures: one with a history, one with every keyword that schemas may use.
static TYPES: LazyLock<Vec<Arc<EventType>>> = LazyLock::new(|| {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures");
    let mut catalogs = vec![Catalog::embedded().expect("the catalogue in the binary")];
    catalogs.extend(["catalog", "keywords"].map(|folder| Catalog::load(&fixtures.join(folder)).expect("a catalogue of the fixtures")));
    catalogs.iter().flat_map(|catalog| catalog.types().cloned().collect::<Vec<_>>()).collect()
});

fuzz_target!(|input: &[u8]| {
    let [which, version, data @ ..] = input else { return };
    let kind = &TYPES[usize::from(*which) % TYPES.len()];
    let versions: Vec<Version> = kind.past.iter().map(|past| past.version).chain([kind.version]).collect();
    let from = versions[usize::from(*version) % versions.len()];
    let Ok(data) = serde_json::from_slice::<Value>(data) else { return };
    let current = upcast(&data, kind.upcast_from(from));
    if from == kind.version {
        assert_eq!(current, data);
    }
    let verdict = kind.schema.check(&current);
    assert_eq!(verdict, kind.schema.check(&current), "a verdict is the same each time");
    if let Err(error) = verdict {
        assert!(error.len() < 400, "an error is no copy of the payload");
    }
});
