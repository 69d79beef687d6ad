//! Topics, what may be done with them, and the group that reads them.

use std::collections::BTreeMap;

use super::{apps::Wanted, finding::Finding};
use crate::{
    config::{Config, handlers::HandlerConfig},
    event::{Catalog, record::TopicPartition},
    handlers::wanted,
    kafka::{
        KafkaError,
        access::Access,
        topics::{TopicAdmin, TopicDescription},
    },
};

/// What a topic is for here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Use {
    /// Consumed; missing, the consumer waits.
    read: bool,
    /// Published to; missing, its events are refused.
    write: bool,
}

/// Every finding about topics and the group.
pub(super) async fn examine(config: &Config, catalog: &Catalog, told: &[Wanted], admin: &TopicAdmin) -> Vec<Finding> {
    let uses = uses(config, catalog, told);
    let names: Vec<_> = uses.keys().cloned().collect();
    let listed = match admin.list().await {
        Ok(listed) => listed,
        Err(error) => return vec![Finding::fail("topics", error.to_string(), "allow this client's user to DESCRIBE them")],
    };
    let found: BTreeMap<_, _> = listed.into_iter().map(|topic| (topic.name.clone(), topic)).collect();
    let there: Vec<_> = names.iter().filter(|name| found.contains_key(*name)).cloned().collect();
    let access = if there.is_empty() { Ok(Vec::new()) } else { admin.access(&there).await };
    let mut access: BTreeMap<_, _> = match access {
        Ok(answers) => there.iter().cloned().zip(answers).collect(),
        Err(error) => there.iter().map(|name| (name.clone(), Err(error.clone()))).collect(),
    };
    let mut findings = Vec::new();
    for (name, wanted) in &uses {
        findings.push(presence(name, *wanted, found.get(name)));
        findings.extend(access.remove(name).map(|answer| allowed(name, *wanted, answer)));
    }
    let read = uses.iter().filter(|(_, wanted)| wanted.read).filter_map(|(name, _)| found.get(name));
    findings.extend(retention(config, read.clone().map(|topic| topic.name.clone()).collect(), admin).await);
    findings.push(group(config.group_id(), read, admin).await);
    findings
}

/// The catalogue's topics, those configured, those that apps want, and where dead letters go.
fn uses(config: &Config, catalog: &Catalog, told: &[Wanted]) -> BTreeMap<String, Use> {
    let mut uses: BTreeMap<String, Use> = BTreeMap::new();
    let declared = catalog.topic_specs("local").unwrap_or_default();
    for spec in declared.iter().filter(|spec| !spec.dead_letters) {
        uses.entry(spec.name.to_string()).or_default().write = true;
    }
    // An app that tells its routes wants the topics of those, whatever types they carry.
    let handlers = config.handlers.iter().filter(|handler| handler.discover.is_none());
    let types: Vec<_> = handlers.flat_map(|handler| wanted(handler, catalog)).collect();
    let needed = catalog.topics_needed(types.iter().map(String::as_str));
    let read: Vec<String> = match &config.kafka.topics {
        Some(topics) => topics.clone(),
        None => needed.iter().map(ToString::to_string).chain(told.iter().map(|one| one.topic.clone())).collect(),
    };
    for topic in read {
        uses.entry(topic).or_default().read = true;
    }
    let dead = told.iter().filter(|one| read_here(config, &one.topic)).filter_map(|one| one.dead_letters.as_ref());
    for topic in config.handlers.iter().filter_map(HandlerConfig::writes_to).chain([&config.dlq.topic]).chain(dead) {
        uses.entry(catalog.topic(topic).unwrap_or(topic).to_owned()).or_default().write = true;
    }
    uses
}

fn read_here(config: &Config, topic: &str) -> bool {
    config.kafka.topics.as_ref().is_none_or(|topics| topics.iter().any(|read| read == topic))
}

/// Topics that keep records for longer than duplicates are recognised. Where their settings are hidden, nothing is said of them.
async fn retention(config: &Config, topics: Vec<String>, admin: &TopicAdmin) -> Vec<Finding> {
    if topics.is_empty() {
        return Vec::new();
    }
    let described = admin.describe(&topics).await.unwrap_or_default();
    let long = described.into_iter().flatten().filter_map(|topic| Some((topic.outlives(config.store.retention)?, topic.name)));
    let fix = "raise store.retention, or lower the topic's retention.ms";
    long.map(|(why, name)| Finding::warn(format!("retention of {name}"), why, fix)).collect()
}

fn presence(name: &str, wanted: Use, found: Option<&TopicDescription>) -> Finding {
    let part = format!("topic {name}");
    match found {
        None => {
            let why = if wanted.read {
                "missing, or hidden from this client: the consumer waits for it"
            } else {
                "missing, or hidden from this client: events for it are refused"
            };
            Finding::fail(part, why, "worker topics apply")
        }
        Some(topic) if topic.leaderless > 0 => Finding::fail(
            part,
            format!("{} of {} partitions have no leader", topic.leaderless, topic.partitions),
            "bring the brokers that hold them back",
        ),
        Some(topic) => Finding::ok(part, format!("{} partitions, replication {}", topic.partitions, topic.replication)),
    }
}

