//! One connection to Redis: made when first needed, made again when lost, never waited for longer than a limit.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ErrorKind, FromRedisValue, Pipeline, RedisError, RedisResult, ServerErrorKind,
    aio::MultiplexedConnection,
};
use tokio::sync::Mutex;

use super::setup::Setup;
use crate::engine::ports::StoreError;

/// How long anything may take.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// To connect and get ready. Default 1 s.
    pub connect: Duration,
    /// To be answered; a Redis that is slower is as good as away, and a connection that says nothing is given up. Default 1.5 s.
    pub answer: Duration,
    /// To be answered where much is read at once (all records of a partition). Default 5 s.
    pub load: Duration,
    /// Longest pause between two attempts to connect; the first is a twentieth of it. Default 1 s.
    pub pause: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(1),
            answer: Duration::from_millis(1500),
            load: Duration::from_secs(5),
            pause: Duration::from_secs(1),
        }
    }
}

/// What each new connection is made ready with before its first use.
pub(super) trait Ready: Send + Sync {
    /// Makes Redis know the scripts that are called by their hash.
    fn load_all(&self) -> Pipeline;

    /// Loads the scripts, and refuses a server that cannot be used.
    fn ready(
        &self,
        connection: &mut MultiplexedConnection,
        explain: &(dyn Fn(&RedisError) -> StoreError + Sync),
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// The connection and what is needed to make it again.
pub(super) struct Link<S = Setup> {
    client: Client,
    address: String,
    timing: Timing,
    setup: S,
    state: Mutex<State>,
}

struct State {
    connection: Option<MultiplexedConnection>,
    /// Which connection that is: a failure of an older one must not end it.
    number: u64,
    retry_at: Option<(Instant, StoreError)>,
    pause: Duration,
}

impl<S: Ready> Link<S> {
    /// Reads the address, connects to nothing yet. `setup` is run on each new connection.
    pub(super) fn new(url: &str, timing: Timing, setup: S) -> Result<Self, StoreError> {
        let refused = |why: String| Err(StoreError::Refused(format!("store.url: {why}")));
        let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
        match scheme {
            "redis" | "valkey" | "unix" | "redis+unix" | "valkey+unix" => {}
            "rediss" | "valkeys" if cfg!(feature = "tls") => {}
            "rediss" | "valkeys" => return refused(format!("{scheme}:// needs TLS, and this binary was built without the feature `tls`")),
            "redis+sentinel" | "rediss+sentinel" | "redis+cluster" | "rediss+cluster" | "redis-sentinel" | "redis-cluster" => {
                return refused(format!("{scheme}:// is not supported; give the address of the primary, or a name that follows it"));
            }
            _ => return refused(String::from("not an address of a store; write \"redis://host:6379/0\", \"rediss://..\" or \"memory\"")),
        }
        // The address may carry a password, which the client's own error text could repeat.
        let Ok(client) = Client::open(url) else {
            return refused(format!("not a valid {scheme}:// address; write {scheme}://[user:password@]host[:port][/database]"));
        };
        let address = match client.get_connection_info().addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => format!("{host}:{port}"),
            other => other.to_string(),
        };
        let state = State { connection: None, number: 0, retry_at: None, pause: timing.pause / 20 };
        Ok(Self { client, address, timing, setup, state: Mutex::new(state) })
    }

    /// Host and port, for people; never the password.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn timing(&self) -> &Timing {
        &self.timing
    }

    pub(super) fn setup(&self) -> &S {
        &self.setup
    }

    /// As [`Link::run`], with the limit for what is answered from memory.
    pub(super) async fn ask<T: FromRedisValue>(&self, pipeline: &Pipeline) -> Result<T, StoreError> {
        self.run(pipeline, self.timing.answer).await
    }

