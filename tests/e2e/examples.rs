//! What `examples/` shows, done.

use std::time::Duration;

use crate::support::{eventually, worker::Launch};

const LONG: Duration = Duration::from_secs(60);

/// As its first lines say: run it, publish to it.
#[tokio::test(flavor = "multi_thread")]
async fn the_custom_handler_of_the_examples_handles_what_is_published_to_it() {
    let mut example = Launch::example("custom_handler").start_ready().await;
    for task in 1..=2 {
        let event = format!("{{\"event_type\":\"task.completed\",\"user_id\":\"ada\",\"task_id\":{task}}}");
        let answer = reqwest::Client::new().post(example.publish_url("/events")).body(event).send().await.unwrap();
        assert_eq!(answer.status(), 202, "{}", answer.text().await.unwrap());
    }
    eventually("two completed tasks", LONG, async || example.log().contains("ada has 20 points").then_some(())).await;
    assert_eq!(example.terminate(LONG).await, Some(0));
}
