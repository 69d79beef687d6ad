//! What the pages promise: every test that they name exists, every promise names one, every known fault has its row.

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

/// Where the tests of a suite stand.
const SUITES: [(&str, &str); 6] = [
    ("it", "tests/it"),
    ("e2e", "tests/e2e"),
    ("unit", "src"),
    ("contract", "tests/contract"),
    ("sim", "tests/sim"),
    ("soak", "tests/soak"),
];

/// What a page names in backticks as `it::..`, `e2e::..`, `unit::..`: the suite and the test.
fn named(page: &str) -> Vec<(&str, &str)> {
    let quoted = page.split('`').skip(1).step_by(2);
    quoted
        .filter_map(|name| name.split_once("::"))
        .filter(|(suite, test)| SUITES.iter().any(|(known, _)| known == suite) && !test.is_empty())
        .collect()
}

fn exists(sources: &str, test: &str) -> bool {
    sources.contains(&format!("fn {test}("))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// The cells of a page's table rows.
fn rows(page: &str) -> Vec<Vec<&str>> {
    let rows = page.lines().filter(|line| line.starts_with('|') && !line.starts_with("|---"));
    rows.filter_map(|line| line.strip_prefix('|')?.strip_suffix('|')).map(|row| row.split('|').map(str::trim).collect()).collect()
}

#[test]
fn every_test_that_the_docs_name_exists() {
    let sources = SUITES.map(|(suite, folder)| (suite, text(&root().join(folder), "rs")));
    let pages = text(&root().join("docs"), "md") + &page("tests/faults.md") + &page("ARCHITECTURE.md") + &page("tests/README.md");
    let named = named(&pages);
    assert!(named.len() > 120, "the pages were not understood");
    let missing: Vec<_> =
        named.into_iter().filter(|(suite, test)| !sources.iter().any(|(known, sources)| known == suite && exists(sources, test))).collect();
    assert!(missing.is_empty(), "named in docs, and nowhere to be found: {missing:#?}");
}

#[test]
fn every_promise_names_the_tests_that_prove_it() {
    let page = page("ARCHITECTURE.md");
    let table = page.split("## What is promised").nth(1).unwrap();
    let promises: Vec<_> = rows(table).into_iter().skip(1).collect();
    assert!(promises.len() > 12);
    for row in promises {
        assert_eq!(row.len(), 4, "{row:?}");
        let names = row[3].split('`').skip(1).step_by(2).count();
        assert!(names > 0 && names == named(row[3]).len(), "{}: not every proof is a test's name: {}", row[0], row[3]);
    }
}

#[test]
fn every_known_fault_has_one_row_with_a_test_or_a_reason() {
    let page = page("tests/faults.md");
    let rows = rows(&page);
    for number in 1..=93 {
        let of_it: Vec<_> = rows.iter().filter(|row| row[0] == format!("F{number:02}")).collect();
        assert_eq!(of_it.len(), 1, "F{number:02}");
        assert!(of_it[0].len() == 3 && of_it[0][2].len() > 5, "F{number:02}: {:?}", of_it[0]);
    }
}

#[test]
fn a_name_is_found_in_backticks_and_a_test_by_its_function() {
    let page = "`it::a_b` and `unit::c`, not it::d, `worker::e` or `it::`; `e2e::f`";
    assert_eq!(named(page), [("it", "a_b"), ("unit", "c"), ("e2e", "f")]);
    assert_eq!(rows("| a | b |\n|---|---|\n| c | |"), [["a", "b"], ["c", ""]]);
    assert!(exists("async fn a_b() {", "a_b") && !exists("fn a_b_c() {", "a_b"));
}
