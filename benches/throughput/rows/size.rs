//! How large the worker's program is on disk, as it is shipped.

use std::process::Command;

use anyhow::Context as _;

use crate::{
    meter::{Measured, mib},
    row::{Bench, Goal, Row},
};

const SIZE: &str = "MiB";

/// One.
pub const ROWS: &[Row] = &[Row {
    name: "size",
    about: "size of the worker's program, stripped",
    floor: None,
    goals: &[Goal::Most(SIZE, 25.0)],
    part: None,
    measure: size,
}];

/// A bench build keeps its symbols; the code is the release's.
fn size(bench: &Bench) -> anyhow::Result<Measured> {
    let stripped = tempfile::NamedTempFile::new()?.into_temp_path();
    let status = Command::new("strip").arg("-o").arg(&*stripped).arg(&bench.binary).status().context("strip, of the C compiler's tools")?;
    anyhow::ensure!(status.success(), "strip ended with {status}");
    let bytes = std::fs::metadata(&stripped)?.len();
    Ok(Measured { figures: [(SIZE.to_owned(), mib(bytes))].into(), ..Measured::default() })
}
