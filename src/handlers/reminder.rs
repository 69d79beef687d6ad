//! Kind `reminder`: reminders wait in the store for their time, and are then published as `reminder.due`.

pub mod fire;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use crate::{
    config::handlers::{HandlerConfig, HandlerKind},
    handler::{Handler, Run},
    outcome::{Failure, Handled, HandlerResult},
    reminders::{ApplyError, Reminders, apply, fact},
};

/// Where reminders wait. Handlers are made before the group is known whose they are, so it is opened later, by [`Shelf::open`].
#[derive(Clone, Default)]
pub struct Shelf {
    store: Arc<OnceLock<Arc<dyn Reminders>>>,
    remember: Duration,
}

impl Shelf {
    /// For the handler of this kind, where there is one. Not open yet.
    pub fn wanted(handlers: &[HandlerConfig]) -> Option<Self> {
        let handler = handlers.iter().find(|handler| handler.kind == HandlerKind::Reminder)?;
        Some(Self { store: Arc::default(), remember: handler.reminder.clone().unwrap_or_default().remember })
    }

    /// Lets reminders be stored from now on. Only the first call counts.
    pub fn open(&self, store: Arc<dyn Reminders>) {
        let _first_counts = self.store.set(store);
    }

    /// How long what is over is kept: removals, fired reminders, moved due dates.
    pub fn remember(&self) -> Duration {
        self.remember
    }
}

/// Stores what `reminder.scheduled` and `task.updated` say, and removes what is cancelled, completed or deleted.
///
/// The latest event by its own time counts, whatever order they come in, so a run that is repeated, or late, changes nothing.
pub struct ReminderHandler {
    shelf: Shelf,
}

impl ReminderHandler {
    /// Reminders wait on `shelf`.
    pub fn new(shelf: Shelf) -> Self {
        Self { shelf }
    }
}

impl Handler for ReminderHandler {
    async fn handle(&self, run: Run) -> HandlerResult {
        let Some(said) = fact::said(&run.event).map_err(Failure::permanent)? else {
            return Ok(Handled::Dropped("the due date did not move".to_owned()));
        };
        let store = self.shelf.store.get().ok_or_else(|| Failure::transient("not connected to the store yet"))?;
        match apply(&**store, &said, self.shelf.remember).await {
            Ok(true) => Ok(Handled::Done),
            Ok(false) => Ok(Handled::Dropped("it says nothing new".to_owned())),
            Err(error @ ApplyError::TooMany) => Err(Failure::permanent(error.to_string())),
            Err(error) => Err(Failure::transient(error.to_string())),
        }
    }
}
