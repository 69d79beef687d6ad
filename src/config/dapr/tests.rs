use super::*;
use crate::config::{Config, Loaded, Sources, handlers::HandlerKind, kafka::Partitioner};

fn facts() -> Facts {
    Facts { app_id: "todo".to_owned(), app_url: Some("http://app:8000".to_owned()) }
}

fn documents(files: &[(&str, &str)]) -> Vec<Document> {
    let (mut documents, mut problems) = (Vec::new(), Vec::new());
    for (file, text) in files {
        documents::parse(file, text, &mut documents, &mut problems);
    }
    assert_eq!(problems, []);
    documents
}

fn kafka(metadata: &[(&str, &str)]) -> String {
    let items: String = metadata.iter().map(|(name, value)| format!("  - name: {name}\n    value: {value}\n")).collect();
    format!(
        "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata:\n  name: kafka-pubsub\nspec:\n  type: pubsub.kafka\n  version: v1\n  metadata:\n  - name: brokers\n    value: broker-1:9092,broker-2:9092\n{items}"
    )
}

fn of_kafka(metadata: &[(&str, &str)]) -> Translation {
    translate(&documents(&[("pubsub.yaml", &kafka(metadata))]), &facts())
}

/// The result as the worker reads it: what is written must pass every check.
fn load(translation: &Translation) -> Loaded {
    let texts = vec![("T".to_owned(), to_toml(&translation.root))];
    Config::load(&Sources { texts, ..Sources::default() }).unwrap_or_else(|report| panic!("{report}\n{}", to_toml(&translation.root)))
}

