//! Builds every client's configuration in one place, and says whether the brokers are there.

use std::{
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, ClientContext,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::KafkaError as Native,
    types::RDKafkaErrorCode,
};

use super::{
    native,
    token::{Handle, Supplied, Tokens},
};
use crate::config::{
    Config,
    kafka::{Partitioner, Properties, owned_property},
    oidc::Oidc,
};

/// Why Kafka could not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KafkaError {
    /// A property that librdkafka refuses, or one that the worker must own.
    #[error("{0}")]
    Config(String),
    /// No broker answers.
    #[error("no Kafka broker answers at {brokers}: {reason}")]
    Unreachable {
        /// The configured addresses.
        brokers: String,
        /// The client's words.
        reason: String,
    },
    /// The brokers' access rules or credentials forbid it.
    #[error("Kafka does not allow it: {0}")]
    Forbidden(String),
    /// There is no token to log in with: the endpoint, and why it gave none.
    #[error("no token to log in to Kafka with, from {0}")]
    NoToken(String),
    /// Anything else that Kafka answered.
    #[error("{0}")]
    Refused(String),
}

impl KafkaError {
    /// The metric label.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Config(_) => "config",
            Self::Unreachable { .. } => "unreachable",
            Self::Forbidden(_) => "forbidden",
            Self::NoToken(_) => "no_token",
            Self::Refused(_) => "refused",
        }
    }

    /// Sorts a client's error; `brokers` is named where none answers.
    pub(super) fn from_native(error: &Native, brokers: &str) -> Self {
        use RDKafkaErrorCode as Code;
        match error {
            // Never the value, which librdkafka's words repeat: it may be a secret.
            Native::ClientConfig(_, words, key, value) if value.is_empty() => Self::Config(format!("kafka property `{key}`: {words}")),
            Native::ClientConfig(_, words, key, value) => {
                Self::Config(format!("kafka property `{key}`: {}", words.replace(value.as_str(), "...")))
            }
            Native::ClientCreation(words) => Self::Config(words.clone()),
            other => match other.rdkafka_error_code() {
                Some(
                    Code::BrokerTransportFailure
                    | Code::AllBrokersDown
                    | Code::OperationTimedOut
                    | Code::Resolve
                    | Code::MessageTimedOut
                    | Code::RequestTimedOut
                    | Code::NetworkException,
                ) => Self::Unreachable { brokers: brokers.to_owned(), reason: other.to_string() },
                Some(
                    Code::Authentication
                    | Code::SaslAuthenticationFailed
                    | Code::TopicAuthorizationFailed
                    | Code::GroupAuthorizationFailed
                    | Code::ClusterAuthorizationFailed,
                ) => Self::Forbidden(other.to_string()),
                _ => Self::Refused(other.to_string()),
            },
        }
    }
}

/// Properties of group membership: they mean nothing to a client that joins none.
const MEMBERSHIP: &[&str] = &[
    "group.protocol",
    "group.instance.id",
    "group.remote.assignor",
    "partition.assignment.strategy",
    "session.timeout.ms",
    "heartbeat.interval.ms",
    "max.poll.interval.ms",
];

/// Checks the user's properties against those that the worker owns.
///
/// # Errors
/// [`KafkaError::Config`] naming the first one and what to do instead.
pub fn check_properties(config: &Config) -> Result<(), KafkaError> {
    let tables = [
        ("kafka.properties", &config.kafka.properties),
        ("kafka.consumer", &config.kafka.consumer),
        ("kafka.producer", &config.kafka.producer),
    ];
    for (table, properties) in tables {
        for (key, value) in properties {
            if let Some(why) = owned_property(key, value) {
                return Err(KafkaError::Config(format!("{table}.\"{key}\" is set by the worker itself: {why}")));
            }
        }
    }
    Ok(())
}

/// Most bytes of a record that the producer writes, unless `message.max.bytes` says otherwise: the largest event, with the headers of a dead
/// letter. librdkafka's own limit is below Kafka's, so that events which Kafka took could not be dead-lettered whole.
pub const LARGEST_MESSAGE: u64 = (1 << 20) + (64 << 10);

