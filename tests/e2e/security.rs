//! The `security` handler on a real Kafka and Redis.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};

use crate::{
    schedules::catalog,
    stack_or_skip,
    support::{again::handle_again, stack::Stack, unique, worker::Launch},
};

const MINUTE: Duration = Duration::from_secs(60);
const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";

fn login(user: usize, n: usize, address: &str, agent: &str, success: bool) -> (String, String) {
    let data = json!({ "login_method": "email", "ip_address": address, "user_agent": agent, "success": success });
    let event = json!({ "event_id": format!("login-{user}-{n}"), "event_type": "user.logged_in", "user_id": format!("user-{user}"), "data": data,
                        "timestamp": format!("2026-03-28T12:{n:02}:00Z") });
    (format!("user-{user}"), event.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_alert_is_raised_once_and_no_address_is_kept_although_a_worker_is_killed_and_all_logins_come_again() {
    const USERS: usize = 8;
    let stack = stack_or_skip!(Stack::shared());
    let (name, kafka) = (unique("watch"), stack.kafka());
    let [logins, alerts] = ["logins", "alerts"].map(unique);
    for topic in [&logins, &alerts] {
        kafka.create_topic(topic, 3, &[]).await;
    }
    let catalog = catalog(&alerts, &["security.alert"]);
    let toml = format!(
        "catalog.dir = {:?}\nkafka.topics = [{logins:?}]\n[[handlers]]\nname = \"watch\"\nkind = \"security\"\n[handlers.security]\nkey = \"of this test\"\n",
        catalog.path()
    );
    // At home, then five failures and a success from elsewhere: three alerts for each user, none for the address, whose users are few.
    let of_user = |user: usize| {
        let thief = format!("198.51.100.{user}");
        let failures = (1..6).map({
            let thief = thief.clone();
            move |n| login(user, n, &thief, "curl/8.5", false)
        });
        let home = login(user, 0, &format!("203.0.113.{user}"), FIREFOX, true);
        std::iter::once(home).chain(failures).chain([login(user, 6, &thief, "curl/8.5", true)])
    };
    kafka.produce_all(&logins, (0..USERS).flat_map(of_user)).await;
    let consumer = || Launch::role("consumer", &stack, &name, &toml);
    let mut killed = consumer().start_ready().await;
    kafka.wait_for_records(&alerts, 3, MINUTE).await;
    killed.kill();
    let mut worker = consumer().start_ready().await;
    kafka.wait_until_committed(&name, &logins, 2 * MINUTE).await;
    assert_eq!(worker.terminate(MINUTE).await, Some(0));
    let first_log = worker.log();
    let first = kafka.read_all(&alerts).await.len();
    handle_again(&stack, &name, &logins).await;
    let mut worker = consumer().start_ready().await;
    kafka.wait_until_committed(&name, &logins, 2 * MINUTE).await;
    assert_eq!(worker.terminate(MINUTE).await, Some(0));

    let mut raised: BTreeMap<String, Value> = BTreeMap::new();
    let records = kafka.read_all(&alerts).await;
    assert!(first >= 3 * USERS && records.len() >= first + 3 * USERS, "told again: {first}, {}", records.len());
    for record in records {
        let event = record.json();
        let earlier = raised.entry(event["event_id"].to_string()).or_insert_with(|| event["data"].clone());
        assert_eq!(*earlier, event["data"], "the same alert each time");
    }
    let mut rules: BTreeMap<(String, String), usize> = BTreeMap::new();
    for alert in raised.values() {
        let text = |name: &str| alert[name].as_str().unwrap().to_owned();
        *rules.entry((text("user_id"), text("rule"))).or_default() += 1;
    }
    let expected = (0..USERS)
        .flat_map(|user| ["new_device", "new_network", "user_failures"].map(|rule| ((format!("user-{user}"), rule.to_owned()), 1)));
    assert_eq!(rules, expected.collect());

    let mut client = redis::Client::open(stack.redis()).unwrap().get_multiplexed_async_connection().await.unwrap();
    let keys: Vec<String> = redis::cmd("KEYS").arg(format!("{name}:*book*")).query_async(&mut client).await.unwrap();
    assert!(keys.len() > USERS);
    let mut kept = keys.join(" ");
    for key in &keys {
        let dump: Result<BTreeMap<String, String>, _> = redis::cmd("HGETALL").arg(key).query_async(&mut client).await;
        kept.extend(dump.into_iter().flatten().map(|(_, value)| value));
    }
    for text in [kept, first_log, worker.log(), raised.values().map(ToString::to_string).collect()] {
        assert!(!text.contains("198.51.") && !text.contains("203.0."), "{text}");
    }
    for topic in [&logins, &alerts] {
        kafka.delete_topic(topic).await;
    }
}