fn properties(metadata: &[(&str, &str)]) -> Vec<(String, String)> {
    let config = load(&of_kafka(metadata)).config.kafka;
    let tables = [("", config.properties), ("consumer ", config.consumer), ("producer ", config.producer)];
    tables
        .iter()
        .flat_map(|(table, properties)| properties.iter().map(move |(name, value)| (format!("{table}{name}"), value.clone())))
        .collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn notes(translation: &Translation, fate: Fate) -> String {
    translation.of(fate).map(|note| format!("{}: {}\n", note.from, note.text)).collect()
}

#[test]
fn brokers_group_offset_and_partitioner_are_taken_over() {
    let config = load(&of_kafka(&[("authType", "none"), ("initialOffset", "oldest"), ("consumerGroup", "\"{appID}-group\"")])).config;
    assert_eq!((config.kafka.brokers.as_str(), config.group_id()), ("broker-1:9092,broker-2:9092", "todo-group"));
    assert_eq!(config.kafka.partitioner, Partitioner::Fnv1aRandom);
    assert_eq!(config.engine.start_at, crate::config::engine::StartAt::Earliest);
    assert_eq!(config.publish.pubsubs, ["kafka-pubsub"]);

    let by_default = of_kafka(&[("authType", "none")]);
    let config = load(&by_default).config;
    assert_eq!((config.group_id(), config.engine.start_at), ("todo", crate::config::engine::StartAt::Latest));
    assert!(notes(&by_default, Fate::Decide).contains("newest is Dapr's default"));
    assert_eq!(load(&of_kafka(&[("consumerID", "by-id")])).config.group_id(), "by-id");
}

#[test]
fn every_kind_of_authentication_becomes_librdkafkas_properties() {
    assert_eq!(properties(&[("authType", "none")]), []);
    assert_eq!(properties(&[("authRequired", "\"false\"")]), []);
    let password = [("authType", "password"), ("saslUsername", "u"), ("saslPassword", "p")];
    let plain = [("sasl.mechanism", "PLAIN"), ("sasl.password", "p"), ("sasl.username", "u"), ("security.protocol", "sasl_ssl")];
    assert_eq!(properties(&password), pairs(&plain));
    assert_eq!(properties(&[("authRequired", "\"true\""), password[1], password[2]]), pairs(&plain));
    let scram = properties(&[&password[..], &[("saslMechanism", "SHA-512"), ("disableTls", "\"true\"")]].concat());
    assert_eq!((scram[0].1.as_str(), scram[3].1.as_str()), ("SCRAM-SHA-512", "sasl_plaintext"));
    assert_eq!(
        properties(&[("authType", "mtls"), ("caCert", "CA"), ("clientCert", "CERT"), ("clientKey", "KEY"), ("skipVerify", "true")]),
        pairs(&[
            ("enable.ssl.certificate.verification", "false"),
            ("security.protocol", "ssl"),
            ("ssl.ca.pem", "CA"),
            ("ssl.certificate.pem", "CERT"),
            ("ssl.key.pem", "KEY")
        ])
    );
    let oidc = [
        ("authType", "oidc"),
        ("oidcTokenEndpoint", "https://idp/token"),
        ("oidcClientID", "id"),
        ("oidcClientSecret", "s"),
        ("oidcScopes", "\"openid,kafka\""),
        ("oidcExtensions", "'{\"cluster\":\"c1\",\"pool\":\"p1\"}'"),
        ("caCert", "CA"),
    ];
    assert_eq!(
        properties(&oidc),
        pairs(&[
            ("https.ca.pem", "CA"),
            ("sasl.mechanism", "OAUTHBEARER"),
            ("sasl.oauthbearer.client.id", "id"),
            ("sasl.oauthbearer.client.secret", "s"),
            ("sasl.oauthbearer.extensions", "cluster=c1,pool=p1"),
            ("sasl.oauthbearer.method", "oidc"),
            ("sasl.oauthbearer.scope", "openid kafka"),
            ("sasl.oauthbearer.token.endpoint.url", "https://idp/token"),
            ("security.protocol", "sasl_ssl"),
            ("ssl.ca.pem", "CA"),
        ])
    );
    let undecided = notes(&of_kafka(&oidc), Fate::Decide);
    assert!(!undecided.contains("refuse") && !undecided.contains("authType"), "the worker asks for the tokens itself: {undecided}");
    let aws = notes(&of_kafka(&[("authType", "awsiam"), ("region", "eu-west-1"), ("oidcKid", "k")]), Fate::Decide);
    assert!(aws.contains("`awsiam` is not translated") && aws.contains("region: belongs to authType awsiam"), "{aws}");
    assert!(aws.contains("oidcKid: belongs to authType oidc_private_key_jwt"), "{aws}");
}

#[test]
fn limits_and_timings_become_properties_of_the_client_that_they_are_for() {
    let metadata = [
        ("clientID", "todo-client"),
        ("maxMessageBytes", "2097152"),
        ("compression", "zstd"),
        ("heartbeatInterval", "3s"),
        ("sessionTimeout", "15000"),
        ("consumerFetchMin", "1"),
    ];
    assert_eq!(
        properties(&metadata),
        pairs(&[
            ("client.id", "todo-client"),
            ("consumer fetch.min.bytes", "1"),
            ("consumer heartbeat.interval.ms", "3000"),
            ("consumer session.timeout.ms", "15000"),
            ("producer compression.codec", "zstd"),
            ("producer message.max.bytes", "2097152"),
        ])
    );
}

#[test]
fn what_is_left_out_says_why_and_what_is_not_known_is_never_silent() {
    let out = of_kafka(&[
        ("version", "2.0.0"),
        ("consumeRetryEnabled", "\"false\""),
        ("producerRequiredAcks", "none"),
        ("schemaRegistryURL", "http://registry"),
        ("allowedTopics", "a"),
        ("consumerGroupRebalanceStrategy", "sticky"),
        ("madeUp", "1"),
        ("clientID", "\"{podName}\""),
    ]);
    let (ignored, decide) = (notes(&out, Fate::Ignored), notes(&out, Fate::Decide));
    for expected in
        ["kafka-pubsub.version: the client asks", "consumeRetryEnabled: a failed event", "RebalanceStrategy: the worker is coop"]
    {
        assert!(ignored.contains(expected), "{expected}\n{ignored}");
    }
    for expected in
        ["producerRequiredAcks: `none`", "schemaRegistryURL: values", "allowedTopics: topic scopes", "madeUp: is no key", "{podName}"]
    {
        assert!(decide.contains(expected), "{expected}\n{decide}");
    }
}

const SECRET: &str = "  - name: saslPassword\n    secretKeyRef:\n      name: kafka\n      key: password\n";

#[test]
fn a_secret_becomes_a_named_place_and_never_a_value() {
    let text = kafka(&[("authType", "password"), ("saslUsername", "u")]) + SECRET;
    let out = translate(&documents(&[("pubsub.yaml", &text)]), &facts());
    let toml = to_toml(&out.root);
    assert!(toml.contains("# \"sasl.password.file\" = \"/run/secrets/kafka/password\"\n"), "{toml}");
    let decide = notes(&out, Fate::Decide);
    assert!(
        decide.contains("saslPassword: secret kafka, key password") && decide.contains("WORKER_KAFKA__PROPERTIES__SASL_PASSWORD"),
        "{decide}"
    );
    assert_eq!(load(&out).config.kafka.properties.get("sasl.password"), None);

    // The client has other properties for files of certificates.
    let text = kafka(&[("authType", "mtls")]) + &SECRET.replace("saslPassword", "caCert");
    let toml = to_toml(&translate(&documents(&[("pubsub.yaml", &text)]), &facts()).root);
    assert!(toml.contains("# \"ssl.ca.location\" = \"/run/secrets/kafka/password\"\n"), "{toml}");

    let plain = of_kafka(&[("authType", "password"), ("saslUsername", "u"), ("saslPassword", "hunter2")]);
    assert!(notes(&plain, Fate::Decide).contains("secret in plain text"));
    assert!(!plain.notes.iter().any(|note| note.text.contains("hunter2")), "the report shows no secret");
}

const SUBSCRIPTIONS: &str = r#"
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: orders}
spec:
  pubsubname: kafka-pubsub
  topic: orders
  routes:
    rules:
    - match: event.type == "order.created"
      path: /created
    default: /orders
  deadLetterTopic: orders-dead
  bulkSubscribe: {enabled: true, maxMessagesCount: 100, maxAwaitDurationMs: 40}
