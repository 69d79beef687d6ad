//! Dapr's gRPC API, `dapr.proto.runtime.v1.Dapr`: publish, state and metadata, by the same rules as over HTTP.
//!
//! Messages are written by hand, so that a build needs no `protoc`; a call is one HTTP/2 request, so that limits, drain and token are the HTTP
//! listener's own.

mod messages;
mod service;
mod status;

use std::{future::Future, pin::Pin};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{MethodRouter, post},
};
use prost::Message;
use tonic::{Status, server::UnaryService};
use tonic_prost::ProstCodec;

use crate::http::{auth::Token, body::MAX_BODY, sidecar::Api};

/// The flag and the length before a message.
const FRAME: usize = 5;

/// What a call answers.
type Answer<A> = Result<A, Status>;

/// What the calls work with.
#[derive(Clone)]
struct Server {
    api: Api,
    token: Token,
}

/// Every call that is offered; another one is answered `UNIMPLEMENTED`.
pub fn router(api: Api, token: Token) -> Router {
    let calls = [
        ("PublishEvent", call(service::publish)),
        ("BulkPublishEvent", call(service::publish_bulk)),
        ("BulkPublishEventAlpha1", call(service::publish_bulk)),
        ("GetMetadata", call(service::metadata)),
        ("SetMetadata", call(service::set_metadata)),
        ("GetState", call(service::get_state)),
        ("GetBulkState", call(service::get_bulk_state)),
        ("SaveState", call(service::save_state)),
        ("DeleteState", call(service::delete_state)),
    ];
    let router = calls.into_iter().fold(Router::new(), |router, (name, call)| router.route(&path(name), call));
    router.fallback(not_offered).with_state(Server { api, token })
}

fn path(call: &str) -> String {
    format!("/dapr.proto.runtime.v1.Dapr/{call}")
}

/// A unary call: token, whole message, answer.
fn call<Q, A, F, Fut>(function: F) -> MethodRouter<Server>
where
    Q: Message + Default + 'static,
    A: Message + Default + 'static,
    F: Fn(Api, HeaderMap, Q) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Answer<A>> + Send + 'static,
{
    post(async move |State(server): State<Server>, request: Request| {
        let (parts, body) = request.into_parts();
        let kind = parts.headers.get(header::CONTENT_TYPE);
        if !kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")) {
            return StatusCode::UNSUPPORTED_MEDIA_TYPE.into_response();
        }
        if !server.token.admits(&parts.headers) {
            return Status::unauthenticated("authentication error: api token mismatch").into_http();
        }
        let headers = parts.headers.clone();
        let body = match server.api.bodies.read(Request::from_parts(parts.clone(), body), MAX_BODY + FRAME).await {
            Ok(body) => body,
            Err(error) => return status::of_body(error).into_http(),
        };
        let request = Request::from_parts(parts, Body::from(body.bytes.clone()));
        let unary = Unary(Some(move |message| function(server.api, headers, message)));
        let answer = tonic::server::Grpc::new(ProstCodec::<A, Q>::default()).unary(unary, request).await;
        // The memory for the body is given back when the answer is made.
        drop(body);
        answer.map(Body::new)
    })
}

/// A function as tonic wants it.
struct Unary<F>(Option<F>);

impl<Q, A, F, Fut> UnaryService<Q> for Unary<F>
where
    F: FnOnce(Q) -> Fut,
    Fut: Future<Output = Answer<A>> + Send + 'static,
    A: Send + 'static,
{
    type Response = A;
    type Future = Pin<Box<dyn Future<Output = Result<tonic::Response<A>, Status>> + Send>>;

    fn call(&mut self, request: tonic::Request<Q>) -> Self::Future {
        let answer = self.0.take().map(|function| function(request.into_inner()));
        Box::pin(async move {
            match answer {
                Some(answer) => answer.await.map(tonic::Response::new),
                None => Err(Status::internal("one request is one call")),
            }
        })
    }
}

async fn not_offered(request: Request) -> Response {
    Status::unimplemented(format!("this worker does not offer {}", request.uri().path())).into_http()
}
