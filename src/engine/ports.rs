//! What the engine needs from outside, as traits: a source of partitions, a sink for offsets, a publisher for dead letters, a store
//! for what has happened. Kafka and Redis implement them in their own folders, a simulation can in a test.

mod offsets;
mod publisher;
mod source;
mod store;

pub use self::{
    offsets::{Commit, CommitError, OffsetSink},
    publisher::{Acked, Message, PublishError, Publisher},
    source::{Assignment, Committed, Gate, LogReader, ReadError, SourceEvent, weight},
    store::{Acquired, Check, DedupeStore, EventRecord, HandlerRecord, HandlerState, Lease, Member, Remembered, Renewed, StoreError},
};
