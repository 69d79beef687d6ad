//! Reminders in Redis, all times its own. Under `prefix:group:reminder:`
//!
//! | key | type | holds |
//! |---|---|---|
//! | `<shard>:task:<id>` | string | a task's record; it expires only where nothing is due of it |
//! | `<shard>:due` | sorted set | ids by when something is due of them, that nobody has claimed |
//! | `<shard>:claimed` | sorted set | ids by when their claims end |
//! | `known` | string | there since the first claim: where it is missing, everything is |

use futures_util::future::{BoxFuture, FutureExt};
use redis::Pipeline;
use uuid::Uuid;

use super::{RedisStore, millis};
use crate::{
    engine::ports::StoreError,
    reminders::{CLAIM_TIME, Change, Claimed, Key, Reminders, SHARDS},
};

/// KEYS due, claimed. ARGV most, claim time, beginning of the tasks' names. Answers the time, the next due one or '', how many tasks were gone, and each
/// claimed id with its task. First those whose claims have ended.
pub(super) const CLAIM: &str = "local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local till, at = string.format('%.0f', now + tonumber(ARGV[2])), string.format('%.0f', now)
local found, missing = {}, 0
for k = 2, 1, -1 do
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[k], '-inf', at, 'LIMIT', 0, ARGV[1])) do
    local task = redis.call('GET', ARGV[3] .. id)
    redis.call('ZREM', KEYS[1], id)
    if task then
      redis.call('ZADD', KEYS[2], till, id)
      found[#found + 1] = id
      found[#found + 1] = task
    else
      redis.call('ZREM', KEYS[2], id)
      missing = missing + 1
    end
  end
end
return {now, redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2] or '', missing, found}";

/// KEYS task, due, claimed. ARGV id, the old record or '', the new one, when it is due or '', how long it is kept otherwise, '1' where it was claimed.
/// Answers whether it was still the old one. What is claimed is not due: its firer puts it back.
pub(super) const REPLACE: &str = "if (redis.call('GET', KEYS[1]) or '') ~= ARGV[2] then return 0 end
if ARGV[4] == '' then
  redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[5])
else
  redis.call('SET', KEYS[1], ARGV[3])
end
if ARGV[6] == '1' then
  redis.call('ZREM', KEYS[3], ARGV[1])
elseif redis.call('ZSCORE', KEYS[3], ARGV[1]) then
  return 1
end
if ARGV[4] == '' then
  redis.call('ZREM', KEYS[2], ARGV[1])
else
  redis.call('ZADD', KEYS[2], ARGV[4], ARGV[1])
end
return 1";

/// KEYS claimed. ARGV claim time, then ids.
pub(super) const RENEW: &str = "local t = redis.call('TIME')
local till = string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000) + tonumber(ARGV[1]))
for i = 2, #ARGV do redis.call('ZADD', KEYS[1], 'XX', till, ARGV[i]) end
return 1";

/// What one shard's claim answers.
type Found = (i64, String, u64, Vec<Vec<u8>>);

fn name(id: &Uuid) -> String {
    id.simple().to_string()
}

impl RedisStore {
    async fn load_task(&self, key: &Key) -> Result<Option<Vec<u8>>, StoreError> {
        let mut cmd = redis::cmd("GET");
        cmd.arg(self.setup().keys.reminder(key.shard, "task:") + &name(&key.id));
        self.run_one(cmd).await
    }

    async fn replace_tasks(&self, changes: &[Change]) -> Result<Vec<bool>, StoreError> {
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        let setup = self.setup();
        let mut pipeline = Pipeline::new();
        for change in changes {
            let (shard, id) = (change.key.shard, name(&change.key.id));
            let mut call = setup.scripts.reminder_replace.call(3);
            call.arg(setup.keys.reminder(shard, "task:") + &id)
                .arg(setup.keys.reminder(shard, "due"))
                .arg(setup.keys.reminder(shard, "claimed"));
            call.arg(&id).arg(change.old.as_deref().unwrap_or_default()).arg(change.new.as_slice());
            match change.next {
                Some(next) => call.arg(next),
                None => call.arg(""),
            };
            call.arg(millis(change.keep).max(1)).arg(u8::from(change.claimed));
            pipeline.add_command(call);
        }
        Ok(self.run::<Vec<i64>>(&pipeline).await?.into_iter().map(|answer| answer == 1).collect())
    }