scopes: [todo, other]
---
apiVersion: dapr.io/v1alpha1
kind: Subscription
metadata: {name: plain}
spec: {pubsubname: kafka-pubsub, topic: plain, route: /plain, metadata: {rawPayload: "true"}}
---
apiVersion: dapr.io/v1alpha1
kind: Subscription
metadata: {name: not-mine}
spec: {pubsubname: kafka-pubsub, topic: theirs, route: /x}
scopes: [other]
---
apiVersion: dapr.io/v1alpha1
kind: Subscription
metadata: {name: second}
spec: {pubsubname: kafka-pubsub, topic: plain, route: /second}
---
apiVersion: dapr.io/v1alpha1
kind: Subscription
metadata: {name: elsewhere}
spec: {pubsubname: redis-pubsub, topic: t, route: /t}
---
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {name: daprConfig}
spec: {tracing: {samplingRate: "1"}}
"#;

#[test]
fn subscriptions_of_both_versions_become_routes_of_the_app_in_scope() {
    let out = translate(&documents(&[("pubsub.yaml", &kafka(&[])), ("subs.yaml", SUBSCRIPTIONS)]), &facts());
    let config = load(&out).config;
    let [app] = &config.handlers[..] else { panic!("one handler") };
    assert_eq!((app.name.as_str(), app.kind, app.discover.as_deref()), ("todo", HandlerKind::Http, Some("http://app:8000")));
    let [orders, plain] = &app.routes[..] else { panic!("two routes: {:?}", app.routes) };
    assert_eq!(
        (orders.topic.as_str(), orders.path.as_deref(), orders.dead_letter_topic.as_deref()),
        ("orders", Some("/orders"), Some("orders-dead"))
    );
    assert_eq!((orders.rules[0].condition.as_str(), orders.rules[0].path.as_str()), ("event.type == \"order.created\"", "/created"));
    assert_eq!((orders.bulk, orders.bulk_events, orders.bulk_wait.as_millis()), (true, 100, 40));
    assert_eq!((plain.topic.as_str(), plain.path.as_deref(), plain.raw_payload), ("plain", Some("/plain"), true));
    let ignored = notes(&out, Fate::Ignored);
    for expected in ["not-mine: its scopes", "second: topic plain is", "elsewhere: is of redis-pubsub", "daprConfig: of kind Configuration"]
    {
        assert!(ignored.contains(expected), "{expected}\n{ignored}");
    }
}