/// Makes clients from the configuration.
#[derive(Debug, Clone)]
pub struct Clients {
    brokers: String,
    group_id: String,
    partitioner: Partitioner,
    properties: Properties,
    consumer: Properties,
    producer: Properties,
    tokens: Option<Tokens>,
}

impl Clients {
    /// Reads the configuration, and starts to ask for tokens where it says so.
    ///
    /// # Errors
    /// [`KafkaError::Config`] for a property that the worker owns, or one about tokens that is no use.
    pub fn new(config: &Config) -> Result<Self, KafkaError> {
        check_properties(config)?;
        let kafka = &config.kafka;
        let oidc = Oidc::read(kafka).map_err(|wrong| {
            KafkaError::Config(wrong.into_iter().map(|(key, why)| format!("{key}: {why}")).collect::<Vec<_>>().join("; "))
        })?;
        Ok(Self {
            brokers: kafka.brokers.clone(),
            group_id: kafka.group_id.clone().unwrap_or_else(|| config.app_id.clone()),
            partitioner: kafka.partitioner,
            properties: kafka.properties.clone(),
            consumer: kafka.consumer.clone(),
            producer: kafka.producer.clone(),
            tokens: oidc.as_ref().map(Tokens::start).transpose()?,
        })
    }

    /// The configured addresses, for messages.
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// The consumer group.
    pub fn group_id(&self) -> &str {
        &self.group_id
    }

    /// The configured partitioner.
    pub fn partitioner(&self) -> Partitioner {
        self.partitioner
    }

    fn base(&self) -> ClientConfig {
        let mut base = ClientConfig::new();
        base.set("client.id", "worker")
            .set("socket.keepalive.enable", "true")
            .set("socket.timeout.ms", "15000")
            .set("reconnect.backoff.max.ms", "2000")
            .set("log.connection.close", "false");
        base
    }

    /// Lays the user's properties over `base`, then what nobody may change.
    fn finish(&self, mut base: ClientConfig, tables: &[&Properties], without: &[&str]) -> ClientConfig {
        for (key, value) in tables.iter().copied().flatten() {
            let token = self.tokens.is_some() && Oidc::owns(key);
            if !token && !without.contains(&key.as_str()) {
                base.set(key, value);
            }
        }
        base.set("bootstrap.servers", &self.brokers).set("allow.auto.create.topics", "false");
        base
    }

    fn property(&self, key: &str) -> Option<&str> {
        self.consumer.get(key).or_else(|| self.properties.get(key)).map(String::as_str)
    }

    /// Whether the group runs by KIP-848.
    pub fn next_generation_protocol(&self) -> bool {
        self.property("group.protocol").is_some_and(|protocol| protocol.eq_ignore_ascii_case("consumer"))
    }

    /// The longest time between two polls before the group takes the partitions away.
    pub fn max_poll_interval(&self) -> Duration {
        let ms = self.property("max.poll.interval.ms").and_then(|ms| ms.parse().ok()).unwrap_or(300_000);
        Duration::from_millis(ms)
    }

    /// The client that joins the group and commits; it reads no records.
    pub(super) fn member(&self) -> ClientConfig {
        let mut base = self.base();
        base.set("topic.metadata.refresh.interval.ms", "60000");
        if !self.next_generation_protocol() {
            base.set("partition.assignment.strategy", "cooperative-sticky")
                .set("session.timeout.ms", "10000")
                .set("heartbeat.interval.ms", "1000");
        }
        self.consuming(self.finish(base, &[&self.properties, &self.consumer], &[]))
    }

    /// The client that reads the member's partitions, each with at most `queue_kib` of prefetch while it is not read.
    pub(super) fn fetcher(&self, queue_kib: u64) -> ClientConfig {
        let mut base = self.base();
        base.set("client.id", "worker-fetch")
            .set("fetch.message.max.bytes", "262144")
            .set("fetch.wait.max.ms", "100")
            .set("fetch.queue.backoff.ms", "5")
            .set("queued.min.messages", "100000")
            .set("queued.max.messages.kbytes", queue_kib.to_string());
        self.consuming(self.finish(base, &[&self.properties, &self.consumer], MEMBERSHIP))
    }

