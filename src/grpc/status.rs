//! Errors as gRPC tells them: a code, a message, and details where SDKs look for them.

use prost::Message;
use tonic::{Code, Status};

use super::messages::{Any, ErrorInfo, ResourceInfo, RpcStatus};
use crate::{http::body::BodyError, sidecar::error::ApiError};

/// The same error as over HTTP.
pub(super) fn of(error: &ApiError) -> Status {
    let mut details = Vec::new();
    if let Some((kind, name)) = &error.resource {
        let resource = ResourceInfo {
            resource_type: (*kind).to_owned(),
            resource_name: name.to_string(),
            owner: String::new(),
            description: error.message.clone(),
        };
        details.push(Any::of("ResourceInfo", &resource));
    }
    let metadata = error.metadata.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    let info = ErrorInfo { reason: error.reason.to_owned(), domain: "dapr.io".to_owned(), metadata };
    details.push(Any::of("ErrorInfo", &info));
    let code = error.grpc as i32;
    let status = RpcStatus { code, message: error.message.clone(), details };
    Status::with_details(Code::from_i32(code), &error.message, status.encode_to_vec().into())
}

/// A message that was not read.
pub(super) fn of_body(error: BodyError) -> Status {
    let code = match error {
        BodyError::Busy | BodyError::TooLong => Code::ResourceExhausted,
        BodyError::BrokeOff => Code::Internal,
        BodyError::Slow => Code::DeadlineExceeded,
    };
    Status::new(code, error.to_string())
}
