//! `worker doctor` on a real broker and a real Redis.

use std::{
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

use crate::{
    stack_or_skip,
    support::{
        app::{Answer, App},
        free_address,
        mail::{self, MailServer},
        stack::Stack,
        unique,
    },
};

fn doctor(toml: &str, args: &[&str]) -> (Output, Value) {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("worker.toml");
    std::fs::write(&config, toml).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_worker"));
    let output =
        command.args(["doctor", "-o", "json", "-c"]).arg(config).args(args).env_clear().current_dir(folder.path()).output().unwrap();
    let found = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    (output, found)
}

/// What is found about the mail server at `smtp`, as a worker that trusts `authority` sees it.
fn about_mail(smtp: &str, authority: Option<&Path>) -> (String, String) {
    let keys = format!("smtp = {smtp:?}, from = \"todo@example.com\"");
    let handler = format!("handlers = [{{ name = \"mail\", kind = \"notify\", notify = {{ {keys} }} }}]");
    let mut command = Command::new(env!("CARGO_BIN_EXE_worker"));
    command.args(["doctor", "-o", "json", "--set", "kafka.brokers=embedded", "--set", "store.url=memory", "--set", &handler]).env_clear();
    let output = command.envs(authority.map(|path| ("SSL_CERT_FILE", path))).output().unwrap();
    let found: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    let part = found["findings"].as_array().unwrap().iter().find(|found| found["part"] == "mail server of mail").unwrap();
    assert!(!part.to_string().contains("hunter2"), "{part}");
    let words = format!("{} {}", part["found"], part.get("fix").unwrap_or(&Value::Null));
    (part["level"].as_str().unwrap().to_owned(), words)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_server_is_asked_as_a_worker_would_and_what_is_wrong_is_told_with_its_fix() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, ca) = mail::certificate(folder.path());
    let arguments = ["--certificate", certificate.to_str().unwrap(), "--login", "todo:p@ss"];
    let (Some(secure), Some(plain)) = (MailServer::start(&arguments).await, MailServer::start(&[]).await) else { return };
    let at = |server: &MailServer, user: &str, rest: &str| {
        format!("smtp://{user}localhost:{}{rest}", server.address().rsplit_once(':').unwrap().1)
    };
    let away = format!("smtp://{}", free_address());
    for (smtp, authority, level, words) in [
        (at(&secure, "todo:p%40ss@", ""), Some(&*ca), "ok", "none was sent"),
        (at(&plain, "", "?tls=none"), None, "ok", "none was sent"),
        (at(&secure, "todo:hunter2@", ""), Some(&*ca), "fail", "correct user and password"),
        (at(&secure, "todo:p%40ss@", ""), None, "fail", "SSL_CERT_FILE"),
        (at(&plain, "", ""), None, "fail", "?tls=none where it need not"),
        (away, None, "fail", "start the mail server"),
    ] {
        let (found, text) = about_mail(&smtp, authority);
        assert!(found == level && text.contains(words), "{smtp}: {found}: {text}");
    }
    assert!(secure.told("rcpt").is_empty() && plain.told("rcpt").is_empty());
}

/// The level and the words about that part.
fn of<'a>(document: &'a Value, part: &str) -> (&'a str, &'a str) {
    let findings = document["findings"].as_array().unwrap();
    let found = findings.iter().find(|found| found["part"] == part).unwrap_or_else(|| panic!("nothing about {part}: {document:#}"));
    (found["level"].as_str().unwrap(), found["found"].as_str().unwrap())
}

