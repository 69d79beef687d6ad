//! Kind `log`: one line per event, for trying things out and for a record of what passed.

use std::sync::Arc;

use crate::{
    handler::{Handler, Run},
    outcome::{Handled, HandlerResult},
};

/// Logs type, id, position and attempt of each event; never its data, its user or its key.
pub struct LogHandler {
    name: Arc<str>,
}

impl LogHandler {
    /// A handler whose lines carry `name`.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into() }
    }
}

impl Handler for LogHandler {
    async fn handle(&self, run: Run) -> HandlerResult {
        let record = run.event.record();
        tracing::info!(
            handler = %self.name,
            event.r#type = %run.event.event_type(),
            event.id = run.event.id(),
            kafka.topic = %record.topic(),
            kafka.partition = record.partition().partition,
            kafka.offset = record.offset(),
            retry.attempt = run.attempt,
            "event"
        );
        Ok(Handled::Done)
    }
}
