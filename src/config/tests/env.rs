use std::{io::Write, time::Duration};

use proptest::prelude::*;
use tempfile::NamedTempFile;

use super::load;
use crate::config::{env, keys};

fn secret(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[test]
fn a_variable_is_its_key_with_two_underscores_for_a_dot() {
    let config = load()
        .env("WORKER_APP_ID", "a")
        .env("WORKER_KAFKA__TOPICS", "x, y,")
        .env("WORKER_PUBLISH__PUBSUBS", "[\"one,two\"]")
        .env("WORKER_ENGINE__CONCURRENCY", "8")
        .env("WORKER_CATALOG__VALIDATE", "false")
        .env("WORKER_DLQ__BREAKER_RATIO", "1")
        .env("WORKER_RETRY__DEFAULT__DELAYS", "1s,2s")
        .ok()
        .config;
    assert_eq!(config.app_id, "a");
    assert_eq!(config.kafka.topics, Some(vec!["x".to_owned(), "y".to_owned()]));
    assert_eq!(config.publish.pubsubs, ["one,two"]);
    assert_eq!(config.engine.concurrency, 8);
    assert!(!config.catalog.validate);
    assert_eq!(config.retry.0["default"].delays, Some(vec![Duration::from_secs(1), Duration::from_secs(2)]));
}

#[test]
fn underscores_in_a_property_are_dots() {
    let load = load().env("WORKER_KAFKA__PROPERTIES__SASL_PASSWORD", "p").env("WORKER_KAFKA__CONSUMER__FETCH_WAIT_MAX_MS", "100");
    let loaded = load.ok();
    assert_eq!(loaded.config.kafka.properties["sasl.password"], "p");
    assert_eq!(loaded.config.kafka.consumer["fetch.wait.max.ms"], "100");
    assert_eq!(loaded.origins.get("kafka.properties.\"sasl.password\""), "env WORKER_KAFKA__PROPERTIES__SASL_PASSWORD");
}

#[test]
fn an_event_type_with_an_underscore_is_found_among_the_layers_below() {
    let file = "[retry.\"task.bulk_done\"]\ndelays = [\"1s\"]";
    let load = load().file(file).env("WORKER_RETRY__TASK_BULK_DONE__JITTER", "0").env("WORKER_RETRY__USER_CREATED__DELAYS", "3s");
    let retry = load.ok().config.retry.0;
    assert_eq!(retry["task.bulk_done"].jitter, Some(0.0));
    assert_eq!(retry["user.created"].delays, Some(vec![Duration::from_secs(3)]));
}

/// A Service named worker makes Kubernetes set all of these.
#[test]
fn what_kubernetes_injects_is_left_alone() {
    let warnings = load()
        .env("WORKER_PORT", "tcp://10.0.0.1:9464")
        .env("WORKER_PORT_9464_TCP", "tcp://10.0.0.1:9464")
        .env("WORKER_PORT_9464_TCP_PROTO", "tcp")
        .env("WORKER_SERVICE_HOST", "10.0.0.1")
        .env("WORKER_SERVICE_PORT", "9464")
        .env("WORKER_SERVICE_PORT_HTTP", "9464")
        .env("WORKER_PRODUCER_SERVICE_HOST", "10.0.0.1")
        .env("WORKER", "x")
        .env("WORKERS__X", "x")
        .warnings();
    assert_eq!(warnings, Vec::<String>::new());
}

#[test]
fn a_variable_that_lacks_an_underscore_is_a_warning() {
    let load = load().env("WORKER_STORE_URL", "redis://h").env("WORKER_PUBLISH_API_TOKEN_FILE", "/x");
    assert_eq!(load.ok().config.store.prefix, "worker");
    let expected = [
        "env WORKER_STORE_URL: not read; did you mean WORKER_STORE__URL?",
        "env WORKER_PUBLISH_API_TOKEN_FILE: not read; did you mean WORKER_PUBLISH__API_TOKEN_FILE?",
    ];
    assert_eq!(load.warnings(), expected);
}

#[test]
fn an_empty_variable_is_not_set() {
    let config =
        load().env("WORKER_KAFKA__BROKERS", "").env("WORKER_ENGINE__CONCURRENCY", "").env("WORKER_STORE__URL_FILE", "").ok().config;
    assert_eq!((config.kafka.brokers.as_str(), config.engine.concurrency), ("localhost:9092", 256));
}

#[test]
fn secrets_are_read_from_files_without_their_last_line_end() {
    let (url, token, password) = (secret("redis://:p@h/0\n"), secret("token\r\n"), secret(" pass word "));
    let path = |file: &NamedTempFile| file.path().display().to_string();
    let load = load()
        .env("WORKER_STORE__URL_FILE", &path(&url))
        .env("WORKER_PUBLISH__API_TOKEN_FILE", &path(&token))
        .env("WORKER_KAFKA__PROPERTIES__SASL_PASSWORD_FILE", &path(&password));
    let loaded = load.ok();
    assert!(loaded.config.store.url == "redis://:p@h/0");
    assert_eq!(loaded.config.publish.api_token.expose(), "token");
    assert_eq!(loaded.config.kafka.properties["sasl.password"], " pass word ");
    assert_eq!(loaded.origins.get("store.url"), format!("env WORKER_STORE__URL_FILE ({})", path(&url)));
}

#[test]
fn a_file_can_name_the_file_of_a_secret() {
    let password = secret("p");
    let path = password.path().display();
    let file = format!("[kafka.properties]\n\"sasl.password.file\" = \"{path}\"\n[dlq]\nalert_webhook_file = \"{path}\"");
    // A webhook is a URL, which `p` is not: the report shows that the file was read, and not what it holds.
    let report = load().file(&file).report();
    assert_eq!(
        report,
        format!("1 problem in the configuration\n  F:4 ({path}): `dlq.alert_webhook`: is no URL; write it like \"https://host/path\"")
    );
}

#[test]
fn daprs_token_is_taken_unless_there_is_one_of_our_own() {
    let dapr = load().env("DAPR_API_TOKEN", "dapr");
    assert_eq!(dapr.ok().config.publish.api_token.expose(), "dapr");
    assert_eq!(dapr.ok().origins.get("publish.api_token"), "env DAPR_API_TOKEN");
    assert_eq!(dapr.env("WORKER_PUBLISH__API_TOKEN", "ours").ok().config.publish.api_token.expose(), "ours");
}

#[test]
fn every_key_has_a_variable_that_leads_back_to_it() {
    let value = |path: &str, kind: keys::Kind| match kind {
        keys::Kind::Choice(words) => words[0].to_owned(),
        keys::Kind::Duration | keys::Kind::Durations => "7s".to_owned(),
        keys::Kind::Flag => "true".to_owned(),
        keys::Kind::Integer(least, _) => least.max(7).to_string(),
        keys::Kind::Number(..) => "0.05".to_owned(),
        keys::Kind::Size => "70MiB".to_owned(),
        _ if path.ends_with("listen") => "127.0.0.1:0".to_owned(),
        _ if path == "store.url" => "memory".to_owned(),
        _ if path == "dlq.alert_webhook" => "http://h".to_owned(),
        _ => "text".to_owned(),
    };
    for (path, key) in keys::leaves().into_iter().filter(|(path, _)| !path.contains("[]")) {
        let path = path.replace("<type>", "default").replace("<property>", "client.id").replace(".client.id", ".\"client.id\"");
        let variable = env::name(&path);
        let secret = if path == "sync.listen" { "0123456789abcdef0123456789abcdef" } else { "" };
        let loaded = load().file(&format!("sync.secret = {secret:?}")).env(&variable, &value(&path, key.kind)).ok();
        assert_eq!(loaded.origins.get(&path), format!("env {variable}"), "{path}");
    }
}

proptest! {
    /// Every librdkafka property is lower-case letters, digits and dots.
    #[test]
    fn the_variable_of_any_property_leads_back_to_it(name in "[a-z0-9]{1,8}(\\.[a-z0-9]{1,8}){1,4}", value in "[ -~]{1,20}") {
        prop_assume!(!name.starts_with("sasl.") && !name.ends_with(".file"));
        let variable = env::name(&format!("kafka.producer.\"{name}\""));
        let loaded = load().env(&variable, &value).run();
        // An owned property is refused by the name that it was given.
        match loaded {
            Ok(loaded) => prop_assert_eq!(&loaded.config.kafka.producer[&name], &value),
            Err(report) => prop_assert!(report.to_string().contains(&name)),
        }
    }

    /// Whatever the environment and the flags hold, the loader answers, and an unknown variable is never an error without `__`.
    #[test]
    fn no_text_breaks_the_loader(name in "[A-Z_]{0,12}", value in "\\PC{0,30}", set in "\\PC{0,30}") {
        let _ = load().set(&set).env(&format!("WORKER_{name}"), &value).property(&set).run();
        if !name.contains("__") && name != "APP_ID" {
            let variable = format!("WORKER_{name}");
            prop_assert!(load().env(&variable, &value).run().is_ok());
        }
    }
}

#[test]
fn the_apps_token_goes_to_apps_that_tell_their_routes_and_to_nobody_else() {
    let file = "[[handlers]]\nname = \"a\"\nkind = \"http\"\ndiscover = \"http://h\"\n[[handlers]]\nname = \"b\"\nkind = \"http\"\nurl = \"http://h\"\n\
                [[handlers]]\nname = \"c\"\nkind = \"http\"\ndiscover = \"http://h\"\napi_token = \"own\"";
    let loaded = load().file(file).env("APP_API_TOKEN", "t0ken").ok();
    let tokens: Vec<&str> = loaded.config.handlers.iter().map(|handler| handler.api_token.expose()).collect();
    assert_eq!(tokens, ["t0ken", "", "own"]);
    assert_eq!(loaded.origins.get("handlers[0].api_token"), "env APP_API_TOKEN");
}
