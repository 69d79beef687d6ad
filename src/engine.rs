//! The engine: decode, check, handle, settle, commit.

pub mod member;
pub mod ports;
