//! Events that come again: a stopped group's offsets set back to the beginning, and its ledger forgotten.

use worker::{
    config::{Config, Sources},
    event::record::TopicPartition,
    kafka::{client::Clients, marks::Marks},
};

use super::stack::Stack;

/// What [`Launch::role`](super::worker::Launch::role) of that name read of the topic is read and handled again by its next start.
pub async fn handle_again(stack: &Stack, name: &str, topic: &str) {
    let sets = vec![format!("kafka.brokers=\"{}\"", stack.brokers())];
    let config: Config = Config::load(&Sources { sets, ..Sources::default() }).unwrap().config;
    let mut marks = Marks::new(&Clients::new(&config).unwrap());
    for partition in stack.kafka().partitions(topic) {
        marks.write(name, &TopicPartition::new(topic, partition), 0, String::new()).await.unwrap();
    }
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_worker"));
    command.env("WORKER_APP_ID", name).env("WORKER_STORE__PREFIX", name).env("WORKER_STORE__URL", stack.redis());
    let done = command.args(["store", "forget", "--execute"]).output().await.unwrap();
    assert!(done.status.success(), "{done:?}");
}
