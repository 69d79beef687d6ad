//! Who may run a partition, and the clock that comes with each renewal.

use std::{
    collections::HashMap,
    sync::{Arc, MutexGuard, PoisonError},
    time::Duration,
};

use redis::{Cmd, FromRedisValue, Value};

use super::{RedisStore, millis, scripts::Script, setup::Setup};
use crate::{
    engine::ports::{Acquired, Lease, Renewed, StoreError},
    event::record::TopicPartition,
    store::memory::ASK_AGAIN,
};

impl RedisStore {
    pub(super) async fn acquire_now(&self, partition: &TopicPartition, owner: &Arc<str>, map_epoch: u64) -> Result<Acquired, StoreError> {
        let Setup { keys, scripts, .. } = self.setup();
        let mut cmd = scripts.acquire.call(1);
        cmd.arg(keys.lease(partition)).arg(&**owner).arg(map_epoch).arg(millis(self.lease_time)).arg(self.keep_ms);
        match self.run_one::<Vec<u64>>(cmd).await?[..] {
            [0, wait] => Ok(Acquired::Held(Duration::from_millis(wait).min(ASK_AGAIN))),
            [1, epoch, clean, now_ms] => {
                let lease = Lease { partition: partition.clone(), owner: owner.clone(), epoch };
                self.held_until(&lease, now_ms);
                Ok(Acquired::Granted { lease, clean: clean == 1, now_ms })
            }
            _ => Err(self.odd("acquire")),
        }
    }

    pub(super) async fn renew_now(&self, leases: &[Lease]) -> Result<(Vec<Renewed>, u64), StoreError> {
        let setup = self.setup();
        let mut pipeline = redis::pipe();
        setup.ask_geometry(&mut pipeline);
        pipeline.cmd("TIME");
        for lease in leases {
            pipeline.add_command(self.about(&setup.scripts.renew, lease));
        }
        let mut answers = self.run::<Vec<Value>>(&pipeline).await?.into_iter();
        let (Some(geometry), Some(time)) = (answers.next(), answers.next()) else { return Err(self.odd("renew")) };
        let (Ok(geometry), Ok((seconds, micros))) = (String::from_redis_value(geometry), <(u64, u64)>::from_redis_value(time)) else {
            return Err(self.odd("renew"));
        };
        setup.adopt(&geometry)?;
        let now_ms = seconds * 1000 + micros / 1000;
        setup.ledger.learn(now_ms);
        let mut renewed = Vec::with_capacity(leases.len());
        for (lease, answer) in leases.iter().zip(answers) {
            renewed.push(match <[u64; 3]>::from_redis_value(answer) {
                Ok([1, waiter, now_ms]) => {
                    self.held_until(lease, now_ms);
                    Renewed::Ours { waiter: waiter == 1 }
                }
                Ok(_) => Renewed::Gone,
                Err(_) => return Err(self.odd("renew")),
            });
        }
        if renewed.len() != leases.len() {
            return Err(self.odd("renew"));
        }
        self.drop_old_generations().await;
        Ok((renewed, now_ms))
    }

    pub(super) async fn release_now(&self, leases: &[Lease]) -> Result<(), StoreError> {
        if leases.is_empty() {
            return Ok(());
        }
        let mut pipeline = redis::pipe();
        for lease in leases {
            pipeline.add_command(self.about(&self.setup().scripts.release, lease)).ignore();
        }
        self.run::<()>(&pipeline).await?;
        let mut ends = self.ends();
        for lease in leases {
            if ends.get(&lease.partition).is_some_and(|(epoch, _)| *epoch == lease.epoch) {
                ends.remove(&lease.partition);
            }
        }
        Ok(())
    }

    /// A call of `renew` or `release` for one lease.
    fn about(&self, script: &Script, lease: &Lease) -> Cmd {
        let mut cmd = script.call(1);
        cmd.arg(self.setup().keys.lease(&lease.partition)).arg(&*lease.owner).arg(lease.epoch);
        cmd.arg(millis(self.lease_time)).arg(self.keep_ms).arg(self.end_of(lease));
        cmd
    }

    /// Unlinks sets that nobody reads any more, once per worker and generation. Those that expire later than this worker's retention says
    /// are wanted by a worker with a longer one. A failure is no harm: they expire.
    async fn drop_old_generations(&self) {
        let Setup { keys, ledger, .. } = self.setup();
        let Some((current, sets)) = ledger.to_clean() else { return };
        let mut ask = redis::pipe();
        for set in &sets {
            ask.cmd("PTTL").arg(keys.done(*set));
        }
        let Ok(left) = self.run::<Vec<i64>>(&ask).await else { return };
        let slack = i64::try_from(ledger.geometry().generation_ms).unwrap_or(i64::MAX);
        let old: Vec<_> = sets.iter().zip(left).filter(|(_, left)| (0..=slack).contains(left)).map(|(set, _)| keys.done(*set)).collect();
        if !old.is_empty() && self.run_one::<i64>(redis::cmd("UNLINK").arg(&old).to_owned()).await.is_err() {
            return;
        }
        ledger.cleaned(current);
    }

    fn ends(&self) -> MutexGuard<'_, HashMap<TopicPartition, (u64, u64)>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When `lease` ends on Redis' clock, as far as this process was told; 0: it never was.
    fn end_of(&self, lease: &Lease) -> u64 {
        self.ends().get(&lease.partition).filter(|(epoch, _)| *epoch == lease.epoch).map_or(0, |(_, end)| *end)
    }

    fn held_until(&self, lease: &Lease, now_ms: u64) {
        self.ends().insert(lease.partition.clone(), (lease.epoch, now_ms + millis(self.lease_time)));
        self.setup().ledger.learn(now_ms);
    }
}
