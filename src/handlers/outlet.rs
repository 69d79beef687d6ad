//! How handlers publish: through the role's publisher, answered when the brokers have acknowledged.

use std::sync::{Arc, OnceLock};

use serde_json::{Value, json};

use crate::{
    engine::ports::{Message, PublishError},
    event::{Event, ids, time},
    outcome::Failure,
    publish::Publishing,
};

/// An event that another one causes.
#[derive(Debug, Clone)]
pub struct Derived<'a> {
    /// What of the cause's effects it is: with the cause's id it makes the event's id, so that a repeated run makes the same one.
    pub step: &'a str,
    /// Its type.
    pub event_type: &'a str,
    /// Its data; the user is the cause's.
    pub data: Value,
}

/// The way out for handlers' records. Handlers are made before the brokers are known, so it is opened later, by [`Outlet::open`].
#[derive(Clone, Default)]
pub struct Outlet(Arc<OnceLock<Arc<Publishing>>>);

impl Outlet {
    /// Lets handlers publish from now on. Only the first call counts.
    pub fn open(&self, publishing: Arc<Publishing>) {
        let _first_counts = self.0.set(publishing);
    }

    /// Writes one record, acknowledged by all in-sync replicas when this answers.
    ///
    /// # Errors
    /// Permanent where no repetition can help, transient else; a record that failed so may have been written all the same.
    pub async fn send(&self, message: Message) -> Result<(), Failure> {
        self.publishing()?.send(message).await.map(drop).map_err(|error| failure(&error))
    }

    /// Publishes what `cause` causes, on the catalogue's first topic of its type: with an id of its own ([`ids::of_effect`]), the cause's user, time,
    /// trace and correlation, and its id as `causation_id`.
    ///
    /// # Errors
    /// As [`Outlet::send`]; permanent also where the catalogue does not take the event.
    pub async fn derive(&self, cause: &Event, mut derived: Derived<'_>) -> Result<(), Failure> {
        derived.data["user_id"] = cause.user_id().into();
        let body = json!({
            "event_id": ids::of_effect(cause.id(), derived.step).to_string(),
            "event_type": derived.event_type,
            "timestamp": time::format(cause.time()),
            "data": derived.data,
            "metadata": { "correlation_id": cause.correlation_id().unwrap_or_else(|| cause.id().to_owned()), "causation_id": cause.id() },
        });
        let ready = self.publishing()?.prepare(body.to_string().as_bytes(), None, cause.traceparent().as_deref());
        let ready = ready.map_err(|rejection| Failure::permanent(format!("{}: {}", derived.event_type, rejection.error)))?;
        self.send(ready.message).await
    }

    fn publishing(&self) -> Result<&Arc<Publishing>, Failure> {
        self.0.get().ok_or_else(|| Failure::transient("not connected to the brokers yet"))
    }
}

/// A missing topic or right can be put in place while the event waits; a record that is too large stays so.
fn failure(error: &PublishError) -> Failure {
    match error {
        PublishError::TooLarge | PublishError::Refused(_) => Failure::permanent(error.to_string()),
        _ => Failure::transient(error.to_string()),
    }
}
