//! How needs grow with users, partitions and blocked users, at steps of ten: what `docs/capacity.md` and `worker plan` are made from.

pub mod blocked;
pub mod partitions;
pub mod users;
