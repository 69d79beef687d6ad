//! `pubsub.kafka`: brokers, credentials, group, limits.

use super::{
    Facts, Translation,
    component::{Component, Content},
};

/// A key that becomes a librdkafka property with the same text.
const PROPERTIES: &[(&str, &str, &str)] = &[
    ("clientID", "properties", "client.id"),
    ("maxMessageBytes", "producer", "message.max.bytes"),
    ("heartbeatInterval", "consumer", "heartbeat.interval.ms"),
    ("sessionTimeout", "consumer", "session.timeout.ms"),
    ("consumerFetchMin", "consumer", "fetch.min.bytes"),
    ("dialTimeout", "properties", "socket.connection.setup.timeout.ms"),
    ("clientConnectionTopicMetadataRefreshInterval", "properties", "topic.metadata.refresh.interval.ms"),
];

/// Keys that mean nothing here, and why.
const IGNORED: &[(&str, &str)] = &[
    ("version", "the client asks the brokers for their version"),
    ("consumerID", "consumerGroup names the group"),
    ("consumeRetryEnabled", "a failed event is always retried, on its type's schedule, and never skipped"),
    ("consumeRetryInterval", "the client rejoins its group by itself"),
    ("consumerFetchDefault", "fetches are sized for bounded memory"),
    ("channelBufferSize", "what is held is bounded in bytes: engine.memory"),
    ("clientConnectionKeepAliveInterval", "connections are kept alive"),
    ("producerRetryMax", "an event is sent until it is acknowledged or its time is over, without being repeated"),
    ("readTimeout", "the client's own limits apply"),
    ("writeTimeout", "the client's own limits apply"),
    ("metadataTimeout", "the client's own limits apply"),
    ("escapeHeaders", "a header that HTTP does not take is always percent-encoded"),
    ("schemaCachingEnabled", "there is no schema registry here"),
    ("schemaLatestVersionCacheTTL", "there is no schema registry here"),
    ("useAvroJSON", "there is no schema registry here"),
    ("partitionKey", "is a parameter of each request; see publish.key"),
    ("backOffRandomizationFactor", "[retry] has jitter, at most 0.1"),
];

/// Keys whose effect is not offered.
const NOT_OFFERED: &[(&str, &str)] = &[
    ("excludeHeaderMetaRegex", "request metadata always becomes record headers"),
    ("schemaRegistryURL", "values are JSON or opaque: Avro is not offered"),
    ("schemaRegistryAPIKey", "values are JSON or opaque: Avro is not offered"),
    ("schemaRegistryAPISecret", "values are JSON or opaque: Avro is not offered"),
    ("allowedTopics", "topic scopes are not offered: Kafka's access rules are"),
    ("protectedTopics", "topic scopes are not offered: Kafka's access rules are"),
    ("publishingScopes", "topic scopes are not offered: Kafka's access rules are"),
    ("subscriptionScopes", "topic scopes are not offered: Kafka's access rules are"),
];

/// Keys of ways to log in that are not offered.
const OTHER_LOGINS: &[(&[&str], &str)] = &[
    (
        &[
            "region",
            "accessKey",
            "secretKey",
            "sessionToken",
            "assumeRoleArn",
            "sessionName",
            "trustAnchorArn",
            "trustProfileArn",
            "awsRegion",
            "awsAccessKey",
            "awsSecretKey",
            "awsSessionToken",
            "awsIamRoleArn",
            "awsStsSessionName",
        ],
        "belongs to authType awsiam, which is not offered: use password, mtls or oidc",
    ),
    (
        &["oidcClientAssertionCert", "oidcClientAssertionKey", "oidcResource", "oidcAudience", "oidcKid"],
        "belongs to authType oidc_private_key_jwt, which is not offered: use oidc, with a client secret",
    ),
];

/// Keys that the functions below read.
const READ: &[&str] = &[
    "brokers",
    "authType",
    "authRequired",
    "consumerGroup",
    "initialOffset",
    "compression",
    "producerRequiredAcks",
    "consumerGroupRebalanceStrategy",
    "saslUsername",
    "saslPassword",
    "saslMechanism",
    "caCert",
    "clientCert",
    "clientKey",
    "skipVerify",
    "disableTls",
    "oidcTokenEndpoint",
    "oidcClientID",
    "oidcClientSecret",
    "oidcScopes",
    "oidcExtensions",
    "backOffPolicy",
    "backOffDuration",
    "backOffInitialInterval",
    "backOffMultiplier",
    "backOffMaxInterval",
    "backOffMaxElapsedTime",
    "backOffMaxRetries",
];

