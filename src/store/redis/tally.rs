//! Tallies in Redis, below `prefix:group:book:<handler>:`. `day:<day>` is a hash of figures, `ids:<day>` the set of events that they count, 16
//! bytes each, `users:<day>` a HyperLogLog, `note:<name>` a number.

use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};

use super::{RedisStore, millis};
use crate::{
    engine::ports::StoreError,
    store::tally::{Count, Row, TallyStore},
};

/// KEYS ids, figures. ARGV event, how long ids are known, how long figures are kept, then each figure and what is added. Answers 1: counted.
pub(super) const COUNT: &str = "local new = redis.call('SADD', KEYS[1], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
if new == 0 then return 0 end
for i = 4, #ARGV, 2 do redis.call('HINCRBY', KEYS[2], ARGV[i], ARGV[i + 1]) end
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return 1";

impl RedisStore {
    fn tally(&self, book: &str, kind: &str, day: &str) -> String {
        self.setup().keys.book(book, &format!("{kind}:{day}"))
    }

    fn note_key(&self, book: &str, name: u128) -> String {
        self.tally(book, "note", &format!("{name:032x}"))
    }

    async fn count_now(&self, count: Count<'_>) -> Result<bool, StoreError> {
        let mut call = self.setup().scripts.tally_count.call(2);
        call.arg(self.tally(count.book, "ids", count.day)).arg(self.tally(count.book, "day", count.day));
        call.arg(&count.event.to_be_bytes()).arg(millis(count.remember)).arg(millis(count.keep));
        for (figure, amount) in &count.adds {
            call.arg(figure).arg(*amount);
        }
        Ok(self.run_one::<i64>(call).await? == 1)
    }

    async fn user_now(&self, book: &str, day: &str, user: u128, keep: Duration) -> Result<(), StoreError> {
        let key = self.tally(book, "users", day);
        let mut pipeline = redis::pipe();
        pipeline.cmd("PFADD").arg(&key).arg(&user.to_be_bytes()).ignore().cmd("PEXPIRE").arg(&key).arg(millis(keep)).ignore();
        self.run(&pipeline).await
    }

    async fn rows_now(&self, book: &str, days: &[String]) -> Result<Vec<Row>, StoreError> {
        let mut pipeline = redis::pipe();
        for day in days {
            pipeline.cmd("HGETALL").arg(self.tally(book, "day", day));
        }
        for day in days {
            pipeline.cmd("PFCOUNT").arg(self.tally(book, "users", day));
        }
        let mut answers: Vec<redis::Value> = self.run(&pipeline).await?;
        let users = answers.split_off(days.len().min(answers.len()));
        let rows = answers.into_iter().zip(users).map(|(figures, users)| {
            let odd = |_| self.odd("reading a day's figures");
            Ok(Row { figures: redis::from_redis_value(figures).map_err(odd)?, users: redis::from_redis_value(users).map_err(odd)? })
        });
        rows.collect()
    }
}

impl TallyStore for RedisStore {
    fn count<'a>(&'a self, count: Count<'a>) -> BoxFuture<'a, Result<bool, StoreError>> {
        self.count_now(count).boxed()
    }

    fn user<'a>(&'a self, book: &'a str, day: &'a str, user: u128, keep: Duration) -> BoxFuture<'a, Result<(), StoreError>> {
        self.user_now(book, day, user, keep).boxed()
    }

    fn note<'a>(&'a self, book: &'a str, name: u128, value: i64, keep: Duration) -> BoxFuture<'a, Result<(), StoreError>> {
        let mut cmd = redis::cmd("SET");
        cmd.arg(self.note_key(book, name)).arg(value).arg("PX").arg(millis(keep));
        async move { self.run_one::<()>(cmd).await }.boxed()
    }

    fn noted<'a>(&'a self, book: &'a str, name: u128) -> BoxFuture<'a, Result<Option<i64>, StoreError>> {
        let mut cmd = redis::cmd("GET");
        cmd.arg(self.note_key(book, name));
        async move { self.run_one(cmd).await }.boxed()
    }

    fn forget<'a>(&'a self, book: &'a str, name: u128) -> BoxFuture<'a, Result<(), StoreError>> {
        let mut cmd = redis::cmd("DEL");
        cmd.arg(self.note_key(book, name));
        async move { self.run_one::<i64>(cmd).await.map(drop) }.boxed()
    }

    fn rows<'a>(&'a self, book: &'a str, days: &'a [String]) -> BoxFuture<'a, Result<Vec<Row>, StoreError>> {
        self.rows_now(book, days).boxed()
    }

    fn users<'a>(&'a self, book: &'a str, days: &'a [String]) -> BoxFuture<'a, Result<u64, StoreError>> {
        let mut cmd = redis::cmd("PFCOUNT");
        for day in days {
            cmd.arg(self.tally(book, "users", day));
        }
        async move { if days.is_empty() { Ok(0) } else { self.run_one(cmd).await } }.boxed()
    }
}