/// A catalogue whose topics no other test touches would need files; the topics of this deployment are the read one and the DLQ.
fn toml(stack: &Stack, topic: &str, dlq: &str, app: &str) -> String {
    format!(
        "app_id = \"{topic}\"\n[kafka]\nbrokers = \"{}\"\ntopics = [\"{topic}\"]\n[store]\nurl = \"{}\"\n[dlq]\ntopic = \"{dlq}\"\n\
         [[handlers]]\nname = \"app\"\nkind = \"http\"\nurl = \"{app}\"\n",
        stack.brokers(),
        stack.redis()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stack_that_is_well_is_ok_in_every_part() {
    let stack = stack_or_skip!(Stack::shared());
    let (topic, dlq, app) = (unique("doctor"), unique("doctor-dlq"), App::start(|_| Answer::status(200)).await);
    let kafka = stack.kafka();
    kafka.create_topic(&topic, 2, &[]).await;
    kafka.create_topic(&dlq, 3, &[]).await;
    kafka.produce_all(&topic, (0..5).map(|n| (format!("user-{n}"), "{}"))).await;
    let (_, found) = doctor(&toml(&stack, &topic, &dlq, &app.url("/events")), &[]);
    for part in [
        format!("kafka.brokers {}", stack.brokers()),
        format!("advertised listener {}", stack.brokers()),
        "kafka".to_owned(),
        "redis clock".to_owned(),
        "handler app".to_owned(),
        "publish.listen".to_owned(),
    ] {
        assert_eq!(of(&found, &part).0, "ok", "{part}");
    }
    assert_eq!(of(&found, &format!("topic {topic}")), ("ok", "2 partitions, replication 1"));
    assert_eq!(of(&found, &format!("rights on {topic}")), ("ok", "may read and write"));
    assert_eq!(of(&found, &format!("rights on {dlq}")), ("ok", "may read and write"));
    let (level, words) = of(&found, &format!("group {topic}"));
    assert!(level == "ok" && words.contains("5 records behind on 2 partitions, 0 of them with a commit"), "{words}");
    let (level, words) = of(&found, &format!("redis {}", stack.redis()));
    assert!(level == "ok" && words.contains("noeviction"), "{words}");
    assert_eq!(app.deliveries().len(), 0, "nothing was posted");
    kafka.delete_topic(&topic).await;
    kafka.delete_topic(&dlq).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_or_away_fails_with_the_fix() {
    let stack = stack_or_skip!(Stack::shared());
    let (topic, dlq, away) = (unique("doctor"), unique("doctor-dlq"), free_address());
    let config = toml(&stack, &topic, &dlq, &format!("http://{away}/events?token=secret"));
    let (output, found) = doctor(&config, &["--set", "publish.listen=0.0.0.0:3500"]);
    assert_eq!((output.status.code(), &found["ok"]), (Some(1), &Value::from(false)));
    assert_eq!(of(&found, &format!("topic {topic}")).0, "fail");
    let missing = found["findings"].as_array().unwrap().iter().find(|found| found["part"] == format!("topic {dlq}")).unwrap();
    assert_eq!(missing["fix"], "worker topics apply");
    let (level, words) = of(&found, "handler app");
    assert!(level == "fail" && words.contains(&format!("http://{away}/events")) && !words.contains("secret"), "{words}");
    assert_eq!(of(&found, "publish.listen").0, "warn");
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_and_redis_that_are_away_are_named_and_the_rest_is_still_checked() {
    let (kafka, redis) = (free_address(), free_address());
    let sets = [format!("kafka.brokers={kafka}"), format!("store.url=redis://{redis}")];
    let (output, found) = doctor("", &["--set", &sets[0], "--set", &sets[1]]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!((of(&found, "kafka").0, of(&found, &format!("redis redis://{redis}")).0), ("fail", "fail"));
    assert_eq!((of(&found, "handlers").0, of(&found, "publish.listen").0), ("ok", "ok"));
}

#[test]
fn what_lives_in_the_process_needs_nothing_and_is_no_failure() {
    let (output, found) = doctor("", &["--role", "standalone"]);
    assert_eq!((output.status.code(), of(&found, "kafka").0, of(&found, "store").0), (Some(0), "ok", "warn"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_encrypted_listener_is_examined_with_its_credentials() {
    let stack = stack_or_skip!(Stack::shared());
    let secure = stack.sasl_ssl();
    let config = |password: &str| {
        format!(
            "[kafka]\nbrokers = \"{}\"\n[kafka.properties]\n\"security.protocol\" = \"sasl_ssl\"\n\"sasl.mechanism\" = \"PLAIN\"\n\
             \"sasl.username\" = \"{}\"\n\"sasl.password\" = \"{password}\"\n\"ssl.ca.location\" = \"{}\"\n[store]\nurl = \"memory\"\n",
            secure.brokers, secure.user, secure.ca
        )
    };
    assert_eq!(of(&doctor(&config(&secure.password), &[]).1, "kafka").0, "ok");
    let (output, found) = doctor(&config("wrong-password"), &[]);
    assert_eq!(of(&found, "kafka").0, "fail");
    assert!(
        found.to_string().contains("the port is open") && !String::from_utf8_lossy(&output.stdout).contains("wrong-password"),
        "{found}"
    );
}

/// An app's routes name topics that no file of the deployment does: they are looked at as well.
#[tokio::test(flavor = "multi_thread")]
async fn topics_of_an_apps_routes_and_where_their_dead_letters_go_are_examined() {
    let stack = stack_or_skip!(Stack::shared());
    let kafka = stack.kafka();
    let name = unique("doctor");
    let [orders, dead, dlq] = ["orders", "orders-dead", "dlq"].map(|part| format!("{name}-{part}"));
    // Ten days, of which eight are remembered.
    kafka.create_topic(&orders, 1, &[("retention.ms", "864000000")]).await;
    kafka.create_topic(&dlq, 1, &[]).await;
    let told = format!("[{{\"pubsubname\":\"kafka-pubsub\",\"topic\":\"{orders}\",\"route\":\"/orders\",\"deadLetterTopic\":\"{dead}\"}}]");
    let app = App::start(move |delivery| if delivery.path == "/dapr/subscribe" { Answer::json(&told) } else { Answer::status(500) }).await;
    let config = format!(
        "app_id = \"{name}\"\n[kafka]\nbrokers = \"{}\"\n[store]\nurl = \"{}\"\n[dlq]\ntopic = \"{dlq}\"\n\
         [[handlers]]\nname = \"app\"\nkind = \"http\"\ndiscover = \"{}\"\n",
        stack.brokers(),
        stack.redis(),
        app.url("")
    );
    let (output, found) = doctor(&config, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!((of(&found, &format!("topic {orders}")).0, of(&found, &format!("topic {dead}")).0), ("ok", "fail"));
    let (level, words) = of(&found, &format!("retention of {orders}"));
    assert!(level == "warn" && words.contains("keeps records 10days, duplicates are recognised for 8days"), "{words}");
    assert!(of(&found, &format!("group {name}")).1.contains("0 records behind on 1 partitions"));

    kafka.create_topic(&dead, 1, &[]).await;
    let (_, found) = doctor(&config, &["--set", "store.retention=10d"]);
    assert_eq!(of(&found, &format!("rights on {dead}")), ("ok", "may read and write"));
    assert!(!found.to_string().contains("retention of"));
    assert!(app.deliveries().iter().all(|one| one.path == "/dapr/subscribe"), "no event was posted");
    // An app that is away is no failure of the topics.
    let (_, found) = doctor(&config.replace(&app.url(""), &format!("http://{}", free_address())), &[]);
    assert_eq!((of(&found, "handler app").0, of(&found, "routes of app").0), ("fail", "warn"));
}
