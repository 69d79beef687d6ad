//! How needs grow with users, partitions and blocked users, at steps of ten: what `docs/capacity.md` and `worker plan` are made from.

pub mod blocked;
pub mod partitions;
pub mod users;

use crate::{
    meter::Measured,
    row::{Bench, Row},
};

/// A row that is told against nothing.
const fn step(name: &'static str, about: &'static str, measure: fn(&Bench) -> anyhow::Result<Measured>) -> Row {
    Row { name, about, floor: None, goals: &[], part: None, measure }
}
