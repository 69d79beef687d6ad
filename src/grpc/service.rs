//! The calls: messages to requests of the sidecar, and its answers to messages.

use std::borrow::Cow;

use axum::http::HeaderMap;
use base64::{Engine, alphabet, engine};

use super::{
    Answer,
    messages::{
        BulkPublishRequest, BulkPublishResponse, BulkStateItem, DeleteStateRequest, Empty, GetBulkStateRequest, GetBulkStateResponse,
        GetMetadataResponse, GetStateRequest, GetStateResponse, PublishEventRequest, RegisteredComponent, SaveStateRequest,
        SetMetadataRequest, StateItem,
    },
    status,
};
use crate::{
    event::cloudevent::Trace,
    http::sidecar::Api,
    sidecar::{
        bulk::{self, Entry, Failure},
        metadata::Metadata,
        pubsub,
        state::{Change, Concurrency},
    },
};

/// Base64 of `-bin` headers: with and without padding.
const BIN: engine::GeneralPurpose = engine::GeneralPurpose::new(
    &alphabet::STANDARD,
    engine::GeneralPurposeConfig::new().with_decode_padding_mode(engine::DecodePaddingMode::Indifferent),
);

pub(super) async fn publish(api: Api, headers: HeaderMap, message: PublishEventRequest) -> Answer<Empty> {
    let metadata = Metadata(message.metadata);
    let parent = parent(&headers);
    let request = pubsub::Request {
        pubsub: &message.pubsub_name,
        topic: &message.topic,
        content_type: &message.data_content_type,
        data: &message.data,
        metadata: &metadata,
        trace: Trace { parent: &parent, state: text(&headers, "tracestate") },
    };
    api.pubsub.publish(request).await.map(|()| Empty {}).map_err(|error| status::of(&error))
}

/// An answer only where all entries are stored: a caller that looks at nothing but the status must not take a part for the whole.
pub(super) async fn publish_bulk(api: Api, headers: HeaderMap, message: BulkPublishRequest) -> Answer<BulkPublishResponse> {
    let entry = |entry: super::messages::BulkPublishRequestEntry| Entry {
        id: entry.entry_id,
        content_type: entry.content_type,
        data: Cow::Owned(entry.event.into()),
        // A map that is empty and one that is not there are the same on the wire.
        metadata: Some(entry.metadata).filter(|own| !own.is_empty()).map(Metadata),
    };
    let metadata = Metadata(message.metadata);
    let parent = parent(&headers);
    let request = bulk::Request {
        pubsub: &message.pubsub_name,
        topic: &message.topic,
        entries: message.entries.into_iter().map(entry).collect(),
        metadata: &metadata,
        trace: Trace { parent: &parent, state: text(&headers, "tracestate") },
    };
    match api.pubsub.publish_bulk(request).await {
        Ok(()) => Ok(BulkPublishResponse { failed_entries: Vec::new() }),
        Err(Failure { mut error, entries }) => {
            if !entries.is_empty() {
                let failed: Vec<_> = entries.iter().map(|(id, _)| id.as_str()).collect();
                error.metadata.push(("failedEntries", failed.join(",")));
            }
            Err(status::of(&error))
        }
    }
}

pub(super) async fn metadata(api: Api, _: HeaderMap, _: Empty) -> Answer<GetMetadataResponse> {
    let about = &api.about;
    let component = |component: &crate::sidecar::about::Component| RegisteredComponent {
        name: component.name.clone(),
        kind: component.kind.to_owned(),
        version: "v1".to_owned(),
        capabilities: component.capabilities.iter().map(|name| (*name).to_owned()).collect(),
    };
    Ok(GetMetadataResponse {
        id: about.app_id.clone(),
        registered_components: about.components().iter().map(component).collect(),
        extended_metadata: about.attributes(),
        runtime_version: about.version().to_owned(),
    })
}

pub(super) async fn set_metadata(api: Api, _: HeaderMap, message: SetMetadataRequest) -> Answer<Empty> {
    api.about.set(&message.key, &message.value).map(|()| Empty {}).map_err(tonic::Status::invalid_argument)
}