    /// Sends a pipeline and waits for all its answers, at most for `limit`.
    ///
    /// After an error nobody knows whether Redis did it, now or later: everything sent through here may be repeated and may come late.
    pub(super) async fn run<T: FromRedisValue>(&self, pipeline: &Pipeline, limit: Duration) -> Result<T, StoreError> {
        let (mut connection, number) = self.connection().await?;
        let answer = tokio::time::timeout(limit, async {
            let answer: RedisResult<T> = pipeline.query_async(&mut connection).await;
            match answer {
                // Redis forgets scripts at a restart and at SCRIPT FLUSH.
                Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                    self.setup.load_all().exec_async(&mut connection).await?;
                    pipeline.query_async(&mut connection).await
                }
                answer => answer,
            }
        });
        match answer.await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                let (error, lost) = self.explain(&error);
                if lost {
                    self.give_up(number).await;
                }
                Err(error)
            }
            Err(_) => {
                self.give_up(number).await;
                Err(self.silent(limit))
            }
        }
    }

    /// Sends a pipeline over a connection of its own to a server that need not be one the store accepts; answers also how long that took.
    pub(super) async fn look<T: FromRedisValue>(&self, pipeline: &Pipeline) -> Result<(T, Duration), StoreError> {
        let limit = self.timing.connect;
        let answer = tokio::time::timeout(limit, async {
            let mut connection = self.open().await?;
            let sent = Instant::now();
            let answer = pipeline.query_async(&mut connection).await.map_err(|error| self.explain(&error).0)?;
            Ok((answer, sent.elapsed()))
        });
        answer.await.unwrap_or_else(|_| Err(self.silent(limit)))
    }

    async fn open(&self) -> Result<MultiplexedConnection, StoreError> {
        // The limits are this file's: they cover what follows as well.
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        self.client.get_multiplexed_async_connection_with_config(&config).await.map_err(|error| self.explain(&error).0)
    }

    async fn connection(&self) -> Result<(MultiplexedConnection, u64), StoreError> {
        let mut state = self.state.lock().await;
        if let Some(connection) = &state.connection {
            return Ok((connection.clone(), state.number));
        }
        if let Some((at, error)) = &state.retry_at
            && Instant::now() < *at
        {
            return Err(error.clone());
        }
        let made = tokio::time::timeout(self.timing.connect, async {
            let mut connection = self.open().await?;
            self.setup.ready(&mut connection, &|error| self.explain(error).0).await?;
            Ok(connection)
        });
        match made.await.unwrap_or_else(|_| Err(self.silent(self.timing.connect))) {
            Ok(connection) => {
                state.number += 1;
                state.pause = self.timing.pause / 20;
                state.retry_at = None;
                state.connection = Some(connection.clone());
                Ok((connection, state.number))
            }
            Err(error) => {
                let pause = state.pause.mul_f64(0.5 + fastrand::f64() / 2.0);
                state.retry_at = Some((Instant::now() + pause, error.clone()));
                state.pause = (state.pause * 2).min(self.timing.pause);
                Err(error)
            }
        }
    }

    async fn give_up(&self, number: u64) {
        let mut state = self.state.lock().await;
        if state.number == number {
            state.connection = None;
        }
    }

    fn silent(&self, limit: Duration) -> StoreError {
        StoreError::Unavailable(format!("redis {}: no answer within {}", self.address, humantime::format_duration(limit)))
    }

    /// The error of an answer to `what` that nothing here can have asked for.
    pub(super) fn odd(&self, what: &str) -> StoreError {
        StoreError::Refused(format!("redis {}: an answer to {what} that makes no sense", self.address))
    }

    /// What an error means to the engine, and whether the connection is of no more use.
    pub(super) fn explain(&self, error: &RedisError) -> (StoreError, bool) {
        use ServerErrorKind as E;
        let text = error.to_string();
        let address = &self.address;
        let away = |what: &str| StoreError::Unavailable(format!("redis {address}: {what}"));
        match error.kind() {
            ErrorKind::Io | ErrorKind::Parse => (away(&text), true),
            ErrorKind::AuthenticationFailed => (StoreError::Refused(format!("redis {address}: user or password not accepted")), true),
            ErrorKind::Server(E::BusyLoading) => (away("still loading its data"), false),
            ErrorKind::Server(E::ReadOnly) => (away("is a read-only replica; waiting for the primary"), true),
            ErrorKind::Server(E::MasterDown | E::TryAgain | E::ClusterDown) => (away(&text), true),
            // Code of its own in Redis 7; in the text of a script's error before.
            _ if text.contains("OOM") => {
                (away("out of memory (maxmemory reached); nothing more is written until it has room: raise maxmemory"), false)
            }
            _ if text.contains("MISCONF") => (away("refuses writes because it cannot save its data to disk (MISCONF); see its log"), false),
            _ if text.contains("NOREPLICAS") => (away("refuses writes because too few replicas are connected (NOREPLICAS)"), false),
            _ if text.contains("BUSY") => (away("busy running a script or command of somebody else (BUSY)"), false),
            _ if text.contains("NOAUTH") || text.contains("WRONGPASS") => {
                (StoreError::Refused(format!("redis {address}: user or password not accepted")), true)
            }
            // Said by the server, or about the address: asking again changes nothing. What is left is a conversation cut short.
            ErrorKind::Server(_) | ErrorKind::Extension | ErrorKind::InvalidClientConfig => {
                (StoreError::Refused(format!("redis {address}: {text}")), false)
            }
            _ => (away(&text), true),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn refusal(url: &str) -> String {
        Link::new(url, Timing::default(), Setup::for_tests()).err().unwrap().to_string()
    }

    #[test]
    fn an_address_that_cannot_work_is_refused_with_the_reason_and_without_its_password() {
        assert!(refusal("localhost:6379").contains("redis://host:6379/0"));
        assert!(refusal("redis+sentinel://a:26379/mymaster").contains("not supported"));
        assert!(refusal("redis-cluster://a:6379").contains("not supported"));
        let bad = refusal("redis://user:s3cret@host:port/0");
        assert!(bad.contains("not a valid") && !bad.contains("s3cret"), "{bad}");
        if cfg!(not(feature = "tls")) {
            assert!(refusal("rediss://host").contains("feature `tls`"));
        } else {
            assert!(Link::new("rediss://host", Timing::default(), Setup::for_tests()).is_ok());
        }
    }

    #[test]
    fn texts_name_host_and_port_only() {
        let link = Link::new("redis://user:s3cret@cache.example:7000/3", Timing::default(), Setup::for_tests()).unwrap();
        assert_eq!(link.address(), "cache.example:7000");
    }
}
