//! Errors in Dapr's words, codes and details, for HTTP and gRPC alike.

use crate::{engine::ports::PublishError, publish::Rejection};

/// gRPC's status codes, as far as one is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are gRPC's own")]
pub enum GrpcCode {
    InvalidArgument = 3,
    NotFound = 5,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
}

/// Why a request was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// HTTP status.
    pub status: u16,
    /// gRPC status.
    pub grpc: GrpcCode,
    /// `errorCode` of the HTTP body.
    pub code: &'static str,
    /// `reason` of the detail `ErrorInfo`.
    pub reason: &'static str,
    /// For people; never a payload.
    pub message: String,
    /// Type and name of the component, for the detail `ResourceInfo`; `None`: there is no such component.
    pub resource: Option<(&'static str, Box<str>)>,
    /// `metadata` of the detail `ErrorInfo`.
    pub metadata: Vec<(&'static str, String)>,
}

impl ApiError {
    /// One of which only the code matters.
    pub fn plain(status: u16, grpc: GrpcCode, code: &'static str, message: String) -> Self {
        Self { status, grpc, code, reason: code, message, resource: None, metadata: Vec::new() }
    }

    fn pubsub(status: u16, grpc: GrpcCode, code: &'static str, reason: &'static str, pubsub: &str, message: String) -> Self {
        Self { status, grpc, code, reason, message, resource: Some(("pubsub", pubsub.into())), metadata: Vec::new() }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.metadata.push((name, value.into()));
        self
    }

    /// The request names no pubsub.
    pub fn pubsub_empty() -> Self {
        let message = "pubsub name is empty".to_owned();
        Self::pubsub(404, GrpcCode::InvalidArgument, "ERR_PUBSUB_EMPTY", "DAPR_PUBSUB_NAME_EMPTY", "", message)
    }

    /// `publish.pubsubs` lacks it.
    pub fn pubsub_not_found(pubsub: &str) -> Self {
        let message = format!("pubsub {pubsub} is not found");
        let error = Self::pubsub(404, GrpcCode::InvalidArgument, "ERR_PUBSUB_NOT_FOUND", "DAPR_PUBSUB_NOT_FOUND", pubsub, message);
        Self { resource: None, ..error }
    }

    /// The request names no topic.
    pub fn topic_empty(pubsub: &str) -> Self {
        let message = format!("topic is empty in pubsub {pubsub}");
        Self::pubsub(404, GrpcCode::InvalidArgument, "ERR_TOPIC_NAME_EMPTY", "DAPR_PUBSUB_TOPIC_NAME_EMPTY", pubsub, message)
    }

    /// A metadata value that cannot be read.
    pub fn request_metadata(pubsub: &str, why: &str) -> Self {
        let message = format!("failed deserializing metadata. Error: {why}");
        let reason = "DAPR_PUBSUB_METADATA_DESERIALIZATION";
        Self::pubsub(400, GrpcCode::InvalidArgument, "ERR_PUBSUB_REQUEST_METADATA", reason, pubsub, message)
    }

    /// A body that should be a CloudEvent and is none.
    pub fn cloudevent(pubsub: &str, why: &str) -> Self {
        let reason = "DAPR_PUBSUB_CLOUD_EVENT_CREATION";
        let message = "cannot create cloudevent".to_owned();
        Self::pubsub(500, GrpcCode::InvalidArgument, "ERR_PUBSUB_CLOUD_EVENTS_SER", reason, pubsub, message).with("error", why)
    }

    /// A bulk request that cannot be read.
    pub fn bulk_request(pubsub: &str, topic: &str, why: &str) -> Self {
        let message = format!("error when unmarshaling the request for topic {topic} pubsub {pubsub}: {why}");
        Self::pubsub(400, GrpcCode::InvalidArgument, "ERR_PUBSUB_EVENTS_SER", "DAPR_PUBSUB_UNMARSHAL_EVENTS", pubsub, message)
            .with("topic", topic)
    }

    /// A bulk entry without an id, or with another's.
    pub fn bulk_entries(pubsub: &str, topic: &str, why: &str) -> Self {
        let message = format!("error marshaling events to bytes for topic {topic} pubsub {pubsub}. error: {why}");
        Self::pubsub(400, GrpcCode::InvalidArgument, "ERR_PUBSUB_EVENTS_SER", "DAPR_PUBSUB_MARSHAL_EVENTS", pubsub, message)
            .with("error", why)
    }

    /// A bulk entry whose event is not what its content type says.
    pub fn bulk_event(pubsub: &str, topic: &str, why: &str) -> Self {
        let message = format!("error when marshalling cloud event envelope for topic {topic} pubsub {pubsub}: {why}");
        Self::pubsub(400, GrpcCode::InvalidArgument, "ERR_PUBSUB_EVENTS_SER", "DAPR_PUBSUB_MARSHAL_ENVELOPE", pubsub, message)
            .with("error", why)
    }

    /// An event that the catalogue's readers would refuse: 400, and 413 where it is too long.
    pub fn rejected(pubsub: &str, topic: &str, why: &Rejection) -> Self {
        let status = if why.reason == "oversize" { 413 } else { 400 };
        let message = format!("error when publishing to topic {topic} in pubsub {pubsub}: {}: {}", why.reason, why.error);
        Self::pubsub(status, GrpcCode::InvalidArgument, "ERR_PUBSUB_EVENTS_SER", "DAPR_PUBSUB_MARSHAL_EVENTS", pubsub, message)
            .with("topic", topic)
            .with("error", why.error.clone())
            .with("rejected", why.reason)
    }

    /// A body that did not come whole, or is too long for the API.
    pub fn body(pubsub: &str, topic: &str, status: u16, why: &str) -> Self {
        let grpc = if status == 429 { GrpcCode::ResourceExhausted } else { GrpcCode::InvalidArgument };
        Self { status, grpc, ..Self::publish_error(pubsub, topic, why) }
    }

    /// Something about publishing that fits nowhere else, in Dapr's words: 500.
    pub fn publish_error(pubsub: &str, topic: &str, why: &str) -> Self {
        let message = format!("error when publishing to topic {topic} in pubsub {pubsub}: {why}");
        Self::pubsub(500, GrpcCode::Internal, "ERR_PUBSUB_PUBLISH_MESSAGE", "DAPR_PUBSUB_PUBLISH_MESSAGE", pubsub, message)
            .with("topic", topic)
            .with("error", why)
    }

    /// What the brokers, or the way to them, said.
    pub fn publish(pubsub: &str, topic: &str, why: &PublishError) -> Self {
        let error = Self::publish_error(pubsub, topic, &why.to_string());
        let (status, grpc) = match why {
            PublishError::QueueFull => (429, GrpcCode::ResourceExhausted),
            PublishError::TooLarge => (413, GrpcCode::InvalidArgument),
            PublishError::Forbidden(_) => {
                let (code, reason) = ("ERR_PUBSUB_FORBIDDEN", "DAPR_PUBSUB_FORBIDDEN");
                return Self { status: 403, grpc: GrpcCode::PermissionDenied, code, reason, ..error };
            }
            PublishError::Unreachable(_) | PublishError::Fatal(_) => (503, GrpcCode::Unavailable),
            PublishError::TopicMissing(_) | PublishError::Refused(_) => (500, GrpcCode::Internal),
        };
        Self { status, grpc, ..error }
    }
}
