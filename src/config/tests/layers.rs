use std::time::Duration;

use super::load;
use crate::config::{DEFAULT_TOML, Flag, Role, SecretUrl, kafka::Partitioner, keys, redis::WhenDown};

#[test]
fn the_defaults_are_the_ones_that_are_documented() {
    let config = load().ok().config;
    assert_eq!(config.app_id, "todo-worker");
    assert_eq!(config.kafka.brokers, "localhost:9092");
    assert_eq!(config.group_id(), "todo-worker");
    assert_eq!(config.kafka.topics, None);
    assert_eq!(config.kafka.partitioner, Partitioner::Murmur2Random);
    assert!(config.store.url == "redis://localhost:6379/0");
    assert_eq!(config.store.retention, Duration::from_secs(8 * 24 * 3600));
    assert_eq!(config.store.when_down, WhenDown::Hold);
    assert_eq!(config.engine.memory, 256 << 20);
    assert_eq!(config.engine.drain_timeout, Duration::from_secs(25));
    assert_eq!(config.dlq.topic, "dlq");
    assert_eq!(config.http.listen, "0.0.0.0:9464");
    assert_eq!(config.publish.pubsubs, ["kafka-pubsub", "taskevents"]);
    assert!(config.handlers.is_empty() && config.schedules.is_empty());
}

#[test]
fn the_four_schedules_are_the_ones_of_the_specification() {
    let retry = load().ok().config.retry.0;
    let seconds = |name: &str| -> Vec<u64> { retry[name].delays.iter().flatten().map(Duration::as_secs).collect() };
    assert_eq!(seconds("task.completed"), [30, 300, 1800]);
    assert_eq!(seconds("reminder.due"), [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]);
    assert_eq!(seconds("task.updated"), [1, 2, 4, 8, 16]);
    assert_eq!(seconds("default"), [1, 5, 30]);
    assert_eq!(retry["default"].jitter, Some(0.1));
    assert_eq!(retry.len(), 4);
}

#[test]
fn each_layer_wins_over_those_below_it() {
    let file = load().file("app_id = \"one\"\n[store]\nprefix = \"file\"").file("app_id = \"two\"");
    let loaded = file.ok();
    assert_eq!((loaded.config.app_id.as_str(), loaded.config.store.prefix.as_str()), ("two", "file"));
    let env = file.env("WORKER_APP_ID", "three");
    assert_eq!(env.ok().config.app_id, "three");
    let set = env.set("app_id=four");
    assert_eq!(set.ok().config.app_id, "four");
    let mut flag = set.set("http.listen=127.0.0.1:1");
    flag.sources.flags.push(Flag { flag: "--http-addr", key: "http.listen", value: "127.0.0.1:2".into() });
    assert_eq!(flag.ok().config.http.listen, "127.0.0.1:2");
    assert_eq!(flag.ok().origins.get("http.listen"), "--http-addr");
}

#[test]
fn tables_merge_and_lists_replace() {
    let lower = "[kafka]\ntopics = [\"a\", \"b\"]\n[kafka.properties]\n\"client.id\" = \"x\"\n[retry.\"a.b\"]\ndelays = []";
    let upper = "[kafka]\ntopics = [\"c\"]\n[kafka.properties]\n\"client.rack\" = \"r\"\n[retry.\"a.b\"]\njitter = 0.0";
    let config = load().file(lower).file(upper).ok().config;
    assert_eq!(config.kafka.topics, Some(vec!["c".to_owned()]));
    assert_eq!(config.kafka.properties["client.id"], "x");
    assert_eq!(config.kafka.properties["client.rack"], "r");
    assert_eq!((config.retry.0["a.b"].delays.clone(), config.retry.0["a.b"].jitter), (Some(vec![]), Some(0.0)));
    assert_eq!(config.retry.0["task.completed"].delays.as_ref().map(Vec::len), Some(3));
}

#[test]
fn dotted_names_need_no_quotes_where_they_can_only_mean_one_thing() {
    let file = "[kafka.properties]\nsecurity.protocol = \"ssl\"\nsocket.timeout.ms = 5000\n[retry.task.created]\ndelays = [\"2s\"]";
    let config = load().file(file).set("retry.task.bulk.jitter=0").set("kafka.consumer.client.id=c").ok().config;
    assert_eq!(config.kafka.properties["security.protocol"], "ssl");
    assert_eq!(config.kafka.properties["socket.timeout.ms"], "5000");
    assert_eq!(config.kafka.consumer["client.id"], "c");
    assert_eq!(config.retry.0["task.created"].delays, Some(vec![Duration::from_secs(2)]));
    assert_eq!(config.retry.0["task.bulk"].jitter, Some(0.0));
}

