//! Encrypted, authenticated, compressed: what the default build speaks.

use std::time::Duration;

use crate::{
    stack_or_skip,
    support::{
        app::{Answer, App},
        kafka::Kafka,
        stack::{SaslSsl, Stack},
        unique,
        worker::Launch,
    },
};

const LONG: Duration = Duration::from_secs(60);

/// Asks the librdkafka that is linked into this build.
#[test]
fn the_built_librdkafka_speaks_tls_sasl_and_every_codec() {
    let config = rdkafka::ClientConfig::new().create_native_config().unwrap();
    let features = config.get("builtin.features").unwrap();
    let has: Vec<_> = features.split(',').collect();
    // lz4 and snappy are compiled in always and not listed by every version: the round trip below uses them.
    for wanted in ["ssl", "sasl_plain", "sasl_scram", "sasl_oauthbearer", "gzip", "snappy", "zstd"] {
        assert!(has.contains(&wanted), "{wanted} is not in {features}");
    }
}

/// The worker, as one who logs in at the encrypted listener.
fn properties(launch: Launch, sasl: &SaslSsl, mechanism: &str, ca: &str) -> Launch {
    let properties = [
        "security.protocol=sasl_ssl".to_owned(),
        format!("sasl.mechanism={mechanism}"),
        format!("sasl.username={}", sasl.user),
        format!("sasl.password={}", sasl.password),
        format!("ssl.ca.location={ca}"),
    ];
    properties.iter().fold(launch, |launch, property| launch.arg("-X").arg(property)).env("WORKER_KAFKA__BROKERS", &sasl.brokers)
}

/// Producer to consumer over SASL_SSL, once per mechanism and codec.
#[tokio::test(flavor = "multi_thread")]
async fn events_pass_from_producer_to_consumer_over_sasl_ssl_in_every_codec() {
    let stack = stack_or_skip!(Stack::shared());
    let sasl = stack.sasl_ssl();
    let topic = unique("secure");
    stack.kafka().create_topic(&topic, 2, &[]).await;
    let app = App::start(|_| Answer::status(200)).await;
    let secure = |launch: Launch, mechanism: &str| properties(launch, &sasl, mechanism, &sasl.ca);
    let toml = format!("[kafka]\ntopics = [\"{topic}\"]\n[[handlers]]\nname = \"app\"\nkind = \"http\"\nurl = \"{}\"\n", app.url("/"));
    let mut consumer = secure(Launch::role("consumer", &stack, &unique("group"), &toml), "SCRAM-SHA-512").start_ready().await;
    let runs = [("PLAIN", "gzip"), ("SCRAM-SHA-256", "snappy"), ("SCRAM-SHA-512", "lz4"), ("PLAIN", "zstd")];
    for (n, (mechanism, codec)) in runs.into_iter().enumerate() {
        let input = tempfile::NamedTempFile::new().unwrap();
        // Long and repetitive, so that it is worth compressing.
        let pad = "again and ".repeat(300);
        std::fs::write(
            input.path(),
            format!("{{\"event_id\":\"{codec}\",\"event_type\":\"task.completed\",\"user_id\":\"user-{n}\",\"task_id\":{n},\"pad\":\"{pad}\"}}\n"),
        )
        .unwrap();
        let launch = Launch::role("producer", &stack, "secure", &format!("[kafka.producer]\n\"compression.type\" = \"{codec}\"\n"));
        let mut producer = secure(launch, mechanism).arg("--topic").arg(&topic).stdin(std::fs::File::open(input.path()).unwrap()).start();
        assert_eq!(producer.ended(LONG).await.code(), Some(0), "{mechanism}, {codec}: {}", producer.log());
        let seen = app.wait_for(n + 1, LONG).await;
        assert_eq!(seen[n].headers["idempotency-key"], codec);
        assert!(seen[n].json()["data"].to_string().contains(&pad));
    }
    assert_eq!(consumer.terminate(LONG).await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_told_and_is_not_in_the_log() {
    let stack = stack_or_skip!(Stack::shared());
    let sasl = stack.sasl_ssl();
    assert_eq!(Kafka::new(stack.brokers()).partitions("no-such-topic-here").len(), 0);
    let launch = Launch::role("producer", &stack, "secure", "").arg("--serve").arg("--exit-if-unreachable").arg("3s");
    let mut worker = properties(launch, &sasl, "PLAIN", &sasl.ca).arg("-X").arg("sasl.password=hunter2-hunter2").start();
    assert_eq!(worker.ended(LONG).await.code(), Some(1), "{}", worker.log());
    let log = worker.log();
    assert!(log.to_lowercase().contains("authentication"), "{log}");
    assert!(!log.contains("hunter2"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_whose_certificate_is_signed_by_nobody_we_trust_are_refused_and_the_log_says_so() {
    let stack = stack_or_skip!(Stack::shared());
    let sasl = stack.sasl_ssl();
    let other = tempfile::tempdir().unwrap();
    let ca = other.path().join("ca.pem");
    let made = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=somebody else", "-keyout", "/dev/null", "-out"])
        .arg(&ca)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let launch = Launch::role("producer", &stack, "secure", "").arg("--serve").arg("--exit-if-unreachable").arg("10s");
    let mut worker = properties(launch, &sasl, "PLAIN", ca.to_str().unwrap()).start();
    assert_eq!(worker.ended(LONG).await.code(), Some(1), "{}", worker.log());
    let log = worker.log();
    assert!(log.contains("certificate"), "{log}");
}
