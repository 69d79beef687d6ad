//! What is remembered of a partition's events: finished, failed, begun.

use std::sync::atomic::Ordering;

use redis::{Pipeline, Value};

use super::{
    RedisStore,
    ledger::SetOf,
    scripts::{FENCED, LOST, STALE},
    setup::{Keys, Setup},
};
use crate::{
    engine::ports::{Check, EventRecord, Lease, Member, Remembered, StoreError},
    store::record,
};

impl RedisStore {
    pub(super) async fn check_now(&self, lease: &Lease, check: Check) -> Result<Vec<bool>, StoreError> {
        let Setup { keys, scripts, ledger, .. } = self.setup();
        let mut begin = scripts.begin.call(3);
        begin.arg(keys.lease(&lease.partition)).arg(keys.mark(&lease.partition)).arg(keys.records(&lease.partition));
        begin.arg(&*lease.owner).arg(lease.epoch).arg(self.keep_ms);
        begin.arg(check.mark.map(|mark| mark.to_string()).unwrap_or_default()).arg(&lease.epoch.to_be_bytes());
        for (offset, id) in &check.starts {
            begin.arg(*offset).arg(id);
        }
        let groups = ledger.by_shard(&check.members);
        let (present, absent) = ledger.by_presence(groups.iter().map(|(shard, _)| *shard));
        let mut reading = Reading { members: &check.members, groups: &groups, done: vec![false; check.members.len()] };
        let mut pipeline = redis::pipe();
        pipeline.add_command(begin);
        reading.ask(&mut pipeline, &present, keys);
        if !absent.is_empty() {
            pipeline.cmd("EXISTS").arg(absent.iter().map(|set| keys.done(*set)).collect::<Vec<_>>());
        }
        let answers: Vec<Value> = self.run(&pipeline).await?;
        let mut answers = answers.into_iter();
        verdict(answers.next())?;
        reading.take(&present, &mut answers).ok_or_else(|| self.odd("SMISMEMBER"))?;
        if !absent.is_empty() && answers.next() != Some(Value::Int(0)) {
            self.look_again(&mut reading, &absent).await?;
        }
        Ok(reading.done)
    }

    /// Reads sets of which one at least has begun since they were last looked for.
    async fn look_again(&self, reading: &mut Reading<'_>, sets: &[SetOf]) -> Result<(), StoreError> {
        let Setup { keys, ledger, .. } = self.setup();
        let mut pipeline = redis::pipe();
        for set in sets {
            pipeline.cmd("EXISTS").arg(keys.done(*set));
        }
        reading.ask(&mut pipeline, sets, keys);
        let answers: Vec<Value> = self.run(&pipeline).await?;
        let mut answers = answers.into_iter();
        let there: Vec<SetOf> =
            sets.iter().zip(answers.by_ref()).filter(|(_, there)| *there == Value::Int(1)).map(|(set, _)| *set).collect();
        reading.take(sets, &mut answers).ok_or_else(|| self.odd("SMISMEMBER"))?;
        ledger.seen(&there);
        Ok(())
    }

    pub(super) async fn finish_now(&self, lease: &Lease, members: &[Member]) -> Result<usize, StoreError> {
        let Setup { keys, scripts, ledger, .. } = self.setup();
        let groups = ledger.by_shard(members);
        let generation = ledger.current();
        let sets: Vec<_> = groups.iter().map(|(shard, _)| (generation, *shard)).collect();
        let mut cmd = scripts.finish.call(1 + sets.len());
        cmd.arg(keys.lease(&lease.partition));
        for set in &sets {
            cmd.arg(keys.done(*set));
        }
        cmd.arg(&*lease.owner).arg(lease.epoch);
        let expire_at = ledger.must_tell_expiry(&sets).then(|| ledger.expire_at(generation).to_string());
        cmd.arg(expire_at.unwrap_or_default());
        for (_, positions) in &groups {
            cmd.arg(positions.len());
        }
        for position in groups.iter().flat_map(|(_, positions)| positions) {
            cmd.arg(&members[*position].id);
        }
        let written = match self.run_one(cmd).await {
            Ok(answer) => verdict(Some(answer)),
            Err(error) => Err(error),
        };
        match written {
            Ok(_) => ledger.seen(&sets),
            Err(_) => ledger.forget(),
        }
        written.map(|added| usize::try_from(added).unwrap_or(0))
    }

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

/// Members whose verdicts are read from sets.
struct Reading<'m> {
    members: &'m [Member],
    /// Positions of the members by shard.
    groups: &'m [(u64, Vec<usize>)],
    done: Vec<bool>,
}

impl Reading<'_> {
    fn of(&self, (_, shard): SetOf) -> &[usize] {
        self.groups.iter().find(|(of, _)| *of == shard).map_or(&[], |(_, positions)| positions)
    }

    /// One command a set, with those members that would stand in it.
    fn ask(&self, pipeline: &mut Pipeline, sets: &[SetOf], keys: &Keys) {
        for set in sets {
            let cmd = pipeline.cmd("SMISMEMBER").arg(keys.done(*set));
            for position in self.of(*set) {
                cmd.arg(&self.members[*position].id);
            }
        }
    }

    /// Takes the answers, in the same order; `None`: they are none.
    fn take(&mut self, sets: &[SetOf], answers: &mut impl Iterator<Item = Value>) -> Option<()> {
        for set in sets {
            let Some(Value::Array(found)) = answers.next() else { return None };
            let (_, positions) = self.groups.iter().find(|(of, _)| *of == set.1)?;
            if found.len() != positions.len() {
                return None;
            }
            for (position, found) in positions.iter().zip(found) {
                self.done[*position] |= found == Value::Int(1);
            }
        }
        Some(())
    }
}

/// A script's answer: a count, or why it wrote nothing.
fn verdict(answer: Option<Value>) -> Result<i64, StoreError> {
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
