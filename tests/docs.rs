//! What the pages under `docs` promise: every test that they name exists.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{fs, path::Path};

/// Every file below `folder` that ends in `.{extension}`, as one text.
fn text(folder: &Path, extension: &str) -> String {
    let mut all = String::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            all.push_str(&text(&path, extension));
        } else if path.extension().is_some_and(|found| found == extension) {
            all.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
    all
}

/// What a page names in backticks as `it::..`, `e2e::..`, `unit::..`: the suite and the test.
fn named(page: &str) -> Vec<(&str, &str)> {
    let quoted = page.split('`').skip(1).step_by(2);
    quoted
        .filter_map(|name| name.split_once("::"))
        .filter(|(suite, test)| ["it", "e2e", "unit"].contains(suite) && !test.is_empty())
        .collect()
}

fn exists(sources: &str, test: &str) -> bool {
    sources.contains(&format!("fn {test}("))
}

#[test]
fn every_test_that_the_docs_name_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = [("it", root.join("tests/it")), ("e2e", root.join("tests/e2e")), ("unit", root.join("src"))];
    let sources = sources.map(|(suite, folder)| (suite, text(&folder, "rs")));
    let pages = text(&root.join("docs"), "md");
    let named = named(&pages);
    assert!(named.len() > 20, "the pages were not understood");
    let missing: Vec<_> =
        named.into_iter().filter(|(suite, test)| !sources.iter().any(|(known, sources)| known == suite && exists(sources, test))).collect();
    assert!(missing.is_empty(), "named in docs, and nowhere to be found: {missing:#?}");
}

#[test]
fn a_name_is_found_in_backticks_and_a_test_by_its_function() {
    let page = "`it::a_b` and `unit::c`, not it::d, `worker::e` or `it::`; `e2e::f`";
    assert_eq!(named(page), [("it", "a_b"), ("unit", "c"), ("e2e", "f")]);
    assert!(exists("async fn a_b() {", "a_b") && !exists("fn a_b_c() {", "a_b"));
}
