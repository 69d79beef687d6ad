//! Kind `notify`: tells an event's user, by mail or through a webhook, and publishes what became of it.
//!
//! `who -> words -> send -> result`: the user is looked up, the type's template rendered, the message handed over, and `notification.delivered`, `.bounced` or
//! `.failed` published (for a `reminder.due` also `reminder.sent` or `.failed`), with ids derived from the event.

mod channel;
mod classify;
mod directory;
pub mod email;
mod header;
mod later;
mod parcel;
mod plan;
mod result;
mod sent;
pub mod template;
mod webhook;

use std::sync::Arc;

use chrono_tz::Tz;

pub use self::later::{DUE, Postman};
use self::{
    channel::{Channel, Message, Refusal},
    directory::Directory,
    later::Later,
    parcel::Bundle,
    plan::Manners,
    result::{About, Became, Results},
    sent::Sent,
    template::Templates,
};
use super::{http::client::client, outlet::Outlet};
use crate::{
    calendar::{self, quiet::Quiet},
    config::{handlers::HandlerConfig, notify::NotifyConfig},
    event::{Catalog, Event, ids},
    handler::{Handler, Run},
    outcome::{Failure, Handled, HandlerResult},
    retry::Schedules,
    store::outbox::Outbox,
};

/// Runs at once where the configuration does not say: mail servers take few connections from one client.
pub const CONCURRENCY: usize = 10;

/// Tells users of events.
///
/// At least once: a message is sent again where the process dies between handing it over and its settlement, with the same `Message-ID` or
/// `idempotency-key`. A message that was handed over is not sent again because its result cannot be published.
pub struct NotifyHandler {
    name: Arc<str>,
    templates: Templates,
    directory: Option<Directory>,
    channel: Channel,
    results: Results,
    sent: Sent,
    later: Option<Later>,
    schedules: Schedules,
    zone: Tz,
}

/// Whom a message is for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Person {
    email: Option<String>,
    zone: Option<Tz>,
    locale: Option<String>,
    /// Quiet hours of the user's own.
    quiet: Option<Quiet>,
    /// Whether a directory knows the user, and says that there is no address.
    has_no_address: bool,
}

/// What was done with a message.
enum Told {
    Sent,
    /// It goes out later.
    PutOff,
}

impl NotifyHandler {
    /// A handler as configured. `outbox`: where messages wait; needed where [`NotifyConfig::puts_off`] says so.
    ///
    /// # Errors
    /// What of the configuration makes no sense, without secrets.
    pub fn new(
        entry: &HandlerConfig,
        schedules: Schedules,
        catalog: &Catalog,
        outlet: Outlet,
        outbox: Option<Arc<dyn Outbox>>,
    ) -> Result<Self, String> {
        let config = entry.notify.as_ref().ok_or("kind `notify` needs [handlers.notify]")?;
        let name: Arc<str> = entry.name.as_str().into();
        let channel = channel(config, &name)?;
        let directory = config.directory.as_deref().map(|url| Directory::new(url, client().map_err(|error| error.to_string())?));
        let quiet = config.quiet.as_deref().map(str::parse).transpose()?;
        let manners = Manners { rate: config.rate, window: config.rate_window, digest: config.digest, quiet };
        Ok(Self {
            templates: Templates::new(config.templates.as_deref(), &config.to, catalog)?,
            directory: directory.transpose()?,
            results: Results::new(Arc::clone(&name), channel.name(), outlet),
            channel,
            sent: Sent::default(),
            later: outbox.map(|outbox| Later { manners, urgent: config.urgent.clone(), outbox }),
            schedules,
            zone: calendar::zone(&config.timezone)?,
            name,
        })
    }

    /// What the directory knows of the user, completed by what the event says.
    async fn person(&self, event: &Event) -> Result<Person, Refusal> {
        let mut person = match &self.directory {
            Some(directory) => directory.find(event.user_id()).await?,
            None => Person::default(),
        };
        if person.zone.is_none() {
            let data = event.data();
            person.zone = data.get("timezone").and_then(|zone| zone.as_str()?.parse().ok());
        }
        Ok(person)
    }

    /// Tells an event's user of it, now or later.
    async fn tell(&self, event: &Event) -> Result<Told, Refusal> {
        let person = self.person(event).await?;
        let zone = person.zone.unwrap_or(self.zone);
        let words = self.templates.words(event, &person, zone).map_err(Refusal::Failed)?;
        let id = ids::of_effect(event.id(), &format!("notification {}", self.name)).to_string();
        let message =
            Message { id, user_id: event.user_id().into(), event_id: event.id().into(), event_type: Arc::clone(event.event_type()), words };
        self.check_address(&message, &person)?;
        if let Some(later) = &self.later
            && !self.sent.contains(&message.id)
            && later.put_off(event, &message, person.quiet, zone).await?
        {
            return Ok(Told::PutOff);
        }
        self.send(message).await.map(|()| Told::Sent)
    }