#[test]
fn an_address_that_the_files_do_not_say_is_a_guess_that_must_be_looked_at() {
    let facts = Facts { app_url: None, app_id: String::new() };
    let out =
        translate(&documents(&[("pubsub.yaml", &kafka(&[])), ("subs.yaml", &SUBSCRIPTIONS.replace("scopes: [todo, other]", ""))]), &facts);
    assert_eq!(load(&out).config.handlers[0].discover.as_deref(), Some("http://localhost:8080"));
    let decide = notes(&out, Fate::Decide);
    assert!(decide.contains("--app-url") && decide.contains("--app-id"), "{decide}");
}

#[test]
fn cron_bindings_become_schedules_with_their_zone() {
    let binding = |name: &str, metadata: &str| {
        format!("kind: Component\nmetadata: {{name: {name}}}\nspec:\n  type: bindings.cron\n  metadata:\n{metadata}---\n")
    };
    let text = binding("hourly", "  - {name: schedule, value: \"@hourly\"}\n  - {name: direction, value: input}\n")
        + &binding(
            "morning",
            "  - {name: schedule, value: \"CRON_TZ=Europe/Berlin 0 9 * * *\"}\n  - {name: route, value: /jobs/morning}\n",
        )
        + &binding("often", "  - {name: schedule, value: \"@every 1h30m\"}\n");
    let out = translate(&documents(&[("cron.yaml", &text)]), &facts());
    let schedules = load(&out).config.schedules;
    let found: Vec<_> =
        schedules.iter().map(|one| [&*one.name, &*one.cron, &*one.timezone, one.route.as_deref().unwrap_or_default()]).collect();
    let often = ["often", "@every 1h30m", "UTC", ""];
    assert_eq!(found, [["hourly", "@hourly", "UTC", ""], ["morning", "0 9 * * *", "Europe/Berlin", "/jobs/morning"], often]);
    assert!(schedules.iter().all(|one| one.http.as_deref() == Some("http://app:8000")), "the app itself: a tick finds its path");
    let decide = notes(&out, Fate::Decide);
    assert!(decide.contains("hourly.schedule: names no time zone") && !decide.contains("often.schedule"), "{decide}");
}

fn resiliency(retry: &str, more: &str) -> Translation {
    let text = format!(
        "kind: Resiliency\nmetadata: {{name: res}}\nspec:\n  policies:\n    timeouts: {{short: 10s}}\n    retries:\n      pubsubRetry: {retry}\n  targets:\n    apps: {{other: {{retry: pubsubRetry}}}}\n    components:\n      kafka-pubsub:\n        inbound: {{retry: pubsubRetry, timeout: short{more}}}\n      statestore: {{outbound: {{retry: pubsubRetry}}}}\n"
    );
    translate(&documents(&[("pubsub.yaml", &kafka(&[])), ("res.yaml", &text), ("subs.yaml", SUBSCRIPTIONS)]), &facts())
}

