//! `[engine]`, `[retry]`, `[dlq]`, `[catalog]`.

use std::time::Duration;

use super::Report;
use crate::config::{
    Config,
    layer::join,
    retry::RetryRule,
    text,
    units::{parse_size, show},
};

/// Less than this holds hardly one record of Kafka's default size limit.
const LEAST_MEMORY: u64 = 1 << 20;

/// Longest commit interval: beyond it a crash repeats more than anyone means.
const LONGEST_COMMIT_INTERVAL: Duration = Duration::from_secs(600);

/// The commit map counts an event's attempts in a byte.
const MOST_DELAYS: usize = 250;

/// Longest single delay; a schedule is no calendar.
const LONGEST_DELAY: Duration = Duration::from_secs(7 * 24 * 3600);

pub(super) fn check(config: &Config, report: &mut Report<'_>) {
    let engine = &config.engine;
    if engine.memory < LEAST_MEMORY {
        report.problem("engine.memory", "must be 1MiB or more");
    } else if engine.memory < parse_size("16MiB").unwrap_or_default() {
        report.warning("engine.memory", "below 16MiB: partitions will be held most of the time");
    }
    if engine.commit_interval.is_zero() || engine.commit_interval > LONGEST_COMMIT_INTERVAL {
        report.problem("engine.commit_interval", format!("{} is not between 1ms and 10m", show(engine.commit_interval)));
    }
    if engine.max_hold_age.is_zero() {
        report.problem("engine.max_hold_age", "must be above zero");
    }
    check_retry(config, report);
    report.expect("dlq.topic", text::topic(&config.dlq.topic));
    if config.dlq.breaker_ratio <= 0.0 {
        report.problem("dlq.breaker_ratio", "must be above 0: the breaker would never let an event die; 1 switches it off");
    }
    if !config.dlq.alert_webhook.is_empty() && text::url(config.dlq.alert_webhook.expose(), &["http", "https"]).is_err() {
        // The whole URL is the secret: the check's own words would repeat it.
        report.problem("dlq.alert_webhook", "is no URL; write it like \"https://host/path\"");
    }
    if config.catalog.dir.as_os_str().is_empty() {
        report.problem("catalog.dir", "must name a folder");
    }
}

fn check_retry(config: &Config, report: &mut Report<'_>) {
    for (name, rule) in &config.retry.0 {
        let path = join("retry", name);
        if name != "default" {
            report.expect(&path, text::pattern(name));
        }
        check_delays(&format!("{path}.delays"), rule, report);
        let total: Duration = rule.delays.iter().flatten().fold(Duration::ZERO, |sum, delay| sum.saturating_add(*delay));
        if total > config.engine.max_hold_age {
            let (total, age) = (show(total), show(config.engine.max_hold_age));
            let why =
                format!("{total} in all is longer than engine.max_hold_age ({age}): the user's backlog overflows before the last retry");
            report.warning(&format!("{path}.delays"), why);
        }
        if total > config.store.retention {
            let (total, kept) = (show(total), show(config.store.retention));
            report.warning(&format!("{path}.delays"), format!("{total} in all is longer than store.retention ({kept})"));
        }
    }
}

fn check_delays(key: &str, rule: &RetryRule, report: &mut Report<'_>) {
    let delays = rule.delays.as_deref().unwrap_or_default();
    if delays.len() > MOST_DELAYS {
        report.problem(key, format!("{} delays are more than {MOST_DELAYS}", delays.len()));
    }
    if delays.iter().any(Duration::is_zero) {
        report.problem(key, "a delay of 0s would hammer what just failed; [] means no retry");
    }
    if let Some(long) = delays.iter().find(|delay| **delay > LONGEST_DELAY) {
        report.problem(key, format!("{} is longer than {}", show(*long), show(LONGEST_DELAY)));
    }
}
