//! What apps ask of a Dapr sidecar, the same whether they ask over HTTP or gRPC: publish, state, and what is running here.

pub mod about;
pub mod bulk;
pub mod error;
pub mod metadata;
pub mod pubsub;
pub mod state;