    async fn claim_tasks(&self, most: usize) -> Result<Claimed, StoreError> {
        let setup = self.setup();
        let mut pipeline = Pipeline::new();
        pipeline.cmd("SETNX").arg(setup.keys.reminders_known()).arg("");
        for shard in 0..SHARDS {
            let mut call = setup.scripts.reminder_claim.call(2);
            call.arg(setup.keys.reminder(shard, "due")).arg(setup.keys.reminder(shard, "claimed"));
            call.arg(most.div_ceil(usize::from(SHARDS))).arg(millis(CLAIM_TIME)).arg(setup.keys.reminder(shard, "task:"));
            pipeline.add_command(call);
        }
        let mut answers = self.run::<Vec<redis::Value>>(&pipeline).await?.into_iter();
        let odd = |_| self.odd("claiming reminders");
        let blank: i64 = redis::from_redis_value(answers.next().unwrap_or(redis::Value::Nil)).map_err(odd)?;
        let mut claimed = Claimed { blank: blank == 1, ..Claimed::default() };
        for (shard, answer) in (0..SHARDS).zip(answers) {
            let (now, next, missing, found): Found = redis::from_redis_value(answer).map_err(odd)?;
            claimed.now = claimed.now.max(now);
            claimed.missing += missing;
            #[expect(clippy::cast_possible_truncation, reason = "milliseconds, far below 2^53")]
            let next = next.parse::<f64>().ok().map(|next| next as i64);
            claimed.next = [claimed.next, next].into_iter().flatten().min();
            for pair in found.chunks_exact(2) {
                let id = Uuid::try_parse_ascii(&pair[0]).map_err(|_| self.odd("claiming reminders"))?;
                claimed.tasks.push((Key { shard, id }, pair[1].clone()));
            }
        }
        Ok(claimed)
    }

    async fn renew_tasks(&self, keys: &[Key]) -> Result<(), StoreError> {
        let setup = self.setup();
        let mut pipeline = Pipeline::new();
        for shard in 0..SHARDS {
            let mut call = setup.scripts.reminder_renew.call(1);
            call.arg(setup.keys.reminder(shard, "claimed")).arg(millis(CLAIM_TIME));
            let ids: Vec<_> = keys.iter().filter(|key| key.shard == shard).map(|key| name(&key.id)).collect();
            if !ids.is_empty() {
                call.arg(ids);
                pipeline.add_command(call).ignore();
            }
        }
        if pipeline.is_empty() { Ok(()) } else { self.run(&pipeline).await }
    }

    async fn count_tasks(&self) -> Result<u64, StoreError> {
        let mut pipeline = Pipeline::new();
        for shard in 0..SHARDS {
            for set in ["due", "claimed"] {
                pipeline.cmd("ZCARD").arg(self.setup().keys.reminder(shard, set));
            }
        }
        Ok(self.run::<Vec<u64>>(&pipeline).await?.into_iter().sum())
    }
}

impl Reminders for RedisStore {
    fn load<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<Vec<u8>>, StoreError>> {
        self.load_task(key).boxed()
    }

    fn replace<'a>(&'a self, changes: &'a [Change]) -> BoxFuture<'a, Result<Vec<bool>, StoreError>> {
        self.replace_tasks(changes).boxed()
    }

    fn claim(&self, most: usize) -> BoxFuture<'_, Result<Claimed, StoreError>> {
        self.claim_tasks(most).boxed()
    }

    fn renew<'a>(&'a self, keys: &'a [Key]) -> BoxFuture<'a, Result<(), StoreError>> {
        self.renew_tasks(keys).boxed()
    }

    fn pending(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.count_tasks().boxed()
    }
}
