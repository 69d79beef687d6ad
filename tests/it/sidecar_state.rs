//! Dapr's state API over HTTP, row by row, on the store in memory; and that store's own promises.

use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use serde_json::{Value, json};
use worker::{
    engine::ports::StoreError,
    store::state::{Change, StateStore, Ttl, memory::MemoryState},
};

use crate::{
    contract_state::{Bench, change},
    support::{
        publisher::FakePublisher,
        sidecar::{Answer, Sidecar},
    },
};

struct Memory(MemoryState);

impl Bench for Memory {
    fn store(&self) -> &dyn StateStore {
        &self.0
    }

    fn pass(&self, time: Duration) -> BoxFuture<'_, ()> {
        tokio::time::advance(time).boxed()
    }
}

async fn empty() -> Option<Memory> {
    Some(Memory(MemoryState::default()))
}

crate::state_contract!(tokio::test(start_paused = true), empty);

#[tokio::test(start_paused = true)]
async fn state_in_memory_is_bounded_and_has_room_again_when_something_ends() {
    let store = MemoryState::new(1000);
    let large = |key: &str| Change { ttl: Ttl::Seconds(1), ..change(key, &"x".repeat(300)) };
    assert_eq!(store.save(vec![large("a"), large("b")]).await, Ok(vec![true, true]));
    assert!(matches!(store.save(vec![large("c")]).await, Err(StoreError::Unavailable(why)) if why.contains("full")));
    assert_eq!(store.save(vec![large("a")]).await, Ok(vec![true]), "what takes no more room is written");
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(store.save(vec![large("c")]).await, Ok(vec![true]));
}

const STORE: &str = "/v1.0/state/statestore";

async fn sidecar() -> Sidecar {
    Sidecar::start(FakePublisher::new(), &["state.stores=[\"statestore\"]"]).await
}

async fn save(sidecar: &Sidecar, item: Value) -> Answer {
    sidecar.post(STORE, json!([item]).to_string()).await
}

#[tokio::test]
async fn idempotency_code_finds_an_event_that_it_handled_and_no_other() {
    let sidecar = sidecar().await;
    let path = format!("{STORE}/event-550e8400");
    assert_eq!((sidecar.get(&path).await.status, sidecar.get(&path).await.text.as_str()), (204, ""));
    let done = json!({"processed": true, "at": "2025-12-30T10:00:00Z"});
    let saved = save(&sidecar, json!({"key": "event-550e8400", "value": done, "metadata": {"ttlInSeconds": "86400"}})).await;
    assert_eq!((saved.status, saved.text.as_str()), (204, ""));
    let answer = sidecar.get(&path).await;
    assert_eq!((answer.status, answer.json()), (200, done));
    assert!(answer.headers["etag"] == "1" && answer.headers["content-type"] == "application/json");
    assert_eq!(sidecar.get(&format!("{STORE}/event-other")).await.status, 204);
}

#[tokio::test]
async fn an_etag_is_checked_on_save_and_delete() {
    let sidecar = sidecar().await;
    save(&sidecar, json!({"key": "k", "value": 1})).await;
    let mismatch = save(&sidecar, json!({"key": "k", "value": 2, "etag": "9"})).await;
    assert_eq!((mismatch.status, mismatch.code().as_str()), (409, "ERR_STATE_SAVE"));
    assert_eq!(save(&sidecar, json!({"key": "k", "value": 2, "etag": "1"})).await.status, 204);
    let invalid = save(&sidecar, json!({"key": "k", "value": 3, "etag": "x"})).await;
    assert_eq!((invalid.status, invalid.code().as_str()), (400, "ERR_STATE_SAVE"));
    let last_write = json!({"key": "k", "value": 3, "etag": "9", "options": {"concurrency": "last-write"}});
    assert_eq!(save(&sidecar, last_write).await.status, 204, "last-write looks at no etag");
    let path = format!("{STORE}/k");
    let mismatch = sidecar.send("DELETE", &path, &[("if-match", "1")], "").await;
    assert_eq!((mismatch.status, mismatch.code().as_str()), (409, "ERR_STATE_DELETE"));
    assert_eq!(sidecar.send("DELETE", &path, &[("if-match", "3")], "").await.status, 204);
    assert_eq!(sidecar.get(&path).await.status, 204);
    assert_eq!(sidecar.send("DELETE", &path, &[], "").await.status, 204, "what is not there can be deleted");
}

