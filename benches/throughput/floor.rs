//! The floor: what it costs before anything of the worker is in between.

mod batch;
mod envelope;
mod ledger;
mod post;
mod publish;

use std::sync::Arc;

use self::batch::Reader;
pub use self::{
    envelope::Envelope,
    ledger::{Keep, Parse, ledger},
    post::{Form, Posts, post},
    publish::publish,
};
use crate::{meter::Meter, stack::Stack};

/// Reads the records and gives them back.
///
/// # Errors
/// Where the client cannot be made.
pub fn poll(stack: &Stack, topic: &str, meter: &Arc<Meter>) -> anyhow::Result<()> {
    each_batch(stack, topic, meter, |_| {})
}

/// Copies each record out, and parses its envelope with borrowed strings, `data` untouched, on the polling thread.
///
/// # Errors
/// Where the client cannot be made.
pub fn parse(stack: &Stack, topic: &str, meter: &Arc<Meter>) -> anyhow::Result<()> {
    each_batch(stack, topic, meter, |value| {
        let copy: Box<[u8]> = value.into();
        std::hint::black_box(Envelope::read(&copy));
    })
}

/// Looks at each record, for ever.
///
/// # Errors
/// Where the client cannot be made.
pub fn each(stack: &Stack, topic: &str, mut look: impl FnMut(&[u8])) -> anyhow::Result<()> {
    let reader = Reader::start(stack, topic)?;
    let mut batch = Vec::with_capacity(batch::READ);
    loop {
        reader.read(&mut batch);
        for record in batch.drain(..) {
            look(record.value());
        }
    }
}

fn each_batch(stack: &Stack, topic: &str, meter: &Arc<Meter>, each: impl Fn(&[u8])) -> anyhow::Result<()> {
    let reader = Reader::start(stack, topic)?;
    let mut batch = Vec::with_capacity(batch::READ);
    loop {
        reader.read(&mut batch);
        for record in &batch {
            each(record.value());
        }
        let read = batch.len() as u64;
        batch.clear();
        if read > 0 && meter.add(read) {
            return Ok(());
        }
    }
}
