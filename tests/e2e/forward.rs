//! The `forward` handler on a real Kafka.

use std::{collections::BTreeMap, time::Duration};

use serde_json::json;

use crate::{
    stack_or_skip,
    support::{stack::Stack, unique, worker::Launch},
};

#[tokio::test(flavor = "multi_thread")]
async fn every_event_is_copied_with_its_key_in_each_users_order_although_the_worker_is_killed() {
    let stack = stack_or_skip!(Stack::shared());
    let (name, from, to) = (unique("forward"), unique("forward-from"), unique("forward-to"));
    let kafka = stack.kafka();
    kafka.create_topic(&from, 3, &[]).await;
    kafka.create_topic(&to, 3, &[]).await;
    let event = |user: usize, task: usize| {
        json!({"event_id": format!("{user}-{task}"), "event_type": "task.updated", "user_id": format!("user-{user}"), "task_id": task})
            .to_string()
    };
    let events: Vec<_> = (0..300).map(|n| (format!("user-{}", n % 7), event(n % 7, n))).collect();
    kafka.produce_all(&from, events.iter().map(|(key, value)| (key, value))).await;
    let toml = format!("kafka.topics = [{from:?}]\n[[handlers]]\nname = \"sync\"\nkind = \"forward\"\nto = {to:?}\n");
    let mut killed = Launch::role("consumer", &stack, &name, &toml).start_ready().await;
    kafka.wait_for_records(&to, 20, Duration::from_secs(60)).await;
    killed.kill();
    let mut worker = Launch::role("consumer", &stack, &name, &toml).start_ready().await;
    kafka.wait_until_committed(&name, &from, Duration::from_secs(120)).await;
    assert_eq!(worker.terminate(Duration::from_secs(30)).await, Some(0));

    // A crash may repeat what was in flight; the first copies stand in order.
    let mut seen: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for record in kafka.read_all(&to).await {
        let (key, value) = (record.key_text().to_owned(), String::from_utf8(record.value.unwrap().to_vec()).unwrap());
        let of_user = seen.entry(key).or_default();
        if !of_user.contains(&value) {
            of_user.push(value);
        }
    }
    let mut expected: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (key, value) in events {
        expected.entry(key).or_default().push(value);
    }
    assert_eq!(seen, expected);
    kafka.delete_topic(&from).await;
    kafka.delete_topic(&to).await;
}
