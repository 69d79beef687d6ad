//! The harness itself: what it promises to the other tests.

use std::{process::Command, time::Duration};

use crate::{
    stack_or_skip,
    support::{
        app::{Answer, App},
        kafka::Kafka,
        metrics::Metrics,
        node,
        packages::run,
        python,
        stack::Stack,
        unique,
    },
};

const LONG: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_read_back_whole_with_keys_and_headers() {
    let stack = stack_or_skip!(Stack::shared());
    let (kafka, topic) = (stack.kafka(), unique("harness"));
    kafka.create_topic(&topic, 3, &[]).await;
    assert_eq!(kafka.read_all(&topic).await, []);
    let (partition, offset) = kafka.produce(&topic, "user-1", b"{\"n\":1}", &[("a", "1"), ("b", "2")]).await;
    kafka.produce_all(&topic, (0..100).map(|n| (format!("user-{n}"), format!("{{\"n\":{n}}}")))).await;

    let records = kafka.wait_for_records(&topic, 101, LONG).await;
    assert_eq!(records.len(), 101);
    let first = records.iter().find(|record| (record.partition, record.offset) == (partition, offset)).unwrap();
    assert_eq!((first.key_text(), first.json()["n"].as_i64()), ("user-1", Some(1)));
    assert_eq!((first.header("a"), first.header("b"), first.header("c")), (Some("1"), Some("2"), None));
    assert_eq!(kafka.committed(&unique("nobody"), &topic).len(), 0);
    kafka.delete_topic(&topic).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_stack_keeps_its_data_over_kill_9() {
    let stack = stack_or_skip!(Stack::private(&["kafka", "redis"]));
    let topic = unique("harness");
    stack.kafka().create_topic(&topic, 1, &[]).await;
    stack.kafka().produce(&topic, "k", b"1", &[]).await;
    let client = redis::Client::open(stack.redis()).unwrap();
    let () = redis::cmd("SET").arg("k").arg("v").query_async(&mut client.get_multiplexed_async_connection().await.unwrap()).await.unwrap();

    for part in ["kafka", "redis"] {
        stack.kill(part);
        stack.start(part);
    }

    assert_eq!(stack.kafka().wait_for_records(&topic, 1, LONG).await.len(), 1);
    let kept: String = redis::cmd("GET").arg("k").query_async(&mut client.get_multiplexed_async_connection().await.unwrap()).await.unwrap();
    assert_eq!(kept, "v");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_round_trip_over_sasl_ssl_needs_the_ca_and_the_password() {
    let sasl = stack_or_skip!(Stack::shared()).sasl_ssl();
    let properties = |password| {
        [
            ("bootstrap.servers", sasl.brokers.as_str()),
            ("security.protocol", "sasl_ssl"),
            ("sasl.mechanism", "SCRAM-SHA-512"),
            ("ssl.ca.location", sasl.ca.as_str()),
            ("sasl.username", sasl.user.as_str()),
            ("sasl.password", password),
        ]
    };
    let (kafka, topic) = (Kafka::with(&properties(&sasl.password)), unique("harness"));
    kafka.create_topic(&topic, 1, &[]).await;
    kafka.produce(&topic, "k", b"1", &[]).await;
    assert_eq!(kafka.read_all(&topic).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_answers_by_script_and_remembers() {
    let app =
        App::start(|delivery| if delivery.earlier == 0 { Answer::status(503).header("retry-after", "1") } else { Answer::json("{}") })
            .await;
    let client = reqwest::Client::new();
    let statuses = [
        client.post(app.url("/a")).body("x").send().await.unwrap().status().as_u16(),
        client.post(app.url("/a")).body("x").send().await.unwrap().status().as_u16(),
    ];
    assert_eq!(statuses, [503, 200]);
    assert_eq!(app.wait_for(2, LONG).await[1].path, "/a");
}

#[test]
fn a_python_and_a_node_have_the_packages_that_a_test_names() {
    let python = stack_or_skip!(python::venv(&["iniconfig==2.3.1"]));
    assert_eq!(python::venv(&["iniconfig==2.3.1"]), Some(python.clone()), "made once");
    run(Command::new(&python).args(["-c", "import iniconfig"])).unwrap();
    let refused = run(Command::new(python).args(["-c", "import no_such_package"])).unwrap_err();
    assert!(refused.contains("No module named 'no_such_package'"), "{refused}");
    let node = stack_or_skip!(node::packages(&["ms@2.1.3"]));
    run(Command::new("node").args(["-e", "if (require('ms')('1s') !== 1000) process.exit(1)"]).current_dir(node)).unwrap();
}

#[test]
fn a_scrape_is_summed_over_the_labels_that_are_asked_for() {
    let scrape = Metrics::parse("# HELP a b\na{x=\"1\",y=\"p,q\"} 2\na{x=\"2\",y=\"r\"} 3\nb 4.5\n");
    assert_eq!((scrape.sum("a", &[]), scrape.sum("a", &[("x", "2")]), scrape.sum("a", &[("y", "p,q")])), (5.0, 3.0, 2.0));
    assert_eq!((scrape.sum("b", &[]), scrape.sum("c", &[])), (4.5, 0.0));
}
