//! Kind `forward`: the same event on another topic, for whoever reads only that one.

use std::sync::Arc;

use bytes::Bytes;

use super::outlet::Outlet;
use crate::{
    engine::ports::Message,
    event::Event,
    handler::{Handler, Run},
    outcome::{Handled, HandlerResult},
};

/// Headers of a dead letter: of its way through the worker, not of the event.
const OF_DEAD_LETTERS: &str = "x-dlq-";

/// Copies each event to a topic: key, value and headers byte for byte, so with the same event id. A record without a key gets its user's.
///
/// A run that is repeated writes a second copy, which consumers that dedupe recognise. What comes from that topic itself is dropped, not copied again.
pub struct ForwardHandler {
    to: Arc<str>,
    outlet: Outlet,
}

impl ForwardHandler {
    /// Copies to the topic `to` through `outlet`.
    pub fn new(to: &str, outlet: Outlet) -> Self {
        Self { to: to.into(), outlet }
    }

    fn copy(&self, event: &Event) -> Message {
        let record = event.record();
        let headers = record.headers().filter(|(name, _)| !name.starts_with(OF_DEAD_LETTERS));
        Message {
            topic: Arc::clone(&self.to),
            key: Some(record.key_bytes().unwrap_or_else(|| Bytes::copy_from_slice(event.user_id().as_bytes()))),
            value: record.value_bytes(),
            headers: headers.map(|(name, value)| (name.to_owned(), value.map(Bytes::copy_from_slice))).collect(),
            partition: None,
        }
    }
}

impl Handler for ForwardHandler {
    async fn handle(&self, run: Run) -> HandlerResult {
        if *run.event.record().topic() == self.to {
            return Ok(Handled::Dropped("it stands on that topic already".to_owned()));
        }
        self.outlet.send(self.copy(&run.event)).await?;
        Ok(Handled::Done)
    }
}
