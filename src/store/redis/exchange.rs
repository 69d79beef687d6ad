//! One exchange with the ledger for the calls of several partitions: one command a set, whoever's events stand in it.

use std::sync::Arc;

use redis::{Cmd, FromRedisValue, Pipeline, Value};

use super::{
    events::verdict,
    ledger::SetOf,
    link::Link,
    setup::{Keys, Setup},
};
use crate::engine::ports::{Check, Lease, Member, StoreError};

/// A script's word that a lease is held.
const HELD: Value = Value::Int(1);

/// What exchanges are made with.
pub(super) struct Exchange {
    pub(super) link: Arc<Link>,
    /// How long keys of a partition outlive their last writing, milliseconds.
    pub(super) keep_ms: u64,
}

impl Exchange {
    /// Which members of each call are finished; marks and starts are written before that is read.
    pub(super) async fn check(self: Arc<Self>, calls: Vec<(Lease, Check)>) -> Vec<Result<Vec<bool>, StoreError>> {
        let answers = self.check_together(&calls).await;
        if !is_refused_together(&answers) {
            return answers;
        }
        let mut answers = Vec::with_capacity(calls.len());
        for call in &calls {
            answers.append(&mut self.check_together(std::slice::from_ref(call)).await);
        }
        answers
    }

    async fn check_together(&self, calls: &[(Lease, Check)]) -> Vec<Result<Vec<bool>, StoreError>> {
        let members: Vec<Member> = calls.iter().flat_map(|(_, check)| &check.members).copied().collect();
        match self.read(self.begin(calls), &members).await {
            Err(error) => vec![Err(error); calls.len()],
            Ok((standings, done)) => {
                let mut done = done.into_iter();
                let own = |(standing, (_, check)): (Value, &(Lease, Check))| {
                    let own: Vec<bool> = done.by_ref().take(check.members.len()).collect();
                    verdict(Some(standing)).map(|_| own)
                };
                standings.into_iter().zip(calls).map(own).collect()
            }
        }
    }

    fn begin(&self, calls: &[(Lease, Check)]) -> Cmd {
        let Setup { keys, scripts, .. } = self.link.setup();
        let mut begin = scripts.begin.call(3 * calls.len());
        for (Lease { partition, .. }, _) in calls {
            begin.arg(keys.lease(partition)).arg(keys.mark(partition)).arg(keys.records(partition));
        }
        begin.arg(self.keep_ms);
        for (lease, check) in calls {
            begin.arg(&*lease.owner).arg(lease.epoch);
            begin.arg(check.mark.map(|mark| mark.to_string()).unwrap_or_default()).arg(&lease.epoch.to_be_bytes());
            begin.arg(check.starts.len());
            for (offset, id) in &check.starts {
                begin.arg(*offset).arg(id);
            }
        }
        begin
    }

    /// What `begin` answers, a value a call, and which members are finished.
    async fn read(&self, begin: Cmd, members: &[Member]) -> Result<(Vec<Value>, Vec<bool>), StoreError> {
        let Setup { keys, ledger, .. } = self.link.setup();
        let groups = ledger.by_shard(members);
        let (present, absent) = ledger.by_presence(groups.iter().map(|(shard, _)| *shard));
        let mut reading = Reading { members, groups: &groups, done: vec![false; members.len()] };
        let mut pipeline = redis::pipe();
        pipeline.add_command(begin);
        reading.ask(&mut pipeline, &present, keys);
        if !absent.is_empty() {
            pipeline.cmd("EXISTS").arg(absent.iter().map(|set| keys.done(*set)).collect::<Vec<_>>());
        }
        let answers: Vec<Value> = self.link.ask(&pipeline).await?;
        let mut answers = answers.into_iter();
        let Some(Value::Array(standings)) = answers.next() else { return Err(self.link.odd("begin")) };
        reading.take(&present, &mut answers).ok_or_else(|| self.link.odd("SMISMEMBER"))?;
        if !absent.is_empty() && answers.next() != Some(Value::Int(0)) {
            self.look_again(&mut reading, &absent).await?;
        }
        Ok((standings, reading.done))
    }

    /// Reads sets of which one at least has begun since they were last looked for.
    async fn look_again(&self, reading: &mut Reading<'_>, sets: &[SetOf]) -> Result<(), StoreError> {
        let Setup { keys, ledger, .. } = self.link.setup();
        let mut pipeline = redis::pipe();
        for set in sets {
            pipeline.cmd("EXISTS").arg(keys.done(*set));
        }
        reading.ask(&mut pipeline, sets, keys);
        let answers: Vec<Value> = self.link.ask(&pipeline).await?;
        let mut answers = answers.into_iter();
        let there: Vec<SetOf> =
            sets.iter().zip(answers.by_ref()).filter(|(_, there)| *there == Value::Int(1)).map(|(set, _)| *set).collect();
        reading.take(sets, &mut answers).ok_or_else(|| self.link.odd("SMISMEMBER"))?;
        ledger.seen(&there);
        Ok(())
    }

