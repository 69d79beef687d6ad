//! The outbox's contract in memory.

use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use worker::store::outbox::{CLAIM_TIME, MemoryOutbox, Outbox};

use crate::outbox_contract::OutboxBench;

#[derive(Default)]
struct Memory(MemoryOutbox);

impl OutboxBench for Memory {
    fn outboxes(&self) -> [&dyn Outbox; 2] {
        [&self.0, &self.0]
    }

    fn pass(&self, time: Duration) -> BoxFuture<'_, ()> {
        tokio::time::advance(time).boxed()
    }

    fn expire<'a>(&'a self, _user: &'a str) -> BoxFuture<'a, ()> {
        tokio::time::advance(CLAIM_TIME).boxed()
    }
}

async fn memory() -> Option<Memory> {
    Some(Memory::default())
}

crate::outbox_contract!(tokio::test(start_paused = true), memory);
