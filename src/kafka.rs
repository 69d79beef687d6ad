//! Everything that speaks to Kafka; the only folder that names the client library.
//!
//! The consumer is two clients on one thread: the *member* joins the group and commits, the *fetcher* reads what the member owns.
//! librdkafka stops and empties every assigned partition while a rebalance waits for its answer; with the fetcher outside the group,
//! a partition that stays keeps flowing while another is drained.

mod native;
mod token;
pub mod client;
mod pulse;
mod batch;
mod rebalance;
mod member;
mod commit;
mod lookup;
mod watch;
mod tap;
mod poll;
pub mod source;
pub mod publisher;
pub mod embedded;
pub mod reader;
pub mod scan;
pub mod marks;
pub mod topics;
pub mod access;

pub use client::KafkaError;
