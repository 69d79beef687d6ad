//! State as an app asks a sidecar for it: by store and key, each key under the app's own id.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    error::{ApiError, GrpcCode},
    metadata::Metadata,
};
use crate::{
    config::Config,
    engine::ports::StoreError,
    store::state::{self, Read, StateStore, Stored, Ttl},
};

/// Between the app's id and its key, in the store's keys.
const SEPARATOR: &str = "||";

/// How a write treats a value that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Concurrency {
    /// The etag counts where one is given.
    Unspecified,
    /// The same, and from now on nobody writes this key without its etag.
    FirstWrite,
    /// The etag counts for nothing.
    LastWrite,
}

/// A value to be kept.
#[derive(Debug, Clone)]
pub struct Change {
    /// The app's key.
    pub key: String,
    /// The value.
    pub value: Bytes,
    /// The version that it must have now; empty: none.
    pub etag: String,
    /// How a value that is there is treated.
    pub concurrency: Concurrency,
    /// `ttlInSeconds` counts.
    pub metadata: Metadata,
}

/// Dapr's state API.
pub struct States {
    app_id: String,
    names: Vec<String>,
    store: Option<Arc<dyn StateStore>>,
}

impl States {
    /// The stores that `[state]` names, all of them in `store`; `None`: there is none.
    pub fn new(config: &Config, store: Option<Arc<dyn StateStore>>) -> Self {
        Self { app_id: config.app_id.clone(), names: config.state.stores.clone(), store }
    }

    /// The value of a key.
    ///
    /// # Errors
    /// In Dapr's words.
    pub async fn get(&self, store: &str, key: &str) -> Result<Option<Stored>, ApiError> {
        let failed = |why: &str| internal("ERR_STATE_GET", format!("fail to get {key} from state store {store}: {why}"));
        let keys = [self.key(store, key)?];
        let read = self.store(store)?.get(&keys).await.map_err(|error| by_store(failed(&error.to_string()), &error))?;
        read.into_iter().next().unwrap_or(Ok(None)).map_err(|why| failed(&why))
    }

    /// The values of keys, in order.
    ///
    /// # Errors
    /// As [`States::get`], for all of them.
    pub async fn get_many(&self, store: &str, keys: &[String]) -> Result<Vec<Read>, ApiError> {
        let backend = self.store(store)?;
        let keys: Vec<_> = keys.iter().map(|key| self.key(store, key)).collect::<Result<_, _>>()?;
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let read = backend.get(&keys).await;
        read.map_err(|error| by_store(internal("ERR_STATE_BULK_GET", format!("failed reading from state store {store}: {error}")), &error))
    }

    /// Keeps values, each on its own.
    ///
    /// # Errors
    /// 409 where one of them has another version: the others are written. 400 where one makes no sense: nothing is.
    pub async fn save(&self, store: &str, changes: Vec<Change>) -> Result<(), ApiError> {
        let failed = |why: &str| internal("ERR_STATE_SAVE", format!("failed saving state in state store {store}: {why}"));
        let backend = self.store(store)?;
        let mut writes = Vec::with_capacity(changes.len());
        for change in &changes {
            if change.key.is_empty() {
                return Err(malformed("\"key\" is a required field".to_owned()));
            }
            let version = match change.etag.as_str() {
                "" => None,
                _ if change.concurrency == Concurrency::LastWrite => None,
                etag => {
                    let version = etag.parse::<u64>().map_err(|error| {
                        let error = failed(&format!("invalid etag value: \"{etag}\": {error}"));
                        ApiError { status: 400, grpc: GrpcCode::InvalidArgument, ..error }
                    })?;
                    // 0 is no version: versions count from 1.
                    Some(version).filter(|version| *version > 0)
                }
            };
            writes.push(state::Change {
                key: self.key(store, &change.key)?,
                data: change.value.clone(),
                version,
                first_write: change.concurrency == Concurrency::FirstWrite,
                ttl: ttl(&change.metadata).map_err(malformed)?,
            });
        }
        if writes.is_empty() {
            return Ok(());
        }
        let saved = backend.save(writes).await.map_err(|error| by_store(failed(&error.to_string()), &error))?;
        let in_the_way: Vec<_> = changes.iter().zip(saved).filter(|(_, saved)| !saved).map(|(change, _)| change).collect();
        let Some(first) = in_the_way.iter().find(|change| !change.etag.is_empty()).or(in_the_way.first()) else { return Ok(()) };
        if first.etag.is_empty() {
            return Err(failed(&format!("failed to set key {}: it is there already, and was written with first-write", first.key)));
        }
        let why = format!("possible etag mismatch: {} has another version than {}", first.key, first.etag);
        Err(ApiError { status: 409, grpc: GrpcCode::Aborted, ..failed(&why) })
    }

