//! The tour's handler: it tells every run that it sees, and fails those that it was asked to fail.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use tokio::sync::mpsc;

use crate::{
    event::record::TopicPartition,
    handler::{Handler, Run},
    outcome::{Failure, Handled, HandlerResult},
};

/// What the app says when it fails.
pub(super) const TROUBLE: &str = "the mail service answered 503";

/// One run as the handler saw it.
#[derive(Debug, Clone)]
pub(super) struct Ran {
    pub(super) id: String,
    pub(super) event_type: Arc<str>,
    pub(super) user: String,
    pub(super) attempt: u32,
    pub(super) failed: bool,
    pub(super) at: Instant,
    pub(super) partition: TopicPartition,
    pub(super) offset: i64,
}

/// How many runs of which event fail; by event id.
#[derive(Debug, Clone, Default)]
pub(super) struct Moods(Arc<Mutex<HashMap<String, u32>>>);

impl Moods {
    /// The first `runs` runs of that event fail.
    pub(super) fn fail(&self, id: &str, runs: u32) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), runs);
    }

    fn failing_runs(&self, id: &str) -> u32 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id).copied().unwrap_or_default()
    }
}

/// The handler.
pub(super) struct App {
    pub(super) moods: Moods,
    pub(super) runs: mpsc::Sender<Ran>,
}

impl Handler for App {
    async fn handle(&self, run: Run) -> HandlerResult {
        let event = &run.event;
        let failed = run.attempt <= self.moods.failing_runs(event.id());
        let ran = Ran {
            id: event.id().to_owned(),
            event_type: Arc::clone(event.event_type()),
            user: event.user_id().to_owned(),
            attempt: run.attempt,
            failed,
            at: Instant::now(),
            partition: event.record().partition().clone(),
            offset: event.record().offset(),
        };
        // Nobody listens any more once the tour has ended.
        let _ended = self.runs.send(ran).await;
        if failed { Err(Failure::transient(TROUBLE)) } else { Ok(Handled::Done) }
    }
}
