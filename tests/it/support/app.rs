//! An app behind an `http` handler that answers what a test says and keeps what it got.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, Method, Uri},
    response::{IntoResponse, Response},
};
use serde_json::Value;

use super::{Served, serve};

/// One request as the app saw it.
#[derive(Debug, Clone)]
pub struct Got {
    pub method: Method,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Got {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// An answer: status, headers, body.
pub type Reply = (u16, Vec<(&'static str, String)>, String);

#[derive(Default)]
struct Script {
    got: Vec<Got>,
    replies: VecDeque<Reply>,
}

/// The app: answers 200 with an empty body unless told otherwise.
pub struct App {
    pub served: Served,
    script: Arc<Mutex<Script>>,
}

impl App {
    pub async fn start() -> Self {
        let script = Arc::new(Mutex::new(Script::default()));
        let router = Router::new().fallback(answer).with_state(Arc::clone(&script));
        Self { served: serve(router).await, script }
    }

    /// The next answers, in order.
    pub fn reply(&self, replies: impl IntoIterator<Item = Reply>) {
        self.script.lock().unwrap().replies.extend(replies);
    }

    /// Every request so far.
    pub fn got(&self) -> Vec<Got> {
        self.script.lock().unwrap().got.clone()
    }
}

/// An answer of a status and a body.
pub fn reply(status: u16, body: &str) -> Reply {
    (status, Vec::new(), body.to_owned())
}

async fn answer(State(script): State<Arc<Mutex<Script>>>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let mut script = script.lock().unwrap();
    let path = uri.path_and_query().unwrap().to_string();
    script.got.push(Got { method, path, headers, body });
    let (status, headers, body) = script.replies.pop_front().unwrap_or((200, Vec::new(), String::new()));
    let mut response = body.into_response();
    *response.status_mut() = status.try_into().unwrap();
    response.headers_mut().clear();
    for (name, value) in headers {
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    response
}