#[test]
fn set_takes_toml_or_else_text() {
    let loaded = load()
        .set("engine.concurrency=7")
        .set("app_id=todo")
        .set("store.prefix='quoted'")
        .set("kafka.topics=[\"a\", \"b\"]")
        .set("publish.pubsubs=x, y")
        .set("handlers=[{name=\"a\", kind=\"log\", events=[\"task.*\"]}]")
        .set("kafka.properties.\"sasl.password\"=0123=x")
        .set("kafka.properties.\"sasl.username\"=1_000")
        .set("publish.api_token=1e3")
        .set("catalog.validate=false")
        .set("engine.memory=1048576")
        .ok();
    let config = &loaded.config;
    assert_eq!(config.engine.concurrency, 7);
    assert_eq!((config.app_id.as_str(), config.store.prefix.as_str()), ("todo", "quoted"));
    assert_eq!(config.kafka.topics, Some(vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!(config.publish.pubsubs, ["x", "y"]);
    assert_eq!(config.handlers[0].events(), ["task.*"]);
    assert_eq!(config.kafka.properties["sasl.password"], "0123=x");
    assert_eq!(config.kafka.properties["sasl.username"], "1_000");
    assert_eq!(config.publish.api_token.expose(), "1e3");
    assert!(!config.catalog.validate);
    assert_eq!(config.engine.memory, 1 << 20);
    assert_eq!(loaded.origins.get("kafka.topics"), "--set kafka.topics");
}

#[test]
fn a_property_flag_is_a_property_of_every_client() {
    let loaded = load().property("security.protocol=ssl").property("ssl.ca.location=/a=b").ok();
    assert_eq!(loaded.config.kafka.properties["ssl.ca.location"], "/a=b");
    assert_eq!(loaded.origins.get("kafka.properties.\"security.protocol\""), "-X security.protocol");
}

#[test]
fn every_value_knows_where_it_was_written() {
    let load = load()
        .file("\napp_id = \"x\"\n[kafka]\n\n\"brokers\" = \"b:1\"\n[[handlers]]\nname = \"a\"\nkind = \"log\"")
        .env("WORKER_DLQ__TOPIC", "d");
    let loaded = load.ok();
    let origin = |key: &str| load.named(loaded.origins.get(key));
    assert_eq!(origin("app_id"), "F:2");
    assert_eq!(origin("kafka.brokers"), "F:5");
    assert_eq!(origin("kafka.group_id"), "F:2 (app_id)");
    assert_eq!(origin("handlers[0].kind"), "F:8");
    assert_eq!(origin("handlers[0].timeout"), "default");
    assert_eq!(origin("handlers[0]"), "F:7");
    assert_eq!(origin("dlq.topic"), "env WORKER_DLQ__TOPIC");
    assert_eq!(origin("store.url"), "default");
    assert_eq!(origin("nothing.here"), "");
}

#[test]
fn standalone_needs_nothing_unless_something_is_configured() {
    let bare = load().role(Role::Standalone).ok();
    assert!(bare.config.kafka.is_embedded() && bare.config.store.is_memory());
    assert_eq!(bare.config.handlers[0].name, "log");
    assert_eq!(bare.origins.get("kafka.brokers"), "default of standalone");
    let file = "[kafka]\nbrokers = \"b:1\"\n[[handlers]]\nname = \"mine\"\nkind = \"log\"";
    let configured = load().role(Role::Standalone).file(file).env("WORKER_STORE__URL", "redis://r").ok().config;
    assert_eq!(configured.kafka.brokers, "b:1");
    assert!(configured.store.url == "redis://r");
    assert_eq!(configured.handlers.iter().map(|handler| handler.name.as_str()).collect::<Vec<_>>(), ["mine"]);
    let written_out = load().role(Role::Standalone).file("[kafka]\nbrokers = \"localhost:9092\"").ok().config;
    assert!(!written_out.kafka.is_embedded(), "a default that somebody wrote is no default");
}

#[test]
fn no_secret_is_in_a_dump_of_the_configuration() {
    let file = "[store]\nurl = \"redis://u:hunter2@h\"\n[publish]\napi_token = \"hunter2\"\n[dlq]\nalert_webhook = \"https://h/hunter2\"\n\
                [kafka.properties]\n\"sasl.password\" = \"hunter2\"\nssl.key.pem = \"hunter2\"\n[kafka.consumer]\n\"ssl.key.password\" = \"hunter2\"\n\
                [kafka.producer]\n\"sasl.jaas.config\" = \"hunter2\"\n[[handlers]]\nname = \"a\"\nkind = \"http\"\nurl = \"http://u:hunter2@h\"";
    let loaded = load().file(file).ok();
    assert_eq!(loaded.config.kafka.properties["sasl.password"], "hunter2");
    let dump = format!("{:?} {:?} {}", loaded.config, loaded.origins, serde_json::to_string(loaded.origins.settings()).unwrap());
    assert!(!dump.contains("hunter2"), "{dump}");
    assert!(dump.contains("redis://u:***@h"), "{dump}");
    assert_eq!(loaded.config.handlers[0].url, Some(SecretUrl::new("http://u:hunter2@h")));
}

#[test]
fn the_production_example_loads_for_every_role_once_its_secrets_are_mounted() {
    let mut mounted = include_str!("../../../config/production.toml").to_owned();
    let secrets = [
        ("/run/secrets/kafka/password", "hunter2"),
        ("/run/secrets/redis/url", "rediss://todo-worker:hunter2@redis:6380/0"),
        ("/run/secrets/alerts/webhook", "https://hooks.example/hunter2"),
        ("/run/secrets/worker/api-token", "hunter2"),
    ];
    let dir = tempfile::tempdir().unwrap();
    for (index, (path, text)) in secrets.iter().enumerate() {
        let file = dir.path().join(index.to_string());
        std::fs::write(&file, text).unwrap();
        assert!(mounted.contains(path), "{path}");
        mounted = mounted.replace(path, &file.display().to_string());
    }
    for role in Role::ALL {
        let load = load().file(&mounted).role(role);
        assert_eq!(load.warnings(), Vec::<String>::new());
        assert_eq!(load.ok().config.kafka.properties["sasl.password"], "hunter2");
        assert!(!format!("{:?}", load.ok()).contains("hunter2"));
    }
}

/// The table of keys, the reference file and the structs say the same: the structs refuse unknown fields, and the loader reads every key
/// of the file through the table.
#[test]
fn the_table_of_keys_and_the_reference_file_name_the_same_keys() {
    let table = |text: &str| -> toml::Table { toml::from_str(text).unwrap() };
    // The examples are commented `# key = value`; with the marks gone, the whole file must still be TOML that loads.
    let uncommented: Vec<String> = DEFAULT_TOML.lines().map(|line| uncomment(line).to_owned()).collect();
    let mut full = table(&uncommented.join("\n"));
    for (path, _) in keys::leaves() {
        // Of a list, any entry may show a key: kinds of handlers exclude each other's.
        let mut at = vec![toml::Value::Table(full.clone())];
        for name in path.split('.').filter(|name| *name != "<property>") {
            let name = if name == "<type>" { "default" } else { name };
            let inner = at.iter().filter_map(|table| table.get(name.trim_end_matches("[]")));
            at = inner
                .flat_map(|value| value.as_array().filter(|_| name.ends_with("[]")).cloned().unwrap_or_else(|| vec![value.clone()]))
                .collect();
        }
        assert!(!at.is_empty(), "default.toml lacks {path}");
    }
    // Tables of other kinds than the example's.
    full["handlers"][0].as_table_mut().unwrap().retain(|key, _| key != "notify" && key != "reminder");
    let full = toml::to_string(&full).unwrap();
    // Keys that exclude another one of their example.
    let full = ["url", "http", "route", "to"].iter().fold(full, |full, key| full.replace(&format!("\n{key} = "), &format!("\n# {key} = ")));
    load().file(&full).ok();
}

/// `# key = value  # text` and `# [[table]]` without their mark; other comments stay.
fn uncomment(line: &str) -> &str {
    let Some(rest) = line.strip_prefix("# ") else { return line };
    let is_key =
        rest.split_once(" = ").is_some_and(|(name, _)| !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c == '_'));
    if is_key || rest.starts_with('[') { rest } else { line }
}

#[test]
fn the_words_of_each_choice_are_the_words_of_its_type() {
    let table = |path: &str, word: &str| match path.strip_prefix("handlers[].") {
        None if path.starts_with("schedules[].") => {
            let key = &path["schedules[].".len()..];
            let target = if key == "overlap" { "http = \"http://h\"" } else { "" };
            format!("[[schedules]]\nname = \"a\"\ncron = \"@daily\"\n{target}\n{key} = \"{word}\"")
        }
        Some("kind") => {
            let needs =
                [("http", "url = \"http://h\""), ("forward", "to = \"a\""), ("notify", "[handlers.notify]\nwebhook = \"http://h\"")];
            let needs = needs.iter().find(|(kind, _)| *kind == word).map_or("", |(_, keys)| *keys);
            format!("[[handlers]]\nname = \"a\"\nkind = \"{word}\"\n{needs}")
        }
        Some(key) if key.starts_with("audit.") => format!("[[handlers]]\nname = \"a\"\nkind = \"audit\"\n{key} = \"{word}\""),
        Some("repeat_from") => format!("[[handlers]]\nname = \"a\"\nkind = \"recurrence\"\nrepeat_from = \"{word}\""),
        Some(key) => format!("[[handlers]]\nname = \"a\"\nkind = \"http\"\nurl = \"http://h\"\n{key} = \"{word}\""),
        None => format!("{path} = \"{word}\""),
    };
    for (path, key) in keys::leaves() {
        if let keys::Kind::Choice(words) = key.kind {
            words.iter().for_each(|word| drop(load().file(&table(&path, word)).ok()));
        }
    }
}
