//! The messages of `dapr.proto.runtime.v1` and `google.rpc` that are used here, by field number. Fields that nobody reads are left out.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;

/// `google.protobuf.Empty`, and requests without a field that counts.
#[derive(Clone, PartialEq, Message)]
pub struct Empty {}

#[derive(Clone, PartialEq, Message)]
pub struct PublishEventRequest {
    #[prost(string, tag = "1")]
    pub pubsub_name: String,
    #[prost(string, tag = "2")]
    pub topic: String,
    #[prost(bytes = "bytes", tag = "3")]
    pub data: Bytes,
    #[prost(string, tag = "4")]
    pub data_content_type: String,
    #[prost(btree_map = "string, string", tag = "5")]
    pub metadata: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct BulkPublishRequest {
    #[prost(string, tag = "1")]
    pub pubsub_name: String,
    #[prost(string, tag = "2")]
    pub topic: String,
    #[prost(message, repeated, tag = "3")]
    pub entries: Vec<BulkPublishRequestEntry>,
    #[prost(btree_map = "string, string", tag = "4")]
    pub metadata: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct BulkPublishRequestEntry {
    #[prost(string, tag = "1")]
    pub entry_id: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub event: Bytes,
    #[prost(string, tag = "3")]
    pub content_type: String,
    #[prost(btree_map = "string, string", tag = "4")]
    pub metadata: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct BulkPublishResponse {
    #[prost(message, repeated, tag = "1")]
    pub failed_entries: Vec<BulkPublishResponseFailedEntry>,
}

#[derive(Clone, PartialEq, Message)]
pub struct BulkPublishResponseFailedEntry {
    #[prost(string, tag = "1")]
    pub entry_id: String,
    #[prost(string, tag = "2")]
    pub error: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct GetMetadataResponse {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(message, repeated, tag = "3")]
    pub registered_components: Vec<RegisteredComponent>,
    #[prost(btree_map = "string, string", tag = "4")]
    pub extended_metadata: BTreeMap<String, String>,
    #[prost(string, tag = "8")]
    pub runtime_version: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct RegisteredComponent {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub kind: String,
    #[prost(string, tag = "3")]
    pub version: String,
    #[prost(string, repeated, tag = "4")]
    pub capabilities: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct SetMetadataRequest {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct GetStateRequest {
    #[prost(string, tag = "1")]
    pub store_name: String,
    #[prost(string, tag = "2")]
    pub key: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct GetStateResponse {
    #[prost(bytes = "bytes", tag = "1")]
    pub data: Bytes,
    #[prost(string, tag = "2")]
    pub etag: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct GetBulkStateRequest {
    #[prost(string, tag = "1")]
    pub store_name: String,
    #[prost(string, repeated, tag = "2")]
    pub keys: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct GetBulkStateResponse {
    #[prost(message, repeated, tag = "1")]
    pub items: Vec<BulkStateItem>,
}

#[derive(Clone, PartialEq, Message)]
pub struct BulkStateItem {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub data: Bytes,
    #[prost(string, tag = "3")]
    pub etag: String,
    #[prost(string, tag = "4")]
    pub error: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct SaveStateRequest {
    #[prost(string, tag = "1")]
    pub store_name: String,
    #[prost(message, repeated, tag = "2")]
    pub states: Vec<StateItem>,
}

#[derive(Clone, PartialEq, Message)]
pub struct StateItem {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
    #[prost(message, optional, tag = "3")]
    pub etag: Option<Etag>,
    #[prost(btree_map = "string, string", tag = "4")]
    pub metadata: BTreeMap<String, String>,
    #[prost(message, optional, tag = "5")]
    pub options: Option<StateOptions>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Etag {
    #[prost(string, tag = "1")]
    pub value: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct StateOptions {
    /// 0 unspecified, 1 first write, 2 last write.
    #[prost(int32, tag = "1")]
    pub concurrency: i32,
}

#[derive(Clone, PartialEq, Message)]
pub struct DeleteStateRequest {
    #[prost(string, tag = "1")]
    pub store_name: String,
    #[prost(string, tag = "2")]
    pub key: String,
    #[prost(message, optional, tag = "3")]
    pub etag: Option<Etag>,
}

/// `google.rpc.Status`, what `grpc-status-details-bin` holds.
#[derive(Clone, PartialEq, Message)]
pub struct RpcStatus {
    #[prost(int32, tag = "1")]
    pub code: i32,
    #[prost(string, tag = "2")]
    pub message: String,
    #[prost(message, repeated, tag = "3")]
    pub details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
pub struct Any {
    #[prost(string, tag = "1")]
    pub type_url: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

impl Any {
    /// A message of `google.rpc` of that name.
    pub fn of(name: &str, message: &impl Message) -> Self {
        Self { type_url: format!("type.googleapis.com/google.rpc.{name}"), value: message.encode_to_vec().into() }
    }
}

#[derive(Clone, PartialEq, Message)]
pub struct ErrorInfo {
    #[prost(string, tag = "1")]
    pub reason: String,
    #[prost(string, tag = "2")]
    pub domain: String,
    #[prost(btree_map = "string, string", tag = "3")]
    pub metadata: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ResourceInfo {
    #[prost(string, tag = "1")]
    pub resource_type: String,
    #[prost(string, tag = "2")]
    pub resource_name: String,
    #[prost(string, tag = "3")]
    pub owner: String,
    #[prost(string, tag = "4")]
    pub description: String,
}