fn delays(translation: &Translation) -> Vec<u128> {
    let rules = load(translation).config.retry.0;
    rules["default"].delays.iter().flatten().map(std::time::Duration::as_millis).collect()
}

#[test]
fn the_brokers_inbound_policies_become_the_default_schedule_and_the_handlers_time_limit() {
    let out = resiliency("{policy: constant, duration: 2s, maxRetries: 3}", ", circuitBreaker: cb");
    assert_eq!(delays(&out), [2000, 2000, 2000]);
    assert_eq!(load(&out).config.handlers[0].timeout.as_secs(), 10);
    let ignored = notes(&out, Fate::Ignored);
    for expected in ["targets.apps.other", "targets.components.statestore", "cb: a failing event delays its own user"] {
        assert!(ignored.contains(expected), "{expected}\n{ignored}");
    }
    assert_eq!(delays(&resiliency("{policy: exponential, maxInterval: 1s, maxRetries: 4}", "")), [500, 750, 1000, 1000]);
    let long = delays(&resiliency("{policy: exponential, maxRetries: 1000}", ""));
    assert!(long.iter().sum::<u128>() <= 900_000 && long.len() > 15, "an exponential policy ends after 15 minutes: {long:?}");

    let endless = resiliency("{policy: constant, duration: 5s, maxRetries: -1}", "");
    assert!(notes(&endless, Fate::Decide).contains("never ends"), "{}", notes(&endless, Fate::Decide));
    assert_eq!(delays(&endless), [1000, 5000, 30000], "the worker's own");
    let matching = resiliency("{policy: constant, maxRetries: 1, matching: {httpStatusCodes: \"500-599\"}}", "");
    assert!(notes(&matching, Fate::Decide).contains("matching"));
}

#[test]
fn a_default_policy_by_name_applies_where_no_target_is() {
    let text = "kind: Resiliency\nmetadata: {name: res}\nspec:\n  policies:\n    retries:\n      DefaultRetryPolicy: {policy: constant, duration: 1s, maxRetries: 9}\n      DefaultPubsubComponentInboundRetryPolicy: {policy: constant, duration: 1m30s, maxRetries: 1}\n";
    assert_eq!(delays(&translate(&documents(&[("pubsub.yaml", &kafka(&[])), ("res.yaml", text)]), &facts())), [90_000]);
    assert_eq!(delays(&of_kafka(&[("backOffPolicy", "constant"), ("backOffDuration", "700ms"), ("backOffMaxRetries", "2")])), [700, 700]);
}

fn redis(metadata: &str) -> Translation {
    let text = format!("kind: Component\nmetadata: {{name: statestore}}\nspec:\n  type: state.redis\n  metadata:\n{metadata}");
    translate(&documents(&[("state.yaml", &text)]), &facts())
}

#[test]
fn a_redis_state_store_becomes_the_store() {
    let url = |metadata: &str| load(&redis(metadata)).config.store.url.to_string();
    assert_eq!(url("  - {name: redisHost, value: \"redis:6379\"}\n"), "redis://redis:6379/0");
    let full = "  - {name: redisHost, value: \"redis:6379\"}\n  - {name: redisUsername, value: app}\n  - {name: redisPassword, value: \"p@ss/word\"}\n  - {name: enableTLS, value: true}\n  - {name: redisDB, value: \"3\"}\n";
    assert_eq!(url(full), "rediss://app:p%40ss%2Fword@redis:6379/3");
    assert_eq!(load(&redis(full)).config.state.stores, ["statestore"]);
    let secret =
        redis("  - {name: redisHost, value: \"redis:6379\"}\n  - {name: redisPassword, secretKeyRef: {name: redis, key: password}}\n");
    assert!(to_toml(&secret.root).contains("# url_file = \"/run/secrets/redis-url\""), "{}", to_toml(&secret.root));
    assert!(notes(&secret, Fate::Decide).contains("WORKER_STORE__URL"));
    let cluster = redis("  - {name: redisHost, value: \"redis:6379\"}\n  - {name: redisType, value: cluster}\n");
    assert!(notes(&cluster, Fate::Decide).contains("Redis Cluster"));
}

