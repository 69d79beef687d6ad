//! The engine: decode, check, handle, settle, commit.

pub mod ports;
