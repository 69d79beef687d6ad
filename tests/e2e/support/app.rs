//! A small HTTP app behind the worker: records what it is given and answers by script.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{
    body::Bytes,
    http::{HeaderMap, StatusCode, Uri},
    response::{IntoResponse, Response},
};

/// One request that arrived.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Path of the URL.
    pub path: String,
    /// Headers with lowercase names.
    pub headers: BTreeMap<String, String>,
    /// The body's bytes.
    pub body: Bytes,
    /// When it arrived.
    pub at: Instant,
    /// How many arrived before it with the same body.
    pub earlier: usize,
}

impl Delivery {
    /// The body as JSON; null where it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// What the app answers.
#[derive(Debug, Clone)]
pub struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
    delay: Duration,
}

impl Answer {
    /// An empty body.
    pub fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: String::new(), delay: Duration::ZERO }
    }

    /// 200 with a JSON body, such as `{"status":"RETRY"}`.
    pub fn json(body: &str) -> Self {
        Self { body: body.to_owned(), ..Self::status(200) }.header("content-type", "application/json")
    }

    /// The same with another status.
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// Adds a header.
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// Answers only after this long.
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }
}

type Script = Arc<dyn Fn(&Delivery) -> Answer + Send + Sync>;

/// A running app; it ends when dropped.
pub struct App {
    address: String,
    deliveries: Arc<Mutex<Vec<Delivery>>>,
    server: tokio::task::JoinHandle<()>,
}

impl App {
    /// Listens on a free port and asks `script` for each answer.
    pub async fn start(script: impl Fn(&Delivery) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1:0", script).await
    }

    /// As [`App::start`], on an address that the test knows beforehand, for an app that comes late or comes back.
    pub async fn start_at(address: &str, script: impl Fn(&Delivery) -> Answer + Send + Sync + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let deliveries: Arc<Mutex<Vec<Delivery>>> = Arc::default();
        let (seen, script) = (Arc::clone(&deliveries), Arc::new(script) as Script);
        let router = axum::Router::new().fallback(move |uri: Uri, headers: HeaderMap, body: Bytes| {
            let (seen, script) = (Arc::clone(&seen), Arc::clone(&script));
            async move { answer(&seen, &script, &uri, &headers, body).await }
        });
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, deliveries, server }
    }

    /// `http://127.0.0.1:port` and a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What has arrived, in order of arrival.
    pub fn deliveries(&self) -> Vec<Delivery> {
        self.deliveries.lock().unwrap().clone()
    }

    /// What has arrived, once it is at least `count`.
    pub async fn wait_for(&self, count: usize, within: Duration) -> Vec<Delivery> {
        let what = format!("{count} deliveries");
        super::eventually(&what, within, async || Some(self.deliveries()).filter(|seen| seen.len() >= count)).await
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(seen: &Mutex<Vec<Delivery>>, script: &Script, uri: &Uri, headers: &HeaderMap, body: Bytes) -> Response {
    let headers = headers.iter().map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())).collect();
    let answer = {
        let mut seen = seen.lock().unwrap();
        let earlier = seen.iter().filter(|delivery| delivery.body == body).count();
        let delivery = Delivery { path: uri.path().to_owned(), headers, body, at: Instant::now(), earlier };
        seen.push(delivery.clone());
        script(&delivery)
    };
    tokio::time::sleep(answer.delay).await;
    let mut response = (StatusCode::from_u16(answer.status).unwrap(), answer.body).into_response();
    for (name, value) in answer.headers {
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    response
}