    /// Tells a user what was put off.
    async fn tell_bundle(&self, event: &Event, bundle: &Bundle) -> Result<Told, Refusal> {
        let person = self.person(event).await?;
        let zone = person.zone.or(bundle.zone()).unwrap_or(self.zone);
        if let Some(later) = &self.later
            && !self.sent.contains(&bundle.message_id(event))
            && later.put_back(event.user_id(), bundle, person.quiet, zone).await?
        {
            return Ok(Told::PutOff);
        }
        let message = match bundle.single(event.user_id()) {
            Some(message) => message,
            None => {
                let words = self.templates.digest(&bundle.context(), bundle.to(), &person, zone);
                let words = words.map_err(Refusal::Failed)?;
                let event_type = Arc::clone(event.event_type());
                Message { id: bundle.message_id(event), user_id: event.user_id().into(), event_id: event.id().into(), event_type, words }
            }
        };
        self.check_address(&message, &person)?;
        self.send(message).await.map(|()| Told::Sent)
    }

    fn check_address(&self, message: &Message, person: &Person) -> Result<(), Refusal> {
        match (&self.channel, &message.words.to) {
            (Channel::Email(_), None) if person.has_no_address => Err(Refusal::NoAddress),
            (Channel::Email(_), None) => {
                Err(Refusal::Failed("the event has no address: `to` comes out empty, and no directory tells one".to_owned()))
            }
            _ => Ok(()),
        }
    }

    /// Hands a message over, unless this process has done so already.
    async fn send(&self, message: Message) -> Result<(), Refusal> {
        if !self.sent.contains(&message.id) {
            self.channel.send(&message).await?;
            self.sent.insert(message.id);
        }
        Ok(())
    }

    /// Publishes what became of a message about these events, and answers the engine.
    async fn conclude(&self, run: &Run, about: &[About], told: Result<Told, Refusal>) -> HandlerResult {
        let publish = async |became: Became, error: Option<&str>| {
            for about in about {
                self.results.publish(about, became, error).await?;
            }
            Ok::<_, Failure>(())
        };
        match told {
            Ok(Told::Sent) => publish(Became::Delivered, None).await.map(|()| Handled::Done),
            Ok(Told::PutOff) => self.results.put_off().map(|()| Handled::Done),
            Err(Refusal::NoAddress) => Ok(Handled::Dropped("the user has no address".to_owned())),
            Err(Refusal::Bounced(error)) => {
                publish(Became::Bounced, Some(&error)).await?;
                Err(Failure::permanent(error))
            }
            Err(Refusal::Failed(error)) => {
                publish(Became::Failed, Some(&error)).await?;
                Err(Failure::permanent(error))
            }
            Err(Refusal::Later { error, after }) => {
                // The engine gives it up after this run.
                if self.is_last(run) {
                    publish(Became::Failed, Some(&error)).await?;
                }
                Err(Failure::Transient { error, after })
            }
        }
    }

    fn is_last(&self, run: &Run) -> bool {
        usize::try_from(run.attempt).unwrap_or(usize::MAX) > self.schedules.schedule_for(run.event.event_type()).retries()
    }
}

impl Handler for NotifyHandler {
    async fn handle(&self, run: Run) -> HandlerResult {
        let event = &run.event;
        if **event.event_type() != *DUE {
            let told = self.tell(event).await;
            return self.conclude(&run, &[About::event(event)], told).await;
        }
        let bundle: Bundle =
            serde_json::from_value(event.data()).map_err(|_| Failure::permanent(format!("{DUE} is not as this worker writes it")))?;
        if *bundle.handler != *self.name {
            return Ok(Handled::Dropped("another handler's messages".to_owned()));
        }
        let about: Vec<_> = bundle.items.iter().map(|item| About::parcel(item, event.user_id())).collect();
        let told = self.tell_bundle(event, &bundle).await;
        self.conclude(&run, &about, told).await
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Permanent { error } => Self::Failed(error),
            Failure::Transient { error, after } => Self::Later { error, after },
        }
    }
}

fn channel(config: &NotifyConfig, name: &str) -> Result<Channel, String> {
    match (&config.smtp, config.is_webhook()) {
        (Some(url), false) => Ok(Channel::Email(email::Email::new(url, config.from.as_deref().unwrap_or_default())?)),
        (None, true) => Ok(Channel::Webhook(Box::new(webhook::Webhook::new(config, name)?))),
        _ => Err("[handlers.notify] needs smtp and from, or webhook".to_owned()),
    }
}
