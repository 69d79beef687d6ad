//! What is remembered of a partition's events that failed or are suspect.

use std::sync::atomic::Ordering;

use redis::Value;

use super::{
    RedisStore,
    scripts::{FENCED, LOST, STALE},
    setup::Setup,
};
use crate::{
    engine::ports::{EventRecord, Lease, Remembered, StoreError},
    store::record,
};

impl RedisStore {
    pub(super) async fn save_now(&self, lease: &Lease, changes: &[(i64, Option<EventRecord>)]) -> Result<(), StoreError> {
        let Setup { keys, scripts, .. } = self.setup();
        let mut cmd = scripts.save.call(2);
        cmd.arg(keys.lease(&lease.partition)).arg(keys.records(&lease.partition));
        cmd.arg(&*lease.owner).arg(lease.epoch).arg(self.keep_ms).arg(self.saves.fetch_add(1, Ordering::Relaxed) + 1);
        for (offset, record) in changes {
            cmd.arg(*offset).arg(record.as_ref().map(record::encode).unwrap_or_default());
        }
        verdict(Some(self.run_one(cmd).await?)).map(|_| ())
    }

    pub(super) async fn load_now(&self, lease: &Lease) -> Result<Remembered, StoreError> {
        let Setup { keys, scripts, .. } = self.setup();
        let mut load = scripts.load.call(2);
        load.arg(keys.lease(&lease.partition)).arg(keys.mark(&lease.partition));
        load.arg(&*lease.owner).arg(lease.epoch).arg(self.keep_ms);
        let mut pipeline = redis::pipe();
        pipeline.add_command(load);
        pipeline.cmd("HGETALL").arg(keys.records(&lease.partition));
        let (held, records): (Value, Vec<(i64, Vec<u8>)>) = self.link.run(&pipeline, self.link.timing().load).await?;
        let mark = match held {
            Value::Array(answer) => match answer.get(1) {
                Some(Value::Int(mark)) => Some(*mark),
                _ => None,
            },
            refused => verdict(Some(refused)).map(|_| None)?,
        };
        let mut unread = 0;
        let read = records.iter().filter_map(|(offset, bytes)| {
            let record = record::decode(bytes);
            unread += usize::from(record.is_none());
            Some((*offset, record?))
        });
        let mut records: Vec<_> = read.collect();
        if unread > 0 {
            tracing::warn!(kafka.partition = %lease.partition, store.records = unread, "records of a newer worker are not read; their attempts come from the commit map");
        }
        records.sort_unstable_by_key(|(offset, _)| *offset);
        Ok(Remembered { records, mark })
    }
}

/// A script's answer: a count, or why it wrote nothing.
pub(super) fn verdict(answer: Option<Value>) -> Result<i64, StoreError> {
    match answer {
        Some(Value::Int(LOST)) => {
            Err(StoreError::Unavailable(String::from("redis lost this partition's lease; it is written again at the next renewal")))
        }
        Some(Value::Int(FENCED)) => Err(StoreError::Fenced),
        Some(Value::Int(STALE)) => Err(StoreError::Unavailable(String::from("overtaken by a later save; ask again"))),
        Some(Value::Int(count)) => Ok(count),
        _ => Err(StoreError::Refused(String::from("redis: a script's answer that makes no sense"))),
    }
}
