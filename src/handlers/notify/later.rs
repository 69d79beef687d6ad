//! Messages that wait: for others, for the user's turn, for the morning. The outbox is their clock; when they are due they come back as an event,
//! `notification.due`, so that order, retries and dead letters are those of every event.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde_json::json;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{
    channel::{Message, Refusal},
    parcel::{Bundle, Parcel},
    plan::Manners,
};
use crate::{
    calendar::quiet::Quiet,
    engine::ports::StoreError,
    event::{Event, ids, pattern},
    handlers::outlet::{Cause, Outlet},
    outcome::Failure,
    store::outbox::{Admission, Due, Item, Outbox},
};

/// What comes back.
pub const DUE: &str = "notification.due";

/// Between two looks at what is due.
const LOOK: Duration = Duration::from_secs(1);
/// Users whose messages are published after one look.
const USERS: usize = 32;
/// How often the users whose messages wait are counted.
const COUNT: Duration = Duration::from_secs(10);

/// What puts messages off, and where they wait.
pub(super) struct Later {
    pub(super) manners: Manners,
    pub(super) urgent: Vec<String>,
    pub(super) outbox: Arc<dyn Outbox>,
}

impl Later {
    /// Puts a message off where it must wait; `false`: it is to go out now, and counts.
    pub(super) async fn put_off(&self, event: &Event, message: &Message, quiet: Option<Quiet>, zone: Tz) -> Result<bool, Refusal> {
        if self.urgent.iter().any(|urgent| pattern::matches(urgent, event.event_type())) {
            return Ok(false);
        }
        let manners = Manners { quiet: self.quiet(quiet), ..self.manners };
        let now = Utc::now();
        let due = match manners.due(now, None, zone) {
            Some(due) => due,
            None if manners.rate == 0 => return Ok(false),
            None => {
                match self.outbox.admit(event.user_id(), &message.id, manners.rate, manners.window).await.map_err(|error| away(&error))? {
                    Admission::Granted => return Ok(false),
                    Admission::Full(until) => {
                        let free = DateTime::from_timestamp_millis(until);
                        // Another clock than ours may say so: a moment from now, then.
                        manners.due(now, free, zone).unwrap_or(now + LOOK)
                    }
                }
            }
        };
        self.defer(event.user_id(), &Parcel::new(event, message, zone), due).await?;
        Ok(true)
    }

    /// Puts off once more what comes back at night, because no worker was there when it was due; `false`: it is to go out now.
    pub(super) async fn put_back(&self, user: &str, bundle: &Bundle, quiet: Option<Quiet>, zone: Tz) -> Result<bool, Refusal> {
        let Some(until) = self.quiet(quiet).and_then(|quiet| quiet.ends(Utc::now(), zone)) else { return Ok(false) };
        for parcel in bundle.parcels() {
            self.defer(user, &parcel, until).await?;
        }
        Ok(true)
    }

    /// The user's own hours go before the handler's, where it has any.
    fn quiet(&self, of_user: Option<Quiet>) -> Option<Quiet> {
        self.manners.quiet.map(|all| of_user.unwrap_or(all))
    }

    async fn defer(&self, user: &str, parcel: &Parcel, due: DateTime<Utc>) -> Result<(), Refusal> {
        let body = serde_json::to_string(parcel).map_err(|error| Refusal::Failed(error.to_string()))?;
        let item = Item { id: parcel.id.clone(), body, due_ms: due.timestamp_millis() };
        self.outbox.defer(user, item).await.map_err(|error| away(&error))
    }
}

fn away(error: &StoreError) -> Refusal {
    Refusal::later(format!("the store: {error}"))
}

/// Publishes what is due.
pub struct Postman {
    handler: Arc<str>,
    outbox: Arc<dyn Outbox>,
    outlet: Outlet,
}

impl Postman {
    /// Publishes what waits in a handler's outbox.
    pub fn new(handler: Arc<str>, outbox: Arc<dyn Outbox>, outlet: Outlet) -> Self {
        Self { handler, outbox, outlet }
    }

    /// Goes on until `stop`. What cannot be published now stays, and is claimed again by this replica or another.
    pub async fn run(&self, stop: CancellationToken) {
        let (mut failing, mut count_at) = (false, Instant::now());
        while stop.run_until_cancelled(sleep(LOOK)).await.is_some() {
            if Instant::now() >= count_at {
                count_at = Instant::now() + COUNT;
                self.count().await;
            }
            match self.round().await {
                Ok(()) => failing = false,
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(handler = &*self.handler, error, "messages that are due cannot be published; trying again");
                    }
                }
            }
        }
    }

    /// A store that does not answer is told where messages are claimed.
    async fn count(&self) {
        if let (Ok(users), Ok(metrics)) = (self.outbox.waiting().await, self.outlet.metrics()) {
            let users = i64::try_from(users).unwrap_or(i64::MAX);
            metrics.notifications_waiting.with_label_values(&[&*self.handler]).set(users);
        }
    }

    /// One user's messages that cannot be published keep nobody else's waiting.
    async fn round(&self) -> Result<(), String> {
        let mut failed = None;
        for due in self.outbox.claim(USERS).await.map_err(|error| error.to_string())? {
            match self.publish(&due).await {
                Ok(()) => self.outbox.take(&due.user, &due.token).await.map_err(|error| error.to_string())?,
                Err(failure) => failed = Some(failure.error().to_owned()),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// The id is made from the messages' and the claim's, so that whoever publishes the same ones again publishes the same event, unless they were put off
    /// once more in between.
    async fn publish(&self, due: &Due) -> Result<(), Failure> {
        let items: Vec<Parcel> = due.items.iter().filter_map(|(_, body)| serde_json::from_str(body).ok()).collect();
        if items.len() < due.items.len() {
            let lost = due.items.len() - items.len();
            tracing::error!(
                handler = &*self.handler,
                messages = lost,
                "messages that another version put off cannot be read and are dropped"
            );
        }
        let Some(first) = items.first() else { return Ok(()) };
        let all = due.items.iter().map(|(id, _)| id.as_str()).chain([&*due.token]).collect::<Vec<_>>().join("\n");
        let id = ids::of_effect(&all, &format!("{DUE} {}", self.handler));
        let cause = Cause {
            id: first.event_id.clone(),
            user_id: due.user.clone(),
            time: Utc::now(),
            correlation_id: first.correlation_id.clone(),
            traceparent: None,
        };
        let bundle = Bundle::new(&self.handler, items, due.more);
        match self.outlet.publish(&cause, id, DUE, json!(bundle)).await {
            Err(Failure::Permanent { .. }) => {
                // Too much for one event.
                let items = bundle.items.into_iter().map(Parcel::shorter).collect();
                self.outlet.publish(&cause, id, DUE, json!(Bundle { items, ..bundle })).await
            }
            answer => answer,
        }
    }
}
