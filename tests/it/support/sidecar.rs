//! The publish listener as an app meets it, with a publisher that does what the test says.

use std::sync::Arc;

use serde_json::{Map, Value};
use worker::{
    config::Config,
    engine::ports::Message,
    event::Catalog,
    grpc,
    health::{Health, Part, Reporter},
    http::{
        auth::{self, Token},
        body::Bodies,
        sidecar,
    },
    publish::Publishing,
    sidecar::{about::About, pubsub::PubSub, state::States},
    store::state::memory::MemoryState,
    telemetry::Metrics,
};

use super::{Served, client, config, publisher::FakePublisher, serve};

pub struct Sidecar {
    pub served: Served,
    pub grpc: Served,
    pub publisher: Arc<FakePublisher>,
    pub health: Health,
    pub brokers: Reporter,
}

/// An answer, read whole.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Answer {
    pub async fn of(request: reqwest::RequestBuilder) -> Self {
        let answer = request.send().await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Self { status, headers, text: answer.text().await.unwrap() }
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    pub fn code(&self) -> String {
        self.json()["errorCode"].as_str().unwrap().to_owned()
    }

    /// The detail of that type.
    pub fn detail(&self, name: &str) -> Option<Map<String, Value>> {
        let wanted = format!("type.googleapis.com/google.rpc.{name}");
        let details = self.json()["details"].as_array().unwrap().clone();
        details.into_iter().find(|detail| detail["@type"] == wanted.as_str()).map(|detail| detail.as_object().unwrap().clone())
    }
}

impl Sidecar {
    /// With the catalogue of the binary, any pubsub, and `sets` over the defaults.
    pub async fn start(publisher: Arc<FakePublisher>, sets: &[&str]) -> Self {
        let config: Config = config(sets);
        let health = Health::new();
        let brokers = health.part(Part::Brokers);
        brokers.ok();
        let catalog = Arc::new(Catalog::embedded().unwrap());
        let publishing = Arc::new(Publishing::new(&config, catalog, publisher.clone(), Metrics::new("producer")));
        let api = sidecar::Api {
            pubsub: Arc::new(PubSub::new(&config, publishing, brokers.clone())),
            states: Arc::new(States::new(&config, (!config.state.stores.is_empty()).then(|| Arc::new(MemoryState::default()) as _))),
            about: Arc::new(About::new(&config, health.clone(), brokers.clone())),
            bodies: Bodies::default(),
        };
        let token = Token::new(config.publish.api_token.expose());
        let probes = sidecar::health(Arc::clone(&api.about));
        let grpc = serve(grpc::router(api.clone(), token.clone())).await;
        let served = serve(sidecar::tidy(auth::guard(sidecar::router(api), token).merge(probes))).await;
        Self { served, grpc, publisher, health, brokers }
    }

    pub async fn new() -> Self {
        Self::start(FakePublisher::new(), &[]).await
    }

    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<reqwest::Body>) -> Answer {
        let mut request = client().request(method.parse().unwrap(), self.served.url(path)).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Answer::of(request).await
    }

    /// POSTs JSON.
    pub async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> Answer {
        self.send("POST", path, &[("content-type", "application/json")], body).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], "").await
    }

    /// The last record written.
    pub fn last(&self) -> Message {
        self.publisher.queued().last().expect("a record").clone()
    }

    /// The last record's value.
    pub fn last_value(&self) -> Value {
        serde_json::from_slice(self.last().value.as_ref().unwrap()).unwrap()
    }
}

/// The key as text.
pub fn key(message: &Message) -> Option<String> {
    message.key.as_ref().map(|key| String::from_utf8(key.to_vec()).unwrap())
}

/// The headers as text.
pub fn headers(message: &Message) -> Vec<(String, String)> {
    let text = |value: &Option<bytes::Bytes>| String::from_utf8(value.as_ref().unwrap().to_vec()).unwrap();
    message.headers.iter().map(|(name, value)| (name.clone(), text(value))).collect()
}
