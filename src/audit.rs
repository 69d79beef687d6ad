//! Records that show when one of them is missing: lines of JSON, each with the hash of the one before it.
//!
//! A *chain* has one writer. Its records are numbered from 1; the first, and the first of each file, says where it comes from (`open`). A
//! record's hash is the SHA-256 of its line up to `,"hash"`, so that nothing but a hash function is needed to check it:
//!
//! ```text
//! {"seq":2,"prev":"<hash of 1>","chain":"worker-0","at":"..","event":{..},"hash":".."}
//! ```

pub mod chain;
pub mod journal;
pub mod verify;
pub mod writer;
