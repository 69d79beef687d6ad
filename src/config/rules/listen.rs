//! `[http]`, `[publish]`, `[state]`: addresses that can be bound together, and whom they let in.

use std::net::IpAddr;

use super::Report;
use crate::config::{
    Config, Role,
    text::{self, Address},
};

pub(super) fn check(config: &Config, role: Option<Role>, report: &mut Report<'_>) {
    let publish = &config.publish;
    let mut keys = vec![
        ("http.listen", config.http.listen.as_str()),
        ("publish.listen", &publish.listen),
        ("publish.grpc_listen", &publish.grpc_listen),
    ];
    if config.sync.is_on() {
        keys.push(("sync.listen", &config.sync.listen));
    }
    let mut taken: Vec<(&str, Address<'_>)> = Vec::new();
    for (key, listen) in keys {
        let Some(address) = report.expect(key, text::address(listen)) else { continue };
        // Each role opens its own listeners.
        let other_role = match role {
            Some(Role::Consumer) => key.starts_with("publish."),
            Some(Role::Producer) => key == "sync.listen",
            _ => false,
        };
        if other_role {
            continue;
        }
        if let Some((other, _)) = taken.iter().find(|(_, other)| clash(*other, address)) {
            let origin = report.origins.get(other);
            report.problem(key, format!("`{listen}` is taken by `{other}` ({origin})"));
        }
        if key.starts_with("publish.") && publish.api_token.is_empty() && !is_loopback(address.0) {
            report.warning(key, format!("`{listen}` is open to other machines without publish.api_token: anyone there can publish"));
        }
        taken.push((key, address));
    }
    for (key, names) in [("publish.pubsubs", &publish.pubsubs), ("state.stores", &config.state.stores)] {
        if names.iter().any(|name| name.is_empty() || name.contains(|c: char| c.is_whitespace() || c == '/')) {
            report.problem(key, "a name is empty, or has white space or a slash: no request could ever say it");
        }
    }
}

/// Whether two listeners cannot both be opened. Port 0 is a free port each.
fn clash(a: Address<'_>, b: Address<'_>) -> bool {
    let is_any = |host: &str| host.parse().is_ok_and(|ip: IpAddr| ip.is_unspecified());
    a.1 == b.1 && a.1 != 0 && (a.0 == b.0 || is_any(a.0) || is_any(b.0))
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}
