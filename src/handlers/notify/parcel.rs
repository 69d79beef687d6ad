//! One message as it waits to go out later, and many of them as one.

use std::sync::Arc;

use chrono_tz::Tz;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{channel::Message, template::Words};
use crate::event::{Event, time};

/// Longest text that is kept, in characters.
const TEXT: usize = 2000;
/// Longest HTML that is kept, in bytes; of a longer one the text stays.
const HTML: usize = 4000;
/// Longest text where all of them together are too much for one event.
const SHORT: usize = 200;

/// A message with the event that it is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Parcel {
    /// The message's.
    pub(super) id: String,
    pub(super) event_id: String,
    pub(super) event_type: String,
    /// The event's, as this worker writes times.
    pub(super) time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) task_id: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) correlation_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    subject: String,
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    html: Option<String>,
    /// The user's zone when it was put off: later only the directory could tell it.
    #[serde(default)]
    zone: Option<String>,
    /// How many more are told with it by their number alone, having been put off before.
    #[serde(default)]
    more: u64,
}

impl Parcel {
    /// `zone`: the user's.
    pub(super) fn new(event: &Event, message: &Message, zone: Tz) -> Self {
        let words = message.words.clone();
        Self {
            id: message.id.clone(),
            event_id: event.id().to_owned(),
            event_type: event.event_type().to_string(),
            time: time::format(event.time()),
            task_id: event.data().get("task_id").filter(|id| !id.is_null()).cloned(),
            correlation_id: event.correlation_id(),
            to: words.to,
            subject: words.subject,
            text: cut(words.text, TEXT),
            html: words.html.filter(|html| html.len() <= HTML),
            zone: Some(zone.name().to_owned()),
            more: 0,
        }
    }

    /// The same with less of its words.
    pub(super) fn shorter(mut self) -> Self {
        self.html = None;
        self.text = cut(self.text, SHORT);
        self
    }
}

fn cut(text: String, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => text[..end].to_owned() + "…\n",
        None => text,
    }
}

/// The data of a `notification.due`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Bundle {
    pub(super) handler: String,
    pub(super) items: Vec<Parcel>,
    #[serde(default)]
    pub(super) more: u64,
}

impl Bundle {
    /// Of what was put off together; `more`: those of which only the number is known.
    pub(super) fn new(handler: &str, mut items: Vec<Parcel>, more: u64) -> Self {
        let known: u64 = items.iter_mut().map(|item| std::mem::take(&mut item.more)).sum();
        Self { handler: handler.to_owned(), items, more: more + known }
    }

    /// The same as they are put off once more.
    pub(super) fn parcels(&self) -> Vec<Parcel> {
        let mut items = self.items.clone();
        items.first_mut().into_iter().for_each(|first| first.more = self.more);
        items
    }

    /// The user's zone, as it was told last.
    pub(super) fn zone(&self) -> Option<Tz> {
        self.items.iter().rev().find_map(|item| item.zone.as_deref()?.parse().ok())
    }

    /// A message that was alone goes out as it would have at first; `None`: many, to be told in one.
    pub(super) fn single(&self, user_id: &str) -> Option<Message> {
        let [item] = self.items.as_slice() else { return None };
        (self.more == 0).then(|| Message {
            id: item.id.clone(),
            user_id: user_id.into(),
            event_id: item.event_id.as_str().into(),
            event_type: Arc::from(item.event_type.as_str()),
            words: Words { to: item.to.clone(), subject: item.subject.clone(), text: item.text.clone(), html: item.html.clone() },
        })
    }

    /// Of the message that it makes: that of the only one, else the event's.
    pub(super) fn message_id(&self, event: &Event) -> String {
        match self.items.as_slice() {
            [item] if self.more == 0 => item.id.clone(),
            _ => event.id().to_owned(),
        }
    }

    /// The address that was told last.
    pub(super) fn to(&self) -> Option<String> {
        self.items.iter().rev().find_map(|item| item.to.clone())
    }

    /// What a template of many is about, in the order of the events.
    pub(super) fn context(&self) -> Value {
        let mut items: Vec<_> = self.items.iter().collect();
        items.sort_by(|a, b| a.time.cmp(&b.time));
        let items =
            items.into_iter().map(|item| json!({ "type": item.event_type, "time": item.time, "subject": item.subject, "text": item.text }));
        json!({ "items": items.collect::<Vec<_>>(), "more": self.more, "count": self.items.len() as u64 + self.more })
    }
}
