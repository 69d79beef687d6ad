//! The way past the ledger, for handling events again on purpose after their offsets were set back by hand.
//!
//! 1. Stop every worker of the group (Kafka resets no offsets of a running group).
//! 2. Set the offsets back (`kafka-consumer-groups --reset-offsets`): this also drops the commit map.
//! 3. Forget: everything of the group ([`RedisStore::forget_all`]), or only the events that are to run again
//!    ([`RedisStore::forget_members`], made with [`crate::engine::member`]). The ledger holds hashes, so it cannot tell by itself which
//!    of them belong to a topic or a time: whoever wants less than all reads the events again.
//! 4. Start the workers.
//!
//! Leases and geometry stay: epochs never turn back.

use super::{RedisStore, millis};
use crate::{
    engine::ports::{Member, StoreError},
    event::record::TopicPartition,
};

/// Keys asked for in one step of a scan.
const STEP: usize = 1000;

impl RedisStore {
    /// Forgets every finished event, every record of a failed one and every mark of the group; answers how many keys went.
    ///
    /// # Errors
    /// [`StoreError::Refused`] while a worker of the group holds a lease: what it finishes meanwhile would be remembered. As any call else.
    pub async fn forget_all(&self) -> Result<usize, StoreError> {
        self.nobody_runs().await?;
        let mut forgotten = 0;
        for kind in ["done", "ev", "mark"] {
            for keys in self.scan(kind).await?.chunks(STEP) {
                forgotten += self.run_one::<usize>(redis::cmd("UNLINK").arg(keys).to_owned()).await?;
            }
        }
        Ok(forgotten)
    }

    /// Forgets these finished events, wherever they stand, and the records at these offsets; answers how many finished events were known.
    ///
    /// # Errors
    /// As [`RedisStore::forget_all`].
    pub async fn forget_members(&self, partition: &TopicPartition, events: &[(i64, Member)]) -> Result<usize, StoreError> {
        self.nobody_runs().await?;
        let super::Setup { keys, ledger, .. } = self.setup();
        let mut forgotten = 0;
        for events in events.chunks(STEP) {
            let members: Vec<_> = events.iter().map(|(_, member)| *member).collect();
            let mut pipeline = redis::pipe();
            pipeline.cmd("HDEL").arg(keys.records(partition));
            for (offset, _) in events {
                pipeline.arg(*offset);
            }
            pipeline.ignore();
            for (shard, positions) in ledger.by_shard(&members) {
                for generation in ledger.readable() {
                    pipeline.cmd("SREM").arg(keys.done((generation, shard)));
                    for position in &positions {
                        pipeline.arg(&members[*position].id);
                    }
                }
            }
            forgotten += self.run::<Vec<usize>>(&pipeline).await?.into_iter().sum::<usize>();
        }
        Ok(forgotten)
    }

    /// Refuses while any lease of the group is neither released nor expired.
    async fn nobody_runs(&self) -> Result<(), StoreError> {
        let (seconds, _): (u64, u64) = self.run_one(redis::cmd("TIME")).await?;
        for keys in self.scan("lease").await?.chunks(STEP) {
            let mut pipeline = redis::pipe();
            for key in keys {
                pipeline.cmd("HMGET").arg(key).arg("owner").arg("end").arg("released");
            }
            for (owner, end, released) in self.run::<Vec<(Option<String>, Option<u64>, Option<String>)>>(&pipeline).await? {
                let Some(owner) = owner.filter(|owner| !owner.is_empty()) else { continue };
                if released.as_deref() != Some("1") && end.unwrap_or(0) > seconds * 1000 {
                    let wait = humantime::format_duration(std::time::Duration::from_secs(millis(self.lease_time) / 1000));
                    return Err(StoreError::Refused(format!(
                        "worker {owner} still holds a partition: stop every worker of the group, wait {wait}, then ask again"
                    )));
                }
            }
        }
        Ok(())
    }

    /// Every key of one kind of this group.
    async fn scan(&self, kind: &str) -> Result<Vec<Vec<u8>>, StoreError> {
        let mut keys = Vec::new();
        let mut cursor: Vec<u8> = b"0".to_vec();
        loop {
            let mut cmd = redis::cmd("SCAN");
            cmd.arg(&cursor).arg("MATCH").arg(self.setup().keys.pattern(kind)).arg("COUNT").arg(STEP);
            let (next, found): (Vec<u8>, Vec<Vec<u8>>) = self.run_one(cmd).await?;
            keys.extend(found);
            if next == b"0" {
                return Ok(keys);
            }
            cursor = next;
        }
    }
}
