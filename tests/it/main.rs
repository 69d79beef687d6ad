//! Integration tests that need nothing installed: the embedded broker, and the store in memory.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "../contract/store.rs"]
mod contract;
mod engine;
mod rig;
mod store;
