//! Every key of the configuration, in one table.
//!
//! Unknown-key checks, value checks, environment names, `worker config schema` and `worker config env` all read this table; a test
//! keeps it in step with `config/default.toml`. A new key is a line here, a line there and a field of its struct.

/// One key of a table.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its name in its table.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// One line for people; for a key without a default it also says what applies then.
    pub doc: &'static str,
    /// Whether an entry of a list without it is a problem.
    pub required: bool,
    /// Of keys in list entries, which `config/default.toml` cannot hold: the default, as TOML.
    pub default: Option<&'static str>,
}

/// What a key takes.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// A table of these keys.
    Table(&'static [Key]),
    /// A list of tables of these keys.
    Tables(&'static [Key]),
    /// A table of tables of these keys, named by event types or patterns.
    ByType(&'static [Key]),
    /// A table of librdkafka properties.
    Properties,
    /// Text.
    Text,
    /// Text, shown nowhere.
    Secret,
    /// Text, its URL password shown nowhere.
    SecretUrl,
    /// `true` or `false`.
    Flag,
    /// A whole number within bounds, both included.
    Integer(i64, i64),
    /// A number within bounds, both included.
    Number(f64, f64),
    /// Text such as `"30s"`.
    Duration,
    /// Text such as `"256MiB"`.
    Size,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A list of texts.
    Texts,
    /// A list of texts such as `"30s"`.
    Durations,
}

impl Kind {
    /// Whether the value is a secret, wholly or in part; such a key can also be given as `<key>_file`.
    pub fn is_secret(self) -> bool {
        matches!(self, Self::Secret | Self::SecretUrl)
    }
}

const fn key(name: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key { name, kind, doc, required: false, default: None }
}

const fn required(name: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key { name, kind, doc, required: true, default: None }
}

const fn entry(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key { name, kind, doc, required: false, default: Some(default) }
}

/// The root table.
pub const ROOT: &[Key] = &[
    key("app_id", Kind::Text, "default group id and CloudEvents `source`"),
    key("kafka", Kind::Table(KAFKA), "how to reach the brokers, and what to read"),
    key("store", Kind::Table(STORE), "where finished events are remembered"),
    key("engine", Kind::Table(ENGINE), "limits of the engine"),
    key("commit_map", Kind::Table(COMMIT_MAP), "what travels with a committed offset"),
    key("retry", Kind::ByType(RETRY), "backoff schedules by event type or pattern; the most specific wins"),
    key("dlq", Kind::Table(DLQ), "where exhausted events go"),
    key("catalog", Kind::Table(CATALOG), "the event catalogue"),
    key("handlers", Kind::Tables(HANDLER), "who handles which events; default: none (standalone: one `log` handler)"),
    key("http", Kind::Table(HTTP), "the operations listener of every role"),
    key("publish", Kind::Table(PUBLISH), "the producer role's listeners"),
    key("state", Kind::Table(STATE), "Dapr state API on the publish listener"),
    key("sync", Kind::Table(SYNC), "the consumer role's listener that keeps browsers in sync"),
    key("schedules", Kind::Tables(SCHEDULE), "cron entries of the producer role; default: none"),
];

const KAFKA: &[Key] = &[
    key("brokers", Kind::Text, "host:port, comma separated, or `embedded` for the in-process cluster"),
    key("group_id", Kind::Text, "consumer group; default: app_id"),
    key("topics", Kind::Texts, "topics of the consumer role; default: every catalogue topic that a handler needs"),
    key("partitioner", Kind::Choice(&["murmur2_random", "fnv1a_random"]), "key to partition: the JVM's way, or Dapr's"),
    key("properties", Kind::Properties, "librdkafka properties of every client"),
    key("consumer", Kind::Properties, "librdkafka properties of the consumer alone"),
    key("producer", Kind::Properties, "librdkafka properties of the producer alone"),
];

const STORE: &[Key] = &[
    key("url", Kind::SecretUrl, "redis://.., rediss://.., or `memory`: in-process, bounded, this process only"),
    key("prefix", Kind::Text, "first part of every Redis key"),
    key("retention", Kind::Duration, "how long a duplicate is recognised"),
    key("when_down", Kind::Choice(&["hold", "bypass"]), "while the store is away: dispatch nothing, or go on without dedupe"),
    key("bypass_after", Kind::Duration, "with bypass: hold this long first"),
    key("allow_eviction", Kind::Flag, "accept a Redis that throws keys away when it is full"),
];

const ENGINE: &[Key] = &[
    key("concurrency", Kind::Integer(1, 65_536), "handler runs at once"),
    key("memory", Kind::Size, "held events, in bytes"),
    key("lane_events", Kind::Integer(1, 1_000_000), "events of one user kept whole in memory"),
    key("drain_timeout", Kind::Duration, "time for runs in flight at shutdown and revoke"),
    key("commit_interval", Kind::Duration, "settled to committed, at most"),
    key("start_at", Kind::Choice(&["earliest", "latest"]), "where a group without a commit begins"),
    key("max_held_events", Kind::Integer(1, i64::MAX), "of one user behind a failing event; beyond it, on_overflow"),
    key("max_hold_age", Kind::Duration, "as max_held_events, by age of the hold"),
    key("on_overflow", Kind::Choice(&["dlq", "pause_partition"]), "the user's backlog to the DLQ, or the partition held"),
];

const COMMIT_MAP: &[Key] = &[key(
    "max_chars",
    Kind::Integer(64, 10_000),
    "longest commit metadata; below the brokers' offset.metadata.max.bytes, 4096 by default",
)];

/// The keys of one `[retry."<type or pattern>"]`.
const RETRY: &[Key] = &[
    key("delays", Kind::Durations, "delay before each retry; [] = no retry; default: retry.default's"),
    key("jitter", Kind::Number(0.0, 0.1), "part of a delay that chance may add or take; default: retry.default's"),
];

const DLQ: &[Key] = &[
    key("topic", Kind::Text, "the dead letter topic"),
    key("breaker_ratio", Kind::Number(0.0, 1.0), "part of recent settlements that may be dead before dead-lettering stops"),
    key("alert_webhook", Kind::Secret, "URL told of dead letters, rate limited; empty: none"),
    key("tell_users", Kind::Flag, "publish reminder.failed for each dead reminder.* event, before its dead letter"),
];

const CATALOG: &[Key] = &[
    key("dir", Kind::Text, "folder of topics.yaml and events/*.yaml; the embedded catalogue where the default folder is missing"),
    key("unknown_type", Kind::Choice(&["dlq", "skip", "deliver"]), "what happens to a type that the catalogue does not know"),
    key("validate", Kind::Flag, "check consumed data against its type's schema"),
];

const HANDLER: &[Key] = &[
    required("name", Kind::Text, "unique: a metric label, and part of every retry and dead letter"),
    required(
        "kind",
        Kind::Choice(&["log", "http", "forward", "recurrence", "reminder", "notify", "points", "audit", "analytics", "security"]),
        "what it does: log, http and forward hand events on, the others are jobs of the product's own",
    ),
    key("events", Kind::Texts, "type patterns such as task.*; default: every type, or those that the kind is for"),
    key("to", Kind::Text, "forward: the topic that gets a copy of each event"),
    entry("timezone", Kind::Text, "\"UTC\"", "recurrence, points: the zone of users whose events name none; analytics: whose days"),
    key("analytics", Kind::Table(ANALYTICS), "analytics: how long figures are kept"),
    entry("repeat_from", Kind::Choice(&["due", "completion"]), "\"due\"", "recurrence: what a task's next time is counted from"),
    key("reminder", Kind::Table(REMINDER), "keys of kind reminder"),
    key("notify", Kind::Table(NOTIFY), "notify: how users are told"),
    key("audit", Kind::Table(AUDIT), "audit: where records are kept, and what of events"),
    key("points", Kind::Table(POINTS), "points: what is awarded for what"),
    key("security", Kind::Table(SECURITY), "security: which logins are suspicious"),
    key("url", Kind::SecretUrl, "http: where events are POSTed"),
    key("discover", Kind::SecretUrl, "http: an app whose routes are read from /dapr/subscribe, instead of url"),
    entry("discover_every", Kind::Duration, "\"1m\"", "discover: how often the routes are read again; SIGHUP reads them at once"),
    key("api_token", Kind::Secret, "discover: sent to the app as dapr-api-token; also APP_API_TOKEN; default: none"),
    key("routes", Kind::Tables(ROUTE), "discover: routes that the app does not tell itself; what it tells for a topic wins"),
    entry("strict_dapr", Kind::Flag, "false", "http: Dapr's exact table of answers"),
    entry("body", Kind::Choice(&["cloudevent", "event"]), "\"cloudevent\"", "http: a CloudEvent, or the event itself at the top level"),
    entry("timeout", Kind::Duration, "\"30s\"", "longest run; past it the run counts as transiently failed"),
    key("concurrency", Kind::Integer(1, 65_536), "runs of this handler at once; default: engine.concurrency, of notify 10"),
];

/// The keys of a `[handlers.notify]`.
const NOTIFY: &[Key] = &[
    key("smtp", Kind::SecretUrl, "smtp://user:password@host:587 with STARTTLS (?tls=none: without), or smtps://host:465"),
    key("from", Kind::Text, "smtp: the sender, like Todo <todo@example.com>"),
    entry("to", Kind::Text, "\"{{ data.email }}\"", "smtp: template of the address; where it is empty, the directory's email"),
    key("webhook", Kind::Secret, "instead of smtp: a URL that is POSTed to"),
    key("webhook_secret", Kind::Secret, "webhook: signs each request with its time (x-worker-signature); default: none"),
    key("webhook_old_secret", Kind::Secret, "webhook: adds a second signature, while secrets are changed; default: none"),
    key(
        "directory",
        Kind::SecretUrl,
        "a URL with {user_id} that answers with email, timezone, locale and quiet_hours as JSON; default: none",
    ),
    key("templates", Kind::Text, "a folder of <type>.txt and <type>.html, also <type>.<locale>.txt; default: the built-in ones"),
    entry("rate", Kind::Integer(0, 10_000), "0", "messages of one user in any rate_window, later ones wait; 0: no limit"),
    entry("rate_window", Kind::Duration, "\"1h\"", "of rate"),
    entry("digest", Kind::Duration, "\"0s\"", "how long a message waits for others, to go out as one; 0s: not at all"),
    key("quiet", Kind::Text, "hours by the user's clock, like 22:00-07:00, in which messages wait; default: none"),
    entry("urgent", Kind::Texts, "[\"security.*\"]", "types or patterns of what never waits"),
    entry("timezone", Kind::Text, "\"UTC\"", "the zone of users of whom neither the directory nor the event tells one"),
];

/// The keys of one `[handlers.reminder]`.
const REMINDER: &[Key] = &[entry(
    "remember",
    Kind::Duration,
    "\"1d\"",
    "how long removed and fired reminders, and moved due dates, are kept for what comes late",
)];

/// The keys of `[handlers.analytics]`.
const ANALYTICS: &[Key] = &[
    entry("keep", Kind::Duration, "\"90d\"", "how long a day's figures are kept"),
    entry("late", Kind::Duration, "\"8d\"", "how long after its end a day is still added to; its events are known for as long"),
];

/// The keys of `[handlers.security]`.
const SECURITY: &[Key] = &[
    key("key", Kind::Secret, "what addresses and devices are hashed with; default: app_id, which others may know"),
    key("rules", Kind::Texts, "new_device, new_network, user_failures, address_failures, address_users, user_logins; default: all"),
    entry("window", Kind::Duration, "\"10m\"", "what counts as at once"),
    entry("user_failures", Kind::Integer(2, 1000), "5", "failed logins of one user in a window that are too many"),
    entry("address_failures", Kind::Integer(2, 1000), "20", "failed logins from one address in a window that are too many"),
    entry("address_users", Kind::Integer(2, 1000), "10", "users from one address in a window that are too many"),
    entry("user_logins", Kind::Integer(2, 1000), "20", "logins of one user in a window that nobody makes"),
    entry("remember", Kind::Duration, "\"90d\"", "how long a device or network is known after it was seen last"),
];

/// The keys of `[handlers.audit]`.
const AUDIT: &[Key] = &[
    key("dir", Kind::Text, "folder of the files; default: audit, where there is no topic"),
    key("topic", Kind::Text, "topic of the records, beside or instead of files"),
    entry("max_size", Kind::Size, "\"64MiB\"", "a file that is longer gets no more records; each day begins one as well"),
    entry("content", Kind::Choice(&["full", "digest"]), "\"full\"", "all of the event, or the SHA-256 of its bytes"),
];

/// The keys of `[handlers.points]`.
const POINTS: &[Key] = &[
    entry("points", Kind::Integer(0, 1_000_000), "10", "for each event"),
    entry("streak_bonus", Kind::Integer(0, 1_000_000), "2", "more for a day's first event, for each day of the streak before it"),
    entry("streak_days", Kind::Integer(1, 365), "7", "days of a streak that count, at most"),
    entry("top", Kind::Integer(0, 1000), "10", "users on the leaderboard of /stats; 0: none"),
    key("rules", Kind::Tables(POINTS_RULE), "more points for some events"),
];

/// The keys of one `[[handlers.points.rules]]`.
const POINTS_RULE: &[Key] = &[
    entry(
        "match",
        Kind::Text,
        "\"\"",
        "a CEL expression about event, with id, type, user_id, time, data: event.data.priority == \"high\"; empty: always",
    ),
    required("points", Kind::Integer(1, 1_000_000), "how many"),
    required("reason", Kind::Text, "what for, as points.awarded tells it"),
];

/// The keys of one `[[handlers.routes]]`.
const ROUTE: &[Key] = &[
    required("topic", Kind::Text, "what is read"),
    key("pubsub", Kind::Text, "the app's name for the brokers: the header pubsubname"),
    key("path", Kind::Text, "where events go that no rule takes; default: they are dropped, or go to dead_letter_topic"),
    key("rules", Kind::Tables(RULE), "asked in order; the first that holds decides"),
    key("dead_letter_topic", Kind::Text, "takes this topic's dead letters instead of dlq.topic"),
    entry("raw_payload", Kind::Flag, "false", "the value is opaque bytes, sent as a CloudEvent's data_base64"),
    entry("bulk", Kind::Flag, "false", "many users' events in one request"),
    entry("bulk_events", Kind::Integer(1, 1000), "80", "bulk: most events in one request"),
    entry("bulk_wait", Kind::Duration, "\"100ms\"", "bulk: longest wait for others"),
];

/// The keys of one `[[handlers.routes.rules]]`.
const RULE: &[Key] = &[
    required("match", Kind::Text, "a CEL expression about event, the CloudEvent: event.type == \"task.created\"; empty: always"),
    required("path", Kind::Text, "where the event goes then"),
];

const HTTP: &[Key] = &[key("listen", Kind::Text, "address of /metrics, /livez and /readyz")];

const PUBLISH: &[Key] = &[
    key("listen", Kind::Text, "address of the Dapr-compatible HTTP API and POST /events"),
    key("grpc_listen", Kind::Text, "address of Dapr's gRPC API"),
    key("pubsubs", Kind::Texts, "accepted pubsub names; []: any"),
    key("key", Kind::Choice(&["user_id", "request"]), "what keys a record: the user_id always, or an explicit metadata.partitionKey"),
    key("validate", Kind::Choice(&["catalog", "off"]), "check type and schema before publishing, or only the user_id"),
    key("api_token", Kind::Secret, "wanted in dapr-api-token or Authorization: Bearer; also DAPR_API_TOKEN; empty: none"),
];

const STATE: &[Key] = &[key("stores", Kind::Texts, "names of the stores offered; []: off")];

const SYNC: &[Key] = &[
    key("listen", Kind::Text, "address of GET /sync/{user_id}, Server-Sent Events; empty: off"),
    key("secret", Kind::Secret, "what users' tokens are signed with, HS256, at least 32 bytes"),
    key("origins", Kind::Texts, "whose pages may read it: https://app.example.com, or *; []: none"),
    key("topic", Kind::Text, "the topic whose events are told, each to its own user"),
    key("history", Kind::Duration, "how far back a client that was away can take up again"),
    key("memory", Kind::Size, "the same in bytes, over all users"),
    key("max_connections", Kind::Integer(1, 1_000_000), "clients at once"),
];

const SCHEDULE: &[Key] = &[
    required("name", Kind::Text, "unique: a metric label"),
    required("cron", Kind::Text, "5 or 6 fields, @hourly, @every 1h, each also after CRON_TZ=Area/City"),
    entry("timezone", Kind::Text, "\"UTC\"", "IANA zone; a CRON_TZ= in cron wins"),
    key("event", Kind::Text, "type of the event that a tick publishes; default, without http: schedule.ticked"),
    key("user_id", Kind::Text, "event: whose it is; default: schedule:<name>"),
    key("http", Kind::SecretUrl, "or the URL that a tick POSTs to; without a path, an app's, as Dapr's cron binding calls it"),
    key("route", Kind::Text, "http without a path: the path; default: /<name>, and /bindings/<name> where that is answered 404"),
    entry("timeout", Kind::Duration, "\"30s\"", "http: longest wait for an answer"),
    entry("overlap", Kind::Choice(&["skip", "allow"]), "\"skip\"", "http: ticks while another one runs: none, or beside it"),
    entry(
        "catch_up",
        Kind::Choice(&["skip", "once", "all"]),
        "\"skip\"",
        "ticks missed by more than a minute: none, the latest, or each (http: with overlap = allow), at most the newest 100",
    ),
    entry("jitter", Kind::Duration, "\"0s\"", "each tick fires up to this much later, the same on every replica"),
];

/// The key of that name.
pub fn find(table: &'static [Key], name: &str) -> Option<&'static Key> {
    table.iter().find(|key| key.name == name)
}

/// Every key with a value of its own, as `table.key`; entries of lists and maps as `handlers[].url`, `retry.<type>.delays`, `kafka.consumer.<property>`.
pub fn leaves() -> Vec<(String, &'static Key)> {
    fn walk(path: &str, table: &'static [Key], found: &mut Vec<(String, &'static Key)>) {
        for key in table {
            let path = if path.is_empty() { key.name.to_owned() } else { format!("{path}.{}", key.name) };
            match key.kind {
                Kind::Table(keys) => walk(&path, keys, found),
                Kind::Tables(keys) => walk(&format!("{path}[]"), keys, found),
                Kind::ByType(keys) => walk(&format!("{path}.<type>"), keys, found),
                Kind::Properties => found.push((format!("{path}.<property>"), key)),
                _ => found.push((path, key)),
            }
        }
    }
    let mut found = Vec::new();
    walk("", ROOT, &mut found);
    found
}

/// The candidate nearest to `name`, if one is near enough to be meant.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}
