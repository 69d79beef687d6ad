//! `topics.yaml`: partitions, retention, profiles, and how topics are named.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde::Deserialize;

use super::{EventType, load::File};

/// The whole file, checked.
#[derive(Debug)]
pub struct Topics {
    pub(super) profiles: BTreeMap<String, Profile>,
    pub(super) scheme: String,
    pub(super) topics: BTreeMap<String, Topic>,
    pub(super) aliases: BTreeMap<String, String>,
    pub(super) gone: Vec<String>,
}

/// What all topics of a profile have in common.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Copies of each partition.
    pub replication: Option<i32>,
    /// Copies that must have a record before it is acknowledged.
    pub min_insync: Option<i32>,
    /// Another profile, for what is not given here and for the topics' own settings.
    pub extends: Option<String>,
}

/// One topic as the file has it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Topic {
    pub(super) description: String,
    pub(super) partitions: i32,
    pub(super) retention: String,
    #[serde(default)]
    pub(super) aliases: Vec<String>,
    #[serde(default)]
    pub(super) dead_letters: bool,
    #[serde(default)]
    pub(super) config: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) profiles: BTreeMap<String, Override>,
}

/// What a profile changes of one topic.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Override {
    pub(super) partitions: Option<i32>,
    pub(super) retention: Option<String>,
    pub(super) replication: Option<i32>,
    pub(super) min_insync: Option<i32>,
    #[serde(default)]
    pub(super) config: BTreeMap<String, String>,
}

/// A topic as one profile makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name on the broker.
    pub name: Arc<str>,
    /// One sentence for people.
    pub description: String,
    /// How many partitions.
    pub partitions: i32,
    /// Copies of each partition.
    pub replication: i32,
    /// How long records are kept.
    pub retention: Duration,
    /// Whether it is a topic of dead letters.
    pub dead_letters: bool,
    /// Other names that it is known by.
    pub aliases: Vec<String>,
    /// Every broker-side setting, `retention.ms` and `min.insync.replicas` among them.
    pub config: BTreeMap<String, String>,
    /// The types that travel on it.
    pub types: Vec<Arc<str>>,
}

impl Topics {
    /// The topic's own name, given it or an alias.
    pub(super) fn resolve(&self, name: &str) -> Option<&str> {
        let name = self.aliases.get(name).map_or(name, String::as_str);
        self.topics.get_key_value(name).map(|(name, _)| name.as_str())
    }

    pub(super) fn is_dead_letters(&self, name: &str) -> bool {
        self.resolve(name).and_then(|name| self.topics.get(name)).is_some_and(|topic| topic.dead_letters)
    }

    /// The broker-side name of `topic` for events of `kind`.
    pub(super) fn name_for(&self, topic: &str, kind: &EventType) -> Arc<str> {
        let topic = self.resolve(topic).unwrap_or(topic);
        if self.is_dead_letters(topic) {
            return topic.into();
        }
        let action = kind.name.split_once('.').map_or(&*kind.name, |(_, action)| action);
        self.scheme
            .replace("{topic}", topic)
            .replace("{type}", &kind.name)
            .replace("{domain}", &kind.domain)
            .replace("{action}", action)
            .into()
    }

