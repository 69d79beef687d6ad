//! How handlers publish: through the role's publisher, answered when the brokers have acknowledged.

use std::sync::{Arc, OnceLock};

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    engine::ports::{Message, PublishError},
    event::{Event, ids, time},
    outcome::Failure,
    publish::Publishing,
    telemetry::Metrics,
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

/// Where derived events come from.
#[derive(Debug, Clone)]
pub struct Cause {
    /// The causing event's id.
    pub id: String,
    /// Whose event it is.
    pub user_id: String,
    /// When it happened.
    pub time: DateTime<Utc>,
    /// What it belongs to; `None`: itself.
    pub correlation_id: Option<String>,
    /// Its trace.
    pub traceparent: Option<String>,
}

impl Cause {
    /// An event as a cause.
    pub fn of(event: &Event) -> Self {
        Self {
            id: event.id().to_owned(),
            user_id: event.user_id().to_owned(),
            time: event.time(),
            correlation_id: event.correlation_id(),
            traceparent: event.traceparent(),
        }
    }
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
    pub async fn derive(&self, cause: &Event, derived: Derived<'_>) -> Result<(), Failure> {
        self.derive_from(&Cause::of(cause), derived).await
    }

    /// As [`Outlet::derive`], of an event that is no longer at hand.
    ///
    /// # Errors
    /// As [`Outlet::derive`].
    pub async fn derive_from(&self, cause: &Cause, derived: Derived<'_>) -> Result<(), Failure> {
        self.publish(cause, ids::of_effect(&cause.id, derived.step), derived.event_type, derived.data).await
    }

    /// As [`Outlet::derive`], with an id that is made from more than one event.
    ///
    /// # Errors
    /// As [`Outlet::derive`].
    pub async fn publish(&self, cause: &Cause, id: Uuid, event_type: &str, mut data: Value) -> Result<(), Failure> {
        data["user_id"] = cause.user_id.as_str().into();
        let body = json!({
            "event_id": id.to_string(),
            "event_type": event_type,
            "timestamp": time::format(cause.time),
            "data": data,
            "metadata": { "correlation_id": cause.correlation_id.as_ref().unwrap_or(&cause.id), "causation_id": cause.id },
        });
        let ready = self.publishing()?.prepare(body.to_string().as_bytes(), None, cause.traceparent.as_deref());
        let ready = ready.map_err(|rejection| Failure::permanent(format!("{event_type}: {}", rejection.error)))?;
        self.send(ready.message).await
    }

    /// Counters of the role that publishes.
    ///
    /// # Errors
    /// Transient before [`Outlet::open`].
    pub fn metrics(&self) -> Result<&Metrics, Failure> {
        self.publishing().map(|publishing| publishing.metrics())
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
