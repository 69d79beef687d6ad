//! `worker store forget`, as an operator uses it.

use std::{process::Output, time::Duration};

use worker::{
    config::{Config, Sources},
    event::record::TopicPartition,
    kafka::{client::Clients, marks::Marks},
};

use crate::{
    stack_or_skip,
    support::{
        app::{Answer, App},
        stack::Stack,
        unique,
        worker::Launch,
    },
};

const LONG: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_group_handles_events_again_only_after_it_was_told_to_forget() {
    let stack = stack_or_skip!(Stack::shared());
    let (kafka, name) = (stack.kafka(), unique("forget"));
    kafka.create_topic(&name, 1, &[]).await;
    let app = App::start(|_| Answer::status(200)).await;
    let toml = format!(
        "kafka.topics = [\"{name}\"]\ncatalog.validate = false\n[[handlers]]\nname = \"app\"\nkind = \"http\"\nurl = \"{}\"\n",
        app.url("/")
    );
    let launch = || Launch::role("consumer", &stack, &name, &toml);
    let forget = async |args: &[&str]| -> Output {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_worker"));
        command.env("WORKER_APP_ID", &name).env("WORKER_STORE__PREFIX", &name).env("WORKER_STORE__URL", stack.redis());
        command.args(["store", "forget"]).args(args).output().await.unwrap()
    };
    let event = r#"{"event_type":"task.created","event_id":"e1","user_id":"u1","data":{"task_id":1}}"#;

    let mut worker = launch().start_ready().await;
    kafka.produce(&name, "u1", event.as_bytes(), &[]).await;
    app.wait_for(1, LONG).await;
    kafka.wait_until_committed(&name, &name, LONG).await;
    let refused = forget(&["--execute"]).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("stop every worker of the group"), "{refused:?}");
    assert_eq!(worker.terminate(LONG).await, Some(0));

    let sets = vec![format!("kafka.brokers=\"{}\"", stack.brokers())];
    let config: Config = Config::load(&Sources { sets, ..Sources::default() }).unwrap().config;
    let rewind = async || {
        let mut marks = Marks::new(&Clients::new(&config).unwrap());
        marks.write(&name, &TopicPartition::new(name.as_str(), 0), 0, String::new()).await.unwrap();
    };
    rewind().await;
    assert_eq!(forget(&[]).await.status.code(), Some(0));
    let mut worker = launch().start_ready().await;
    worker.wait_for_metric("worker_events_settled_total", &[("outcome", "duplicate")], LONG, |count| count == 1.0).await;
    assert_eq!(worker.terminate(LONG).await, Some(0));
    assert_eq!(app.deliveries().len(), 1, "a dry run forgets nothing");

    rewind().await;
    let done = forget(&["--execute"]).await;
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    let _worker = launch().start_ready().await;
    app.wait_for(2, LONG).await;
}
