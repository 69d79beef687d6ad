//! `[http]`, `[publish]`, `[state]`: listeners.

use serde::Deserialize;

use super::secret::Secret;

/// `[http]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpConfig {
    /// Address of `/metrics`, `/livez`, `/readyz`.
    pub listen: String,
}

/// `[publish]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishConfig {
    /// Address of the Dapr-compatible HTTP API and `POST /events`.
    pub listen: String,
    /// Address of Dapr's gRPC API.
    pub grpc_listen: String,
    /// Accepted pubsub names; empty: any.
    pub pubsubs: Vec<String>,
    /// What keys a record.
    pub key: PublishKey,
    /// What is checked before publishing.
    pub validate: PublishValidate,
    /// Wanted in `dapr-api-token` or `Authorization: Bearer`; empty: none. A secret, also read from `DAPR_API_TOKEN`.
    pub api_token: Secret,
}

/// What keys a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PublishKey {
    /// The event's user_id, always.
    UserId,
    /// An explicit `metadata.partitionKey` wins.
    Request,
}

/// What is checked before publishing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PublishValidate {
    /// Type and schema of the catalogue.
    Catalog,
    /// Any type and schema; a user_id is needed all the same.
    Off,
}

/// `[state]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateConfig {
    /// Names of the stores offered; empty: off.
    pub stores: Vec<String>,
}