/// Whether what `wanted` needs is allowed, in the brokers' own words.
fn allowed(name: &str, wanted: Use, answer: Result<Option<Access>, KafkaError>) -> Finding {
    let part = format!("rights on {name}");
    match answer {
        Err(error) => Finding::warn(
            part,
            format!("could not be asked for: {error}"),
            "allow DESCRIBE on it; a worker's first read or write shows the rest",
        ),
        Ok(None) => Finding::warn(part, "these brokers do not tell what is allowed", "a worker's first read or write shows it"),
        Ok(Some(access)) => {
            let lacking: Vec<_> = [(wanted.read && !access.read, "READ"), (wanted.write && !access.write, "WRITE")]
                .into_iter()
                .filter_map(|(lacks, operation)| lacks.then_some(operation))
                .collect();
            if lacking.is_empty() {
                let words: Vec<_> =
                    [(access.read, "read"), (access.write, "write")].into_iter().filter_map(|(may, word)| may.then_some(word)).collect();
                return Finding::ok(part, format!("may {}", words.join(" and ")));
            }
            let lacking = lacking.join(" and ");
            Finding::fail(
                part,
                format!("{lacking} is not allowed"),
                format!("kafka-acls.sh --add --allow-principal User:<this client's> --operation {lacking} --topic {name}"),
            )
        }
    }
}

/// The group's state and how far behind it is. Joining it would disturb it, so the right to is not tried.
async fn group<'a>(group: &str, topics: impl Iterator<Item = &'a TopicDescription>, admin: &TopicAdmin) -> Finding {
    let part = format!("group {group}");
    let partitions: Vec<_> = topics
        .flat_map(|topic| {
            (0..i32::try_from(topic.partitions).unwrap_or(i32::MAX)).map(|number| TopicPartition::new(topic.name.as_str(), number))
        })
        .collect();
    match look(&partitions, admin).await {
        Ok(found) => Finding::ok(part, found),
        Err(error) => Finding::fail(
            part,
            error.to_string(),
            format!("kafka-acls.sh --add --allow-principal User:<this client's> --operation READ --group {group}"),
        ),
    }
}

async fn look(partitions: &[TopicPartition], admin: &TopicAdmin) -> Result<String, KafkaError> {
    let state = admin.group().await?.map_or_else(|| "no members now".to_owned(), |(state, members)| format!("{state}, {members} members"));
    if partitions.is_empty() {
        return Ok(format!("{state}; no handler is configured, so it reads nothing"));
    }
    let committed = admin.committed(partitions).await?;
    let bounds = admin.log_bounds(partitions).await?;
    let begun = committed.iter().flatten().count();
    let lag: i64 =
        committed.iter().zip(bounds).map(|(commit, (low, end))| (end - commit.as_ref().map_or(low, |commit| commit.offset)).max(0)).sum();
    Ok(format!(
        "{state}; {lag} records behind on {} partitions, {begun} of them with a commit (that it may be joined is not tried)",
        partitions.len()
    ))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::finding::Level;
    use super::*;
    use crate::config::{Config, Sources};

    fn config(sets: &[&str]) -> Config {
        let sets = sets.iter().map(|set| (*set).to_owned()).collect();
        Config::load(&Sources { sets, ..Sources::default() }).unwrap().config
    }

    #[test]
    fn each_topic_is_wanted_for_what_this_deployment_does_with_it() {
        let catalog = Catalog::embedded().unwrap();
        let wanted = uses(&config(&["kafka.topics=[\"task-events\", \"legacy\"]", "dlq.topic=dead"]), &catalog, &[]);
        assert_eq!(wanted["task-events"], Use { read: true, write: true });
        assert_eq!(wanted["legacy"], Use { read: true, write: false });
        assert_eq!((wanted["dead"], wanted["user-events"]), (Use { read: false, write: true }, Use { read: false, write: true }));
        assert!(!wanted.contains_key("dlq"), "not this deployment's");
    }

    #[test]
    fn what_an_app_wants_is_read_and_its_dead_letter_topics_are_written() {
        let catalog = Catalog::embedded().unwrap();
        let told = [
            Wanted { topic: "orders".to_owned(), dead_letters: Some("orders-dead".to_owned()) },
            Wanted { topic: "legacy".to_owned(), dead_letters: None },
        ];
        let app = "handlers=[{name=\"app\",kind=\"http\",discover=\"http://app\"}]";
        let wanted = uses(&config(&[app]), &catalog, &told);
        assert_eq!((wanted["orders"], wanted["legacy"]), (Use { read: true, write: false }, Use { read: true, write: false }));
        assert_eq!(wanted["orders-dead"], Use { read: false, write: true });
        assert!(!wanted["task-events"].read, "its routes do not name it");
        let other = uses(&config(&[app, "kafka.topics=[\"legacy\"]"]), &catalog, &told);
        assert!(other["legacy"].read && !other.contains_key("orders") && !other.contains_key("orders-dead"), "not read by this worker");
    }

    #[test]
    fn a_right_that_lacks_is_named_with_the_command_that_gives_it() {
        let wanted = Use { read: true, write: true };
        let found = allowed("t", wanted, Ok(Some(Access { read: true, write: false })));
        assert_eq!((found.level, found.found.as_str()), (Level::Fail, "WRITE is not allowed"));
        assert!(found.fix.unwrap().contains("--operation WRITE --topic t"));
        assert_eq!(allowed("t", wanted, Ok(Some(Access { read: true, write: true }))).level, Level::Ok);
        assert_eq!(allowed("t", wanted, Ok(None)).level, Level::Warn);
    }
}