#[tokio::test]
async fn a_first_write_without_an_etag_claims_a_key_once() {
    let sidecar = sidecar().await;
    let claim = json!({"key": "k", "value": "mine", "options": {"concurrency": "first-write"}});
    assert_eq!(save(&sidecar, claim.clone()).await.status, 204);
    let second = save(&sidecar, claim).await;
    assert_eq!((second.status, second.code().as_str()), (500, "ERR_STATE_SAVE"));
    assert_eq!(sidecar.get(&format!("{STORE}/k")).await.headers["etag"], "1");
}

#[tokio::test]
async fn values_are_kept_byte_for_byte_under_any_key() {
    let sidecar = sidecar().await;
    let body = r#"[{"key":"a/b c","value":{ "n": 12345678901234567890, "x": 1.50 }},{"key":"none"}]"#;
    assert_eq!(sidecar.send("PUT", STORE, &[], body).await.status, 204);
    for path in ["a%2Fb%20c", "a%2Fb+c"] {
        assert_eq!(sidecar.get(&format!("{STORE}/{path}")).await.text, r#"{ "n": 12345678901234567890, "x": 1.50 }"#);
    }
    assert_eq!(sidecar.get(&format!("{STORE}/none")).await.text, "null");
}

#[tokio::test]
async fn many_keys_are_read_at_once() {
    let sidecar = sidecar().await;
    sidecar.post(STORE, json!([{"key": "a", "value": {"x": 1}}, {"key": "b", "value": "text"}]).to_string()).await;
    let answer = sidecar.post(&format!("{STORE}/bulk"), json!({"keys": ["b", "missing", "a"], "parallelism": 10}).to_string()).await;
    let expected = json!([{"key": "b", "data": "text", "etag": "1"}, {"key": "missing"}, {"key": "a", "data": {"x": 1}, "etag": "1"}]);
    assert_eq!((answer.status, answer.json()), (200, expected));
    assert_eq!(sidecar.post(&format!("{STORE}/bulk"), "{}").await.json(), json!([]));
}

#[tokio::test]
async fn a_request_that_makes_no_sense_is_400_and_writes_nothing() {
    let sidecar = sidecar().await;
    for body in [
        json!({}),
        json!([{"key": "k", "value": 1}, {"value": 1}]),
        json!([{"key": "k", "value": 1}, {"key": "a||b", "value": 1}]),
        json!([{"key": "k", "value": 1, "metadata": {"ttlInSeconds": "soon"}}]),
        json!([{"key": "k", "value": 1, "options": {"concurrency": "third-write"}}]),
        json!([{"key": "k", "value": 1, "options": {"consistency": "some"}}]),
    ] {
        let answer = sidecar.post(STORE, body.to_string()).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "ERR_MALFORMED_REQUEST"), "{body}");
    }
    let answer = sidecar.post(&format!("{STORE}?metadata.ttlInSeconds=soon"), json!([{"key": "k", "value": 1}]).to_string()).await;
    assert_eq!(answer.status, 400, "the query's metadata wins over the item's");
    assert_eq!(sidecar.get(&format!("{STORE}/k")).await.status, 204);
    assert_eq!(sidecar.get(&format!("{STORE}/a%7C%7Cb")).await.code(), "ERR_MALFORMED_REQUEST");
    assert_eq!(sidecar.post(STORE, "[]").await.status, 204);
}

#[tokio::test]
async fn state_is_off_unless_a_store_is_named() {
    let off = Sidecar::new().await;
    let answer = off.get(&format!("{STORE}/k")).await;
    assert_eq!((answer.status, answer.code().as_str()), (500, "ERR_STATE_STORE_NOT_CONFIGURED"));
    let answer = sidecar().await.get("/v1.0/state/other/k").await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "ERR_STATE_STORE_NOT_FOUND"));
    assert_eq!(answer.json()["message"], "state store other is not found");
}

#[tokio::test]
async fn transactions_are_not_offered_and_say_so() {
    let answer = sidecar().await.post(&format!("{STORE}/transaction"), "{}").await;
    assert_eq!((answer.status, answer.code().as_str()), (404, "ERR_API_UNIMPLEMENTED"));
}
