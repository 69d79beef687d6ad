//! What is left of addresses and devices: hashes under a key, by which they are recognised and not found out. Pure.

use std::net::{IpAddr, SocketAddr};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::audit::chain::hex;

/// Bytes of a hash that are kept: two of a million devices are equal with a probability of 10^-8.
const KEPT: usize = 8;

/// Makes hashes.
pub(super) struct Traces(Hmac<Sha256>);

impl Traces {
    pub(super) fn new(key: &str) -> Self {
        // A key of any length is taken; the error of this signature cannot happen.
        Self(Hmac::new_from_slice(key.as_bytes()).unwrap_or_else(|_| Hmac::new(&Default::default())))
    }

    /// The hash of a text, other than that of the same text of another kind.
    pub(super) fn of(&self, kind: &str, text: &str) -> String {
        let mut hash = self.0.clone();
        for part in [kind, "\0", text] {
            hash.update(part.as_bytes());
        }
        hex(&hash.finalize().into_bytes()[..KEPT])
    }

    /// A device is its user agent without numbers: an update makes no new one.
    pub(super) fn device(&self, user_agent: &str) -> String {
        let kept: String = user_agent.chars().filter(|c| !c.is_ascii_digit() && !matches!(c, '.' | '_')).collect();
        self.of("device", &kept)
    }

    /// Who is behind one address: an IPv6 host has the whole /64.
    pub(super) fn address(&self, address: &str) -> String {
        self.of("address", &prefix(address, 32, 64))
    }

    /// A network is an IPv4 /24 or an IPv6 /48.
    pub(super) fn network(&self, address: &str) -> String {
        self.of("network", &prefix(address, 24, 48))
    }
}

/// The first bits of an address; what is none, as some proxies write, stays as it is.
fn prefix(text: &str, v4: u32, v6: u32) -> String {
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let parsed = bare.parse::<IpAddr>().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()));
    match parsed.map(|address| address.to_canonical()) {
        Some(IpAddr::V4(address)) => format!("{}/{v4}", std::net::Ipv4Addr::from_bits(address.to_bits() & (u32::MAX << (32 - v4)))),
        Some(IpAddr::V6(address)) => format!("{}/{v6}", std::net::Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << (128 - v6)))),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_network_have_one_hash_in_whatever_way_they_are_written() {
        let traces = Traces::new("key");
        let network = traces.network("203.0.113.7");
        for same in ["203.0.113.99", "203.0.113.7:55123", "::ffff:203.0.113.7", "[::ffff:203.0.113.8]:443", " 203.0.113.1 "] {
            assert_eq!(traces.network(same), network, "{same}");
        }
        assert_ne!(traces.network("203.0.114.7"), network);
        assert_eq!(traces.network("2001:db8:1:2::3"), traces.network("[2001:db8:1:ffff::4]"));
        assert_ne!(traces.network("2001:db8:2::3"), traces.network("2001:db8:1::3"));
        assert_ne!(traces.address("203.0.113.7"), traces.address("203.0.113.8"));
        assert_eq!(traces.address("2001:db8:1:2::3"), traces.address("2001:db8:1:2:a::4"));
        assert_eq!(traces.network("unknown"), traces.network("unknown"));
    }

    #[test]
    fn a_hash_says_nothing_to_whoever_lacks_the_key() {
        let (one, other) = (Traces::new("key"), Traces::new("another"));
        assert_ne!(one.address("203.0.113.7"), other.address("203.0.113.7"));
        assert_ne!(one.of("user", "203.0.113.7/32"), one.address("203.0.113.7"));
        assert!(!one.address("203.0.113.7").contains("203"));
        assert_eq!(one.address("203.0.113.7").len(), 2 * KEPT);
    }

    #[test]
    fn an_update_makes_no_new_device() {
        let traces = Traces::new("key");
        let firefox = |version: &str| format!("Mozilla/5.0 (X11; Linux x86_64; rv:{version}) Gecko/20100101 Firefox/{version}");
        assert_eq!(traces.device(&firefox("128.0")), traces.device(&firefox("140.0.2")));
        assert_ne!(traces.device(&firefox("128.0")), traces.device("curl/8.5"));
    }
}
