//! The outbox's contract on Redis.

use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use worker::{
    config::{
        redis::{StoreConfig, WhenDown},
        secret::SecretUrl,
    },
    store::{
        outbox::Outbox,
        redis::{RedisOptions, RedisStore},
    },
};

use crate::{
    outbox_contract::OutboxBench,
    support::{stack::Stack, unique},
};

struct Redis {
    outboxes: [Box<dyn Outbox>; 2],
    base: String,
    client: redis::aio::MultiplexedConnection,
}

impl OutboxBench for Redis {
    fn outboxes(&self) -> [&dyn Outbox; 2] {
        [&*self.outboxes[0], &*self.outboxes[1]]
    }

    fn pass(&self, time: Duration) -> BoxFuture<'_, ()> {
        tokio::time::sleep(time).boxed()
    }

    fn expire<'a>(&'a self, user: &'a str) -> BoxFuture<'a, ()> {
        async move {
            let mut cmd = redis::cmd("ZADD");
            cmd.arg(format!("{}:due", self.base)).arg(1).arg(user);
            let _: i64 = cmd.query_async(&mut self.client.clone()).await.unwrap();
        }
        .boxed()
    }
}

async fn shared() -> Option<Redis> {
    let stack = Stack::shared()?;
    let prefix = unique("outbox");
    let config = StoreConfig {
        url: SecretUrl::new(stack.redis()),
        prefix: prefix.clone(),
        retention: Duration::from_secs(8 * 24 * 3600),
        when_down: WhenDown::Hold,
        bypass_after: Duration::ZERO,
        allow_eviction: false,
    };
    let outbox = || Box::new(RedisStore::new(RedisOptions::new(&config, "group")).unwrap().outbox("mail")) as Box<dyn Outbox>;
    let client = redis::Client::open(stack.redis()).unwrap().get_multiplexed_async_connection().await.unwrap();
    Some(Redis { outboxes: [outbox(), outbox()], base: format!("{prefix}:group:outbox:mail"), client })
}

crate::outbox_contract!(tokio::test(flavor = "multi_thread"), shared);