    /// Removes a key; an empty etag is any.
    ///
    /// # Errors
    /// 409 where it has another version.
    pub async fn delete(&self, store: &str, key: &str, etag: &str) -> Result<(), ApiError> {
        let failed = |why: &str| internal("ERR_STATE_DELETE", format!("failed deleting state with key {key}: {why}"));
        let backend = self.store(store)?;
        let etag = Some(etag).filter(|etag| !etag.is_empty() && *etag != "0");
        let gone = backend.delete(&self.key(store, key)?, etag).await.map_err(|error| by_store(failed(&error.to_string()), &error))?;
        if gone {
            return Ok(());
        }
        Err(ApiError { status: 409, grpc: GrpcCode::Aborted, ..failed("possible etag mismatch") })
    }

    fn store(&self, name: &str) -> Result<&dyn StateStore, ApiError> {
        let about = |status, grpc, code, reason, what: &str| ApiError {
            reason,
            metadata: vec![("appID", self.app_id.clone())],
            ..ApiError::plain(status, grpc, code, format!("state store {name} is not {what}"))
        };
        let Some(store) = &self.store else {
            let (code, reason) = ("ERR_STATE_STORE_NOT_CONFIGURED", "DAPR_STATE_NOT_CONFIGURED");
            return Err(about(500, GrpcCode::FailedPrecondition, code, reason, "configured"));
        };
        if !self.names.iter().any(|known| known == name) {
            return Err(about(400, GrpcCode::InvalidArgument, "ERR_STATE_STORE_NOT_FOUND", "DAPR_STATE_NOT_FOUND", "found"));
        }
        Ok(&**store)
    }

    /// The store's key.
    fn key(&self, store: &str, key: &str) -> Result<String, ApiError> {
        if key.contains(SEPARATOR) {
            let message = format!("input key/keyPrefix '{key}' can't contain '{SEPARATOR}'");
            let error = ApiError { reason: "DAPR_STATE_ILLEGAL_KEY", ..malformed(message) };
            return Err(ApiError { resource: Some(("state", store.into())), ..error });
        }
        Ok(format!("{}{SEPARATOR}{key}", self.app_id))
    }
}

/// `ttlInSeconds`: none leaves the key's time as it is, 0 and less make it endless.
fn ttl(metadata: &Metadata) -> Result<Ttl, String> {
    match metadata.get("ttlInSeconds").map(|text| (text, text.parse::<i64>())) {
        None => Ok(Ttl::Keep),
        Some((_, Ok(seconds))) if seconds <= 0 => Ok(Ttl::Never),
        Some((_, Ok(seconds))) => Ok(Ttl::Seconds(u32::try_from(seconds).unwrap_or(u32::MAX))),
        Some((text, Err(error))) => Err(format!("failed to parse ttl from metadata: ttlInSeconds '{text}': {error}")),
    }
}

fn malformed(message: String) -> ApiError {
    ApiError::plain(400, GrpcCode::InvalidArgument, "ERR_MALFORMED_REQUEST", message)
}

fn internal(code: &'static str, message: String) -> ApiError {
    ApiError::plain(500, GrpcCode::Internal, code, message)
}

/// 503 where the store is away.
fn by_store(failed: ApiError, error: &StoreError) -> ApiError {
    match error {
        StoreError::Unavailable(_) => ApiError { status: 503, grpc: GrpcCode::Unavailable, ..failed },
        StoreError::Fenced | StoreError::Refused(_) => failed,
    }
}