    /// The client that reads single old records again.
    pub(super) fn reader(&self) -> ClientConfig {
        let mut base = self.base();
        base.set("client.id", "worker-reread")
            .set("fetch.wait.max.ms", "5")
            .set("fetch.queue.backoff.ms", "5")
            .set("fetch.message.max.bytes", "65536");
        let mut config = self.consuming(self.finish(base, &[&self.properties, &self.consumer], MEMBERSHIP));
        config.set("queued.min.messages", "1000").set("queued.max.messages.kbytes", "1024");
        // The log's end is said, not guessed from silence.
        config.set("enable.partition.eof", "true");
        config
    }

    /// The client that reads a topic from beginning to end, with at most 16 MiB of prefetch.
    pub(super) fn scanner(&self) -> ClientConfig {
        let mut base = self.base();
        base.set("client.id", "worker-scan").set("fetch.wait.max.ms", "50");
        let mut config = self.consuming(self.finish(base, &[&self.properties, &self.consumer], MEMBERSHIP));
        config.set("enable.partition.eof", "true").set("queued.max.messages.kbytes", "16384");
        config
    }

    /// A client that commits in `group` without ever joining it.
    pub(super) fn outsider(&self, group: &str) -> ClientConfig {
        let mut config = self.consuming(self.finish(self.base(), &[&self.properties], MEMBERSHIP));
        config.set("client.id", "worker-marks").set("group.id", group);
        config
    }

    fn consuming(&self, mut config: ClientConfig) -> ClientConfig {
        config
            .set("group.id", &self.group_id)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("isolation.level", "read_committed")
            // A position that the log no longer has is decided here, not jumped over in silence.
            .set("auto.offset.reset", "error");
        config
    }

    /// The client that writes.
    pub(super) fn producer(&self) -> ClientConfig {
        let mut base = self.base();
        // Whoever publishes waits for it: with 64 callers twice the rate of 5 ms; with 256 a fifth less, see ARCHITECTURE.md.
        base.set("linger.ms", "2")
            .set("compression.type", "lz4")
            .set("message.max.bytes", LARGEST_MESSAGE.to_string())
            .set("delivery.timeout.ms", "30000")
            // How long a topic may stay unknown before its records fail: as long as a new one takes to be known everywhere.
            .set("topic.metadata.propagation.max.ms", "5000")
            .set("queue.buffering.max.kbytes", "65536")
            .set("queue.buffering.max.messages", "100000");
        let mut config = self.finish(base, &[&self.properties, &self.producer], &[]);
        let partitioner = match self.partitioner {
            Partitioner::Murmur2Random => "murmur2_random",
            Partitioner::Fnv1aRandom => "fnv1a_random",
        };
        config.set("enable.idempotence", "true").set("acks", "all").set("partitioner", partitioner);
        config
    }

    /// The client that asks and changes topics; it joins no group.
    pub(super) fn admin(&self) -> ClientConfig {
        let mut config = self.finish(self.base(), &[&self.properties], MEMBERSHIP);
        config.set("client.id", "worker-admin");
        config
    }

    /// Builds a client and sorts what can go wrong.
    pub(super) fn create<C: ClientContext, T: FromClientConfigAndContext<C> + Handle>(
        &self,
        config: &ClientConfig,
        context: C,
    ) -> Result<Supplied<T>, KafkaError> {
        let client = config.create_with_context(context).map_err(|error| KafkaError::from_native(&error, &self.brokers))?;
        Ok(Supplied::new(client, self.tokens.as_ref()))
    }

    /// Sorts a client's error. Without a token no broker is ever asked: then that is the reason.
    pub(super) fn sort(&self, error: &Native) -> KafkaError {
        let sorted = KafkaError::from_native(error, &self.brokers);
        match (&sorted, &self.tokens) {
            (KafkaError::Unreachable { .. }, Some(tokens)) => tokens.failure().unwrap_or(sorted),
            _ => sorted,
        }
    }

