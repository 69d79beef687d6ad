//! Publishing as an app asks a sidecar for it: wrapped in a CloudEvent, keyed by the event's user, answered when the brokers have it.

use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::{error::ApiError, metadata::Metadata};
use crate::{
    config::{
        Config,
        http::{PublishConfig, PublishKey},
    },
    engine::ports::{Message, PublishError},
    event::{
        cloudevent::{self, Attributes, Sent, Trace},
        is_traceparent,
    },
    health::Reporter,
    publish::{Publishing, Sent as Answer},
};

/// One event to be published.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The pubsub's name.
    pub pubsub: &'a str,
    /// The topic.
    pub topic: &'a str,
    /// Of the event; empty: none.
    pub content_type: &'a str,
    /// The event.
    pub data: &'a [u8],
    /// `metadata.*`.
    pub metadata: &'a Metadata,
    /// The caller's trace context, as it was sent.
    pub trace: Trace<'a>,
}

/// Where a request goes, and how: what is the same for all events of a bulk request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) pubsub: &'a str,
    pub(super) topic: &'a str,
    pub(super) raw: bool,
    pub(super) trace: Trace<'a>,
}

/// One event of a request. In bulk, what shapes the CloudEvent differs from what becomes headers and key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Single<'a> {
    pub(super) content_type: &'a str,
    pub(super) data: &'a [u8],
    pub(super) envelope: &'a Metadata,
    pub(super) record: &'a Metadata,
}

/// Dapr's publish API.
pub struct PubSub {
    pub(super) publishing: Arc<Publishing>,
    brokers: Reporter,
    config: PublishConfig,
    app_id: String,
}

impl PubSub {
    /// As `[publish]` says. While `brokers` says that they are away, callers are told so at once.
    pub fn new(config: &Config, publishing: Arc<Publishing>, brokers: Reporter) -> Self {
        Self { publishing, brokers, config: config.publish.clone(), app_id: config.app_id.clone() }
    }

    /// Publishes one event; `Ok` only with the brokers' acknowledgement.
    ///
    /// # Errors
    /// In Dapr's words; nothing is written then, unless the brokers did not answer.
    pub async fn publish(&self, request: Request<'_>) -> Result<(), ApiError> {
        let Request { pubsub, topic, content_type, data, metadata, trace } = request;
        let target = self.target(pubsub, topic, metadata, trace)?;
        let single = Single { content_type, data, envelope: metadata, record: metadata };
        let message = self.message(target, single, Utc::now())?;
        self.reachable(pubsub, topic)?;
        self.publishing.send(message).await.map(drop).map_err(|error| ApiError::publish(pubsub, topic, &error))
    }