pub(super) async fn get_state(api: Api, _: HeaderMap, message: GetStateRequest) -> Answer<GetStateResponse> {
    let read = api.states.get(&message.store_name, &message.key).await.map_err(|error| status::of(&error))?;
    Ok(read.map_or_else(GetStateResponse::default, |stored| GetStateResponse { data: stored.data, etag: stored.etag.unwrap_or_default() }))
}

pub(super) async fn get_bulk_state(api: Api, _: HeaderMap, message: GetBulkStateRequest) -> Answer<GetBulkStateResponse> {
    let read = api.states.get_many(&message.store_name, &message.keys).await.map_err(|error| status::of(&error))?;
    let item = |(key, read): (String, _)| match read {
        Ok(None) => BulkStateItem { key, ..BulkStateItem::default() },
        Ok(Some(crate::store::state::Stored { data, etag })) => {
            BulkStateItem { key, data, etag: etag.unwrap_or_default(), error: String::new() }
        }
        Err(error) => BulkStateItem { key, error, ..BulkStateItem::default() },
    };
    Ok(GetBulkStateResponse { items: message.keys.into_iter().zip(read).map(item).collect() })
}

pub(super) async fn save_state(api: Api, _: HeaderMap, message: SaveStateRequest) -> Answer<Empty> {
    let change = |item: StateItem| Change {
        key: item.key,
        value: item.value,
        etag: item.etag.unwrap_or_default().value,
        concurrency: match item.options.unwrap_or_default().concurrency {
            1 => Concurrency::FirstWrite,
            2 => Concurrency::LastWrite,
            _ => Concurrency::Unspecified,
        },
        metadata: Metadata(item.metadata),
    };
    let changes = message.states.into_iter().map(change).collect();
    api.states.save(&message.store_name, changes).await.map(|()| Empty {}).map_err(|error| status::of(&error))
}

pub(super) async fn delete_state(api: Api, _: HeaderMap, message: DeleteStateRequest) -> Answer<Empty> {
    let etag = message.etag.unwrap_or_default().value;
    api.states.delete(&message.store_name, &message.key, &etag).await.map(|()| Empty {}).map_err(|error| status::of(&error))
}

/// The caller's trace: `traceparent`, else OpenCensus' binary form of the same.
fn parent(headers: &HeaderMap) -> String {
    let sent = text(headers, "traceparent");
    if !sent.is_empty() {
        return sent.to_owned();
    }
    BIN.decode(text(headers, "grpc-trace-bin")).ok().and_then(|bytes| of_binary(&bytes)).unwrap_or_default()
}

/// Version 0, then field 0 (16 bytes of trace), field 1 (8 bytes of span), field 2 (one of flags).
fn of_binary(bytes: &[u8]) -> Option<String> {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let (trace, rest) = bytes.strip_prefix(&[0, 0])?.split_at_checked(16)?;
    let (span, rest) = rest.strip_prefix(&[1])?.split_at_checked(8)?;
    let flags = rest.strip_prefix(&[2]).and_then(<[u8]>::first).unwrap_or(&0);
    Some(format!("00-{}-{}-{flags:02x}", hex(trace), hex(span)))
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> &'h str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_in_binary_form_is_read_as_the_text_form() {
        let mut headers = HeaderMap::new();
        assert_eq!(parent(&headers), "");
        let mut bytes = vec![0, 0];
        bytes.extend([0xab; 16]);
        bytes.push(1);
        bytes.extend([0xcd; 8]);
        bytes.extend([2, 1]);
        let expected = format!("00-{}-{}-01", "ab".repeat(16), "cd".repeat(8));
        assert_eq!(of_binary(&bytes).as_deref(), Some(expected.as_str()));
        for encoded in [BIN.encode(&bytes), BIN.encode(&bytes).trim_end_matches('=').to_owned()] {
            headers.insert("grpc-trace-bin", encoded.parse().unwrap_or(axum::http::HeaderValue::from_static("")));
            assert_eq!(parent(&headers), expected);
        }
        assert_eq!(of_binary(&bytes[..20]), None);
        headers.insert("traceparent", axum::http::HeaderValue::from_static("text"));
        assert_eq!(parent(&headers), "text");
    }
}