    /// Why no broker answers, as far as it is known: there may be no token to log in with.
    pub fn away(&self) -> String {
        let missing = self.tokens.as_ref().and_then(Tokens::failure);
        missing.map_or_else(|| format!("no Kafka broker answers at {}", self.brokers), |error| error.to_string())
    }

    /// Waits until a broker answers, saying so once and then every 10 s; `None` waits for ever.
    ///
    /// Blocks: call it from a thread that may.
    ///
    /// # Errors
    /// [`KafkaError::Unreachable`] past the deadline, at once [`KafkaError::Config`] for properties no client can be made of.
    pub fn wait_for_brokers_blocking(&self, deadline: Option<Duration>) -> Result<(), KafkaError> {
        let probe: Supplied<BaseConsumer<Logs>> = self.create(&self.admin(), Logs::quiet())?;
        let started = Instant::now();
        let mut told: Option<Instant> = None;
        loop {
            let left = deadline.map_or(Duration::from_secs(3), |limit| limit.saturating_sub(started.elapsed()).min(Duration::from_secs(3)));
            match native::ping(probe.client(), left.max(Duration::from_millis(100))) {
                Ok(()) => return Ok(()),
                Err(error) => {
                    let error = self.sort(&error);
                    if deadline.is_some_and(|limit| started.elapsed() >= limit) {
                        return Err(error);
                    }
                    if told.is_none_or(|at| at.elapsed() > Duration::from_secs(10)) {
                        told = Some(Instant::now());
                        tracing::warn!(kafka.brokers = %self.brokers, error = %error, "kafka does not answer, trying again");
                    }
                    let _ = probe.poll(Duration::ZERO);
                    thread::sleep(Duration::from_millis(200));
                }
            }
        }
    }

    /// As [`Self::wait_for_brokers_blocking`], on a thread of its own.
    ///
    /// # Errors
    /// As there.
    pub async fn wait_for_brokers(&self, deadline: Option<Duration>) -> Result<(), KafkaError> {
        let clients = self.clone();
        let (answer, answered) = tokio::sync::oneshot::channel();
        let spawned = thread::Builder::new().name("kafka-wait".to_owned()).spawn(move || {
            let _ = answer.send(clients.wait_for_brokers_blocking(deadline));
        });
        match spawned {
            Ok(_) => answered.await.unwrap_or_else(|_| Err(KafkaError::Refused("the waiting thread died".to_owned()))),
            Err(error) => Err(KafkaError::Refused(format!("no thread: {error}"))),
        }
    }
}

/// librdkafka's own logs and errors, told through `tracing`.
#[derive(Debug, Clone, Default)]
pub struct Logs {
    quiet: bool,
}

impl Logs {
    /// For a client whose trouble is expected and reported by its user.
    pub fn quiet() -> Self {
        Self { quiet: true }
    }
}

impl ClientContext for Logs {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message, self.quiet);
    }

    fn error(&self, error: Native, reason: &str) {
        if !self.quiet {
            report(&error, reason);
        }
    }
}

impl ConsumerContext for Logs {}

/// One log line of librdkafka. Its severities are louder than ours: a broker that is away is an error there, and retried.
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, message: &str, quiet: bool) {
    match level {
        // Each client says of each attempt that a connection failed; that the brokers are away is said once, by who asks for them.
        _ if quiet || facility == "FAIL" => tracing::debug!(kafka.facility = facility, "librdkafka: {message}"),
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => {
            tracing::warn!(kafka.facility = facility, "librdkafka: {message}");
        }
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => tracing::info!(kafka.facility = facility, "librdkafka: {message}"),
        RDKafkaLogLevel::Debug => tracing::debug!(kafka.facility = facility, "librdkafka: {message}"),
    }
}

/// A client-wide error that librdkafka deals with by itself.
pub(super) fn report(error: &Native, reason: &str) {
    let away = matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::Resolve)
    );
    if away {
        return tracing::debug!(kafka.error = %error, "kafka client: {reason}");
    }
    tracing::warn!(kafka.error = %error, "kafka client: {reason}");
}
