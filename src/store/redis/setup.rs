//! What each new connection is made ready with: the scripts, the ledger's geometry, and a look at whether this server may be used.

use std::time::Duration;

use redis::{RedisError, aio::MultiplexedConnection};

use super::{ledger::Ledger, link::Ready, probe::ServerInfo, scripts::Scripts};
use crate::{engine::ports::StoreError, event::record::TopicPartition};

/// Names of the keys of one consumer group.
pub(super) struct Keys {
    base: String,
}

impl Keys {
    /// Everything under `prefix:group:`. A colon in the group's name is escaped, so that no two groups share a key; so are braces, which
    /// would decide the slot.
    pub(super) fn new(prefix: &str, group: &str) -> Self {
        let mut base = format!("{prefix}:");
        for c in group.chars() {
            match c {
                '%' => base.push_str("%25"),
                ':' => base.push_str("%3A"),
                '{' => base.push_str("%7B"),
                '}' => base.push_str("%7D"),
                c => base.push(c),
            }
        }
        Self { base }
    }

    pub(super) fn geometry(&self) -> String {
        format!("{}:geometry", self.base)
    }

    pub(super) fn ping(&self) -> String {
        format!("{}:ping", self.base)
    }

    pub(super) fn done(&self, (generation, shard): (u64, u64)) -> String {
        format!("{}:done:{generation}:{shard}", self.base)
    }

    /// Lease, mark and records of a partition share a hash tag, so that one script may touch them.
    pub(super) fn lease(&self, partition: &TopicPartition) -> String {
        format!("{}:lease:{{{partition}}}", self.base)
    }

    pub(super) fn mark(&self, partition: &TopicPartition) -> String {
        format!("{}:mark:{{{partition}}}", self.base)
    }

    pub(super) fn records(&self, partition: &TopicPartition) -> String {
        format!("{}:ev:{{{partition}}}", self.base)
    }

    pub(super) fn schedule(&self, name: &str) -> String {
        format!("{}:schedule:{name}", self.base)
    }

    pub(super) fn reminder(&self, shard: u8, what: &str) -> String {
        format!("{}:reminder:{shard}:{what}", self.base)
    }

    pub(super) fn reminders_known(&self) -> String {
        format!("{}:reminder:known", self.base)
    }

    pub(super) fn outbox(&self, name: &str) -> String {
        format!("{}:outbox:{name}", self.base)
    }

    pub(super) fn book(&self, book: &str, what: &str) -> String {
        format!("{}:book:{book}:{what}", self.base)
    }

    /// A `SCAN` pattern for one kind of key of this group.
    pub(super) fn pattern(&self, kind: &str) -> String {
        let mut pattern = String::new();
        for c in self.base.chars() {
            if matches!(c, '*' | '?' | '[' | ']' | '\\') {
                pattern.push('\\');
            }
            pattern.push(c);
        }
        format!("{pattern}:{kind}:*")
    }
}

/// What a connection needs to know and do before its first use.
pub(super) struct Setup {
    pub(super) keys: Keys,
    pub(super) scripts: Scripts,
    pub(super) ledger: Ledger,
    pub(super) allow_eviction: bool,
}

impl Ready for Setup {
    fn load_all(&self) -> redis::Pipeline {
        self.scripts.load_all()
    }

    /// Loads the scripts, writes or reads the geometry, learns the time, and refuses a server that would lose or hide verdicts.
    async fn ready(
        &self,
        connection: &mut MultiplexedConnection,
        explain: &(dyn Fn(&RedisError) -> StoreError + Sync),
    ) -> Result<(), StoreError> {
        // First, and alone: a replica, a cluster or too old a server gives less clear errors below.
        match redis::cmd("INFO").query_async::<String>(connection).await {
            Ok(text) => {
                let info = ServerInfo::parse(&text);
                info.usable()?;
                if let Some(warning) = info.eviction(self.allow_eviction)? {
                    tracing::warn!(redis.policy = info.policy, "{warning}");
                }
            }
            Err(error) if error.to_string().contains("NOPERM") => {
                tracing::warn!("redis does not let this user read INFO: version and eviction policy are unknown");
            }
            Err(error) => return Err(explain(&error)),
        }
        self.scripts.load_all().exec_async(connection).await.map_err(|error| explain(&error))?;
        let mut pipeline = redis::pipe();
        self.ask_geometry(&mut pipeline);
        pipeline.cmd("TIME");
        let (geometry, (seconds, micros)): (String, (u64, u64)) =
            pipeline.query_async(connection).await.map_err(|error| explain(&error))?;
        self.adopt(&geometry)?;
        self.ledger.learn(seconds * 1000 + micros / 1000);
        self.ledger.forget();
        Ok(())
    }
}

impl Setup {
    /// Writes this worker's geometry where there is none, and asks which one counts: the only answer that these two commands give.
    pub(super) fn ask_geometry(&self, pipeline: &mut redis::Pipeline) {
        let key = self.keys.geometry();
        pipeline.cmd("SET").arg(&key).arg(self.ledger.geometry().text()).arg("NX").ignore();
        pipeline.cmd("GET").arg(&key);
    }

    /// Takes the geometry that counts.
    pub(super) fn adopt(&self, text: &str) -> Result<(), StoreError> {
        if self.ledger.adopt(text, &self.keys.geometry())? {
            let geometry = self.ledger.geometry();
            let generation = humantime::format_duration(Duration::from_millis(geometry.generation_ms));
            tracing::info!(store.shards = geometry.shards, store.generation = %generation, "the done ledger's shape comes from redis");
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn for_tests() -> Self {
        use super::ledger::Geometry;
        let retention = Duration::from_secs(60);
        let ledger = Ledger::new(retention, Geometry::for_retention(retention));
        Self { keys: Keys::new("worker", "group"), scripts: Scripts::new(), ledger, allow_eviction: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_groups_share_a_key_and_one_partitions_keys_share_a_slot() {
        assert_ne!(Keys::new("a:b", "c").ping(), Keys::new("a", "b:c").ping());
        let keys = Keys::new("worker", "g{1}");
        let partition = TopicPartition::new("task-events", 3);
        assert_eq!(keys.lease(&partition), "worker:g%7B1%7D:lease:{task-events:3}");
        assert_eq!(keys.mark(&partition), "worker:g%7B1%7D:mark:{task-events:3}");
        assert_eq!(keys.records(&partition), "worker:g%7B1%7D:ev:{task-events:3}");
        assert_eq!(keys.done((7, 15)), "worker:g%7B1%7D:done:7:15");
        assert_eq!(Keys::new("w*", "g").pattern("done"), "w\\*:g:done:*");
    }
}