    /// Checks where a request goes.
    pub(super) fn target<'a>(
        &self,
        pubsub: &'a str,
        topic: &'a str,
        metadata: &Metadata,
        trace: Trace<'a>,
    ) -> Result<Target<'a>, ApiError> {
        if pubsub.is_empty() {
            return Err(ApiError::pubsub_empty());
        }
        if !self.config.pubsubs.is_empty() && !self.config.pubsubs.iter().any(|name| name == pubsub) {
            return Err(ApiError::pubsub_not_found(pubsub));
        }
        if topic.is_empty() {
            return Err(ApiError::topic_empty(pubsub));
        }
        let raw = metadata.raw_payload().map_err(|why| ApiError::request_metadata(pubsub, &why))?;
        if metadata.get("valueSchemaType").is_some_and(|kind| !kind.eq_ignore_ascii_case("none")) {
            let why = "valueSchemaType: this worker writes JSON and knows no schema registry";
            return Err(ApiError::request_metadata(pubsub, why));
        }
        if !crate::publish::is_topic_name(topic) {
            let error = ApiError::publish_error(pubsub, topic, "no topic's name: 1 to 249 of a-z A-Z 0-9 . _ -");
            return Err(ApiError { status: 400, grpc: super::error::GrpcCode::InvalidArgument, ..error });
        }
        // A malformed trace context is none, as W3C Trace Context wants it; the state goes with the parent.
        let trace = if is_traceparent(trace.parent) { trace } else { Trace::default() };
        Ok(Target { pubsub, topic, raw, trace })
    }

    /// Whether the brokers answer, as far as is known.
    pub(super) fn reachable(&self, pubsub: &str, topic: &str) -> Result<(), ApiError> {
        if self.brokers.is_ok() {
            return Ok(());
        }
        let why = PublishError::Unreachable("Kafka is away: nothing was published".to_owned());
        Err(ApiError::publish(pubsub, topic, &why))
    }

    /// The record of one event.
    pub(super) fn message(&self, target: Target<'_>, single: Single<'_>, now: DateTime<Utc>) -> Result<Message, ApiError> {
        let Target { pubsub, topic, .. } = target;
        let explicit = self.config.key == PublishKey::Request;
        let key = single.record.key().filter(|_| explicit);
        let partition = single.record.partition().map_err(|why| ApiError::publish_error(pubsub, topic, &why))?;
        let value = self.value(target, single, now)?;
        let mut headers: Vec<_> =
            single.record.0.iter().map(|(name, value)| (name.clone(), Some(Bytes::copy_from_slice(value.as_bytes())))).collect();
        if target.raw {
            // No envelope carries it.
            let Trace { parent, state } = target.trace;
            for (name, value) in [("traceid", parent), ("traceparent", parent), ("tracestate", state)] {
                if !value.is_empty() && !single.record.0.contains_key(name) {
                    headers.push((name.to_owned(), Some(Bytes::copy_from_slice(value.as_bytes()))));
                }
            }
        }
        let mut message = Message {
            topic: topic.into(),
            key: None,
            // In Dapr too, a raw null is a tombstone. It is nobody's, so only an explicit key lets it through.
            value: Some(value).filter(|value| !(target.raw && **value == *b"null")),
            headers,
            // One user's events stay in one partition, unless the caller keys them.
            partition: partition.filter(|_| explicit),
        };
        let owner = self.publishing.examine(&message, key.is_some()).map_err(|why| ApiError::rejected(pubsub, topic, &why))?;
        message.key = key.map(str::to_owned).or_else(|| owner.user_id.map(String::from)).map(Bytes::from);
        Ok(message)
    }

    fn value(&self, target: Target<'_>, single: Single<'_>, now: DateTime<Utc>) -> Result<Bytes, ApiError> {
        if target.raw {
            return Ok(Bytes::copy_from_slice(single.data));
        }
        let Single { content_type, data, envelope, .. } = single;
        let ttl = envelope.ttl().and_then(|ttl| TimeDelta::from_std(ttl).ok());
        let expiration = ttl.and_then(|ttl| now.checked_add_signed(ttl));
        let mut sent = Sent { pubsub: target.pubsub, topic: target.topic, trace: target.trace, expiration, now };
        if cloudevent::is_cloudevent(content_type) {
            return cloudevent::adopt(data, &sent).map_err(|why| ApiError::cloudevent(target.pubsub, &why));
        }
        let given = |name: &str| envelope.any_case(&format!("cloudevent.{name}"));
        if let Some(parent) = given("traceparent").or_else(|| given("traceid")) {
            sent.trace.parent = parent;
        }
        sent.trace.state = given("tracestate").unwrap_or(sent.trace.state);
        let id = given("id").map_or_else(|| Uuid::new_v4().to_string(), str::to_owned);
        let attributes = Attributes {
            id: &id,
            source: given("source").unwrap_or(&self.app_id),
            event_type: given("type").unwrap_or(cloudevent::DEFAULT_TYPE),
            subject: given("subject"),
            content_type,
        };
        Ok(cloudevent::wrap(data, &attributes, &sent))
    }
}

/// What the brokers said to one event of many.
pub(super) fn failure(answer: Answer) -> Option<PublishError> {
    match answer {
        Answer::Acked(_) => None,
        Answer::Held => Some(PublishError::QueueFull),
        Answer::Failed(error) => Some(error),
    }
}