    /// Writes the verdicts of each call that is made under a valid lease, and answers how many were new. Where some were not, which call's
    /// they are is not known: it is told to the first that they may be of.
    pub(super) async fn finish(self: Arc<Self>, calls: Vec<(Lease, Vec<Member>)>) -> Vec<Result<usize, StoreError>> {
        let answers = self.finish_together(&calls).await;
        if !is_refused_together(&answers) {
            return answers;
        }
        let mut answers = Vec::with_capacity(calls.len());
        for call in &calls {
            answers.append(&mut self.finish_together(std::slice::from_ref(call)).await);
        }
        answers
    }

    async fn finish_together(&self, calls: &[(Lease, Vec<Member>)]) -> Vec<Result<usize, StoreError>> {
        let mut answers: Vec<Option<Result<usize, StoreError>>> = vec![None; calls.len()];
        // Again where some do not hold their lease: then nothing was written of the others' either.
        loop {
            let open: Vec<usize> = (0..calls.len()).filter(|index| answers[*index].is_none()).collect();
            if open.is_empty() {
                break;
            }
            let asked: Vec<_> = open.iter().map(|index| &calls[*index]).collect();
            match self.write(&asked).await {
                Ok(Written::All(added)) => {
                    let mut known = asked.iter().map(|(_, members)| members.len()).sum::<usize>().saturating_sub(added);
                    for (index, (_, members)) in open.into_iter().zip(asked) {
                        let own = known.min(members.len());
                        known -= own;
                        answers[index] = Some(Ok(members.len() - own));
                    }
                }
                Ok(Written::Nothing(standings)) => {
                    for (index, standing) in open.into_iter().zip(standings) {
                        if standing != HELD {
                            answers[index] = Some(verdict(Some(standing)).and_then(|_| Err(self.link.odd("finish"))));
                        }
                    }
                }
                Err(error) => open.into_iter().for_each(|index| answers[index] = Some(Err(error.clone()))),
            }
        }
        answers.into_iter().flatten().collect()
    }

    async fn write(&self, calls: &[&(Lease, Vec<Member>)]) -> Result<Written, StoreError> {
        let Setup { keys, scripts, ledger, .. } = self.link.setup();
        let members: Vec<Member> = calls.iter().flat_map(|(_, members)| members).copied().collect();
        let groups = ledger.by_shard(&members);
        let generation = ledger.current();
        let sets: Vec<SetOf> = groups.iter().map(|(shard, _)| (generation, *shard)).collect();
        let mut cmd = scripts.finish.call(calls.len() + sets.len());
        for (lease, _) in calls {
            cmd.arg(keys.lease(&lease.partition));
        }
        for set in &sets {
            cmd.arg(keys.done(*set));
        }
        let expire_at = ledger.must_tell_expiry(&sets).then(|| ledger.expire_at(generation).to_string());
        cmd.arg(calls.len()).arg(expire_at.unwrap_or_default());
        for (lease, _) in calls {
            cmd.arg(&*lease.owner).arg(lease.epoch);
        }
        for (_, positions) in &groups {
            cmd.arg(positions.len());
        }
        for position in groups.iter().flat_map(|(_, positions)| positions) {
            cmd.arg(&members[*position].id);
        }
        let mut pipeline = redis::pipe();
        pipeline.add_command(cmd);
        let written = self.link.ask(&pipeline).await.and_then(|(answer,): (Value,)| match answer {
            Value::Array(standings) if standings.len() == calls.len() && standings.iter().any(|standing| *standing != HELD) => {
                Ok(Written::Nothing(standings))
            }
            answer => usize::from_redis_value(answer).map(Written::All).map_err(|_| self.link.odd("finish")),
        });
        match written {
            Ok(Written::All(_)) => ledger.seen(&sets),
            _ => ledger.forget(),
        }
        written
    }
}

/// Whether an exchange of several calls was refused, which may be one call's fault (a key that somebody has spoilt): each is asked for alone then.
fn is_refused_together<A>(answers: &[Result<A, StoreError>]) -> bool {
    answers.len() > 1 && answers.iter().all(|answer| matches!(answer, Err(StoreError::Refused(_))))
}

/// What became of an exchange's verdicts.
enum Written {
    /// They stand in the ledger; so many are new.
    All(usize),
    /// Whose lease is not held, by call.
    Nothing(Vec<Value>),
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
