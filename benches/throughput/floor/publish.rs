//! HTTP to acknowledged: an axum server, the typed parse, a producer; nothing else.

use std::time::Duration;

use axum::{Router, body::Bytes, extract::State, http::StatusCode, routing::post};
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde::Deserialize;

use super::envelope::Envelope;
use crate::stack::Stack;

#[derive(Clone)]
struct Publish {
    producer: FutureProducer,
    topic: String,
}

/// Prints its port, then serves `POST /events` until it is killed. `linger`: of the producer.
///
/// # Errors
/// Where it cannot listen.
pub fn publish(stack: &Stack, topic: &str, linger: Duration) -> anyhow::Result<()> {
    let producer = stack
        .client()
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("compression.type", "lz4")
        .set("partitioner", "murmur2_random")
        .set("linger.ms", linger.as_millis().to_string())
        .create()?;
    let router = Router::new().route("/events", post(accept)).with_state(Publish { producer, topic: topic.to_owned() });
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?.port());
        anyhow::Ok(axum::serve(listener, router).await?)
    })
}

#[derive(Deserialize)]
struct Data<'a> {
    user_id: &'a str,
}

async fn accept(State(publish): State<Publish>, body: Bytes) -> StatusCode {
    let Some(data) = Envelope::read(&body).and_then(|event| event.data) else { return StatusCode::BAD_REQUEST };
    let Ok(Data { user_id }) = serde_json::from_str(data.get()) else { return StatusCode::BAD_REQUEST };
    let record = FutureRecord::to(&publish.topic).key(user_id).payload(&*body);
    match publish.producer.send(record, Duration::ZERO).await {
        Ok(_) => StatusCode::ACCEPTED,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}
