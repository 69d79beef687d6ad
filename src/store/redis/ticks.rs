//! Ticks of schedules in Redis: one hash per schedule, `prefix:group:schedule:<name>`, with `last`, the latest tick ever claimed, and
//! `run:<tick>` = `<end of the claim>:<owner>` for each that is claimed and not finished. Times are Redis' own, milliseconds since 1970.

use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};

use super::{RedisStore, millis};
use crate::{
    engine::ports::StoreError,
    store::ticks::{CLAIM_TIME, Claim, Entered, TickStore, Wish},
};

/// How long a schedule is remembered after its last tick: longer than a year lies between two of them.
const KEEP: Duration = Duration::from_secs(400 * 24 * 3600);

/// KEYS schedule. ARGV the time from which ticks are new, ttl. Answers the latest tick, then the unfinished ones.
pub(super) const ENTER: &str = "redis.call('HSETNX', KEYS[1], 'last', ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
local answer = {tonumber(redis.call('HGET', KEYS[1], 'last'))}
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  if field:sub(1, 4) == 'run:' then answer[#answer + 1] = tonumber(field:sub(5)) end
end
return answer";

/// KEYS schedule. ARGV owner, tick, claim time, '1' where exclusive, ttl. Answers {0} granted, {1} done, {2, wait} held, {3} overlaps.
pub(super) const CLAIM: &str = "local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local tick = tonumber(ARGV[2])
local last, busy, holder, holds
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  if all[i] == 'last' then
    last = tonumber(all[i + 1])
  elseif all[i]:sub(1, 4) == 'run:' then
    local till, owner = all[i + 1]:match('^(%d+):(.*)$')
    till = tonumber(till)
    if all[i] == 'run:' .. ARGV[2] then
      holder, holds = owner, till
    elseif till > now and (not busy or till > busy) then
      busy = till
    end
  end
end
local new = not last or tick > last
if not new and not holder then return {1, 0} end
if holder and holder ~= ARGV[1] and holds > now then return {2, holds - now} end
if new then redis.call('HSET', KEYS[1], 'last', ARGV[2]) end
redis.call('PEXPIRE', KEYS[1], ARGV[5])
if ARGV[4] == '1' and busy then
  if new then return {3, 0} end
  return {2, busy - now}
end
redis.call('HSET', KEYS[1], 'run:' .. ARGV[2], string.format('%.0f', now + tonumber(ARGV[3])) .. ':' .. ARGV[1])
return {0, 0}";

/// KEYS schedule. ARGV owner, tick, claim time, or '' to finish. Answers 1 where the claim was this owner's.
pub(super) const KEEP_OR_FINISH: &str = "local held = redis.call('HGET', KEYS[1], 'run:' .. ARGV[2])
if not held or held:match(':(.*)$') ~= ARGV[1] then return 0 end
if ARGV[3] == '' then
  redis.call('HDEL', KEYS[1], 'run:' .. ARGV[2])
else
  local t = redis.call('TIME')
  local till = t[1] * 1000 + math.floor(t[2] / 1000) + tonumber(ARGV[3])
  redis.call('HSET', KEYS[1], 'run:' .. ARGV[2], string.format('%.0f', till) .. ':' .. ARGV[1])
end
return 1";

impl RedisStore {
    async fn enter_now(&self, schedule: &str, now: i64) -> Result<Entered, StoreError> {
        let setup = self.setup();
        let mut call = setup.scripts.tick_enter.call(1);
        call.arg(setup.keys.schedule(schedule)).arg(now).arg(millis(KEEP));
        let mut ticks = self.run_one::<Vec<i64>>(call).await?.into_iter();
        let last = ticks.next().ok_or_else(|| self.odd("entering a schedule"))?;
        Ok(Entered { last, open: ticks.collect() })
    }

    async fn claim_now(&self, wish: Wish<'_>) -> Result<Claim, StoreError> {
        let setup = self.setup();
        let mut call = setup.scripts.tick_claim.call(1);
        call.arg(setup.keys.schedule(wish.schedule)).arg(wish.owner).arg(wish.tick).arg(millis(CLAIM_TIME));
        call.arg(u8::from(wish.exclusive)).arg(millis(KEEP));
        match self.run_one(call).await? {
            (0, _) => Ok(Claim::Granted),
            (1, _) => Ok(Claim::Done),
            (2, wait) => Ok(Claim::Held(Duration::from_millis(wait))),
            (3, _) => Ok(Claim::Overlaps),
            (_, _) => Err(self.odd("claiming a tick")),
        }
    }

    async fn keep_or_finish(&self, wish: Wish<'_>, keep: Option<Duration>) -> Result<bool, StoreError> {
        let setup = self.setup();
        let mut call = setup.scripts.tick_keep.call(1);
        call.arg(setup.keys.schedule(wish.schedule)).arg(wish.owner).arg(wish.tick);
        match keep {
            Some(time) => call.arg(millis(time)),
            None => call.arg(""),
        };
        Ok(self.run_one::<i64>(call).await? == 1)
    }
}

impl TickStore for RedisStore {
    fn enter<'a>(&'a self, schedule: &'a str, now: i64) -> BoxFuture<'a, Result<Entered, StoreError>> {
        self.enter_now(schedule, now).boxed()
    }

    fn claim<'a>(&'a self, wish: Wish<'a>) -> BoxFuture<'a, Result<Claim, StoreError>> {
        self.claim_now(wish).boxed()
    }

    fn renew<'a>(&'a self, wish: Wish<'a>) -> BoxFuture<'a, Result<bool, StoreError>> {
        self.keep_or_finish(wish, Some(CLAIM_TIME)).boxed()
    }

    fn finish<'a>(&'a self, wish: Wish<'a>) -> BoxFuture<'a, Result<(), StoreError>> {
        async move { self.keep_or_finish(wish, None).await.map(drop) }.boxed()
    }
}