#[test]
fn a_second_name_for_the_same_brokers_is_taken_and_other_brokers_are_a_decision() {
    let named = |name: &str, brokers: &str| kafka(&[]).replace("kafka-pubsub", name).replace("broker-1:9092,broker-2:9092", brokers);
    let same = translate(&documents(&[("a.yaml", &named("one", "b:9092")), ("b.yaml", &named("two", "b:9092"))]), &facts());
    assert_eq!(load(&same).config.publish.pubsubs, ["one", "two"]);
    let other = translate(&documents(&[("a.yaml", &named("one", "b:9092")), ("b.yaml", &named("two", "c:9092"))]), &facts());
    assert_eq!(load(&other).config.publish.pubsubs, ["one"]);
    assert!(notes(&other, Fate::Decide).contains("b.yaml: two: differs from a.yaml: one"));
}

#[test]
fn a_file_that_is_no_yaml_is_told_with_its_line_and_an_empty_folder_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let empty = import(folder.path(), &facts()).unwrap_err();
    assert!(empty[0].message.contains("no .yaml"), "{empty:?}");
    std::fs::write(folder.path().join("bad.yaml"), "kind: Component\nmetadata: {name: a\nspec: [").unwrap();
    std::fs::write(folder.path().join("notes.txt"), "not read").unwrap();
    let bad = import(folder.path(), &facts()).unwrap_err();
    assert!(bad.len() == 1 && bad[0].origin.starts_with("bad.yaml:"), "{bad:?}");
}

#[test]
fn a_folder_is_a_layer_below_the_files_whose_origins_are_file_and_key() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("pubsub.yaml"), kafka(&[("clientID", "from-folder")])).unwrap();
    std::fs::write(folder.path().join("subs.yaml"), SUBSCRIPTIONS).unwrap();
    let sources = |text: &str, env: &[(&str, &str)]| Sources {
        dapr_components: Some(folder.path().to_owned()),
        texts: vec![("T".to_owned(), text.to_owned())],
        env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        ..Sources::default()
    };
    let loaded = Config::load(&sources("app_id = \"todo\"\n[engine]\nstart_at = \"earliest\"", &[("APP_PORT", "8000")])).unwrap();
    let origin = |key: &str| loaded.origins.get(key).replace(&folder.path().display().to_string(), "F");
    assert_eq!(origin("kafka.brokers"), "F/pubsub.yaml: kafka-pubsub.brokers");
    assert_eq!(origin("kafka.properties.\"client.id\""), "F/pubsub.yaml: kafka-pubsub.clientID");
    assert_eq!(origin("handlers[0].routes[0].topic"), "F/subs.yaml: orders");
    assert_eq!(origin("engine.start_at"), "T:3", "a file is above the folder");
    assert_eq!(loaded.config.handlers[0].discover.as_deref(), Some("http://127.0.0.1:8000"));
    assert_eq!(loaded.config.group_id(), "todo");
    assert!(loaded.warnings.iter().any(|warning| warning.message.contains("newest is Dapr's default")), "decisions are warnings");

    let own = "app_id = \"todo\"\n[[handlers]]\nname = \"own\"\nkind = \"log\"";
    let replaced = Config::load(&sources(own, &[("APP_PORT", "8000")])).unwrap();
    assert_eq!(replaced.config.handlers[0].name, "own");
    assert!(replaced.warnings.iter().any(|warning| warning.origin.starts_with("T:") && warning.message.contains("replace the folder's")));

    std::fs::write(folder.path().join("zz.yml"), ": [").unwrap();
    let report = Config::load(&sources("", &[])).unwrap_err().to_string();
    assert!(report.contains("zz.yml"), "{report}");
}
