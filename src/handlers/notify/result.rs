//! What became of a message, as events that others count and react to.

use std::sync::Arc;

use serde_json::{Value, json};

use super::parcel::Parcel;
use crate::{
    event::{Event, time},
    handlers::outlet::{Cause, Derived, Outlet},
    outcome::Failure,
};

/// It has a second result, of its own kind.
const REMINDER: &str = "reminder.due";

/// How a message ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Became {
    Delivered,
    Bounced,
    Failed,
}

impl Became {
    fn name(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Bounced => "bounced",
            Self::Failed => "failed",
        }
    }
}

/// Publishes results: ids are derived from the event, the handler's name and the result, so that a repeated run makes the same ones.
pub(super) struct Results {
    handler: Arc<str>,
    channel: &'static str,
    outlet: Outlet,
}

impl Results {
    pub(super) fn new(handler: Arc<str>, channel: &'static str, outlet: Outlet) -> Self {
        Self { handler, channel, outlet }
    }

    /// Acknowledged by the brokers when this answers. That a reminder which is handled now is dead, the engine tells; of one that waited it only knows the message.
    pub(super) async fn publish(&self, about: &About, became: Became, error: Option<&str>) -> Result<(), Failure> {
        let data = result(self.channel, about.task_id.as_ref(), error);
        let name = became.name();
        self.derive(about, &format!("notification.{name}"), data.clone()).await?;
        if about.event_type == REMINDER {
            match (became, about.waited) {
                (Became::Delivered, _) => self.derive(about, "reminder.sent", data).await?,
                (_, true) => {
                    let derived = Derived { step: "reminder.failed", event_type: "reminder.failed", data };
                    self.outlet.derive_from(&about.cause, derived).await?;
                }
                (_, false) => {}
            }
        }
        self.count(name)
    }

    /// Counts a message that was put off.
    pub(super) fn put_off(&self) -> Result<(), Failure> {
        self.count("deferred")
    }

    fn count(&self, result: &str) -> Result<(), Failure> {
        self.outlet.metrics()?.notifications.with_label_values(&[&*self.handler, self.channel, result]).inc();
        Ok(())
    }

    async fn derive(&self, about: &About, event_type: &str, data: Value) -> Result<(), Failure> {
        let step = format!("{event_type} {}", self.handler);
        self.outlet.derive_from(&about.cause, Derived { step: &step, event_type, data }).await
    }
}

/// The event that a message was about.
#[derive(Debug, Clone)]
pub(super) struct About {
    cause: Cause,
    event_type: String,
    task_id: Option<Value>,
    /// Whether the message was put off.
    waited: bool,
}

impl About {
    pub(super) fn event(event: &Event) -> Self {
        let task_id = event.data().get("task_id").filter(|id| !id.is_null()).cloned();
        Self { cause: Cause::of(event), event_type: event.event_type().to_string(), task_id, waited: false }
    }

    pub(super) fn parcel(parcel: &Parcel, user_id: &str) -> Self {
        let cause = Cause {
            id: parcel.event_id.clone(),
            user_id: user_id.to_owned(),
            time: time::parse(&parcel.time).unwrap_or_default(),
            correlation_id: parcel.correlation_id.clone(),
            traceparent: None,
        };
        Self { cause, event_type: parcel.event_type.clone(), task_id: parcel.task_id.clone(), waited: true }
    }
}

fn result(channel: &str, task_id: Option<&Value>, error: Option<&str>) -> Value {
    let mut data = json!({ "channel": channel });
    if let Some(task_id) = task_id {
        data["task_id"] = task_id.clone();
    }
    if let Some(error) = error {
        data["error"] = error.into();
    }
    data
}
