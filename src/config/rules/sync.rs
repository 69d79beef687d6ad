//! `[sync]`.

use super::Report;
use crate::config::{Config, text};

/// Shortest secret, as RFC 7518, 3.2 wants it of HS256.
const SHORTEST_SECRET: usize = 32;

pub(super) fn check(config: &Config, report: &mut Report<'_>) {
    let sync = &config.sync;
    if !sync.is_on() {
        return;
    }
    match sync.secret.expose().len() {
        0 => report.problem(
            "sync.secret",
            "is needed where sync.listen is set: whoever signs the users' tokens has it; make one with `openssl rand -base64 32`",
        ),
        length if length < SHORTEST_SECRET => {
            report.problem("sync.secret", format!("has {length} bytes; tokens signed with less than {SHORTEST_SECRET} can be guessed"));
        }
        _ => {}
    }
    report.expect("sync.topic", text::topic(&sync.topic));
    if sync.topic == config.dlq.topic {
        report.problem("sync.topic", format!("`{}` is dlq.topic: dead letters are not for users", sync.topic));
    }
    for origin in sync.origins.iter().filter(|origin| *origin != "*") {
        let is_path = origin.splitn(4, '/').nth(3).is_some();
        if is_path || text::url(origin, super::handlers::WEB).is_err() {
            report.problem(
                "sync.origins",
                format!("`{origin}` is no origin; write it like \"https://app.example.com\", without a path, or \"*\""),
            );
        }
    }
}