/// Translates the first component; others with the same settings are the same brokers under another name. Answers those names.
pub(super) fn translate(components: &[Component<'_>], facts: &Facts, out: &mut Translation) -> Vec<String> {
    if facts.app_id.is_empty() {
        out.decide("app-id", "is not in these files: give --app-id, or set app_id; it is the consumer group and whom scopes name");
    }
    let Some(first) = components.first() else { return Vec::new() };
    let mut names = vec![first.name().to_owned()];
    for other in &components[1..] {
        if other.same_as(first) {
            names.push(other.name().to_owned());
        } else {
            let why = format!("differs from {}: one worker reads one cluster as one group; run another worker for it", first.label());
            out.decide(&other.label(), why);
        }
    }
    settings(first, facts, out);
    // Requests name them, and a worker accepts only names that it knows.
    out.set(&["publish", "pubsubs"], names.clone(), &first.label());
    names
}

fn settings(component: &Component<'_>, facts: &Facts, out: &mut Translation) {
    let label = component.label();
    if component.put("brokers", &["kafka", "brokers"], out).is_none() {
        out.decide(&label, "names no brokers: set kafka.brokers");
    }
    if component.put("consumerGroup", &["kafka", "group_id"], out).is_none() && !facts.app_id.is_empty() {
        let found = component.put("consumerID", &["kafka", "group_id"], out);
        if found.is_none() {
            out.set(&["kafka", "group_id"], facts.app_id.as_str(), &format!("{label} (app-id)"));
        }
    }
    // Where users' events go must not change while old and new producers run side by side.
    out.set(&["kafka", "partitioner"], "fnv1a_random", &format!("{label} (what Dapr's client does)"));
    start_at(component, out);
    for (name, table, property) in PROPERTIES {
        let Some(item) = component.get(name) else { continue };
        let from = component.from(item);
        match &item.content {
            Content::Text(text) if property.ends_with(".ms") => match millis(text) {
                Some(millis) => out.set(&["kafka", table, property], millis.to_string(), &from),
                None => out.decide(&from, format!("`{text}` is no duration: set kafka.{table}.\"{property}\"")),
            },
            // 0 or less: not set.
            Content::Text(text) if *name == "maxMessageBytes" && text.parse::<i64>().is_ok_and(|bytes| bytes <= 0) => {
                out.ignore(&from, "0 is no limit; the brokers' own applies");
            }
            _ => drop(component.put(name, &["kafka", table, property], out)),
        }
    }
    compression(component, out);
    authentication(component, out);
    if let Some(item) = component.get("producerRequiredAcks") {
        let from = component.from(item);
        match component.text("producerRequiredAcks").unwrap_or_default() {
            "all" | "-1" => out.ignore(&from, "the worker always waits for all"),
            other => {
                out.decide(&from, format!("`{other}`: the worker always waits for all, since a yes must mean that the event is stored"))
            }
        }
    }
    if let Some(item) = component.get("consumerGroupRebalanceStrategy") {
        out.ignore(&component.from(item), "the worker is cooperative-sticky: stop the old consumers before it starts (docs/dapr.md)");
    }
    super::resiliency::back_off(component, out);
    leftovers(component, out);
}

fn start_at(component: &Component<'_>, out: &mut Translation) {
    match (component.get("initialOffset"), component.text("initialOffset")) {
        (Some(item), Some(text)) if text.eq_ignore_ascii_case("oldest") => {
            out.set(&["engine", "start_at"], "earliest", &component.from(item));
        }
        (Some(item), Some(text)) if text.eq_ignore_ascii_case("newest") => {
            out.set(&["engine", "start_at"], "latest", &component.from(item));
        }
        (Some(item), _) => out.decide(&component.from(item), "is neither oldest nor newest: set engine.start_at"),
        (None, _) => {
            let from = format!("{} (initialOffset, not given)", component.label());
            out.set(&["engine", "start_at"], "latest", &from);
            out.decide(
                &from,
                "newest is Dapr's default: a group without committed offsets skips what is stored; \"earliest\" skips nothing",
            );
        }
    }
}

fn compression(component: &Component<'_>, out: &mut Translation) {
    let Some(item) = component.get("compression") else { return };
    let from = component.from(item);
    match component.text("compression").unwrap_or_default().to_ascii_lowercase().as_str() {
        known @ ("none" | "gzip" | "snappy" | "lz4" | "zstd") => out.set(&["kafka", "producer", "compression.codec"], known, &from),
        other => out.decide(&from, format!("`{other}` is none of none, gzip, snappy, lz4, zstd")),
    }
}

fn authentication(component: &Component<'_>, out: &mut Translation) {
    let from = component.get("authType").map_or_else(|| component.label(), |item| component.from(item));
    // Before authType there was authRequired, with the kind guessed from what else is given.
    let old = || match component.text("authRequired").map(super::component::is_true) {
        Some(true) if component.get("saslPassword").is_some() => "password",
        Some(true) => "mtls",
        _ => "none",
    };
    let kind = component.text("authType").map_or_else(|| old().to_owned(), str::to_ascii_lowercase);
    let tls = !component.is_true("disableTls");
    let protocol = |sasl: bool| match (sasl, tls) {
        (true, true) => "sasl_ssl",
        (true, false) => "sasl_plaintext",
        (false, true) => "ssl",
        (false, false) => "plaintext",
    };
    let set = |out: &mut Translation, property: &str, value: &str| out.set(&["kafka", "properties", property], value, &from);
    match kind.as_str() {
        "none" => return,
        "password" => {
            set(out, "security.protocol", protocol(true));
            let mechanism = match component.text("saslMechanism") {
                Some("SHA-256") => "SCRAM-SHA-256",
                Some("SHA-512") => "SCRAM-SHA-512",
                _ => "PLAIN",
            };
            set(out, "sasl.mechanism", mechanism);
            for (name, property) in [("saslUsername", "sasl.username"), ("saslPassword", "sasl.password")] {
                if component.put(name, &["kafka", "properties", property], out).is_none() {
                    out.decide(&from, format!("{name} is missing"));
                }
            }
        }
        "mtls" | "certificate" => set(out, "security.protocol", protocol(false)),
        "oidc" => oidc(component, protocol(true), &from, out),
        other => {
            out.decide(&from, format!("`{other}` is not translated: give its librdkafka properties in [kafka.properties]"));
            return;
        }
    }
    for (name, property) in [("caCert", "ssl.ca.pem"), ("clientCert", "ssl.certificate.pem"), ("clientKey", "ssl.key.pem")] {
        component.put(name, &["kafka", "properties", property], out);
    }
    if let Some(item) = component.get("skipVerify")
        && component.is_true("skipVerify")
    {
        let from = component.from(item);
        out.set(&["kafka", "properties", "enable.ssl.certificate.verification"], "false", &from);
        out.decide(&from, "whoever is between the worker and the brokers can read everything: give caCert instead");
    }
}

fn oidc(component: &Component<'_>, protocol: &str, from: &str, out: &mut Translation) {
    for (property, value) in [("security.protocol", protocol), ("sasl.mechanism", "OAUTHBEARER"), ("sasl.oauthbearer.method", "oidc")] {
        out.set(&["kafka", "properties", property], value, from);
    }
    for (name, property) in [
        ("oidcTokenEndpoint", "sasl.oauthbearer.token.endpoint.url"),
        ("oidcClientID", "sasl.oauthbearer.client.id"),
        ("oidcClientSecret", "sasl.oauthbearer.client.secret"),
    ] {
        if component.put(name, &["kafka", "properties", property], out).is_none() {
            out.decide(from, format!("{name} is missing"));
        }
    }
    match (component.get("oidcScopes"), component.text("oidcScopes")) {
        (Some(item), Some(scopes)) => {
            let scopes: Vec<&str> = scopes.split(',').map(str::trim).collect();
            out.set(&["kafka", "properties", "sasl.oauthbearer.scope"], scopes.join(" "), &component.from(item));
        }
        _ => out.set(&["kafka", "properties", "sasl.oauthbearer.scope"], "openid", &format!("{from} (oidcScopes, not given)")),
    }
    // The sidecar trusts it for the token endpoint too.
    component.put("caCert", &["kafka", "properties", "https.ca.pem"], out);
    if let Some(item) = component.get("oidcExtensions") {
        let fields: Option<serde_json::Map<String, serde_json::Value>> =
            component.text("oidcExtensions").and_then(|text| serde_json::from_str(text).ok());
        let from = component.from(item);
        match fields {
            Some(fields) => {
                let pairs: Vec<_> = fields.iter().map(|(name, value)| format!("{name}={}", super::component::text(value))).collect();
                out.set(&["kafka", "properties", "sasl.oauthbearer.extensions"], pairs.join(","), &from);
            }
            None => out.decide(&from, "is no JSON object: set kafka.properties.\"sasl.oauthbearer.extensions\""),
        }
    }
}

/// Everything that nothing above has read.
fn leftovers(component: &Component<'_>, out: &mut Translation) {
    for item in component.items() {
        let from = component.from(item);
        let is = |name: &str| item.name.eq_ignore_ascii_case(name);
        if let Content::Text(text) = &item.content
            && ["{namespace}", "{podName}", "{uuid}"].iter().any(|template| text.contains(template))
        {
            let more =
                if text.contains("{namespace}") { "; with {namespace} Dapr also puts the namespace before every topic's name" } else { "" };
            out.decide(&from, format!("`{text}` has a template that is not filled in{more}"));
        }
        if READ.iter().any(|name| is(name)) || PROPERTIES.iter().any(|(name, ..)| is(name)) {
            continue;
        }
        if let Some((_, why)) = IGNORED.iter().find(|(name, _)| is(name)) {
            out.ignore(&from, *why);
        } else if let Some((_, why)) = NOT_OFFERED.iter().find(|(name, _)| is(name)) {
            out.decide(&from, *why);
        } else if let Some((_, why)) = OTHER_LOGINS.iter().find(|(names, _)| names.iter().any(|name| is(name))) {
            out.decide(&from, *why);
        } else {
            out.decide(&from, "is no key of pubsub.kafka that is known: look for its property in [kafka.properties]");
        }
    }
}

/// A Go duration, or a bare number of milliseconds.
fn millis(text: &str) -> Option<u128> {
    text.parse().ok().or_else(|| super::resiliency::duration(text).map(|duration| duration.as_millis()))
}
