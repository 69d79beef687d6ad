//! Accounts in Redis, below `prefix:group:book:<handler>:`. `s:<subject>` is a hash of `state` and `version`, `e:<subject and event>` what
//! an event was answered, `top` the scores. Subjects and events are hashes of 128 bits; the board alone names subjects, for people to read.

use futures_util::future::{BoxFuture, FutureExt};
use redis::Value;
use xxhash_rust::xxh3::xxh3_128;

use super::{RedisStore, millis};
use crate::{
    engine::ports::StoreError,
    store::accounts::{Account, AccountStore, LONGEST_BOARD, Posted, Posting, Turn},
};

/// KEYS account, answer, board. ARGV version, state, how long it is kept or 0, answer, how long it is known, subject, score or '', longest board.
/// Answers {0}: posted, {1, answer}: had its turn before, {2}: the account moved on.
pub(super) const POST: &str = "local before = redis.call('GET', KEYS[2])
if before then return {1, before} end
if (redis.call('HGET', KEYS[1], 'version') or '0') ~= ARGV[1] then return {2} end
redis.call('HSET', KEYS[1], 'state', ARGV[2])
redis.call('HINCRBY', KEYS[1], 'version', 1)
if ARGV[3] == '0' then redis.call('PERSIST', KEYS[1]) else redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
redis.call('SET', KEYS[2], ARGV[4], 'PX', ARGV[5])
if ARGV[7] ~= '' then
  redis.call('ZADD', KEYS[3], ARGV[7], ARGV[6])
  redis.call('ZREMRANGEBYRANK', KEYS[3], 0, -1 - ARGV[8])
end
return {0}";

/// Fields of an account's hash, where there is one.
type StateAndVersion = (Option<Vec<u8>>, Option<u64>);

impl RedisStore {
    fn account(&self, turn: Turn<'_>) -> (String, String) {
        let event = [turn.subject.as_bytes(), turn.event.as_bytes()].join(&0);
        let of = |kind: &str, name: &[u8]| self.setup().keys.book(turn.book, &format!("{kind}:{:032x}", xxh3_128(name)));
        (of("s", turn.subject.as_bytes()), of("e", &event))
    }

    async fn look_now(&self, turn: Turn<'_>) -> Result<Account, StoreError> {
        let (account, answer) = self.account(turn);
        let mut pipeline = redis::pipe();
        pipeline.cmd("HMGET").arg(account).arg("state").arg("version").cmd("GET").arg(answer);
        let (account, answer) = self.run::<(StateAndVersion, Option<Vec<u8>>)>(&pipeline).await?;
        let (state, version) = account;
        Ok(Account { state: state.map(Into::into), version: version.unwrap_or_default(), answer: answer.map(Into::into) })
    }

    async fn post_now(&self, turn: Turn<'_>, posting: Posting) -> Result<Posted, StoreError> {
        let (account, answer) = self.account(turn);
        let setup = self.setup();
        let mut call = setup.scripts.account_post.call(3);
        call.arg(account).arg(answer).arg(setup.keys.book(turn.book, "top"));
        call.arg(posting.version).arg(&posting.state[..]).arg(posting.keep.map_or(0, |keep| millis(keep).max(1)));
        call.arg(&posting.answer[..]).arg(millis(posting.remember).max(1)).arg(turn.subject);
        match posting.score {
            Some(score) => call.arg(score),
            None => call.arg(""),
        };
        call.arg(LONGEST_BOARD);
        let answer: Vec<Value> = self.run_one(call).await?;
        match &answer[..] {
            [Value::Int(0)] => Ok(Posted::Done),
            [Value::Int(1), Value::BulkString(answer)] => Ok(Posted::Before(answer.clone().into())),
            [Value::Int(2)] => Ok(Posted::Moved),
            _ => Err(self.odd("posting to an account")),
        }
    }

    async fn top_now(&self, book: &str, count: usize) -> Result<Vec<(String, i64)>, StoreError> {
        let last = i64::try_from(count).unwrap_or(i64::MAX) - 1;
        if last < 0 {
            return Ok(Vec::new());
        }
        let mut call = redis::cmd("ZREVRANGE");
        call.arg(self.setup().keys.book(book, "top")).arg(0).arg(last).arg("WITHSCORES");
        self.run_one(call).await
    }
}

impl AccountStore for RedisStore {
    fn look<'a>(&'a self, turn: Turn<'a>) -> BoxFuture<'a, Result<Account, StoreError>> {
        self.look_now(turn).boxed()
    }

    fn post<'a>(&'a self, turn: Turn<'a>, posting: Posting) -> BoxFuture<'a, Result<Posted, StoreError>> {
        self.post_now(turn, posting).boxed()
    }

    fn top<'a>(&'a self, book: &'a str, count: usize) -> BoxFuture<'a, Result<Vec<(String, i64)>, StoreError>> {
        self.top_now(book, count).boxed()
    }
}
