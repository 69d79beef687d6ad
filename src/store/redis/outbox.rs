//! The outbox in Redis, for one name (a handler's): `prefix:group:outbox:<name>:..`
//!
//! | key | type | holds |
//! |---|---|---|
//! | `due` | sorted set | users by when their items are due |
//! | `kept:<user>` | hash | id to `<due>:<body>`; under `+` how many more there were |
//! | `claimed:<user>` | hash | what `kept` was when it was claimed, the same for who claims it again; under `#` its token |
//! | `claims` | counter | the last token |
//! | `went:<user>` | sorted set | ids by when they went out |
//!
//! Times are Redis' own, milliseconds since 1970.

use std::{collections::BTreeMap, time::Duration};

use futures_util::future::{BoxFuture, FutureExt};

use super::{RedisStore, millis};
use crate::{
    engine::ports::StoreError,
    store::outbox::{Admission, CLAIM_TIME, Due, Item, MOST_ITEMS, Outbox},
};

/// How long items outlive the last one that was added: longer than anything is put off.
const KEEP: Duration = Duration::from_secs(30 * 24 * 3600);
/// The field that counts what is not kept.
const MORE: &str = "+";
/// The field that tells one claim's items from the next one's.
const TOKEN: &str = "#";

/// KEYS went. ARGV id, limit, window. Answers 0 where it may go out, else when it may.
pub(super) const ADMIT: &str = "local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local window = tonumber(ARGV[3])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now - window))
if redis.call('ZSCORE', KEYS[1], ARGV[1]) then return 0 end
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then
  local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
  return tonumber(first[2]) + window
end
redis.call('ZADD', KEYS[1], string.format('%.0f', now), ARGV[1])
redis.call('PEXPIRE', KEYS[1], window)
return 0";

/// KEYS due, kept. ARGV user, id, due, body, most, ttl.
pub(super) const DEFER: &str = "if redis.call('HEXISTS', KEYS[2], ARGV[2]) == 1 or redis.call('HLEN', KEYS[2]) < tonumber(ARGV[5]) then
  redis.call('HSET', KEYS[2], ARGV[2], ARGV[3] .. ':' .. ARGV[4])
else
  redis.call('HINCRBY', KEYS[2], '+', 1)
end
redis.call('PEXPIRE', KEYS[2], ARGV[6])
redis.call('ZADD', KEYS[1], 'LT', ARGV[3], ARGV[1])
return 1";

