//! How handlers publish: through the role's publisher, answered when the brokers have acknowledged.

use std::sync::{Arc, OnceLock};

use crate::{
    engine::ports::{Message, PublishError},
    outcome::Failure,
    publish::Publishing,
};

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
