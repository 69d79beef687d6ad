//! Forms of text that configuration takes: topics, event type patterns, addresses, URLs. Each check says what is wrong.

use super::secret::mask_userinfo;

/// A listener's or broker's address: host without brackets, and port.
pub type Address<'a> = (&'a str, u16);

/// A topic as Kafka allows it.
///
/// # Errors
/// What is wrong with it.
pub fn topic(name: &str) -> Result<(), String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    match name {
        "" | "." | ".." => Err(format!("`{name}` is no topic name")),
        _ if name.starts_with('^') => Err(format!("`{name}`: topics are listed by name, not by pattern")),
        _ if name.len() > 249 => Err(format!("`{name}` is longer than 249 characters")),
        _ if !name.chars().all(legal) => Err(format!("`{name}` is no topic name: letters, digits, `.`, `_` and `-` only")),
        _ => Ok(()),
    }
}

/// An event type: `task.created`.
///
/// # Errors
/// What is wrong with it.
pub fn event_type(name: &str) -> Result<(), String> {
    let legal = |c: char| !c.is_whitespace() && !c.is_control() && c != '*';
    if name.split('.').all(|segment| !segment.is_empty() && segment.chars().all(legal)) {
        return Ok(());
    }
    Err(format!("`{name}` is no event type; write it like \"task.created\""))
}

/// An event type, or a pattern of types: `task.*`, `*`.
///
/// # Errors
/// What is wrong with it.
pub fn pattern(pattern: &str) -> Result<(), String> {
    let Some(prefix) = pattern.strip_suffix('*') else {
        let why = if pattern.contains('*') {
            "a star stands for whole segments at the end"
        } else {
            "write it like \"task.created\" or \"task.*\""
        };
        return event_type(pattern).map_err(|_| format!("`{pattern}` is no type pattern; {why}"));
    };
    if prefix.is_empty() || prefix.strip_suffix('.').is_some_and(|prefix| event_type(prefix).is_ok()) {
        return Ok(());
    }
    Err(format!("`{pattern}` is no type pattern; a star stands for whole segments at the end, as in \"task.*\""))
}

/// `host:port`.
///
/// # Errors
/// What is wrong with it.
pub fn address(text: &str) -> Result<Address<'_>, String> {
    let wrong = |why: &str| format!("`{text}` is no address: {why}; write it like \"0.0.0.0:9464\"");
    let (host, port) = text.rsplit_once(':').ok_or_else(|| wrong("the port is missing"))?;
    let port = port.parse().map_err(|_| wrong("the port is no number up to 65535"))?;
    host_of(host).map(|host| (host, port)).map_err(wrong)
}

fn host_of(host: &str) -> Result<&str, &'static str> {
    if let Some(inner) = host.strip_prefix('[') {
        let inner = inner.strip_suffix(']').ok_or("a bracket is missing")?;
        return inner.parse::<std::net::Ipv6Addr>().map(|_| inner).map_err(|_| "between the brackets is no IPv6 address");
    }
    match host {
        "" => Err("the host is missing"),
        _ if host.contains(':') => Err("an IPv6 address stands in brackets"),
        _ if host.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_')) => Ok(host),
        _ => Err("the host has a character that no host has"),
    }
}

/// Brokers as librdkafka takes them: `host[:port]` with commas between, each with a protocol before it if need be.
///
/// # Errors
/// What is wrong with one.
pub fn brokers(text: &str) -> Result<(), String> {
    text.split(',').try_for_each(|broker| {
        let broker = broker.trim();
        let wrong = |why: &str| format!("`{}` is no broker: {why}; write it like \"broker-1:9092,broker-2:9092\"", mask_userinfo(broker));
        let bare = match broker.split_once("://") {
            Some((protocol, rest)) => {
                let known = ["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"].contains(&protocol.to_ascii_lowercase().as_str());
                if known { rest } else { return Err(wrong("only a security protocol can stand before ://")) }
            }
            None => broker,
        };
        let has_port = bare.rfind(':') > bare.rfind(']');
        let (host, port) = bare.rsplit_once(':').filter(|_| has_port).map_or((bare, None), |(host, port)| (host, Some(port)));
        if port.is_some_and(|port| port.parse::<u16>().unwrap_or(0) == 0) {
            return Err(wrong("the port is no number from 1 to 65535"));
        }
        host_of(host).map(drop).map_err(wrong)
    })
}

/// A URL of one of these schemes, with a host.
///
/// # Errors
/// What is wrong with it, its password masked.
pub fn url(text: &str, schemes: &[&str]) -> Result<(), String> {
    let wrong = |why: &str| format!("`{}` is no URL: {why}; write it like \"{}://host..\"", mask_userinfo(text), schemes[0]);
    let (scheme, rest) = text.split_once("://").ok_or_else(|| wrong("no scheme"))?;
    if !schemes.contains(&scheme.to_ascii_lowercase().as_str()) {
        return Err(wrong(&format!("the scheme is none of {}", schemes.join(", "))));
    }
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(wrong("it has white space"));
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let hosts = authority.rsplit_once('@').map_or(authority, |(_, hosts)| hosts);
    hosts.split(',').try_for_each(|host| {
        let has_port = host.rfind(':') > host.rfind(']');
        let (host, port) = host.rsplit_once(':').filter(|_| has_port).unwrap_or((host, "1"));
        port.parse::<u16>().map_err(|_| wrong("the port is no number up to 65535"))?;
        host_of(host).map(drop).map_err(wrong)
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::{address, brokers, pattern, topic, url};

    #[test]
    fn a_pattern_has_its_star_at_the_end_after_a_dot() {
        for good in ["*", "task.*", "task.created", "com.example.task-list.created.v1", "Todo.Task"] {
            assert_eq!(pattern(good), Ok(()), "{good}");
        }
        for bad in ["", ".*", "tas*", "*.created", "task.*.x", "task..x", "task. x", "**"] {
            assert!(pattern(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn topics_are_names_that_kafka_allows() {
        for good in ["task-events", "a.b_c-9"] {
            assert_eq!(topic(good), Ok(()));
        }
        for bad in ["", ".", "..", "^task-.*", "a b", "é", &"x".repeat(250)] {
            assert!(topic(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_address_has_a_host_and_a_port() {
        assert_eq!(address("0.0.0.0:9464"), Ok(("0.0.0.0", 9464)));
        assert_eq!(address("[::1]:80"), Ok(("::1", 80)));
        assert_eq!(address("localhost:0"), Ok(("localhost", 0)));
        for bad in ["", "9464", ":9464", "host:", "host:99999", "::1:80", "[::1:80", "http://host:80", "a b:80"] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn brokers_may_lack_a_port_and_carry_a_protocol() {
        for good in ["localhost:9092", "a,b:9093, c", "SASL_SSL://a:9093", "[::1]:9092", "[::1]"] {
            assert_eq!(brokers(good), Ok(()), "{good}");
        }
        for bad in ["", "a,", "a:port", "a:0", "http://a:9092", "a:9092/x", "a b", "::1:9092"] {
            assert!(brokers(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_bad_url_is_told_without_its_password() {
        let web = ["http", "https"];
        for good in ["http://localhost:8000/api?x=y#z", "https://user:p@host", "http://[::1]:80/"] {
            assert_eq!(url(good, &web), Ok(()), "{good}");
        }
        for bad in ["localhost:8000", "ftp://host/", "http:///path", "http://host:port/", "http://a b/"] {
            assert!(url(bad, &web).is_err(), "{bad}");
        }
        let told = url("redis://app:hunter2@:x", &["redis"]).unwrap_err();
        assert!(!told.contains("hunter2"), "{told}");
    }
}