    /// The broker-side names of a type's topics, each once, in the order of its file.
    pub(super) fn names_of(&self, kind: &EventType) -> Vec<Arc<str>> {
        let mut names = Vec::with_capacity(kind.topics.len());
        for topic in &kind.topics {
            let name = self.name_for(topic, kind);
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// Every topic as `profile` makes it.
    pub(super) fn specs<'a>(&self, profile: &str, types: impl Iterator<Item = &'a Arc<EventType>>) -> Option<Vec<TopicSpec>> {
        let line = self.line_of(profile)?;
        let per_topic = self.scheme.contains("{topic}");
        let mut specs: BTreeMap<Arc<str>, TopicSpec> = BTreeMap::new();
        for (name, topic) in &self.topics {
            if per_topic && !self.scheme.contains("{type}") && !self.scheme.contains("{action}") || topic.dead_letters {
                let shown: Arc<str> = if topic.dead_letters { name.as_str().into() } else { self.scheme.replace("{topic}", name).into() };
                specs.insert(Arc::clone(&shown), self.spec(shown, topic, &line));
            }
        }
        for kind in types {
            for bound in &kind.topics {
                let Some(topic) = self.resolve(bound).and_then(|name| self.topics.get(name)) else { continue };
                let name = self.name_for(bound, kind);
                let spec = specs.entry(Arc::clone(&name)).or_insert_with(|| self.spec(name, topic, &line));
                spec.types.push(Arc::clone(&kind.name));
            }
        }
        Some(specs.into_values().collect())
    }

    /// What a topic without a number of its own has in `profile`.
    pub(super) fn replication(&self, profile: &str) -> Option<i32> {
        Some(self.shared(&self.line_of(profile)?, |profile| profile.replication))
    }

    /// What the nearest profile of the line gives every topic; 1 where none does.
    fn shared(&self, line: &[&str], pick: impl Fn(&Profile) -> Option<i32>) -> i32 {
        line.iter().filter_map(|profile| self.profiles.get(*profile)).find_map(pick).unwrap_or(1)
    }

    /// The profile and those that it extends, nearest first.
    fn line_of(&self, profile: &str) -> Option<Vec<&str>> {
        let mut line = Vec::new();
        let mut next = Some(profile);
        while let Some(name) = next {
            let (name, profile) = self.profiles.get_key_value(name)?;
            if line.contains(&name.as_str()) {
                break;
            }
            line.push(name.as_str());
            next = profile.extends.as_deref();
        }
        Some(line)
    }

    fn spec(&self, name: Arc<str>, topic: &Topic, line: &[&str]) -> TopicSpec {
        let own = || line.iter().filter_map(|profile| topic.profiles.get(*profile));
        let replication = own().find_map(|own| own.replication).unwrap_or_else(|| self.shared(line, |profile| profile.replication));
        let insync = own().find_map(|own| own.min_insync).unwrap_or_else(|| self.shared(line, |profile| profile.min_insync));
        let written = own().find_map(|own| own.retention.as_deref()).unwrap_or(&topic.retention);
        // Checked when the file was read.
        let retention = humantime::parse_duration(written).unwrap_or_default();
        let mut config = topic.config.clone();
        for own in own().collect::<Vec<_>>().into_iter().rev() {
            config.extend(own.config.clone());
        }
        config.entry("retention.ms".to_owned()).or_insert_with(|| retention.as_millis().to_string());
        config.entry("min.insync.replicas".to_owned()).or_insert_with(|| insync.to_string());
        TopicSpec {
            name,
            description: topic.description.clone(),
            partitions: own().find_map(|own| own.partitions).unwrap_or(topic.partitions),
            replication,
            retention,
            dead_letters: topic.dead_letters,
            aliases: topic.aliases.clone(),
            config,
            types: Vec::new(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TopicsFile {
    profiles: BTreeMap<String, Profile>,
    naming: String,
    schemes: BTreeMap<String, String>,
    topics: BTreeMap<String, Topic>,
    #[serde(default)]
    gone: Vec<String>,
}

/// Reads `topics.yaml`; `None` where too little of it could be understood to go on.
pub(super) fn read(file: &mut File<'_>) -> Option<Topics> {
    let read: TopicsFile = file.parse()?;
    let Some(scheme) = read.schemes.get(&read.naming).cloned() else {
        file.wrong("naming", format!("no scheme `{}`", read.naming), "name one of `schemes`");
        return None;
    };
    if !["{topic}", "{type}", "{action}"].iter().any(|part| scheme.contains(part)) {
        file.wrong(&format!("schemes.{}", read.naming), "every topic would have the same name", "use {topic}, {type} or {action} in it");
    }
    for (name, profile) in &read.profiles {
        if let Some(other) = &profile.extends
            && !read.profiles.contains_key(other)
        {
            file.wrong(&format!("profiles.{name}.extends"), format!("no profile `{other}`"), "name one of `profiles`");
        }
    }
    let mut aliases = BTreeMap::new();
    for (name, topic) in &read.topics {
        check_topic(file, name, topic, &read.profiles);
        for alias in &topic.aliases {
            if read.topics.contains_key(alias) || aliases.insert(alias.clone(), name.clone()).is_some() {
                file.wrong(&format!("topics.{name}.aliases"), format!("`{alias}` is also another topic"), "let one topic alone have it");
            }
        }
    }
    for name in &read.gone {
        if read.topics.contains_key(name) || aliases.contains_key(name) {
            file.wrong("gone", format!("`{name}` is also one of `topics`"), "take it out of the one or the other");
        }
        if !legal(name) || name.starts_with("__") {
            file.wrong("gone", format!("`{name}` is no topic that could be deleted"), "write the name that it has on the brokers");
        }
    }
    Some(Topics { profiles: read.profiles, scheme, topics: read.topics, aliases, gone: read.gone })
}

/// Whether Kafka takes a topic's name.
fn legal(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 249
        && ![".", ".."].contains(&name)
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

fn check_topic(file: &mut File<'_>, name: &str, topic: &Topic, profiles: &BTreeMap<String, Profile>) {
    if !legal(name) {
        file.wrong(&format!("topics.{name}"), "Kafka takes no such name", "use letters, digits, `.`, `_` and `-`, 249 at most");
    }
    let base = Override { partitions: Some(topic.partitions), retention: Some(topic.retention.clone()), ..Override::default() };
    let all = topic.profiles.iter().map(|(profile, own)| (format!("topics.{name}.profiles.{profile}"), own));
    for (at, own) in all.chain([(format!("topics.{name}"), &base)]) {
        if own.partitions.is_some_and(|count| count < 1) {
            file.wrong(&format!("{at}.partitions"), "a topic has at least one partition", "write a number from 1 up");
        }
        if let Some(written) = own.retention.as_ref().filter(|written| humantime::parse_duration(written).is_err()) {
            file.wrong(&format!("{at}.retention"), format!("`{written}` is no duration"), "write it like 7d or 12h");
        }
    }
    for profile in topic.profiles.keys().filter(|profile| !profiles.contains_key(*profile)) {
        file.wrong(&format!("topics.{name}.profiles.{profile}"), "no such profile", "name one of `profiles`");
    }
}