/// KEYS due. ARGV first part of the other keys, how many users, claim time. Answers users, each followed by its items.
///
/// The keys of users are made here: which they are is only known inside. One server has them all.
pub(super) const CLAIM: &str = "local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local answer = {}
for _, user in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now), 'LIMIT', 0, ARGV[2])) do
  local kept, claimed = ARGV[1] .. ':kept:' .. user, ARGV[1] .. ':claimed:' .. user
  if redis.call('EXISTS', claimed) == 0 and redis.call('EXISTS', kept) == 1 then
    redis.call('RENAME', kept, claimed)
    redis.call('HSET', claimed, '#', redis.call('INCR', ARGV[1] .. ':claims'))
  end
  local items = redis.call('HGETALL', claimed)
  if #items == 0 then
    redis.call('ZREM', KEYS[1], user)
  else
    redis.call('ZADD', KEYS[1], string.format('%.0f', now + tonumber(ARGV[3])), user)
    answer[#answer + 1] = user
    answer[#answer + 1] = items
  end
end
return answer";

/// KEYS due, claimed, kept. ARGV user, token.
pub(super) const TAKE: &str = "if redis.call('HGET', KEYS[2], '#') ~= ARGV[2] then return 0 end
redis.call('DEL', KEYS[2])
local first
for _, item in ipairs(redis.call('HVALS', KEYS[3])) do
  local due = tonumber(item:match('^(%d+):'))
  if due and (not first or due < first) then first = due end
end
if first then
  redis.call('ZADD', KEYS[1], string.format('%.0f', first), ARGV[1])
else
  redis.call('ZREM', KEYS[1], ARGV[1])
end
return 1";

/// An [`Outbox`] in Redis.
pub struct RedisOutbox {
    store: RedisStore,
    base: String,
}

impl RedisStore {
    /// The outbox of that name.
    pub fn outbox(self, name: &str) -> RedisOutbox {
        let base = self.setup().keys.outbox(name);
        RedisOutbox { store: self, base }
    }
}

impl RedisOutbox {
    fn key(&self, kind: &str) -> String {
        format!("{}:{kind}", self.base)
    }

    fn of_user(&self, kind: &str, user: &str) -> String {
        format!("{}:{kind}:{user}", self.base)
    }

    async fn admit_now(&self, user: &str, id: &str, limit: usize, window: Duration) -> Result<Admission, StoreError> {
        let mut call = self.store.setup().scripts.outbox_admit.call(1);
        call.arg(self.of_user("went", user)).arg(id).arg(limit).arg(millis(window));
        Ok(match self.store.run_one::<i64>(call).await? {
            0 => Admission::Granted,
            until => Admission::Full(until),
        })
    }

    async fn defer_now(&self, user: &str, item: &Item) -> Result<(), StoreError> {
        let mut call = self.store.setup().scripts.outbox_defer.call(2);
        call.arg(self.key("due")).arg(self.of_user("kept", user)).arg(user);
        call.arg(&item.id).arg(item.due_ms.max(0)).arg(&item.body).arg(MOST_ITEMS).arg(millis(KEEP));
        self.store.run_one::<i64>(call).await.map(drop)
    }

    async fn claim_now(&self, users: usize) -> Result<Vec<Due>, StoreError> {
        let mut call = self.store.setup().scripts.outbox_claim.call(1);
        call.arg(self.key("due")).arg(&self.base).arg(users).arg(millis(CLAIM_TIME));
        let answer: Vec<redis::Value> = self.store.run_one(call).await?;
        let mut due = Vec::with_capacity(answer.len() / 2);
        let odd = |_| self.store.odd("claiming what is due");
        let mut answer = answer.into_iter();
        while let (Some(user), Some(items)) = (answer.next(), answer.next()) {
            let user: String = redis::from_redis_value(user).map_err(odd)?;
            let mut items: BTreeMap<String, String> = redis::from_redis_value(items).map_err(odd)?;
            let more = items.remove(MORE).and_then(|more| more.parse().ok()).unwrap_or(0);
            let token = items.remove(TOKEN).unwrap_or_default();
            let items = items.into_iter().filter_map(|(id, item)| Some((id, item.split_once(':')?.1.to_owned())));
            due.push(Due { user, items: items.collect(), more, token });
        }
        Ok(due)
    }

    async fn take_now(&self, user: &str, token: &str) -> Result<(), StoreError> {
        let mut call = self.store.setup().scripts.outbox_take.call(3);
        call.arg(self.key("due")).arg(self.of_user("claimed", user)).arg(self.of_user("kept", user)).arg(user).arg(token);
        self.store.run_one::<i64>(call).await.map(drop)
    }
}

impl Outbox for RedisOutbox {
    fn admit<'a>(&'a self, user: &'a str, id: &'a str, limit: usize, window: Duration) -> BoxFuture<'a, Result<Admission, StoreError>> {
        self.admit_now(user, id, limit, window).boxed()
    }

    fn defer<'a>(&'a self, user: &'a str, item: Item) -> BoxFuture<'a, Result<(), StoreError>> {
        async move { self.defer_now(user, &item).await }.boxed()
    }

    fn claim(&self, users: usize) -> BoxFuture<'_, Result<Vec<Due>, StoreError>> {
        self.claim_now(users).boxed()
    }

    fn take<'a>(&'a self, user: &'a str, token: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
        self.take_now(user, token).boxed()
    }

    fn waiting(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
        let mut cmd = redis::cmd("ZCARD");
        cmd.arg(self.key("due"));
        async move { self.store.run_one(cmd).await }.boxed()
    }
}
