//! The ways to a user.

use std::{sync::Arc, time::Duration};

use super::{email::Email, template::Words, webhook::Webhook};

/// What is handed over.
#[derive(Debug, Clone)]
pub(super) struct Message {
    /// Derived from the event and the handler: the same for every run.
    pub(super) id: String,
    pub(super) user_id: Arc<str>,
    pub(super) event_id: Arc<str>,
    pub(super) event_type: Arc<str>,
    pub(super) words: Words,
}

/// Why a message was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Its user is known to have no address: nothing is to be done.
    NoAddress,
    /// The address does not work, now or later.
    Bounced(String),
    /// This message will never go out.
    Failed(String),
    /// It may pass later.
    Later { error: String, after: Option<Duration> },
}

impl Refusal {
    pub(super) fn later(error: impl Into<String>) -> Self {
        Self::Later { error: error.into(), after: None }
    }
}

/// How messages go out.
pub(super) enum Channel {
    Email(Email),
    Webhook(Box<Webhook>),
}

impl Channel {
    /// The name in events and metrics.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Email(_) => "email",
            Self::Webhook(_) => "webhook",
        }
    }

    /// Resolves once the other side has taken the message.
    pub(super) async fn send(&self, message: &Message) -> Result<(), Refusal> {
        match self {
            Self::Email(email) => email.send(message).await,
            Self::Webhook(webhook) => webhook.send(message).await,
        }
    }
}
